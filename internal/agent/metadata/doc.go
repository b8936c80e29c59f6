// Package metadata is what a lent VM can ask its host's agent, at 169.254.169.254 on its own network: whether
// it is preempted, its lease, and its user-data and ssh keys in the forms that cloud-init reads. It answers from
// the orders that the agent holds, so it needs no coordinator, also right after a restart.
//
// A guest is told by three things that must agree with an order: the network, the source address, and the MAC
// of the port that the answer goes to. Who is not known gets nothing. A machine that forges ARP for another's address
// can still pass for it: the neighbour entry is not pinned before it connects (see docs/leases.md). It
// decides nothing: that a guest asked, and that it is ready, goes to the agent's core.
package metadata
