package clustertest

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
)

// killBound is the design's bound on what the death of a leader may add.
const killBound = 2*raftnode.HeartbeatTimeout + raftnode.ElectionTimeout + time.Second

// fillAndFail lends everything, declares, lets things go wrong, and demands that the run completes and
// that everything is as before after the failback.
func fillAndFail(t *testing.T, arrange func(s *site), declared func(s *site, f *pb.Failover)) (took time.Duration) {
	t.Helper()
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		if arrange != nil {
			arrange(s)
		}
		at := time.Now()
		f := s.declare("webshop")
		if declared != nil {
			declared(s, f)
		}
		s.completes(f.GetName())
		took = time.Since(at)
		s.allUp()
		s.over(f.GetName())
		s.kept(guests, leases)
	})
	return took
}

// allUp starts whatever was killed.
func (s *site) allUp() {
	for _, n := range s.names {
		if !s.members[n].up {
			s.restart(n)
		}
	}
	for _, n := range s.world.agents() {
		if !s.agents[n].up {
			s.startAgent(n)
		}
	}
}

// crashLeader kills whoever leads now.
func (s *site) crashLeader() {
	if l := s.leader(); l != nil {
		s.crash(l.name)
	}
}

func TestLeaderKilled(t *testing.T) {
	undisturbed := fillAndFail(t, nil, nil)
	cases := map[string]struct {
		arrange  func(s *site)
		declared func(s *site, f *pb.Failover)
	}{
		"right after the declaration was acknowledged": {declared: func(s *site, _ *pb.Failover) { s.crashLeader() }},
		"when the first save begins": {arrange: func(s *site) {
			s.world.at(point{method: "Save", object: "*/*"}, func(point) { s.crashLeader() })
		}},
		"right after the fence": {arrange: func(s *site) {
			s.world.at(point{method: "Fence", object: "*", after: true}, func(point) { s.crashLeader() })
		}},
		"right after the first promotion": {arrange: func(s *site) {
			s.world.at(point{method: "Promote", object: "*", after: true}, func(point) { s.crashLeader() })
		}},
		"in the middle of a start": {arrange: func(s *site) {
			s.world.at(point{method: "Start", object: "instance/webshop-db-*"}, func(point) {
				time.AfterFunc(500*time.Millisecond, s.crashLeader)
			})
		}},
		"before the announcement": {arrange: func(s *site) {
			s.world.at(point{method: "Announce", object: "*"}, func(point) { s.crashLeader() })
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			took := fillAndFail(t, c.arrange, c.declared)
			t.Logf("took %v, undisturbed %v: the kill added %v, bound %v", took, undisturbed, took-undisturbed, killBound)
			if took-undisturbed > killBound {
				t.Errorf("the kill added %v, more than %v", took-undisturbed, killBound)
			}
		})
	}
}

// A second kill as soon as the next leader leads, and so on; each of the dead comes back a little later.
func TestEveryLeaderKilled(t *testing.T) {
	fillAndFail(t, nil, func(s *site, f *pb.Failover) {
		for range 6 {
			s.until("somebody leads", time.Minute, func() bool { return s.leader() != nil })
			dead := s.leader().name
			s.crash(dead)
			s.sleep(300 * time.Millisecond)
			s.restart(dead)
		}
	})
}

// agentDown kills the first agent that comes to a point, and starts it again later.
func agentDown(p point, after time.Duration) func(s *site) {
	return func(s *site) {
		s.world.at(p, func(at point) {
			s.crashAgent(at.host)
			time.AfterFunc(after, func() { s.startAgent(at.host) })
		})
	}
}

func TestAgentKilled(t *testing.T) {
	points := map[string]point{
		"before a save, after its journal entry": {method: "Save", object: "*/*"},
		"after a save":                           {method: "Save", object: "*/*", after: true},
		"before a start":                         {method: "Start", object: "instance/webshop-*"},
		"after a start":                          {method: "Start", object: "instance/webshop-*", after: true},
		"after a definition":                     {method: "Define", object: "instance/webshop-*", after: true},
		"before a restore":                       {method: "Restore", object: "*/*"},
		"after a restore":                        {method: "Restore", object: "*/*", after: true},
		"before the promotion":                   {method: "Promote", object: "*"},
		"after the promotion":                    {method: "Promote", object: "*", after: true},
		"after the demotion":                     {method: "Demote", object: "*", after: true},
		"before the fence":                       {method: "Fence", object: "*"},
		"after the fence":                        {method: "Fence", object: "*", after: true},
		"after the lift":                         {method: "Lift", object: "*", after: true},
		"after the announcement":                 {method: "Announce", object: "*", after: true},
		"after the withdrawal":                   {method: "Withdraw", object: "*", after: true},
		"after a network was made":               {method: "Ensure", object: "prod-10", after: true},
		"after a removal":                        {method: "Remove", object: "instance/webshop-*", after: true},
	}
	for name, p := range points {
		for _, away := range []time.Duration{10 * time.Millisecond, 20 * time.Second} {
			t.Run(name+", away "+away.String(), func(t *testing.T) {
				fillAndFail(t, agentDown(p, away), nil)
			})
		}
	}
}

func TestLeaderAndAgentKilledAtOnce(t *testing.T) {
	for name, p := range map[string]point{
		"at a save":        {method: "Save", object: "*/*"},
		"at the start":     {method: "Start", object: "instance/webshop-db-*"},
		"at the promotion": {method: "Promote", object: "*", after: true},
	} {
		t.Run(name, func(t *testing.T) {
			fillAndFail(t, func(s *site) {
				s.world.at(p, func(at point) {
					s.crashAgent(at.host)
					s.crashLeader()
					time.AfterFunc(2*time.Second, func() { s.startAgent(at.host) })
				})
			}, nil)
		})
	}
}

// A request that is repeated over the death of the leader never makes a second lease.
func TestRequestRepeatedOverLeaderKill(t *testing.T) {
	for name, killAfter := range map[string]bool{"before the answer": false, "after the answer": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(s *site) {
				for range 4 {
					req := &pb.CreateLeaseRequest{RequestId: s.request(), Project: "web", Spec: &pb.LeaseSpec{
						Count: 1, Resources: &pb.Resources{Vcpus: 2, MemoryBytes: 4 << 30}, Image: "debian-12",
					}}
					names := map[string]bool{}
					before := s.state().Meta().GetLeaseCounter()
					create := func(ctx context.Context, c *grpc.ClientConn) error {
						resp, err := pb.NewLeaseServiceClient(c).CreateLease(ctx, req)
						if err == nil {
							names[resp.GetLease().GetName()] = true
						}
						return err
					}
					dead := s.leader().name
					if killAfter {
						s.call(create)
					} else {
						time.AfterFunc(time.Millisecond, func() { s.crash(dead) })
					}
					s.crash(dead)
					s.call(create)
					s.call(create)
					if n := s.state().Meta().GetLeaseCounter() - before; n != 1 || len(names) != 1 {
						t.Fatalf("%d leases, answers %v", n, names)
					}
					s.restart(dead)
				}
			})
		})
	}
}
