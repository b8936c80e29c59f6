package state

import (
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// loseHost takes a host's objects out of the site on a named person's word, which stands for the evidence
// that they do not run any more (R10). Open runs place their workloads anew; leases that had a VM there
// are lost. The host stays known, so that its agent is refused should it come back.
func (t *tx) loseHost(c *pb.LoseHost) (string, error) {
	key := "host/" + c.GetHost()
	h := t.Host(c.GetHost())
	switch {
	case h == nil:
		return "", model.Errorf(model.FaultNotFound, key, "no such host").WithRemedy("see: hotspare host list")
	case h.GetLostAt() != nil:
		return "", model.Errorf(model.FaultPrecondition, key, "is lost already: %s", h.GetLostReason())
	case c.GetReason() == "":
		return "", model.Errorf(model.FaultInvalid, key, "the word that a host is lost needs a reason").
			WithRemedy(`for example --reason "the rack burnt"`)
	}
	var gone []*pb.Object
	for o := range t.ObjectsOf(c.GetHost()) {
		if o.GetKind() != pb.Kind_KIND_INSTANCE && o.GetKind() != pb.Kind_KIND_NETWORK {
			return "", model.Errorf(model.FaultPrecondition, key, "keeps %s, which is no VM: only a hypervisor host can be lost this way", o.GetId()).
				WithRemedy("declare its pools, zones and fence targets for another agent first")
		}
		gone = append(gone, o)
	}
	h = edit(h)
	h.LostAt, h.LostReason = t.stamp(), c.GetReason()
	t.putHost(h)
	t.record(&pb.Evidence{Action: "lose", Object: key, Reason: c.GetReason()})
	for _, o := range gone {
		t.dropObject(o)
	}
	for l := range t.Leases() { // Of the version before: each is changed at most once.
		t.loseLease(l, c)
	}
	for f := range t.OpenFailovers() {
		if err := t.loseSteps(edit(f), c); err != nil {
			return "", err
		}
	}
	t.touchPlacement()
	return h.GetName(), nil
}

// loseLease ends a lease that had a VM on the host. What it has elsewhere is stopped and its disks are kept
// for the retention time: a lease is one thing.
func (t *tx) loseLease(l *pb.Lease, c *pb.LoseHost) {
	over := l.GetPhase() == pb.LeasePhase_LEASE_PHASE_DELETING || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST
	if over || !slices.ContainsFunc(l.GetInstances(), func(i *pb.LeaseInstance) bool { return i.GetHost() == c.GetHost() }) {
		return
	}
	l = edit(l)
	l.Phase, l.DeleteAfter = pb.LeasePhase_LEASE_PHASE_LOST, c.GetDeleteAfter()
	l.Reason = "host " + c.GetHost() + " was lost with its disks: " + c.GetReason()
	for _, i := range l.GetInstances() {
		t.setBaseState(i.GetObject(), endState(l.GetSpec().GetOnPreempt()))
	}
	t.putLease(l)
	t.record(&pb.Evidence{Action: "lose lease", Object: "lease/" + l.GetName(), Reason: l.GetReason()})
}

// loseSteps takes what a run had on the host out of it. On the way forward its workloads count as unplaced
// from now on; on the way back nothing is left of them.
func (t *tx) loseSteps(f *pb.Failover, c *pb.LoseHost) error {
	there := func(s *pb.Step) bool { return s.GetAgent() == c.GetHost() }
	if !slices.ContainsFunc(f.GetSteps(), there) {
		return nil
	}
	f.Steps = slices.DeleteFunc(f.Steps, there)
	f.LostHosts = append(f.LostHosts, c.GetHost())
	for _, p := range f.GetPlacements() {
		if p.GetHost() != c.GetHost() {
			continue
		}
		t.record(&pb.Evidence{
			Action: "lose workload", Object: "failover/" + f.GetName(), Reason: p.GetPlan() + "/" + p.GetWorkload() + " on " + p.GetHost(), Epoch: f.GetEpoch(),
		})
		f.Unplaced = append(f.Unplaced, &pb.Unplaced{Plan: p.GetPlan(), Workload: p.GetWorkload(), Reason: "host " + p.GetHost() + " was lost"})
		f.Waiting = t.waitFor(f.Waiting, p.GetPlan(), c)
	}
	f.Placements = slices.DeleteFunc(f.Placements, func(p *pb.Placement) bool { return p.GetHost() == c.GetHost() })
	if model.Reverting(f.GetPhase()) {
		f.Unplaced, f.Waiting = nil, nil
	}
	defer t.putFailover(f)
	if f.GetPhase() == pb.RunPhase_RUN_PHASE_COMPLETED && len(f.GetUnplaced()) > 0 {
		return t.changePhase(f, pb.RunPhase_RUN_PHASE_INCOMPLETE)
	}
	return nil
}

// waitFor adds what a plan says to those by which something is placed later.
func (t *tx) waitFor(list []*pb.Plan, plan string, c *pb.LoseHost) []*pb.Plan {
	named := func(p *pb.Plan) bool { return p.GetMetadata().GetName() == plan }
	if slices.ContainsFunc(list, named) {
		return list
	}
	i := slices.IndexFunc(c.GetPlans(), named)
	if i < 0 {
		return list
	}
	return append(list, c.GetPlans()[i])
}
