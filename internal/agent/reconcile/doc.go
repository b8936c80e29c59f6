// Package reconcile is the pure core of an agent: it decides which driver call an object needs next,
// and what to tell the coordinator. It is a state machine in the manner of etcd-io/raft: no
// goroutine, clock, disk, socket or log. Every input is a method call that carries the time; every
// output is an ordered list of effects, which the caller (package agent, or a simulation) executes.
//
// The loop of one object is: observe; compare with the newest order; choose the first transition on
// the way (model.Next); check the gates; write the intent down (Persist); call the driver; observe
// again. What a driver answered is never believed without the read-back that follows it.
//
// What stops a call (in this order): the time of the next try; for acquiring transitions also the
// local gates of the spec, the host's physical memory, and a live permit (R10). Nothing at all is done
// while the coordinator holds the agent, and little before a leader has spoken since the start (R13).
//
// It never acts on an order older than one it has seen (R8), never has two calls under way for one
// object (R11), never loads a RAM image that may have been loaded before, and never deletes what no
// order told it to delete. It must never block, and never read a clock.
//
// The phases of an object, as its status reports them:
//
//	WORKING   a driver call, or the first reading after an order, is under way
//	UNKNOWN   a deadline passed, or the driver cannot be asked; the state is being read back
//	FAILED    the last call failed; the next try waits for its time
//	WAITING   a local gate, memory, a permit or an order is waited for
//	SETTLED   the observed state satisfies the newest order
package reconcile
