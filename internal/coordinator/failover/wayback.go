package failover

import (
	"fmt"
	"slices"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/runbook"
)

// resyncPause keeps a mirror that dies at once from being started over and over.
const resyncPause = 5 * time.Second

// Failback decides the way back of a run. Unless what was written here is to be thrown away, it carries
// every promoted volume back; that this is not possible is an error that says what is missing.
func Failback(s *state.State, f *pb.Failover, reason string, discard bool) (*pb.Failback, []*pb.Expect, error) {
	out := &pb.Failback{Failover: f.GetName(), Reason: reason, DiscardRecoveryData: discard}
	expects := []*pb.Expect{{Key: "failover/" + f.GetName(), Version: f.GetVersion()}}
	if discard || model.Reverting(f.GetPhase()) || !model.Allows(f.GetPhase(), "failback") {
		return out, expects, nil // Apply knows the rest.
	}
	way, err := runbook.Back(runbook.WayInput{Failover: f, Resource: s.Resource, Object: s.Object})
	if err != nil {
		return nil, nil, err
	}
	out.Steps, out.Objects, out.Orders = way.Steps, way.Objects, way.Orders
	return out, expects, nil
}

// carryBack moves the steps of the way back: those that were reached are done, those whose gates are
// open are released, and a mirror that died is begun anew.
func (r *run) carryBack() {
	for _, st := range r.f.GetSteps() {
		if !st.GetWayBack() {
			if len(st.GetBackAfter()) > 0 && orderedNow(st.GetPhase()) {
				r.see(st) // It runs on here, and others may depend on it.
			}
			continue
		}
		switch st.GetPhase() {
		case pb.StepPhase_STEP_PHASE_RELEASED:
			r.arrive(st)
		case pb.StepPhase_STEP_PHASE_PENDING:
			if opener, open := r.gatesOpen(st); open {
				c := r.change(st)
				c.Phase, c.OpenedBy = pb.StepPhase_STEP_PHASE_RELEASED, opener
			} else {
				r.say(st, r.waitsFor(st))
			}
		default:
		}
	}
	for _, st := range r.f.GetSteps() {
		if st.GetWayBack() && st.GetSpec().GetState() == pb.State_STATE_REPLICA {
			r.renew(st)
		}
	}
}

// arrive takes what is seen of a released step of the way back.
func (r *run) arrive(st *pb.Step) {
	o := r.s.Object(st.GetObject())
	status := r.v.Current(o)
	settled := status.GetGeneration() >= st.GetGeneration() && status.GetPhase() == pb.Phase_PHASE_SETTLED
	if settled && reachedBack(st.GetSpec().GetVolume(), st.GetSpec().GetState(), status) {
		c := r.change(st)
		c.Phase, c.Message = pb.StepPhase_STEP_PHASE_DONE, status.GetNote()
		c.CallBegan, c.CallReturned = status.GetCallBegan(), status.GetCallReturned()
		return
	}
	agent := r.v.Agent(st.GetAgent())
	switch v := status.GetVolume(); {
	case r.unknown(st.GetAgent()):
	case !agent.Connected:
		r.say(st, "agent "+st.GetAgent()+" is not connected")
	case !settled && status.GetPhase() != pb.Phase_PHASE_WORKING:
		r.say(st, status.GetMessage())
	case !settled:
	case v.GetDegradedSince() != nil && !v.GetMirroring():
		r.say(st, v.GetDegradedReason())
	case st.GetSpec().GetVolume().GetMirrorTo() != "" && v.GetMirroring():
		// In steps of ten: each message is an entry of the log.
		r.say(st, fmt.Sprintf("synchronising, %d %%", v.GetSyncPercent()/10*10))
	}
}

// reachedBack says whether a settled object has done what a step of the way back is for.
func reachedBack(want *pb.VolumeSpec, state pb.State, is *pb.Status) bool {
	v := is.GetVolume()
	switch {
	case is.GetState() != state:
		return false
	case want.GetRunWriter():
		return v.GetWriterRunning()
	case want.GetSealed():
		return v.GetSealed() && v.GetInSync() && v.GetResync() == want.GetResync()
	case want.GetMirrorTo() != "":
		return v.GetInSync() && v.GetMirroring() && v.GetResync() == want.GetResync()
	case state == pb.State_STATE_REPLICA:
		return v.GetResync() >= want.GetResync()
	default:
		return true
	}
}

// say changes a step's message, if it has another.
func (r *run) say(st *pb.Step, message string) {
	if message != "" && message != st.GetMessage() {
		r.change(st).Message = message
	}
}

// waitsFor says what a step waits for, where no other step's own message says it.
func (r *run) waitsFor(st *pb.Step) string {
	if st.GetSpec().GetVolume().GetSealed() {
		return r.keptFenced()
	}
	for _, g := range st.GetGates() {
		c := g.GetAnyOf()[0]
		if id := c.GetWriterOff(); id != "" && !r.holds(c) {
			return "waits until the VM " + r.s.Object(id).GetBase().GetVolume().GetDomain() + " at the protected site is seen to be off"
		}
		if fence := r.step(c.GetStepReverted()); fence.GetKind() == pb.Kind_KIND_FENCE && r.clean(fence) && !r.gone(fence) {
			return fence.GetObject() + " is still fenced by another failover"
		}
	}
	return ""
}

// keptFenced says which other failover would keep a VM of this way back from starting at the old side,
// because it holds the same fence and does not go back. Until then what runs here runs on.
func (r *run) keptFenced() string {
	for _, st := range r.f.GetSteps() {
		if st.GetKind() != pb.Kind_KIND_FENCE || !held(st.GetPhase(), st) {
			continue
		}
		for _, o := range r.s.Object(st.GetObject()).GetOverrides() {
			other := r.s.Failover(state.FailoverName(o.GetEpoch()))
			if o.GetEpoch() != r.f.GetEpoch() && !model.Reverting(other.GetPhase()) {
				return "the switch waits for the failback of " + other.GetName() + ", which holds " + st.GetObject() + ", too"
			}
		}
	}
	return ""
}

// route is the way back of one volume: each of its steps carries the number of the synchronisation.
type route struct{ receive, mirror, seal, handOver *pb.Step }

// routeOf returns the way back that a step makes the target for; false when a part of it is missing.
func (r *run) routeOf(receive *pb.Step) (route, bool) {
	w := route{receive: receive}
	for _, st := range r.f.GetSteps() {
		switch v := st.GetSpec().GetVolume(); {
		case !st.GetWayBack():
		case slices.Contains(st.GetAfter(), receive.GetId()):
			w.mirror = st
		case v.GetSealed() && st.GetObject() == w.mirror.GetObject():
			w.seal = st
		case st.GetObject() == receive.GetObject() && st != receive:
			w.handOver = st
		}
	}
	return w, w.mirror != nil && w.seal != nil && w.handOver != nil
}

// renew raises the number of a volume's synchronisation when its mirror died before everything was at
// the target. receive is the step that makes the target.
func (r *run) renew(receive *pb.Step) {
	w, ok := r.routeOf(receive)
	if !ok || r.phaseOf(w.seal) == pb.StepPhase_STEP_PHASE_DONE || !orderedNow(w.mirror.GetPhase()) {
		return
	}
	n := receive.GetSpec().GetVolume().GetResync()
	here, there := r.v.Current(r.s.Object(w.mirror.GetObject())).GetVolume(), r.v.Current(r.s.Object(receive.GetObject())).GetVolume()
	if !r.died(here, n) && !r.died(there, n) || here.GetSealed() {
		return
	}
	for _, st := range []*pb.Step{receive, w.mirror, w.seal, w.handOver} {
		r.changes[st.GetId()] = &pb.StepChange{
			Step: st.GetId(), Resync: n + 1, Message: fmt.Sprintf("synchronisation %d died; it begins anew", n),
		}
	}
	inForce := w.mirror
	if orderedNow(w.seal.GetPhase()) {
		inForce = w.seal
	}
	r.change(receive).Phase, r.change(inForce).Phase = pb.StepPhase_STEP_PHASE_RELEASED, pb.StepPhase_STEP_PHASE_RELEASED
}

// orderedNow says whether a step's order is in force or was until a later one of the same object.
func orderedNow(p pb.StepPhase) bool {
	return p == pb.StepPhase_STEP_PHASE_RELEASED || p == pb.StepPhase_STEP_PHASE_DONE
}

// died says whether the mirror of synchronisation n has ended for long enough to begin anew.
func (r *run) died(v *pb.VolumeStatus, n uint64) bool {
	return v.GetResync() == n && v.GetDegradedSince() != nil && !v.GetMirroring() && r.now.Sub(v.GetDegradedSince().AsTime()) > resyncPause
}

// arrived says whether every step of the way back that this one waits for is done, was before this
// command, and is not begun anew by it.
func (r *run) arrived(st *pb.Step) bool {
	return !slices.ContainsFunc(st.GetBackAfter(), func(id string) bool {
		o := r.step(id)
		return o != nil && (!model.StepWasDone(o.GetPhase()) || !model.StepWasDone(r.phaseOf(o)))
	})
}

// promotionOf returns the step that promoted the volume that a step of the way back is about, or nil.
func (r *run) promotionOf(st *pb.Step) *pb.Step {
	if !st.GetWayBack() {
		return nil
	}
	i := slices.IndexFunc(r.f.GetSteps(), func(o *pb.Step) bool { return !o.GetWayBack() && o.GetObject() == st.GetObject() })
	if i < 0 {
		return nil
	}
	return r.f.GetSteps()[i]
}
