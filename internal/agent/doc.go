// Package agent is the process that manages one host: it runs the pure core (package reconcile) in
// one goroutine, writes what the core wants durable into the journal, calls the drivers, probes the
// health of instances, and keeps the sessions with the coordinators.
//
// It decides nothing itself. Every driver call and every reading has a goroutine of its own, at most
// one of each for an object, so an object that hangs blocks no other. cmd/agent and the cluster tests
// call it; several agents can run in one process.
package agent
