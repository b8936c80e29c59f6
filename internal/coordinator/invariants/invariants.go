// Package invariants judges the ten invariants of the design on a live site: by the replicated state, and by
// what the leader sees of the agents now. It decides whether each holds, is violated, or cannot be judged from
// there, and never mends anything. Pure; the RPC handlers call it.
package invariants

import (
	"fmt"
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/coordinator/state/witness"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/trust/evidence"
)

// maxDetails bounds what is told of one invariant.
const maxDetails = 20

// check judges one invariant.
type check struct {
	s *state.State
	v live.View
	// wrong is what violates it, unknown why it cannot be judged.
	wrong, unknown []string
	// seen counts what was looked at.
	seen int
}

func (c *check) violated(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// Check judges all ten, in the order of the design.
func Check(s *state.State, v live.View) []*pb.InvariantVerdict {
	var out []*pb.InvariantVerdict
	for i, one := range []struct {
		name  string
		of    string
		judge func(*check)
	}{
		{"single run", "VMs", singleRun},
		{"guarantee", "certificates", proven},
		{"capacity", "hosts", capacity},
		{"order", "statuses", order},
		{"exact failback", "overrides", exactFailback},
		{"leases are kept", "VMs of leases", leasesKept},
		{"once", "preemptions", once},
		{"evidence", "entries", chain},
		{"isolation", "network cards", isolation},
		{"promotion", "promoted volumes", promotion},
	} {
		c := &check{s: s, v: v}
		one.judge(c)
		verdict := &pb.InvariantVerdict{Number: uint32(i + 1), Name: one.name}
		switch {
		case len(c.wrong) > 0:
			verdict.Result, verdict.Details = pb.InvariantResult_INVARIANT_RESULT_VIOLATED, c.wrong
		case len(c.unknown) > 0:
			verdict.Result, verdict.Details = pb.InvariantResult_INVARIANT_RESULT_NOT_JUDGED, c.unknown
		default:
			verdict.Result = pb.InvariantResult_INVARIANT_RESULT_HOLDS
			verdict.Details = []string{fmt.Sprintf("%d %s", c.seen, one.of)}
		}
		if n := len(verdict.GetDetails()); n > maxDetails {
			verdict.Details = append(verdict.Details[:maxDetails:maxDetails], fmt.Sprintf("and %d more", n-maxDetails))
		}
		out = append(out, verdict)
	}
	return out
}

// singleRun: no workload runs twice, by order or as it is seen, and none runs before its old self is proven dead.
func singleRun(c *check) {
	at := map[string]string{}
	for f := range c.s.Failovers() {
		for _, p := range f.GetPlacements() {
			o := c.s.Object(p.GetObject())
			seen := c.v.Raw(p.GetObject()).GetState() == pb.State_STATE_RUNNING
			if o == nil || !seen && model.Effective(o).GetState() != pb.State_STATE_RUNNING {
				continue
			}
			c.seen++
			key := p.GetPlan() + "/" + p.GetWorkload()
			if other, twice := at[key]; twice {
				c.violated("%s runs as %s and as %s", key, other, o.GetId())
			}
			at[key] = o.GetId()
		}
	}
	c.fenced(pb.Kind_KIND_INSTANCE)
}

// promotion: no volume is promoted before its old side is fenced or sworn dead.
func promotion(c *check) { c.fenced(pb.Kind_KIND_VOLUME) }

// fenced: what was let go of a kind waited for evidence of its own epoch, or for an oath; a VM with disks waits
// for these, which are promoted only then.
func (c *check) fenced(kind pb.Kind) {
	for f := range c.s.OpenFailovers() {
		if model.Reverting(f.GetPhase()) {
			continue // Its fences are lifted in their turn.
		}
		done := map[string]bool{}
		for _, s := range f.GetSteps() {
			if s.GetKind() == pb.Kind_KIND_FENCE || s.GetKind() == pb.Kind_KIND_VOLUME && kind == pb.Kind_KIND_INSTANCE {
				done[s.GetId()] = s.GetPhase() == pb.StepPhase_STEP_PHASE_DONE
			}
		}
		for _, s := range f.GetSteps() {
			if s.GetKind() != kind || s.GetWayBack() || s.GetPhase() != pb.StepPhase_STEP_PHASE_RELEASED && s.GetPhase() != pb.StepPhase_STEP_PHASE_DONE {
				continue
			}
			if kind == pb.Kind_KIND_VOLUME {
				c.seen++
			}
			for _, g := range s.GetGates() {
				if !opened(f, g, done) {
					c.violated("%s of %s was let go, and its old side is neither fenced nor sworn dead", s.GetId(), f.GetName())
				}
			}
		}
	}
}

// opened says whether a gate that asks for evidence has it; other gates are not judged.
func opened(f *pb.Failover, g *pb.Gate, done map[string]bool) bool {
	asks := false
	for _, a := range g.GetAnyOf() {
		if plan := a.GetOath(); plan != "" {
			asks = true
			if slices.ContainsFunc(f.GetOaths(), func(o *pb.Oath) bool { return o.GetPlan() == plan }) {
				return true
			}
		}
		if is, fence := done[a.GetStepDone()]; fence {
			asks = true
			if is {
				return true
			}
		}
	}
	return !asks
}

// proven: what the site claims holds, by the audit.
func proven(c *check) {
	g := c.s.Guarantee()
	site, fingerprint := demand.Base(demand.Anew(c.s), g.GetSilentHosts())
	switch {
	case g == nil || string(g.GetFingerprint()) != string(fingerprint):
		c.unknown = append(c.unknown, "the site has just changed and is being proven again")
	default:
		c.seen = min(1, len(g.GetCertificate().GetScenarios()))
		if err := witness.Verify(site, g); err != nil {
			c.violated("%v", err)
		}
	}
}

// capacity: what runs on a host, as it is ordered, fits it.
func capacity(c *check) {
	site := demand.Site(demand.Anew(c.s), c.v.Silent())
	used := map[string]guarantee.Vector{}
	add := func(host string, v guarantee.Vector) {
		if used[host] == nil {
			used[host] = make(guarantee.Vector, len(site.Dimensions))
		}
		for d := range site.Dimensions {
			used[host][d] = guarantee.Add(used[host][d], v.At(d))
		}
	}
	for i := range site.Workloads {
		add(site.Workloads[i].Host, site.Workloads[i].Demand)
	}
	for _, lent := range [][]guarantee.Instance{site.Firm, site.Preemptible} {
		for i := range lent {
			if lent[i].Held {
				add(lent[i].Host, lent[i].Residue)
			} else {
				add(lent[i].Host, lent[i].Demand)
			}
		}
	}
	for i := range site.Hosts {
		h := &site.Hosts[i]
		c.seen++
		for d, name := range site.Dimensions {
			if sum := used[h.Name].At(d); sum > h.Capacity.At(d) {
				c.violated("%s is to run %s and has %s", h.Name, guarantee.Quantity(name, sum), guarantee.Quantity(name, h.Capacity.At(d)))
			}
		}
	}
}

// order: no agent answers an order that was never given.
func order(c *check) {
	for o := range c.s.Objects() {
		st := c.v.Raw(o.GetId())
		if st == nil {
			continue
		}
		c.seen++
		given := model.OrderKey{Era: c.s.Meta().GetEra(), Generation: o.GetGeneration()}
		if acts := (model.OrderKey{Era: st.GetEra(), Generation: st.GetGeneration()}); given.Compare(acts) < 0 {
			c.violated("%s of %s acts on order (%d, %d), the newest is (%d, %d)", o.GetId(), o.GetAgent(), acts.Era, acts.Generation, given.Era, given.Generation)
		}
	}
}

// exactFailback: nothing is left in force of a run that is over.
func exactFailback(c *check) {
	for o := range c.s.Objects() {
		for _, over := range o.GetOverrides() {
			c.seen++
			f := c.s.Failover(state.FailoverName(over.GetEpoch()))
			if !model.Open(f.GetPhase()) {
				c.violated("%s is still overridden by %s, which is over", o.GetId(), state.FailoverName(over.GetEpoch()))
			}
		}
		if e := o.GetMadeBy(); e > 0 && !model.Open(c.s.Failover(state.FailoverName(e)).GetPhase()) {
			c.violated("%s is left of %s, which is over", o.GetId(), state.FailoverName(e))
		}
	}
}

// leasesKept: what a lease consists of is there, and is to stay.
func leasesKept(c *check) {
	for l := range c.s.Leases() {
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_DELETING || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST {
			continue
		}
		for _, i := range l.GetInstances() {
			c.seen++
			if o := c.s.Object(i.GetObject()); model.Effective(o).GetState() == pb.State_STATE_ABSENT || o == nil {
				c.violated("%s of lease %s, which is %s, is to be deleted", i.GetObject(), l.GetName(), l.GetPhase())
			}
		}
	}
}

// once: a lease is preempted by open runs only, and by each once.
func once(c *check) {
	for l := range c.s.Leases() {
		epochs := slices.Sorted(slices.Values(l.GetPreemptedBy()))
		c.seen += len(epochs)
		if len(slices.Compact(slices.Clone(epochs))) < len(epochs) {
			c.violated("lease %s is preempted twice by one failover: %v", l.GetName(), epochs)
		}
		for _, e := range epochs {
			if name := state.FailoverName(e); !model.Open(c.s.Failover(name).GetPhase()) {
				c.violated("lease %s is preempted by %s, which is over", l.GetName(), name)
			}
		}
	}
}

// chain: the log of evidence follows from its beginning, as far as it is kept here.
func chain(c *check) {
	var all []*pb.Evidence
	for e := range c.s.Evidence(0) {
		all = append(all, e)
	}
	c.seen = len(all)
	if _, err := evidence.VerifyChain(all); err != nil {
		c.violated("%v", err)
	}
}

// isolation: lent VMs have cards on lent networks only, and protected ones on none of those.
func isolation(c *check) {
	for o := range c.s.Objects() {
		for _, spec := range []*pb.Spec{o.GetBase(), model.Effective(o)} {
			lent := spec.GetInstance().GetBand() == pb.Band_BAND_LENT
			for _, n := range spec.GetInstance().GetNics() {
				c.seen++
				role := c.s.Resource("network/" + n.GetNetwork()).GetNetwork().GetSpec().GetRole()
				if lent != (role == pb.NetworkRole_NETWORK_ROLE_LENT) {
					c.violated("%s has a card on network %s, which is %s", o.GetId(), n.GetNetwork(), role)
				}
			}
		}
	}
}
