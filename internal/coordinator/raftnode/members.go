package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/hotspare/hotspare/internal/model"
)

const (
	// catchUpPoll is how often AddMember looks how far the new member has come; answers to heartbeats
	// come about as often.
	catchUpPoll = 50 * time.Millisecond
	// catchUpTimeout bounds the wait when the context does not: a large snapshot over a slow link.
	catchUpTimeout = 10 * time.Minute
)

// Member is one coordinator as the replicated configuration knows it.
type Member struct {
	Name, Address string
	// Voter is false while the member catches up.
	Voter, Leader, Self bool
	// LastIndex and LastContact are what the member answered last; only the leader knows them.
	LastIndex   uint64
	LastContact time.Time
}

// Bootstrap makes this member the first of a new site. It is done once, on one member, by a person or a
// set-up tool: a second site made beside the first would have its own truth. Without others it votes
// alone, and AddMember brings the rest; with others (name and address), which must be empty, a majority of
// all must be up before anything is committed. A member with a past answers with FaultExists.
func (n *Node) Bootstrap(ctx context.Context, others ...Member) error {
	servers := []raft.Server{{ID: raft.ServerID(n.name), Address: n.transport.LocalAddr()}}
	for _, m := range others {
		servers = append(servers, raft.Server{ID: raft.ServerID(m.Name), Address: raft.ServerAddress(m.Address)})
	}
	err := n.await(ctx, func() error {
		return n.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error()
	})
	switch {
	case errors.Is(err, raft.ErrCantBootstrap):
		return &model.Error{Fault: model.FaultExists, Object: "member/" + n.name, What: "bootstrap", Err: err}
	case err != nil:
		return fmt.Errorf("bootstrap member %s: %w", n.name, err)
	}
	return nil
}

// Members lists the members, ordered by name.
func (n *Node) Members() ([]Member, error) {
	future := n.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, fmt.Errorf("list raft members: %w", err)
	}
	leader, _ := n.Leader()
	var out []Member
	for _, s := range future.Configuration().Servers {
		c := n.transport.contact(s.ID)
		m := Member{
			Name: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter,
			Leader: string(s.ID) == leader, Self: string(s.ID) == n.name,
			LastIndex: c.lastIndex, LastContact: c.at,
		}
		if m.Self {
			m.LastIndex = n.raft.LastIndex()
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out, nil
}

// AddMember lets a member join: first without a vote, so that a slow start cannot stop commits, then,
// when it has the log up to where the call began, with one. The member must be up and empty. The call may
// be repeated: it goes on where it ended. Only the leader can do it.
func (n *Node) AddMember(ctx context.Context, name, address string) error {
	what := fmt.Sprintf("add member %s at %s", name, address)
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	members, err := n.Members()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(members, func(m Member) bool { return m.Name == name })
	switch {
	case i >= 0 && members[i].Address != address:
		return model.Errorf(model.FaultExists, "member/"+name, "is a member at %s", members[i].Address).
			WithRemedy("remove it first")
	case i >= 0 && members[i].Voter:
		return nil
	case i < 0:
		if err := n.change(ctx, what, func() raft.Future {
			return n.raft.AddNonvoter(raft.ServerID(name), raft.ServerAddress(address), 0, enqueueTimeout)
		}); err != nil {
			return err
		}
	}
	if err := n.waitFor(ctx, what, name); err != nil {
		return err
	}
	return n.change(ctx, what, func() raft.Future {
		return n.raft.AddVoter(raft.ServerID(name), raft.ServerAddress(address), 0, enqueueTimeout)
	})
}

// waitFor waits until a member has answered with the log up to where the wait began.
func (n *Node) waitFor(ctx context.Context, what, name string) error {
	began, goal := time.Now(), n.raft.CommitIndex()
	tick := time.NewTicker(catchUpPoll)
	defer tick.Stop()
	for {
		if c := n.transport.contact(raft.ServerID(name)); c.at.After(began) && c.lastIndex >= goal {
			return nil
		}
		if !n.IsLeader() {
			return n.notLeader(what)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return unavailable(what+": it has not caught up and has no vote yet", context.Cause(ctx))
		}
	}
}

// RemoveMember takes a member out; a leader that removes itself ceases to lead. Only the leader can.
// Unknown names are no error, so that the call can be repeated.
func (n *Node) RemoveMember(ctx context.Context, name string) error {
	return n.change(ctx, "remove member "+name, func() raft.Future {
		return n.raft.RemoveServer(raft.ServerID(name), 0, enqueueTimeout)
	})
}

// TransferLeadership hands leadership to a voter, or to the one that is farthest when name is empty.
func (n *Node) TransferLeadership(ctx context.Context, name string) error {
	what := "transfer leadership"
	if name == "" {
		return n.change(ctx, what, n.raft.LeadershipTransfer)
	}
	members, err := n.Members()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(members, func(m Member) bool { return m.Name == name && m.Voter })
	if i < 0 {
		return model.Errorf(model.FaultNotFound, "member/"+name, "is not a voting member")
	}
	return n.change(ctx, what+" to "+name, func() raft.Future {
		return n.raft.LeadershipTransferToServer(raft.ServerID(name), raft.ServerAddress(members[i].Address))
	})
}

// change runs a call that alters the configuration. It may have had effect when it fails with
// ErrOutcomeUnknown; all of them can be repeated.
func (n *Node) change(ctx context.Context, what string, call func() raft.Future) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !n.IsLeader() {
		return n.notLeader(what)
	}
	return n.translate(what, n.await(ctx, func() error { return call().Error() }))
}
