// Package metadata is what a lent VM can ask its host's agent, at 169.254.169.254 on its own network: whether
// it is preempted, its lease, and its user-data and ssh keys in the forms that cloud-init reads. It answers from
// the orders that the agent holds, so it needs no coordinator, also right after a restart.
//
// A guest is told by three things that must agree with an order: its port, address and MAC. It tells the network
// driver whom to admit; who is not gets no connection. It decides nothing: that a guest asked, and that it is ready,
// goes to the agent's core.
package metadata
