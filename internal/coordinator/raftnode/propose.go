package raftnode

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/hotspare/hotspare/internal/model"
)

const (
	// maxInFlight bounds proposals under way at once; more wait for a place.
	maxInFlight = 256
	// enqueueTimeout bounds how long raft may take to accept a proposal.
	enqueueTimeout = 2 * time.Second
	// callTimeout bounds every call whose context allows more. Without a majority raft gives up after
	// LeaderLease; only a stuck disk takes longer.
	callTimeout = 15 * time.Second
)

// Propose commits data and returns what the machine's Apply returned and the entry's index. When Apply
// returned an error, that is the error: the entry is committed and had no effect.
//
// errors.Is(err, ErrNotLeader): nothing was done, the chain's *NotLeaderError names whom to ask.
// errors.Is(err, ErrOutcomeUnknown): it may be applied now or later; also when ctx ends meanwhile.
// Any other error: nothing was done.
func (n *Node) Propose(ctx context.Context, data []byte) (result any, index uint64, err error) {
	const what = "propose entry"
	if len(data) > MaxProposalBytes {
		return nil, 0, model.Errorf(model.FaultInvalid, "", "%s: %d bytes exceed %d", what, len(data), MaxProposalBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if len(data) < MaxEntryBytes {
		result, index, err = n.apply(ctx, wholeFrame(data))
		return n.outcome(what, result, index, err)
	}
	select {
	case n.large <- struct{}{}:
		defer func() { <-n.large }()
	case <-ctx.Done():
		return nil, 0, unavailable(what, context.Cause(ctx))
	}
	set, count, err := n.sendParts(ctx, data)
	if err != nil {
		return nil, 0, err
	}
	result, index, err = n.apply(ctx, closeFrame(set, count, sha256.Sum256(data)))
	return n.outcome(what, result, index, err)
}

// sendParts commits the parts of a large proposal. They have no effect by themselves, so no failure here
// leaves an unknown outcome.
func (n *Node) sendParts(ctx context.Context, data []byte) (set uint64, count int, err error) {
	for ; len(data) > 0; count++ {
		size := min(partBytes, len(data))
		what := fmt.Sprintf("propose part %d of a large entry", count)
		result, index, err := n.apply(ctx, partFrame(set, count, data[:size]))
		if _, _, err := n.outcome(what, result, index, err); errors.Is(err, ErrNotLeader) {
			return 0, 0, err
		} else if err != nil {
			return 0, 0, unavailable(what, errors.New(err.Error()))
		}
		if set == 0 {
			set = index
		}
		data = data[size:]
	}
	return set, count, nil
}

// outcome joins the two ways in which an entry can fail: before it was committed, and in apply.
func (n *Node) outcome(what string, result any, index uint64, err error) (any, uint64, error) {
	if err != nil {
		return nil, 0, n.translate(what, err)
	}
	if err, ok := result.(error); ok {
		if errors.Is(err, errPartsLost) {
			err = unavailable(what, err)
		}
		return nil, index, err
	}
	return result, index, nil
}

// apply commits one frame.
func (n *Node) apply(ctx context.Context, frame []byte) (result any, index uint64, err error) {
	if !n.IsLeader() {
		return nil, 0, n.notLeader("propose entry")
	}
	select {
	case n.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, unavailable("wait for a place to propose", context.Cause(ctx))
	}
	type committed struct {
		result any
		index  uint64
	}
	var c committed
	err = n.await(ctx, func() error {
		defer func() { <-n.slots }()
		future := n.raft.Apply(frame, enqueueTimeout)
		if err := future.Error(); err != nil {
			return err
		}
		c = committed{result: future.Response(), index: future.Index()}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return c.result, c.index, nil
}

// VerifyLeader returns nil when this member led after the call began and its machine had applied every
// entry acknowledged before: what is read from the machine afterwards is not stale.
func (n *Node) VerifyLeader(ctx context.Context) error {
	const what = "verify leadership"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !n.IsLeader() {
		return n.notLeader(what)
	}
	// A new leader may have committed entries of earlier terms that its machine has not seen.
	if term := n.Term(); n.settledTerm.Load() != term {
		if err := n.Barrier(ctx); err != nil {
			return err
		}
		n.settledTerm.Store(term)
		return nil
	}
	return n.known(what, n.await(ctx, func() error { return n.raft.VerifyLeader().Error() }))
}

// Barrier returns nil when every entry before it was applied to this member's machine. Call it when
// leadership begins, before the state is used.
func (n *Node) Barrier(ctx context.Context) error {
	const what = "wait for earlier entries"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !n.IsLeader() {
		return n.notLeader(what)
	}
	return n.known(what, n.await(ctx, func() error { return n.raft.Barrier(enqueueTimeout).Error() }))
}

// known translates the error of a call that changes nothing, so that its outcome is never unknown.
func (n *Node) known(what string, err error) error {
	err = n.translate(what, err)
	if errors.Is(err, ErrOutcomeUnknown) {
		return unavailable(what, errors.New(err.Error()))
	}
	return err
}
