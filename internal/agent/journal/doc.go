// Package journal keeps what an agent must not forget: the newest orders, the intents of calls under
// way, the highest numbers seen, and the ledger of what was made outside. It is one bbolt file; each
// Persist is one transaction that is synced before it returns.
//
// It decides nothing and never repairs: a file that is damaged, or written by a newer version, is
// refused with a message that says what to do. Package agent calls it, from one goroutine.
package journal
