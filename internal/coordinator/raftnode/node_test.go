package raftnode_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode/memnet"
	"github.com/hotspare/hotspare/internal/model"
)

// site is a set of members in one bubble.
type site struct {
	t        *testing.T
	dir      string
	net      *memnet.Network
	nodes    map[string]*raftnode.Node
	journals map[string]*journal
	// threshold and trailing are passed to each member opened.
	threshold, trailing uint64
	// slow is how long an entry takes on members started from now on.
	slow time.Duration
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{
		t: t, dir: t.TempDir(), net: memnet.New(),
		nodes: map[string]*raftnode.Node{}, journals: map[string]*journal{},
	}
	t.Cleanup(func() {
		for name := range s.nodes {
			s.stop(name)
		}
	})
	return s
}

// start opens a member with an empty machine.
func (s *site) start(name string) *raftnode.Node {
	s.t.Helper()
	j := &journal{slow: s.slow}
	n, err := raftnode.Open(raftnode.Options{
		Name: name, Dir: filepath.Join(s.dir, name), Machine: j, Transport: s.net.Transport(name),
		Logger: slog.New(slog.DiscardHandler), SnapshotThreshold: s.threshold, TrailingLogs: s.trailing,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.nodes[name], s.journals[name] = n, j
	return n
}

// stop cuts a member off and closes it: the others see a crash.
func (s *site) stop(name string) {
	s.net.Isolate(name)
	if err := s.nodes[name].Close(); err != nil {
		s.t.Error(err)
	}
	delete(s.nodes, name)
}

// restart opens a stopped member again.
func (s *site) restart(name string) *raftnode.Node {
	s.t.Helper()
	n := s.start(name)
	s.net.Rejoin(name)
	return n
}

// leader waits for the only leader among the members named, or all.
func (s *site) leader(among ...string) *raftnode.Node {
	s.t.Helper()
	var found *raftnode.Node
	s.wait("one leader", func() bool {
		found = nil
		for name, n := range s.nodes {
			if n.IsLeader() && (len(among) == 0 || slices.Contains(among, name)) {
				if found != nil {
					return false
				}
				found = n
			}
		}
		return found != nil
	})
	return found
}

// wait polls in virtual time.
func (s *site) wait(what string, ok func() bool) {
	s.t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("no %s after 30 s", what)
		}
	}
}

func (s *site) propose(n *raftnode.Node, data string) {
	s.t.Helper()
	if _, _, err := n.Propose(s.t.Context(), []byte(data)); err != nil {
		s.t.Fatalf("propose %.20q: %v", data, err)
	}
}

// three starts members a, b and c and returns the leader.
func (s *site) three() *raftnode.Node {
	s.t.Helper()
	a := s.start("a")
	if err := a.Bootstrap(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	leader := s.leader()
	for _, name := range []string{"b", "c"} {
		s.start(name)
		if err := leader.AddMember(s.t.Context(), name, name); err != nil {
			s.t.Fatal(err)
		}
	}
	return leader
}

func TestOneMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		n := s.start("a")
		if _, _, err := n.Propose(t.Context(), []byte("early")); !errors.Is(err, raftnode.ErrNotLeader) || errors.Is(err, raftnode.ErrOutcomeUnknown) {
			t.Fatalf("before bootstrap: %v", err)
		}
		if err := n.Bootstrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.leader()
		if !<-n.Leadership() {
			t.Fatal("leadership begins with false")
		}
		result, index, err := n.Propose(t.Context(), []byte("one"))
		if err != nil || result != 1 || index == 0 {
			t.Fatalf("got %v at %d, %v", result, index, err)
		}
		if _, index, err = n.Propose(t.Context(), []byte("refuse this")); !errors.Is(err, errRefused) || index == 0 {
			t.Fatalf("a refused entry: index %d, %v", index, err)
		}
		if err := n.VerifyLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.VerifyLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRestartOfOneMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		n := s.start("a")
		if err := n.Bootstrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.leader()
		s.propose(n, "one")
		if err := n.Bootstrap(t.Context()); model.FaultOf(err) != model.FaultExists {
			t.Fatalf("second bootstrap: %v", err)
		}
		s.stop("a")
		if _, _, err := n.Propose(t.Context(), []byte("late")); err == nil {
			t.Fatal("a closed member took a proposal")
		}

		n = s.restart("a")
		s.leader()
		if err := n.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.journals["a"].all(); !slices.Equal(got, []string{"one"}) {
			t.Fatalf("after restart: %q", got)
		}
	})
}

func TestProposeObeysContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		leader := s.three()
		for name := range s.nodes {
			if name != leader.Name() {
				s.net.Isolate(name)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, _, err := leader.Propose(ctx, []byte("x"))
		if !errors.Is(err, raftnode.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if model.FaultOf(err) != model.FaultUnavailable {
			t.Fatalf("fault %v", model.FaultOf(err))
		}
	})
}
