package clustertest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// setClock sets the clock of a member's machine.
func (s *site) setClock(name string, ahead time.Duration) { s.members[name].skew.Store(int64(ahead)) }

// alarms are those that the status shows.
func (s *site) alarms() []string {
	s.t.Helper()
	var out []string
	s.call(func(ctx context.Context, c *grpc.ClientConn) error {
		st, err := pb.NewSiteServiceClient(c).GetStatus(ctx, &pb.GetStatusRequest{})
		out = st.GetAlarms()
		return err
	})
	return out
}

func (s *site) alarm(part string) bool {
	return slices.ContainsFunc(s.alarms(), func(a string) bool { return strings.Contains(a, part) })
}

func (s *site) leasePhase(l *pb.Lease) pb.LeasePhase { return s.state().Lease(l.GetName()).GetPhase() }

// term asks for a lease that ends soon.
func term(d time.Duration) func(*pb.LeaseSpec) {
	return func(spec *pb.LeaseSpec) { spec.Term = durationpb.New(d) }
}

const (
	leaseActive = pb.LeasePhase_LEASE_PHASE_ACTIVE
	leaseEnded  = pb.LeasePhase_LEASE_PHASE_ENDED
)

// The leader's clock is set an hour ahead, or starts ahead with the leadership: nothing ends before its
// time, the status says what is wrong, failovers go on, and what was held up comes when the clock is right.
func TestLeadersClockIsOff(t *testing.T) {
	const off = time.Hour
	for name, harm := range map[string]func(s *site){
		"set while it leads": func(s *site) { s.setClock(s.leader().name, off) },
		"wrong before it leads": func(s *site) {
			n := s.aFollower()
			s.setClock(n, off)
			s.must(s.leader().c.Node().TransferLeadership(s.ctx, n))
			s.until("another leader", time.Minute, func() bool { return s.leader() != nil && s.leader().name == n })
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(s *site) {
				l := s.lease(1, 2, 4, term(30*time.Minute))
				ends := l.GetEndsAt().AsTime()
				harm(s)
				leader := s.leader().name
				s.until("the alarm", 10*time.Second, func() bool { return s.alarm("coordinator " + leader + ", which leads, is 1h0m0s ahead") })
				f := s.declare("webshop")
				s.completes(f.GetName())
				s.over(f.GetName())
				s.sleep(time.Minute)
				if p := s.leasePhase(l); p != leaseActive {
					t.Fatalf("the lease is %v %v before its end", p, time.Until(ends))
				}
				s.sleep(time.Until(s.state().Lease(l.GetName()).GetEndsAt().AsTime()) + time.Minute)
				if p := s.leasePhase(l); p != leaseActive {
					t.Errorf("the lease is %v by the word of a clock that is off", p)
				}
				if now := s.leader().name; now != leader {
					t.Fatalf("%s leads now: the test shows nothing", now)
				}
				s.setClock(leader, 0)
				s.until("the lease's end", 10*time.Second, func() bool { return s.leasePhase(l) == leaseEnded })
				if s.alarm("clock") {
					t.Errorf("alarms: %q", s.alarms())
				}
			})
		})
	}
}

// A follower's wrong clock stops nothing, and is said before it leads.
func TestFollowersClockIsOff(t *testing.T) {
	bubble(t, 3, func(s *site) {
		l := s.lease(1, 2, 4, term(10*time.Minute))
		n := s.aFollower()
		s.setClock(n, -2*time.Hour)
		s.until("the alarm", 10*time.Second, func() bool { return s.alarm("coordinator " + n + " is 2h0m0s behind the median of the members") })
		s.until("the lease's end", 11*time.Minute, func() bool { return s.leasePhase(l) == leaseEnded })
	})
}

// A leader that cannot reach the other members' API says so, and ends nothing; one of two is enough.
func TestClocksThatCannotBeRead(t *testing.T) {
	bubble(t, 3, func(s *site) {
		l := s.lease(1, 2, 4, term(10*time.Minute))
		leader := s.leader().name
		for _, n := range s.followers() {
			s.wire.block(leader, n)
		}
		s.until("the alarm", 2*time.Minute, func() bool { return s.alarm("cannot compare its clock") })
		s.sleep(10 * time.Minute)
		if p := s.leasePhase(l); p != leaseActive {
			t.Errorf("the lease is %v", p)
		}
		s.wire.unblock(leader, s.aFollower())
		s.until("the lease's end", time.Minute, func() bool { return s.leasePhase(l) == leaseEnded })
	})
}

// The last leader's clock was an hour ahead, so the time of the newest command is: timeouts pass all the
// same, so that a fence that hangs gives way to the next method.
func TestTimeoutsAfterAClockThatWasAhead(t *testing.T) {
	fillAndFail(t, func(s *site) {
		old := s.leader().name
		s.setClock(old, time.Hour)
		s.until("the alarm", 10*time.Second, func() bool { return s.alarm("clock") })
	}, func(s *site, f *pb.Failover) {
		old := s.leader().name
		step := f.GetSteps()[0]
		if !s.state().Time().After(time.Now().Add(59 * time.Minute)) {
			t.Fatal("the time of the commands is not ahead: the test shows nothing")
		}
		s.cutAgent(step.GetAgent())
		s.crash(old)
		s.until("the step's timeout", step.GetTimeout().AsDuration()*2+time.Minute, func() bool {
			steps := s.state().Failover(f.GetName()).GetSteps()
			return len(steps) > 0 && steps[0].GetPhase() == pb.StepPhase_STEP_PHASE_FAILED
		})
		s.setClock(old, 0)
		s.restart(old)
		s.healAgent(step.GetAgent())
		s.reaches(f.GetName(), pb.RunPhase_RUN_PHASE_COMPLETED, runLimit)
	})
}
