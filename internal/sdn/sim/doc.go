// Package sim is the simulated network side: the networks of one host (Networks) and a DNS server
// (Zone), in memory, with faults on command. Its objects stand for the world, so they outlive the
// agents that drive them; a test makes them once and hands them to each agent that it starts.
//
// It decides nothing, opens no socket and never touches the machine's own network. It waits only on
// channels and timers, so it runs in a testing/synctest bubble. The strict simulation, the cluster
// tests and `hotspare dev` use it; it passes the same conformance suites as the real drivers.
package sim
