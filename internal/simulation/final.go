package simulation

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/readiness"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/trust/evidence"
)

// final compares what is with what should be, after everything went back and is quiet.
func (s *sim) final() {
	s.checkMembers()
	s.checkEvidence()
	s.checkObjects()
	s.checkResidue()
	s.checkLeasesBack()
	s.checkOutside()
	s.checkReadiness()
}

// checkMembers: the same log makes the same state, byte for byte, on every member, restored or not.
func (s *sim) checkMembers() {
	want := snapshotOf(s, s.state)
	for _, m := range s.members {
		m.catchUp()
		if !bytes.Equal(snapshotOf(s, m.st), want) {
			s.fail("R1 same state", "member %s has another state than the log makes", m.name)
		}
	}
}

func (s *sim) checkEvidence() {
	var all []*pb.Evidence
	for e := range s.state.Evidence(0) {
		all = append(all, e)
	}
	if _, err := evidence.VerifyChain(all); err != nil {
		s.fail("8 evidence", "%v", err)
	}
}

// checkObjects: every object really is what its effective spec says.
func (s *sim) checkObjects() {
	for o := range s.state.Objects() {
		want := model.Effective(o).GetState()
		if is := s.really(o); !model.Satisfies(o.GetKind(), is, want) {
			s.fail("5 exact failback", "%s is %s, its spec says %s", o.GetId(), model.StateName(is), model.StateName(want))
		}
		if len(o.GetOverrides()) > 0 || o.GetMadeBy() != 0 && want == pb.State_STATE_ABSENT {
			s.fail("5 exact failback", "%s is left of epoch %d", o.GetId(), o.GetMadeBy())
		}
	}
}

// really is the state of an object in the world.
func (s *sim) really(o *pb.Object) pb.State {
	w, spec := s.world, model.Effective(o)
	switch o.GetKind() {
	case pb.Kind_KIND_INSTANCE:
		if d := w.hosts[o.GetAgent()].domains[model.ObjectID(o.GetId())]; d != nil {
			return d.state()
		}
	case pb.Kind_KIND_VOLUME:
		if spec.GetVolume().GetDomain() != "" {
			return pb.State_STATE_PRIMARY
		}
		p := w.pool
		if o.GetAgent() == oldAgent {
			p = w.home
		}
		if v := p.volumes[spec.GetVolume().GetName()]; v != nil {
			return v.state
		}
	case pb.Kind_KIND_NETWORK:
		if w.hosts[o.GetAgent()].networks[spec.GetNetwork().GetName()] != nil {
			return pb.State_STATE_PRESENT
		}
	case pb.Kind_KIND_ENDPOINT:
		if sdn.SameValues(w.records[recordKey(spec.GetEndpoint().GetDns())], ours(spec.GetEndpoint())) {
			return pb.State_STATE_ANNOUNCED
		}
		return pb.State_STATE_WITHDRAWN
	case pb.Kind_KIND_FENCE:
		if w.fenced(spec.GetFence().GetTarget()) {
			return pb.State_STATE_FENCED
		}
		return pb.State_STATE_OPEN
	default:
	}
	return pb.State_STATE_ABSENT
}

// checkResidue: nothing is in the world that no object stands for, and no ledger names a run.
func (s *sim) checkResidue() {
	for _, name := range s.site.hosts {
		h := s.world.hosts[name]
		for _, id := range h.ids() {
			if s.state.Object(string(id)) == nil {
				s.fail("5 exact failback", "domain %s is left on %s", id, name)
			}
		}
		for _, n := range append(slices.Sorted(maps.Keys(h.networks)), h.left...) {
			if n != "lent" {
				s.fail("5 exact failback", "network %s is left on %s", n, name)
			}
		}
	}
	for _, name := range s.world.pool.names() {
		if s.state.Object(string(volumeID(name))) == nil {
			s.fail("5 exact failback", "volume %s is left in the pool", name)
		}
	}
	for _, name := range s.world.home.names() {
		s.fail("5 exact failback", "volume %s is left in the pool of the protected site", name)
	}
	for _, a := range s.agents {
		for _, e := range a.core.Ledger() {
			if e.Epoch != 0 {
				s.fail("5 exact failback", "the ledger of %s still holds %q of epoch %d", a.name, e.What, e.Epoch)
			}
		}
	}
}

// checkLeasesBack: every lease that was accepted is there, runs if it should, on the disk it had.
func (s *sim) checkLeasesBack() {
	for _, name := range slices.Sorted(maps.Keys(s.checks.leases)) {
		l := s.state.Lease(name)
		if l == nil {
			s.fail("6 leases kept", "lease %s is lost", name)
		}
		for _, i := range l.GetInstances() {
			d := s.world.hosts[i.GetHost()].domains[model.ObjectID(i.GetObject())]
			made := s.checks.disks[i.GetObject()]
			switch {
			case d == nil && made != 0:
				s.fail("6 leases kept", "%s of lease %s is gone", i.GetObject(), name)
			case d != nil && d.disk != made:
				s.fail("6 leases kept", "%s of lease %s has another disk", i.GetObject(), name)
			case l.GetPhase() == pb.LeasePhase_LEASE_PHASE_ACTIVE && (d == nil || !d.running):
				s.fail("6 leases kept", "%s of lease %s does not run", i.GetObject(), name)
			case d != nil && len(d.def.Spec.GetNics()) > 0 && (d.def.Spec.GetNics()[0].GetMac() != i.GetMac() || d.def.Spec.GetNics()[0].GetAddress() != i.GetAddress()):
				s.fail("6 leases kept", "%s of lease %s has another MAC or address", i.GetObject(), name)
			}
		}
	}
}

// checkOutside: every record has the value that people gave it, and nothing is fenced.
func (s *sim) checkOutside() {
	for _, key := range slices.Sorted(maps.Keys(s.world.records)) {
		want := s.checks.byHand[key]
		if want == nil {
			want = &pb.EndpointValue{Values: []string{firstAddress}}
		}
		if has := s.world.records[key]; !sdn.SameValues(has, want) {
			s.fail("5 exact failback", "%s is %v, people gave it %v", key, has.GetValues(), want.GetValues())
		}
	}
	for _, target := range slices.Sorted(maps.Keys(s.world.fences)) {
		if s.world.fenced(target) {
			s.fail("5 exact failback", "%s is still fenced by %v", target, s.world.fences[target])
		}
	}
}

// checkReadiness: on a site where all is well, every plan that fits is ready.
func (s *sim) checkReadiness() {
	m := s.raft.leader
	_, _, proof := readiness.Guarantee(m.st, m.view)
	for p := range m.st.Plans() {
		if r := readiness.Plan(m.st, m.view, p, proof); !r.GetReady() {
			if what := fmt.Sprint(r.GetObstacles()[0].GetWhat()); !slices.Contains([]string{"does not fit: " + proof.Reason}, what) {
				s.fail("readiness", "plan %s on a quiet site: %s: %s", r.GetPlan(), r.GetObstacles()[0].GetObject(), what)
			}
		}
	}
	for _, alarm := range readiness.Alarms(m.st, m.view) {
		s.logf("alarm: %s", alarm)
	}
}
