package clustertest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/runbook"
	"github.com/hotspare/hotspare/internal/trust/evidence"
)

// state returns the newest state that a running member holds.
func (s *site) state() *state.State {
	var best *state.State
	for _, m := range s.members {
		if m.up && (best == nil || m.c.State().Index() > best.Index()) {
			best = m.c.State()
		}
	}
	return best
}

func (s *site) snapshot(m *member) string {
	var b bytes.Buffer
	s.must(m.c.State().WriteSnapshot(&b))
	return b.String()
}

// lease asks for VMs, and waits until they run; change may alter what is asked for.
func (s *site) lease(count, vcpus uint32, gib uint64, change func(*pb.LeaseSpec)) *pb.Lease {
	s.t.Helper()
	l, err := s.tryLease(count, vcpus, gib, change)
	s.must(err)
	return l
}

func (s *site) tryLease(count, vcpus uint32, gib uint64, change func(*pb.LeaseSpec)) (*pb.Lease, error) {
	s.t.Helper()
	spec := &pb.LeaseSpec{
		Count: count, Resources: &pb.Resources{Vcpus: vcpus, MemoryBytes: gib << 30}, Image: "debian-12", Term: durationpb.New(8 * time.Hour),
	}
	if change != nil {
		change(spec)
	}
	req := &pb.CreateLeaseRequest{RequestId: s.request(), Project: "web", Spec: spec}
	var l *pb.Lease
	err := s.try(func(ctx context.Context, c *grpc.ClientConn) error {
		resp, err := pb.NewLeaseServiceClient(c).CreateLease(ctx, req)
		l = resp.GetLease()
		return err
	})
	if err != nil {
		return nil, err
	}
	s.until("lease "+l.GetName()+" runs", time.Minute, func() bool { return s.leaseRuns(l) })
	return l, nil
}

// fill lends everything that can be lent: two VMs on each of three hosts.
func (s *site) fill() []*pb.Lease {
	s.t.Helper()
	return []*pb.Lease{s.lease(2, 8, 24, nil), s.lease(2, 8, 24, nil), s.lease(2, 8, 24, nil)}
}

func (s *site) leaseRuns(l *pb.Lease) bool {
	return !slices.ContainsFunc(l.GetInstances(), func(i *pb.LeaseInstance) bool {
		g, ok := s.world.hosts[i.GetHost()].Guest(model.ObjectID(i.GetObject()))
		return !ok || !g.Running
	})
}

// declare declares and returns the run that answers.
func (s *site) declare(plans ...string) *pb.Failover {
	s.t.Helper()
	req := &pb.DeclareRequest{RequestId: s.request(), Plans: plans, Reason: "the old site is gone"}
	var f *pb.Failover
	s.call(func(ctx context.Context, c *grpc.ClientConn) error {
		resp, err := pb.NewFailoverServiceClient(c).Declare(ctx, req)
		f = resp.GetFailover()
		return err
	})
	return f
}

// failback begins the way back, with what was written here or without.
func (s *site) failback(name string, discard bool) {
	s.t.Helper()
	req := &pb.FailbackRequest{RequestId: s.request(), Name: name, Reason: "over", DiscardRecoveryData: discard}
	s.call(func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewFailoverServiceClient(c).Failback(ctx, req)
		return err
	})
}

func (s *site) control(name string, action pb.ControlAction, step string) error {
	req := &pb.ControlRequest{RequestId: s.request(), Name: name, Action: action, Step: step, Reason: "test"}
	return s.try(func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewFailoverServiceClient(c).Control(ctx, req)
		return err
	})
}

func (s *site) phase(name string) pb.RunPhase { return s.state().Failover(name).GetPhase() }

// runLimit bounds the wait for a run.
const runLimit = 10 * time.Minute

func (s *site) reaches(name string, want pb.RunPhase, limit time.Duration) {
	s.t.Helper()
	if s.within(limit, func() bool { return s.phase(name) == want }) {
		return
	}
	f := s.state().Failover(name)
	for _, st := range f.GetSteps() {
		s.t.Logf("step %s on %s: %v %s", st.GetId(), st.GetAgent(), st.GetPhase(), st.GetMessage())
	}
	s.t.Fatalf("%s is %v after %v, not %v", name, f.GetPhase(), limit, want)
}

func (s *site) completes(name string) {
	s.t.Helper()
	s.reaches(name, pb.RunPhase_RUN_PHASE_COMPLETED, runLimit)
}

// over fails a run back and waits until everything is as before: with what was written here.
func (s *site) over(name string) {
	s.t.Helper()
	wrote := s.write(name)
	s.failback(name, false)
	s.reaches(name, pb.RunPhase_RUN_PHASE_FAILED_BACK, runLimit)
	s.carried(wrote)
}

// write has every workload of a run write to its promoted volume, and returns how many records each
// production VM's disk must hold in the end.
func (s *site) write(name string) map[string]uint64 {
	s.t.Helper()
	out := map[string]uint64{}
	for _, st := range s.state().Failover(name).GetSteps() {
		volume := model.ObjectID(st.GetObject()).Name()
		src := s.state().Object(string(model.NewObjectID(pb.Kind_KIND_VOLUME, runbook.SourceName(volume))))
		if st.GetKind() != pb.Kind_KIND_VOLUME || st.GetGeneration() == 0 || src == nil {
			continue
		}
		url := "nbd://" + poolAddress + "/" + volume
		has, err := s.world.store.Read(url)
		s.must(err)
		out[src.GetBase().GetVolume().GetDomain()] = has.Records + recordsHere
		s.must(s.world.store.Write(url, has.Records+recordsHere))
	}
	return out
}

// recordsHere is how many records a workload writes at the recovery site: more than its old self would
// have meanwhile.
const recordsHere = 1_000_000

// carried checks that what was written here is at the protected site, and that the VMs there run.
func (s *site) carried(wrote map[string]uint64) {
	s.t.Helper()
	for domain, n := range wrote {
		if has := s.world.east.Records(domain, "vda"); has < n {
			s.t.Errorf("invariant 5, failback: %s has %d records, %d were written here", domain, has, n)
		}
	}
	if len(wrote) > 0 && s.world.east.Starts() == 0 {
		s.t.Errorf("no VM at the protected site was started by an order")
	}
}

// view is what a guest looked like.
type view map[string]sim.GuestView

func (s *site) guests(leases ...*pb.Lease) view {
	out := view{}
	for _, l := range leases {
		for _, i := range l.GetInstances() {
			g, ok := s.world.hosts[i.GetHost()].Guest(model.ObjectID(i.GetObject()))
			if ok {
				out[i.GetObject()] = g
			}
		}
	}
	return out
}

// kept waits until the leases run again and compares: same RAM, and it went on counting (6). Guests in
// except may have been booted anew, for a stated reason.
func (s *site) kept(before view, leases []*pb.Lease, except ...string) {
	s.t.Helper()
	for _, l := range leases {
		s.until("lease "+l.GetName()+" is back", 5*time.Minute, func() bool {
			return s.leaseRuns(l) && s.state().Lease(l.GetName()).GetPhase() == pb.LeasePhase_LEASE_PHASE_ACTIVE
		})
		now := s.state().Lease(l.GetName())
		if d := cmp.Diff(places(l), places(now)); d != "" {
			s.t.Errorf("invariant 6, leases: %s came back elsewhere: %s", l.GetName(), d)
		}
	}
	after := s.guests(leases...)
	for object, was := range before {
		is := after[object]
		if slices.Contains(except, object) {
			continue
		}
		if is.BootID != was.BootID || is.Counter < was.Counter {
			s.t.Errorf("invariant 6, leases: the RAM of %s was lost: boot %s counter %d, before %s %d", object, is.BootID, is.Counter, was.BootID, was.Counter)
		}
	}
}

func places(l *pb.Lease) []string {
	var out []string
	for _, i := range l.GetInstances() {
		out = append(out, i.GetObject()+" "+i.GetHost()+" "+i.GetMac()+" "+i.GetAddress())
	}
	return out
}

// finish brings everything up, waits until nothing moves, and checks the invariants.
func (s *site) finish() {
	s.t.Helper()
	for _, p := range s.world.unsprung() {
		s.t.Errorf("nobody came to %+v: the scenario did not do what it says", p)
	}
	for _, n := range s.names {
		s.heal(n)
		if !s.members[n].up {
			s.restart(n)
		}
	}
	for _, n := range s.world.agents() {
		s.healAgent(n)
		if !s.agents[n].up {
			s.startAgent(n)
		}
	}
	s.until("a leader that sees all agents", time.Minute, func() bool {
		l := s.leader()
		if l == nil {
			return false
		}
		for _, n := range s.world.agents() {
			if !l.c.Live().Agent(n).Full {
				return false
			}
		}
		return true
	})
	s.settled()
	s.world.watch.look("at the end")
	s.promotions()
	s.once()
	s.nothingLeft()
	s.evidence()
	s.sameStates()
}

// settled waits until every object of an agent that is not held is in its effective state.
func (s *site) settled() {
	s.t.Helper()
	unsettled := ""
	if s.within(5*time.Minute, func() bool {
		l := s.leader()
		if l == nil {
			return false
		}
		for _, t := range s.world.fence.Targets() {
			if s.world.fence.Fences(t) == 0 && !s.world.fence.Alive(t) {
				return false // The people at the old site have not come by yet.
			}
		}
		for o := range l.c.State().Objects() {
			if v := l.c.Live(); !v.Settled(o) && v.Agent(o.GetAgent()).Held == "" {
				unsettled = o.String() + "\n" + v.Raw(o.GetId()).String()
				return false
			}
		}
		return true
	}) {
		return
	}
	s.t.Errorf("an object does not come to rest: %s", unsettled)
}

// once checks that nobody was preempted more often than there were runs (7).
func (s *site) once() {
	for l := range s.state().Leases() {
		runs := map[string]int{}
		for f := range s.state().Failovers() {
			for _, v := range f.GetVictims() {
				if v.GetLease() == l.GetName() {
					runs[v.GetObject()]++
				}
			}
		}
		for _, i := range l.GetInstances() {
			h := s.world.hosts[i.GetHost()].History()[model.ObjectID(i.GetObject())]
			ended := 0
			if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ACTIVE {
				ended = 1
			}
			if h.Saves > runs[i.GetObject()]+ended {
				s.t.Errorf("invariant 7, once: %s was saved %d times in %d runs", i.GetObject(), h.Saves, runs[i.GetObject()])
			}
			if h.Restores > h.Saves {
				s.t.Errorf("a RAM image is used once: %s was restored %d times of %d saves", i.GetObject(), h.Restores, h.Saves)
			}
		}
	}
}

// nothingLeft checks that no closed run left anything (5).
func (s *site) nothingLeft() {
	open := map[uint64]bool{}
	for f := range s.state().OpenFailovers() {
		open[f.GetEpoch()] = true
	}
	for o := range s.state().Objects() {
		for _, v := range o.GetOverrides() {
			if !open[v.GetEpoch()] {
				s.t.Errorf("invariant 5, failback: %s still has an override of epoch %d", o.GetId(), v.GetEpoch())
			}
		}
		if o.GetMadeBy() != 0 && !open[o.GetMadeBy()] {
			s.t.Errorf("invariant 5, failback: %s made by epoch %d is still there", o.GetId(), o.GetMadeBy())
		}
	}
	for _, line := range s.world.inventory() {
		if len(open) == 0 && (strings.Contains(line, "instance/webshop-") || strings.Contains(line, "instance/billing-") || strings.Contains(line, "br-prod")) {
			s.t.Errorf("invariant 5, failback: left outside: %s", line)
		}
	}
}

// evidence verifies the chain of decisions as an auditor would, from an export (8).
func (s *site) evidence() {
	s.t.Helper()
	var all []*pb.Evidence
	for {
		var page []*pb.Evidence
		s.call(func(ctx context.Context, c *grpc.ClientConn) error {
			resp, err := pb.NewSiteServiceClient(c).ListEvidence(ctx, &pb.ListEvidenceRequest{AfterSequence: uint64(len(all)), PageSize: 500})
			page = resp.GetEntries()
			return err
		})
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
	}
	last, err := evidence.VerifyChain(all)
	if err != nil {
		s.t.Errorf("invariant 8, evidence: %v", err)
	}
	if len(all) == 0 || !bytes.Equal(last, all[len(all)-1].GetHash()) {
		s.t.Errorf("invariant 8, evidence: %d entries", len(all))
	}
	declared := 0
	for _, e := range all {
		if e.GetAction() == "declare" {
			declared++
		}
	}
	if runs := s.state().Meta().GetLastEpoch(); uint64(declared) != runs {
		s.t.Errorf("invariant 8, evidence: %d declarations for %d runs", declared, runs)
	}
}
