// Package raftnode is one member of the replicated log: hashicorp/raft with its log in bbolt, its
// snapshots in files and its messages over mutual TLS.
//
// It decides nothing about the content of entries: it carries bytes to a [Machine] on every member in
// one order, tells who leads, and says of each proposal whether it was applied, was not, or may have
// been ([ErrOutcomeUnknown]). It never reads a clock for the machine, never changes an entry and never
// drops a member by itself: at a recovery site a cut link looks like death, so dead-server cleanup is off.
//
// The coordinator process opens one [Node], hands it the state's store as the machine, and watches
// [Node.Leadership] to start and stop the controllers.
//
// # Entries
//
// Each entry opens with a byte that says how to read the rest:
//
//	1 whole  the data of one proposal
//	2 part   set (8 bytes; 0 in the first part: the set is named after the raft index of that entry),
//	         number (4 bytes), a piece of a proposal above MaxEntryBytes
//	3 close  set (8), count (4), SHA-256 of the joined parts (32): the proposal takes effect here
//
// Parts have no effect until the closing entry (R7). A set lives within one term, at most maxSetAge
// entries, and at most maxSets are kept: each rule looks at the log only, so every member drops the same
// sets. Unfinished sets are part of a snapshot.
//
// # Timing
//
// A follower that hears nothing for HeartbeatTimeout (up to twice that: raft draws from [t, 2t)) asks
// for votes; an election that fails is repeated after ElectionTimeout (again up to twice). With the
// constants below a killed leader costs less than 2*HeartbeatTimeout + ElectionTimeout + 1 s.
package raftnode
