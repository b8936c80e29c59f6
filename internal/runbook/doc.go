// Package runbook compiles recovery plans into the graph of a run: steps that each set one object's
// override, and the gates that each waits for. It is pure; the failover controller calls it when a
// failover is declared, and commits what it returns.
//
// It decides order only: fence before promotion, promotion and dependencies before a start, memory
// and network of the host by the agent itself (local gates), health before dependents and endpoints.
// It never decides where a workload goes or who is preempted.
package runbook
