package state

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

func (t *tx) lease(name string) (*pb.Lease, error) {
	l := t.Lease(name)
	if l == nil {
		return nil, model.Errorf(model.FaultNotFound, "lease/"+name, "no such lease").WithRemedy("see: hotspare lease list")
	}
	return edit(l), nil
}

func (t *tx) createLease(c *pb.CreateLease) (string, error) {
	l := edit(c.GetLease())
	if t.Lease(l.GetName()) != nil {
		return "", model.Errorf(model.FaultStale, "lease/"+l.GetName(), "the name was taken meanwhile")
	}
	p := t.Resource("project/" + l.GetProject()).GetProject()
	if p == nil {
		return "", model.Errorf(model.FaultNotFound, "project/"+l.GetProject(), "no such project").WithRemedy("see: hotspare get project")
	}
	l.CreatedAt = t.stamp()
	what := "create lease"
	if c.GetQueued() {
		if len(l.GetInstances())+len(c.GetObjects()) > 0 {
			return "", model.Errorf(model.FaultInvalid, "lease/"+l.GetName(), "waits in the queue and has VMs already")
		}
		if err := model.CheckQueue(p, t.Leases()); err != nil {
			return "", err
		}
		what, l.Phase = "queue lease", pb.LeasePhase_LEASE_PHASE_QUEUED
	} else if err := t.begin(l, c.GetObjects()); err != nil {
		return "", err
	}
	t.meta.LeaseCounter++
	t.putLease(l)
	t.record(&pb.Evidence{Action: what, Object: "lease/" + l.GetName()})
	return l.GetName(), nil
}

// startLease ends the wait of a queued lease.
func (t *tx) startLease(c *pb.StartLease) (string, error) {
	l, err := t.lease(c.GetLease())
	if err != nil {
		return "", err
	}
	key := "lease/" + l.GetName()
	switch {
	case l.GetPhase() != pb.LeasePhase_LEASE_PHASE_QUEUED:
		return "", model.Errorf(model.FaultStale, key, "does not wait any more")
	case l.GetStartAt() != nil && t.now.Before(l.GetStartAt().AsTime()):
		return "", model.Errorf(model.FaultStale, key, "its time has not come")
	case len(c.GetInstances()) != int(l.GetSpec().GetCount()):
		return "", model.Errorf(model.FaultInvalid, key, "is for %d VMs, not for %d", l.GetSpec().GetCount(), len(c.GetInstances()))
	}
	l.Instances = c.GetInstances()
	l.QueuedAt, l.CreatedAt = l.GetCreatedAt(), t.stamp() // What its VMs have not saved they do from now on.
	if err := t.begin(l, c.GetObjects()); err != nil {
		return "", err
	}
	t.putLease(l)
	t.record(&pb.Evidence{Action: "start lease", Object: key})
	return l.GetName(), nil
}

// begin makes a lease active with its objects. Its quota and the room on its hosts are checked once more.
func (t *tx) begin(l *pb.Lease, objects []*pb.Object) error {
	p := t.Resource("project/" + l.GetProject()).GetProject()
	if err := model.CheckQuota(p, t.Leases(), l.GetSpec()); err != nil {
		return err
	}
	for _, o := range objects {
		if t.Object(o.GetId()) != nil {
			return model.Errorf(model.FaultStale, o.GetId(), "exists already")
		}
		if h := t.Host(o.GetAgent()); h == nil || o.GetKind() == pb.Kind_KIND_INSTANCE && (h.GetCordoned() || h.GetQuarantined()) {
			return model.Errorf(model.FaultStale, "host/"+o.GetAgent(), "takes no lease now")
		}
		t.putObject(edit(o))
	}
	for _, i := range l.GetInstances() {
		if err := t.checkRoom(i.GetHost()); err != nil {
			return err
		}
	}
	l.EndsAt = timestamppb.New(t.now.Add(l.GetSpec().GetTerm().AsDuration()))
	l.Phase = pb.LeasePhase_LEASE_PHASE_ACTIVE
	t.setTermEnd(l)
	t.touchPlacement()
	return nil
}

// checkRoom re-checks that what may run on a host fits it (R3), the claims of preempted leases
// included: they come back. It costs one pass over the host's objects.
func (t *tx) checkRoom(host string) error {
	h := t.Host(host)
	use := model.HostUse(h, t.ObjectsOf(host))
	for o := range t.ObjectsOf(host) {
		if t.promised(o) {
			use.Add(h, o.GetBase().GetInstance())
		}
	}
	if !use.Fits() {
		return model.Errorf(model.FaultStale, "host/"+host, "has no room left")
	}
	return nil
}

// promised says whether an open run has placed an instance whose start is not released yet.
func (t *tx) promised(o *pb.Object) bool {
	if o.GetKind() != pb.Kind_KIND_INSTANCE || o.GetMadeBy() == 0 || model.Effective(o).GetState() == pb.State_STATE_RUNNING {
		return false
	}
	f := t.Failover(FailoverName(o.GetMadeBy()))
	return f != nil && model.Open(f.GetPhase()) && !model.Reverting(f.GetPhase())
}

// setTermEnd gives the lease's instances the end of its term, which agents enforce (R12).
func (t *tx) setTermEnd(l *pb.Lease) {
	for _, i := range l.GetInstances() {
		t.editObject(i.GetObject(), func(o *pb.Object) {
			if is := o.GetBase().GetInstance(); is != nil {
				is.TermEnd = l.GetEndsAt()
			}
		})
	}
}

func (t *tx) extendLease(c *pb.ExtendLeaseRequest) (string, error) {
	l, err := t.lease(c.GetName())
	if err != nil {
		return "", err
	}
	key := "lease/" + l.GetName()
	switch l.GetPhase() {
	case pb.LeasePhase_LEASE_PHASE_ACTIVE, pb.LeasePhase_LEASE_PHASE_PREEMPTED, pb.LeasePhase_LEASE_PHASE_RETURNING:
	case pb.LeasePhase_LEASE_PHASE_QUEUED:
		return "", model.Errorf(model.FaultPrecondition, key, "waits in the queue: its term begins when it starts").
			WithRemedy("release it and ask for a longer --term")
	default:
		return "", model.Errorf(model.FaultPrecondition, key, "ended: %s", l.GetReason()).
			WithRemedy("bring it back with: hotspare lease undelete %s", l.GetName())
	}
	ends := l.GetEndsAt().AsTime().Add(c.GetBy().AsDuration())
	from := t.now
	if l.GetPreemptedAt() != nil {
		from = l.GetPreemptedAt().AsTime()
	}
	p := t.Resource("project/" + l.GetProject()).GetProject()
	if longest := p.GetSpec().GetLongestTerm().AsDuration(); longest > 0 && ends.Sub(from) > longest {
		return "", model.Errorf(model.FaultQuota, key, "would run %s from now, project %s allows %s",
			ends.Sub(from).Round(time.Minute), l.GetProject(), longest)
	}
	l.EndsAt = timestamppb.New(ends)
	t.setTermEnd(l)
	t.putLease(l)
	t.record(&pb.Evidence{Action: "extend lease", Object: key})
	return l.GetName(), nil
}

func (t *tx) endLease(c *pb.EndLease) (string, error) {
	l, err := t.lease(c.GetLease())
	if err != nil {
		return "", err
	}
	switch l.GetPhase() {
	case pb.LeasePhase_LEASE_PHASE_ENDED, pb.LeasePhase_LEASE_PHASE_DELETING, pb.LeasePhase_LEASE_PHASE_LOST:
		return l.GetName(), nil
	default:
	}
	after := c.GetDeleteAfter()
	if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_QUEUED {
		after = t.stamp() // There is nothing to keep.
	}
	l.Phase, l.Reason, l.DeleteAfter = pb.LeasePhase_LEASE_PHASE_ENDED, c.GetReason(), after
	for _, i := range l.GetInstances() {
		t.setBaseState(i.GetObject(), endState(l.GetSpec().GetOnPreempt()))
	}
	t.putLease(l)
	t.touchPlacement()
	t.record(&pb.Evidence{Action: "end lease", Object: "lease/" + l.GetName(), Reason: c.GetReason()})
	return l.GetName(), nil
}

// endState is where an ended instance waits for its deletion: with its RAM when the lease saves it.
func endState(a pb.ReclaimAction) pb.State {
	if a == pb.ReclaimAction_RECLAIM_ACTION_SAVE {
		return pb.State_STATE_SAVED
	}
	return pb.State_STATE_STOPPED
}

func (t *tx) setBaseState(object string, s pb.State) {
	t.editObject(object, func(o *pb.Object) {
		if o.Base == nil {
			o.Base = &pb.Spec{}
		}
		o.Base.State = s
	})
}

// undeleteTerm is how long an undeleted lease whose term has passed runs on.
const undeleteTerm = time.Hour

func (t *tx) undeleteLease(c *pb.UndeleteLeaseRequest) (string, error) {
	l, err := t.lease(c.GetName())
	if err != nil {
		return "", err
	}
	key := "lease/" + l.GetName()
	if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ENDED {
		return "", model.Errorf(model.FaultPrecondition, key, "has not ended")
	}
	if len(l.GetInstances()) == 0 {
		return "", model.Errorf(model.FaultPrecondition, key, "had not started, so that there is nothing to bring back").WithRemedy("create it again")
	}
	p := t.Resource("project/" + l.GetProject()).GetProject()
	if err := model.CheckQuota(p, t.Leases(), l.GetSpec()); err != nil {
		return "", err
	}
	l.Phase, l.Reason, l.DeleteAfter = pb.LeasePhase_LEASE_PHASE_ACTIVE, "", nil
	if len(l.GetPreemptedBy()) > 0 {
		l.Phase = pb.LeasePhase_LEASE_PHASE_PREEMPTED
	}
	if !l.GetEndsAt().AsTime().After(t.now) {
		l.EndsAt = timestamppb.New(t.now.Add(undeleteTerm))
	}
	for _, i := range l.GetInstances() {
		t.setBaseState(i.GetObject(), pb.State_STATE_RUNNING)
	}
	t.setTermEnd(l)
	for _, i := range l.GetInstances() {
		if h := t.Host(i.GetHost()); h.GetCordoned() || h.GetQuarantined() {
			return "", model.Errorf(model.FaultNoFit, key, "its host %s is closed now", i.GetHost()).WithRemedy("try again later; its disks are kept until then")
		}
		if err := t.checkRoom(i.GetHost()); err != nil {
			return "", model.Errorf(model.FaultNoFit, key, "its host has no room now").WithRemedy("try again later; its disks are kept until then")
		}
	}
	t.putLease(l)
	t.touchPlacement()
	t.record(&pb.Evidence{Action: "undelete lease", Object: key})
	return l.GetName(), nil
}

func (t *tx) deleteLease(c *pb.DeleteLease) (string, error) {
	l, err := t.lease(c.GetLease())
	if err != nil {
		return "", err
	}
	over := l.GetPhase() == pb.LeasePhase_LEASE_PHASE_ENDED || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST
	if !over || t.now.Before(l.GetDeleteAfter().AsTime()) {
		return "", model.Errorf(model.FaultPrecondition, "lease/"+l.GetName(), "its retention time has not passed")
	}
	l.Phase = pb.LeasePhase_LEASE_PHASE_DELETING
	for _, i := range l.GetInstances() {
		t.setBaseState(i.GetObject(), pb.State_STATE_ABSENT)
		t.setBaseState(i.GetVolume(), pb.State_STATE_ABSENT)
	}
	t.putLease(l)
	t.record(&pb.Evidence{Action: "delete lease", Object: "lease/" + l.GetName()})
	t.forgetLease(l.GetName()) // Nothing may be left of one whose host was lost.
	return l.GetName(), nil
}

func (t *tx) returnLease(c *pb.ReturnLease) (string, error) {
	l, err := t.lease(c.GetLease())
	if err != nil {
		return "", err
	}
	if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_RETURNING {
		return l.GetName(), nil
	}
	l.Phase, l.ReturnedAt = pb.LeasePhase_LEASE_PHASE_ACTIVE, t.stamp()
	t.putLease(l)
	return l.GetName(), nil
}

// preempt marks the lease of a victim; its term stands still from now (R12).
func (t *tx) preempt(name string, epoch uint64) {
	l := t.Lease(name)
	if l == nil || slices.Contains(l.GetPreemptedBy(), epoch) {
		return
	}
	l = edit(l)
	l.PreemptedBy = append(l.PreemptedBy, epoch)
	if l.GetPreemptedAt() == nil {
		l.PreemptedAt = t.stamp()
		l.Preemptions++
	}
	if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_ACTIVE || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_RETURNING {
		l.Phase = pb.LeasePhase_LEASE_PHASE_PREEMPTED
	}
	t.putLease(l)
}

// giveBack ends one epoch's preemption of a lease; with the last one the term goes on.
func (t *tx) giveBack(name string, epoch uint64) {
	l := t.Lease(name)
	if l == nil || !slices.Contains(l.GetPreemptedBy(), epoch) {
		return
	}
	for _, i := range l.GetInstances() {
		for _, v := range t.Object(i.GetObject()).GetOverrides() {
			if v.GetEpoch() == epoch {
				return // A sister instance is still held: a lease returns as a unit.
			}
		}
	}
	l = edit(l)
	l.PreemptedBy = slices.DeleteFunc(l.PreemptedBy, func(e uint64) bool { return e == epoch })
	if len(l.PreemptedBy) == 0 {
		stood := t.now.Sub(l.GetPreemptedAt().AsTime())
		l.EndsAt = timestamppb.New(l.GetEndsAt().AsTime().Add(stood))
		l.PreemptedAt = nil
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_PREEMPTED {
			l.Phase = pb.LeasePhase_LEASE_PHASE_RETURNING
		}
		t.setTermEnd(l)
	}
	t.putLease(l)
	t.touchPlacement()
}
