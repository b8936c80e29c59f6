package clustertest

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/fleet"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
)

// A leader that is cut off from the other members can neither declare nor carry a run on, and lets go
// of its agents.
func TestPartitionedLeader(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		old := s.leader().name
		s.partition(old)
		before := s.world.inventory()
		ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
		defer cancel()
		_, err := pb.NewFailoverServiceClient(s.conn(old)).Declare(ctx, &pb.DeclareRequest{Plans: []string{"webshop"}, Reason: "x"})
		if status.Code(err) == codes.OK {
			t.Fatal("a leader without a quorum acknowledged a declaration")
		}
		s.sleep(raftnode.LeaderLease)
		s.until("its agents are let go", 5*time.Second, func() bool {
			for a := range s.members[old].c.Live().Agents() {
				if a.Connected && s.members[old].c.Leading() == nil {
					return false
				}
			}
			return true
		})
		s.until("another leader with all agents", 30*time.Second, func() bool {
			l := s.leader()
			return l != nil && l.name != old && !slices.ContainsFunc(s.world.agents(), func(a string) bool { return !l.c.Live().Agent(a).Full })
		})
		if n := s.members[old].c.State().Meta().GetLastEpoch(); n != 0 {
			t.Errorf("the old leader applied a declaration: %d", n)
		}
		if after := s.world.inventory(); !slices.Equal(before, after) {
			t.Errorf("something changed outside:\n%q\n%q", before, after)
		}
		guests := s.guests(leases...)
		f := s.declare("webshop")
		s.completes(f.GetName())
		s.heal(old)
		s.over(f.GetName())
		s.kept(guests, leases)
	})
}

// With no quorum anywhere no agent may begin anything that acquires: permits run out.
func TestPermitsRunOut(t *testing.T) {
	bubble(t, 3, func(s *site) {
		s.fill()
		at := time.Now()
		// All that is left are a member that lost the others, and the agents.
		s.world.at(point{method: "Fence", object: "*", after: true}, func(point) {
			for _, n := range s.followers() {
				s.crash(n)
			}
		})
		f := s.declare("webshop")
		s.until("two members are gone", time.Minute, func() bool { return len(s.followers())+1 < 3 })
		s.sleep(fleet.PermitDuration + 2*time.Second)
		quiet := time.Now()
		s.sleep(time.Minute)
		for _, r := range s.book.since(quiet) {
			if r.msg == "driver call began" && (r.attrs["to"] == "RUNNING" || r.attrs["to"] == "PRIMARY" || r.attrs["to"] == "ANNOUNCED") {
				t.Errorf("without a permit: %s", r)
			}
		}
		s.allUp()
		s.completes(f.GetName())
		t.Logf("completed %v after the declaration", time.Since(at))
		s.over(f.GetName())
	})
}

// The agent of a host is cut off in mid-failover and comes back an hour later.
func TestAgentCutOffForAnHour(t *testing.T) {
	for name, oneWay := range map[string]string{"both ways": "", "only what it says": "up", "only what it hears": "down"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(s *site) {
				leases := s.fill()
				guests := s.guests(leases...)
				f := s.declare("webshop")
				host := f.GetPlacements()[0].GetHost()
				for _, c := range s.names {
					if oneWay != "down" {
						s.wire.block(host, c)
					}
					if oneWay != "up" {
						s.wire.block(c, host)
					}
				}
				s.until("the leader notices", time.Minute, func() bool {
					l := s.leader()
					return l != nil && !l.c.Live().Agent(host).Connected
				})
				if oneWay == "" {
					s.sleep(55 * time.Minute) // Once is enough: an hour of three members costs seconds.
				}
				s.sleep(5 * time.Minute)
				if p := s.phase(f.GetName()); p == pb.RunPhase_RUN_PHASE_COMPLETED {
					t.Errorf("the run is %v without %s", p, host)
				}
				s.healAgent(host)
				if !s.within(2*time.Minute, func() bool { return s.phase(f.GetName()) == pb.RunPhase_RUN_PHASE_COMPLETED }) {
					s.must(s.control(f.GetName(), pb.ControlAction_CONTROL_ACTION_RETRY, ""))
				}
				s.completes(f.GetName())
				s.over(f.GetName())
				s.kept(guests, leases)
			})
		})
	}
}

// Links between the leader and the others come and go, one way too.
func TestFlappingLinks(t *testing.T) {
	fillAndFail(t, nil, func(s *site, f *pb.Failover) {
		for range 5 {
			if l := s.leader(); l != nil {
				s.partition(l.name)
				s.sleep(900 * time.Millisecond)
				s.heal(l.name)
			}
			s.sleep(400 * time.Millisecond)
			for _, n := range s.names {
				s.wire.block("h1", n)
			}
			s.sleep(700 * time.Millisecond)
			s.healAgent("h1")
		}
	})
}
