package clustertest

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

func (s *site) lose(host string) error {
	req := &pb.UpdateHostRequest{RequestId: s.request(), Name: host, Action: "lose", Reason: "the rack burnt"}
	return s.try(func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewSiteServiceClient(c).UpdateHost(ctx, req)
		return err
	})
}

// The host of a started workload loses its power in mid-failover. Nothing is placed anew until an operator
// gives the word, also not by another leader; then the run completes elsewhere. The host that comes back
// all the same gets nothing, and starts nothing.
func TestHostLostInMidFailover(t *testing.T) {
	bubble(t, 3, func(s *site) {
		l := s.lease(2, 4, 8, nil)
		f := s.declare("webshop")
		s.until("the database runs", time.Minute, func() bool {
			st := s.state().Failover(f.GetName()).GetSteps()
			for _, x := range st {
				if x.GetId() == "start webshop/db" && x.GetPhase() == pb.StepPhase_STEP_PHASE_DONE {
					return true
				}
			}
			return false
		})
		host := placed(s.state().Failover(f.GetName()), "db")
		if err := s.lose(host); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("a host that is connected was lost: %v", err)
		}
		s.powerCut(host)
		s.until("the leader notices", time.Minute, func() bool { return !s.leader().c.Live().Agent(host).Connected })
		s.crashLeader()
		s.sleep(10 * time.Minute)
		s.allMembersUp()
		if now := placed(s.state().Failover(f.GetName()), "db"); now != host {
			t.Fatalf("placed on %s by itself", now)
		}
		s.must(s.lose(host))
		s.completes(f.GetName())
		if now := placed(s.state().Failover(f.GetName()), "db"); now == host || now == "" {
			t.Errorf("the database is on %q", now)
		}
		for _, i := range l.GetInstances() {
			lost := s.state().Lease(l.GetName()).GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST
			if i.GetHost() == host && !lost {
				t.Errorf("lease %s had a VM on %s and does not say that it is lost", l.GetName(), host)
			}
		}
		s.startAgent(host)
		s.until("the agent that came back is held", time.Minute, func() bool {
			return strings.Contains(s.leader().c.Live().Agent(host).Held, "declared lost")
		})
		s.sleep(time.Minute)
		if _, running := s.world.hosts[host].Guest(model.ObjectID("instance/webshop-db-e1")); running {
			t.Error("the lost host started its workload again")
		}
		s.over(f.GetName())
		s.repair(host)
	})
}

// repair does what an operator does with a lost host: wipe it, take it out of the site, let it join anew.
func (s *site) repair(host string) {
	s.t.Helper()
	s.endAgent(host, true)
	s.loseJournal(host)
	s.world.install(host)
	req := &pb.UpdateHostRequest{RequestId: s.request(), Name: host, Action: "remove"}
	s.call(func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewSiteServiceClient(c).UpdateHost(ctx, req)
		return err
	})
	s.join(host)
	s.ready()
}

// placed returns the host of a workload.
func placed(f *pb.Failover, workload string) string {
	for _, p := range f.GetPlacements() {
		if p.GetWorkload() == workload {
			return p.GetHost()
		}
	}
	return ""
}

// allMembersUp starts the coordinators that were killed, and no agent.
func (s *site) allMembersUp() {
	for _, n := range s.names {
		if !s.members[n].up {
			s.restart(n)
		}
	}
	s.until("a leader", time.Minute, func() bool { return s.leader() != nil })
}
