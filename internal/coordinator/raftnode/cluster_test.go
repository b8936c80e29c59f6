package raftnode_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/model"
)

// same waits until every running member has applied exactly what is wanted.
func (s *site) same(want []string) {
	s.t.Helper()
	s.wait("agreement", func() bool {
		for name := range s.nodes {
			if !slices.Equal(s.journals[name].all(), want) {
				return false
			}
		}
		return true
	})
}

func (s *site) others(n *raftnode.Node) []string {
	var out []string
	for name := range s.nodes {
		if name != n.Name() {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func TestThreeMembersReplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		leader := s.three()
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
			s.propose(leader, want[i])
		}
		s.same(want)
		members, err := leader.Members()
		if err != nil || len(members) != 3 {
			t.Fatalf("members %v, %v", members, err)
		}
		for _, m := range members {
			if !m.Voter || m.LastIndex == 0 || m.Leader != (m.Name == leader.Name()) || m.Self != m.Leader {
				t.Errorf("member %+v", m)
			}
		}
		follower := s.nodes[s.others(leader)[0]]
		_, _, err = follower.Propose(t.Context(), []byte("x"))
		var hint *raftnode.NotLeaderError
		if !errors.As(err, &hint) || hint.Leader != leader.Name() || model.FaultOf(err) != model.FaultUnavailable {
			t.Fatalf("a follower answered %v", err)
		}
		if err := follower.VerifyLeader(t.Context()); !errors.Is(err, raftnode.ErrNotLeader) {
			t.Fatalf("a follower verified: %v", err)
		}
	})
}

// The bound is the design's: added time <= 2 x heartbeat timeout + election timeout + 1 s.
func TestKilledLeaderLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		leader := s.three()
		var acknowledged []string
		for round := range 4 {
			for i := range 10 {
				entry := fmt.Sprintf("%d/%d", round, i)
				s.propose(leader, entry)
				acknowledged = append(acknowledged, entry)
			}
			dead, killed := leader.Name(), time.Now()
			s.stop(dead)
			leader = s.leader(s.others(leader)...)
			if err := leader.VerifyLeader(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(killed); took > 2*raftnode.HeartbeatTimeout+raftnode.ElectionTimeout+time.Second {
				t.Errorf("a new leader after %v", took)
			}
			if got := s.journals[leader.Name()].all(); !slices.Equal(got, acknowledged) {
				t.Fatalf("the new leader has %q, acknowledged %q", got, acknowledged)
			}
			s.restart(dead)
		}
		s.same(acknowledged)
	})
}

func TestMinorityLeaderCannotCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		old := s.three()
		s.propose(old, "before")
		gained := <-old.Leadership()
		s.net.Isolate(old.Name())
		_, _, err := old.Propose(t.Context(), []byte("minority"))
		if !errors.Is(err, raftnode.ErrOutcomeUnknown) {
			t.Fatalf("a minority leader answered %v", err)
		}
		if lost := <-old.Leadership(); !gained || lost {
			t.Fatalf("leadership showed %v, %v", gained, lost)
		}
		leader := s.leader(s.others(old)...)
		s.propose(leader, "majority")
		s.net.Rejoin(old.Name())
		s.same([]string{"before", "majority"})
		// Pre-vote: the member that comes back does not depose the leader.
		if !leader.IsLeader() {
			t.Error("the leader was deposed by a member that came back")
		}
	})
}

func TestFollowerFarBehindGetsSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.threshold, s.trailing = 16, 4
		leader := s.three()
		away := s.others(leader)[0]
		s.stop(away)
		var want []string
		for i := range 60 {
			want = append(want, fmt.Sprint("entry ", i))
			s.propose(leader, want[i])
		}
		tick(10 * time.Minute) // raft looks for a due snapshot every two to four minutes
		if first(t, leader) < 10 {
			t.Fatal("the leader has not compacted its log")
		}
		s.restart(away)
		s.same(want)
		if s.journals[away].restoredTimes() != 1 {
			t.Error("the follower replayed the log instead of a snapshot")
		}
		// All from disk: snapshots, then the rest of the logs.
		for _, name := range []string{"a", "b", "c"} {
			s.stop(name)
		}
		for _, name := range []string{"a", "b", "c"} {
			s.restart(name)
		}
		s.propose(s.leader(), "after")
		s.same(append(want, "after"))
	})
}

func committed(t *testing.T, n *raftnode.Node) uint64 {
	t.Helper()
	stats, err := n.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return stats.CommitIndex
}

func first(t *testing.T, n *raftnode.Node) uint64 {
	t.Helper()
	stats, err := n.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return stats.FirstIndex
}

// tick lets virtual time pass.
func tick(d time.Duration) { <-time.After(d) }

func TestJoinWithoutVoteUntilCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		a := s.start("a")
		if err := a.Bootstrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.leader()
		s.propose(a, "alone")
		s.start("b")
		s.net.Isolate("b")
		joined := make(chan error, 1)
		go func() { joined <- a.AddMember(t.Context(), "b", "b") }()
		tick(5 * time.Second)
		s.propose(a, "b has no vote")
		members, err := a.Members()
		if err != nil || len(members) != 2 || members[1].Voter {
			t.Fatalf("members %+v, %v", members, err)
		}
		s.net.Rejoin("b")
		if err := <-joined; err != nil {
			t.Fatal(err)
		}
		s.same([]string{"alone", "b has no vote"})
		if err := a.AddMember(t.Context(), "b", "b"); err != nil {
			t.Fatalf("repeated: %v", err)
		}
		if err := a.AddMember(t.Context(), "b", "elsewhere"); model.FaultOf(err) != model.FaultExists {
			t.Fatalf("another address: %v", err)
		}
		if err := a.TransferLeadership(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		s.leader("b")
		if err := s.nodes["b"].RemoveMember(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		s.propose(s.nodes["b"], "alone again")
	})
}

func TestLargeProposal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		leader := s.three()
		large := strings.Repeat("0123456789abcdef", (raftnode.MaxEntryBytes+4096)/16) + "end"
		result, index, err := leader.Propose(t.Context(), []byte(large))
		if err != nil || result != 1 || index < 6 {
			t.Fatalf("got %v at %d, %v", result, index, err)
		}
		s.propose(leader, "small")
		s.same([]string{large, "small"})
		_, _, err = leader.Propose(t.Context(), make([]byte, raftnode.MaxProposalBytes+1))
		if model.FaultOf(err) != model.FaultInvalid {
			t.Fatalf("too large: %v", err)
		}
	})
}

// A leader that is lost between two parts leaves nothing: the proposal is known to have had no effect.
func TestLeaderChangeBetweenParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		old := s.three()
		large := []byte(strings.Repeat("x", 4*raftnode.MaxEntryBytes))
		failed := make(chan error, 1)
		before := committed(t, old)
		go func() {
			_, _, err := old.Propose(t.Context(), large)
			failed <- err
		}()
		// Commits take no virtual time: look without letting it pass.
		for committed(t, old) < before+3 {
			runtime.Gosched()
		}
		s.net.Isolate(old.Name())
		if err := <-failed; err == nil || errors.Is(err, raftnode.ErrOutcomeUnknown) || model.FaultOf(err) != model.FaultUnavailable {
			t.Fatalf("an unfinished large proposal: %v", err)
		}
		s.propose(s.leader(s.others(old)...), "next")
		s.net.Rejoin(old.Name())
		s.same([]string{"next"})
	})
}

func TestBootstrapOfThree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		a := s.start("a")
		if err := a.Bootstrap(t.Context(), raftnode.Member{Name: "b", Address: "b"}, raftnode.Member{Name: "c", Address: "c"}); err != nil {
			t.Fatal(err)
		}
		tick(5 * time.Second)
		if a.IsLeader() {
			t.Fatal("one of three leads")
		}
		s.start("b")
		s.propose(s.leader(), "two of three")
		s.start("c")
		s.same([]string{"two of three"})
	})
}

// A crash while a snapshot is written leaves a folder that nobody else removes.
func TestOpenRemovesHalfSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		half := filepath.Join(s.dir, "a", "snapshots", "1-2-3.tmp")
		if err := os.MkdirAll(half, 0o700); err != nil {
			t.Fatal(err)
		}
		s.start("a")
		if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	})
}

// A damaged log must stop the member with words, not with a crash or a silent gap.
func TestOpenDamagedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		a := s.start("a")
		if err := a.Bootstrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.leader()
		s.propose(a, strings.Repeat("payload ", 1000))
		s.stop("a")
		path := filepath.Join(s.dir, "a", "raft.db")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte("payload "), []byte("rotten! ")), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = raftnode.Open(raftnode.Options{
			Name: "a", Dir: filepath.Join(s.dir, "a"), Machine: &journal{}, Transport: s.net.Transport("a"),
			Logger: slog.New(slog.DiscardHandler),
		})
		if err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Fatalf("got %v", err)
		}
	})
}

// A new leader has committed entries that its machine has not seen: a verified read must wait for them.
func TestVerifiedReadIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		a := s.start("a")
		if err := a.Bootstrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.leader()
		s.slow = time.Second
		for _, name := range []string{"b", "c"} {
			s.start(name)
			if err := a.AddMember(t.Context(), name, name); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 10 {
			s.propose(a, fmt.Sprint(i))
		}
		s.stop("a")
		leader := s.leader("b", "c")
		if got := s.journals[leader.Name()].all(); len(got) == 10 {
			t.Fatal("the new leader is not behind, so this test shows nothing")
		}
		if err := leader.VerifyLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.journals[leader.Name()].all(); len(got) != 10 {
			t.Fatalf("a verified read sees %d of 10 acknowledged entries", len(got))
		}
	})
}
