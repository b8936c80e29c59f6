// Package failover decides runs: what a declaration commits, which steps of an open run are done,
// which gates have opened, and when a run has ended. Every function is pure: a version of the state,
// the live view and the time in, commands out (R2). The coordinator's loop proposes the commands;
// the RPC handlers call Declare.
//
// It never releases a step whose gates are not open by committed facts, never counts a status that
// answers an older order, and never decides where agents act on their own (local gates).
package failover
