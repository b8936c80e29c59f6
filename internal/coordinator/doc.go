// Package coordinator is the process of one coordinator: it owns the raft node, the replicated state,
// the sessions of the agents and the servers, and runs the controllers while it leads.
//
// Decisions are made in the pure packages below it; this package only carries them: it proposes what
// the controllers return and gives them the newest state. It never touches infrastructure. cmd/
// coordinator, `hotspare dev` and the cluster tests start it.
package coordinator
