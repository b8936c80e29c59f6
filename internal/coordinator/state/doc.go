// Package state is the replicated state of a site: hosts, declared resources, leases, objects with
// their specs, runs, and the evidence log. A State is an immutable value; Apply takes one log entry
// and returns the next value, so a snapshot costs a pointer and a rejected entry leaves nothing behind.
//
// Apply is pure (R1): no clock, random source, float, map order, I/O or goroutine. Time, ids and
// decisions come in with the command; what a decision was based on comes in as expected versions and
// is checked again (R3). It decides only whether a command may still be applied, never what to do.
//
// The store feeds it from the raft log, the controllers and the RPC handlers read it, and the
// simulation drives it without raft. Messages that it returns are shared: nobody may change them.
package state
