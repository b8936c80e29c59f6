// Package simulation is the strict simulation: the pure core of hotspare against a small world, in one
// goroutine, with one seeded source of randomness and one queue of events. The same seed on the same
// commit repeats a cycle to the last event. Only tests call it:
//
//	go test ./internal/simulation                                        a few cycles, fresh seeds
//	go test ./internal/simulation -run 'TestSimulation$' -v -seed=42     one cycle with its event log
//	make sim, make soak                                                  3,000 and 100,000 cycles
//
// # What is real
//
// The replicated state with its snapshots, the controllers (failover, lease, upkeep, readiness), the
// decisions of the API (failover.Declare, lease.Create, the refusal of what makes the proof worse),
// placement, runbook, and on the agents' side the reconciler's core and the table from transitions to
// driver calls (agent/actuate).
//
// # What is modelled
//
//   - member.go, control.go: raft as a log that delivers in order, late or not yet, and may change its
//     leader; proposals are lost or outlive their proposer; a leader that is cut off goes on for two
//     seconds; members restart from snapshots. The loop of the controllers.
//   - session.go: the stream between an agent and the leader, after the pattern of the packages fleet
//     and session, whose goroutines cannot take part. Either way of a link can be cut alone.
//   - agent.go, call.go: the agent's runtime. It dies before or after any write of its journal; driver
//     calls fail, hang, are slow, succeed late, report errors for what they did, or success for what
//     they did not.
//   - world*.go: hosts with memory, VMs with disks and RAM images, a storage pool, the protected site
//     with its VMs and mirrors, a DNS server, power switches. Drivers do what they are told; that they
//     keep the promises of their interfaces is for the conformance suites to show.
//   - act.go, chaos.go: users (leases, plans, declarations by hand and by a monitoring system that repeats
//     itself, oaths, failback, abort, pause, retry, skip) and mishaps (power loss, killed agents and
//     leaders, cut links, the disaster, a foreign hand, guests that die).
//
// # What is checked
//
// After every event the invariants 1, 3, 4, 7, 9, 10 and the rules of permits (R10); after every entry
// of the log 2, 6, that a run which is over has no override left, and that what is remembered of the site for the next
// decision is what is there. Each cycle ends with the faults
// taken away: every run must come to its end, go back, and leave nothing (5), every lease must run again on its
// disk, with its MAC and address (6), the evidence must verify (8), and all members must hold the same
// bytes (R1). TestMutants breaks one thing after the other and demands that it is noticed.
//
// # What is not
//
// Drills, hooks, a quarantined journal, a restore from backup (eras), clocks that differ, plans that
// lose volumes, leases that reach the end of their retention, and the loss of a host for good.
package simulation
