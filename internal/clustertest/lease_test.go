package clustertest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// victimsOf names the leases that a run preempts.
func victimsOf(f *pb.Failover) []string {
	var out []string
	for _, v := range f.GetVictims() {
		if !slices.Contains(out, v.GetLease()) {
			out = append(out, v.GetLease())
		}
	}
	return out
}

func (s *site) release(lease string) {
	s.call(func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewLeaseServiceClient(c).ReleaseLease(ctx, &pb.ReleaseLeaseRequest{RequestId: s.request(), Name: lease})
		return err
	})
}

// What is done to a preempted lease takes effect when it would come back: released, extended, or nothing.
func TestLeaseChangedDuringFailover(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		f := s.declare("webshop")
		victims := victimsOf(f)
		s.completes(f.GetName())
		released, extended := victims[0], victims[1]
		s.release(released)
		ends := s.state().Lease(extended).GetEndsAt().AsTime()
		s.call(func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewLeaseServiceClient(c).ExtendLease(ctx, &pb.ExtendLeaseRequest{RequestId: s.request(), Name: extended, By: durationpb.New(time.Hour)})
			return err
		})
		at := s.state().Lease(extended).GetPreemptedAt().AsTime()
		s.sleep(10 * time.Minute)
		s.over(f.GetName())
		back := s.state().Lease(extended)
		stood := back.GetEndsAt().AsTime().Sub(ends) - time.Hour
		if stood < 10*time.Minute || stood > time.Since(at)+time.Second {
			t.Errorf("the term stood still for %v of %v", stood, time.Since(at))
		}
		s.settled()
		l := s.state().Lease(released)
		if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ENDED {
			t.Errorf("the released lease is %v", l.GetPhase())
		}
		for _, i := range l.GetInstances() {
			h := s.world.hosts[i.GetHost()]
			if g, ok := h.Guest(model.ObjectID(i.GetObject())); ok && g.Running {
				t.Errorf("%s of the released lease runs", i.GetObject())
			}
			if c := h.History()[model.ObjectID(i.GetObject())]; c.Restores > 0 || c.Removes > 0 {
				t.Errorf("the released lease came back or lost its disk: %+v", c)
			}
		}
		s.kept(without(guests, l), slices.DeleteFunc(leases, func(l *pb.Lease) bool { return l.GetName() == released }))
	})
}

func without(v view, l *pb.Lease) view {
	for _, i := range l.GetInstances() {
		delete(v, i.GetObject())
	}
	return v
}

// A term that ends while the lease is preempted stands still; after the return it ends, RAM kept.
func TestTermEndsDuringFailover(t *testing.T) {
	bubble(t, 3, func(s *site) {
		short := func(sp *pb.LeaseSpec) { sp.Term = durationpb.New(5 * time.Minute) }
		leases := []*pb.Lease{s.lease(2, 8, 24, short), s.lease(2, 8, 24, short), s.lease(2, 8, 24, short)}
		f := s.declare("webshop")
		s.completes(f.GetName())
		s.sleep(10 * time.Minute)
		for _, name := range victimsOf(f) {
			if p := s.state().Lease(name).GetPhase(); p != pb.LeasePhase_LEASE_PHASE_PREEMPTED {
				t.Errorf("%s is %v while it is preempted", name, p)
			}
		}
		s.over(f.GetName())
		for _, l := range leases {
			s.until(l.GetName()+" ends", 10*time.Minute, func() bool {
				return s.state().Lease(l.GetName()).GetPhase() == pb.LeasePhase_LEASE_PHASE_ENDED
			})
			for _, i := range l.GetInstances() {
				id := model.ObjectID(i.GetObject())
				s.until(i.GetObject()+" is saved", time.Minute, func() bool {
					g, ok := s.world.hosts[i.GetHost()].Guest(id)
					return ok && !g.Running
				})
			}
		}
	})
}

// A plan that cannot fit: what fits starts, the rest is named.
func TestPlanThatCannotFit(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		s.apply(`
apiVersion: hotspare/v1
kind: Plan
metadata: {name: huge}
spec:
  rank: 30
  fencing: [{oath: {}}]
  workloads:
  - name: big
    resources: {vcpus: 64, memory: 32GiB}
    image: debian-12
    nics: [{network: prod-10, address: 10.10.0.90/24}]
  - name: small
    resources: {vcpus: 2, memory: 4GiB}
    image: debian-12
    nics: [{network: prod-10, address: 10.10.0.91/24}]
`)
		f := s.declare("huge")
		if len(f.GetUnplaced()) != 1 || f.GetUnplaced()[0].GetWorkload() != "big" || f.GetUnplaced()[0].GetReason() == "" {
			t.Fatalf("unplaced: %v", f.GetUnplaced())
		}
		s.call(func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewFailoverServiceClient(c).Swear(ctx, &pb.SwearRequest{RequestId: s.request(), Name: f.GetName(), Reason: "seen it burn"})
			return err
		})
		s.until("the small one runs", 5*time.Minute, func() bool {
			return slices.ContainsFunc(s.state().Failover(f.GetName()).GetSteps(), func(st *pb.Step) bool {
				return st.GetWorkload() == "small" && st.GetKind() == pb.Kind_KIND_INSTANCE && st.GetPhase() == pb.StepPhase_STEP_PHASE_DONE
			})
		})
		s.reaches(f.GetName(), pb.RunPhase_RUN_PHASE_INCOMPLETE, time.Minute)
		s.over(f.GetName())
		s.kept(guests, leases)
	})
}

// Two runs that overlap: both complete, either may go back first.
func TestTwoFailovers(t *testing.T) {
	for name, first := range map[string]int{"the first goes back first": 0, "the second goes back first": 1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(s *site) {
				leases := s.fill()
				guests, before := s.guests(leases...), s.world.inventory()
				runs := []*pb.Failover{s.declare("webshop")}
				s.sleep(1500 * time.Millisecond)
				runs = append(runs, s.declare("billing"))
				for _, f := range runs {
					s.completes(f.GetName())
				}
				s.over(runs[first].GetName())
				s.over(runs[1-first].GetName())
				s.kept(guests, leases)
				s.settled()
				if after := s.world.inventory(); !slices.Equal(before, after) {
					t.Errorf("not as before:\n%q\n%q", before, after)
				}
			})
		})
	}
}

// Who watches a lease through a follower sees why it was taken, until when, and that it is back.
func TestWatchLease(t *testing.T) {
	bubble(t, 3, func(s *site) {
		s.fill()
		f := s.declare("webshop")
		name := victimsOf(f)[0]
		s.completes(f.GetName())
		var mu sync.Mutex
		var seen []*pb.Lease
		ctx, stop := context.WithCancel(s.ctx)
		defer stop()
		stream, err := pb.NewLeaseServiceClient(s.conn(s.followers()[0])).WatchLease(ctx, &pb.WatchLeaseRequest{Name: name})
		s.must(err)
		go func() {
			for {
				m, err := stream.Recv()
				if err != nil {
					return
				}
				mu.Lock()
				seen = append(seen, m.GetLease())
				mu.Unlock()
			}
		}()
		last := func() *pb.Lease {
			mu.Lock()
			defer mu.Unlock()
			if len(seen) == 0 {
				return nil
			}
			return seen[len(seen)-1]
		}
		s.until("the watch shows the preempted lease", time.Minute, func() bool { return last().GetPhase() == pb.LeasePhase_LEASE_PHASE_PREEMPTED })
		p := last().GetPreempting()
		if len(p) != 1 || p[0].GetFailover() != f.GetName() || p[0].GetReason() != "the old site is gone" || p[0].GetDeclaredBy() != "operator/olga" ||
			p[0].GetFailoverPhase() != "completed" || p[0].GetDeadline().AsTime().Sub(p[0].GetSince().AsTime()) != 10*time.Second {
			t.Errorf("preempting: %v", p)
		}
		for o := range s.state().ObjectsOf(last().GetInstances()[0].GetHost()) {
			told := model.Effective(o).GetInstance().GetPreemption()
			if o.GetLease() == name && (told.GetFailover() != f.GetName() || told.GetReason() != "the old site is gone" || told.GetDeclaredBy() != "operator/olga") {
				t.Errorf("the order of %s says %v", o.GetId(), told)
			}
		}
		s.over(f.GetName())
		s.until("the watch shows that it is back", 5*time.Minute, func() bool { return last().GetPhase() == pb.LeasePhase_LEASE_PHASE_ACTIVE })
		if l := last(); l.GetReturnedAt() == nil || len(l.GetPreempting()) != 0 {
			t.Errorf("back: %v", l)
		}
		for o := range s.state().Objects() {
			if told := model.Effective(o).GetInstance().GetPreemption(); told != nil {
				t.Errorf("%s is still told of %v", o.GetId(), told)
			}
		}
	})
}

// A lease for a time to come waits through the loss of the leader, starts then and not before, and has its whole term.
func TestLeaseForATimeToCome(t *testing.T) {
	bubble(t, 3, func(s *site) {
		start := time.Now().Add(10 * time.Minute)
		req := &pb.CreateLeaseRequest{RequestId: s.request(), Project: "web", StartAt: timestamppb.New(start), Spec: &pb.LeaseSpec{
			Count: 1, Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30}, Image: "debian-12", Term: durationpb.New(time.Hour),
		}}
		var l *pb.Lease
		s.call(func(ctx context.Context, c *grpc.ClientConn) error {
			resp, err := pb.NewLeaseServiceClient(c).CreateLease(ctx, req)
			l = resp.GetLease()
			return err
		})
		if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_QUEUED || l.GetQueue().GetPosition() != 0 || !strings.Contains(l.GetQueue().GetReason(), "starts at") {
			t.Fatalf("it is %v, told %v", l.GetPhase(), l.GetQueue())
		}
		s.crashLeader()
		s.allMembersUp()
		s.ready()
		s.sleep(time.Until(start) - 2*time.Second)
		if p := s.leasePhase(l); p != pb.LeasePhase_LEASE_PHASE_QUEUED {
			t.Errorf("it is %v before its time", p)
		}
		s.until("it runs", time.Minute, func() bool {
			return s.state().Lease(l.GetName()).GetPhase() == leaseActive && s.leaseRuns(s.state().Lease(l.GetName()))
		})
		l = s.state().Lease(l.GetName())
		if began := l.GetCreatedAt().AsTime(); began.Before(start) || began.After(start.Add(5*time.Second)) || !l.GetEndsAt().AsTime().Equal(began.Add(time.Hour)) {
			t.Errorf("asked for %v, it has %v to %v", start, began, l.GetEndsAt().AsTime())
		}
	})
}
