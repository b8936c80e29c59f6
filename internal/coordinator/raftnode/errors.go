package raftnode

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/hotspare/hotspare/internal/model"
)

var (
	// ErrNotLeader says that this member does not lead and nothing was done. The chain holds a [*NotLeaderError].
	ErrNotLeader = errors.New("this member is not the leader")
	// ErrOutcomeUnknown says that the proposal may or may not be applied now or later. Propose it again with the
	// same request id, or read, before telling anybody that it failed.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrClosed says that the node was closed and nothing was done.
	ErrClosed = errors.New("this member is shutting down")
)

// NotLeaderError says who leads as far as this member knows; both fields are empty when nobody does.
type NotLeaderError struct {
	Leader, Address string
}

// Error names the leader.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return ErrNotLeader.Error() + ", no leader is known"
	}
	return fmt.Sprintf("%v, %s at %s is", ErrNotLeader, e.Leader, e.Address)
}

// Unwrap makes errors.Is(err, ErrNotLeader) hold.
func (e *NotLeaderError) Unwrap() error { return ErrNotLeader }

// unavailable gives a cause the fault that every layer knows as "try again".
func unavailable(what string, cause error) error {
	return &model.Error{Fault: model.FaultUnavailable, What: what, Err: cause}
}

// notLeader makes the error of a call that only the leader can serve.
func (n *Node) notLeader(what string) error {
	name, address := n.Leader()
	if name == n.name {
		// Raft has not yet told itself that it stepped down; a hint to ask here again would loop.
		name, address = "", ""
	}
	return unavailable(what, &NotLeaderError{Leader: name, Address: address})
}

// translate says what a raft error means for the caller: nothing was done, or nobody knows. Only errors
// that raft returns before an entry is appended count as the former.
func (n *Node) translate(what string, err error) error {
	switch {
	case err == nil, model.FaultOf(err) != 0:
		return err
	case errors.Is(err, ErrOutcomeUnknown):
		return unavailable(what, err)
	case errors.Is(err, raft.ErrNotLeader):
		return n.notLeader(what)
	case errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrAbortedByRestore),
		errors.Is(err, ErrClosed):
		return unavailable(what, err)
	default:
		return unavailable(what, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err))
	}
}

// contextError is the cause of an ended context, which is ErrOutcomeUnknown once the call was handed to raft.
func contextError(ctx context.Context) error {
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
}
