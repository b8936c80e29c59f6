package reconcile

import (
	"fmt"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// advance does the next thing for one object, at most one.
func (c *Core) advance(o *object) {
	o.waitsForOthers = false
	if o.call != nil && !o.call.abandoned {
		return
	}
	if o.observing {
		return
	}
	if !o.fresh {
		if c.now.Boot >= o.observeAt {
			c.read(o)
		}
		return
	}
	if !c.dropUnwanted(o) {
		c.decide(o)
	}
}

// read asks the driver for the state. A hook has no state outside of the journal.
func (c *Core) read(o *object) {
	id := o.rec.Object
	if o.invalid != nil {
		// The driver cannot be asked about what cannot be understood; only a newer order helps.
		o.phase, o.message = pb.Phase_PHASE_FAILED, o.invalid.Error()
		o.observeAt = c.now.Boot + time.Minute
		c.changed[id] = true
		return
	}
	if id.Kind() == pb.Kind_KIND_HOOK {
		o.fresh = true
		c.observed(o, Observation{State: o.hookState()})
		return
	}
	c.seq++
	o.observing, o.again, o.observeSeq, o.observeBegan = true, false, c.seq, c.now.Boot
	if o.phase == pb.Phase_PHASE_WORKING {
		o.message = "reading the state"
	}
	c.changed[id] = true
	c.emit(Observe{Object: id, Seq: c.seq, Spec: o.rec.Order.GetSpec()})
}

func (o *object) hookState() pb.State {
	if o.rec.Hook == 0 {
		return pb.State_STATE_REVERTED
	}
	return o.rec.Hook
}

// observed takes what the driver (or, for a hook, the journal) says the object is.
func (c *Core) observed(o *object, obs Observation) {
	before, knew := o.obs, o.known
	if obs.Owner == "" {
		obs.Owner = before.Owner
	}
	o.obs, o.known, o.lastObserved = obs, true, c.now.Boot
	c.touch(o)
	finished := o.pending
	if finished != nil {
		o.pending = nil
		c.settleOutcome(o, finished)
	} else if knew && o.call == nil {
		c.noticeExit(o, before.State)
	}
	c.imageOutcome(o)
	if o.call != nil && o.call.readBack(obs.State) {
		o.call = nil
	}
	if o.call == nil {
		o.rec.Intent = Intent{}
	}
	if o.call == nil && !o.rec.HookInDoubt && o.obs.State == firstState(o.rec.Object.Kind()) {
		c.dropArtefacts(o)
	}
	if obs.State != pb.State_STATE_RUNNING && o.call == nil {
		c.reclaimed(o)
	}
	c.probeFor(o)
	c.wake()
}

// readBack says that the call hangs, but what it was for has happened, as the state shows (R11).
// A renewal and a hook cannot be told from the state.
func (l *call) readBack(state pb.State) bool {
	t := l.transition
	return l.abandoned && reached(t, state) && t.From != t.To && t.Kind != pb.Kind_KIND_HOOK
}

// settleOutcome compares what a call returned with what was read back, which alone counts.
func (c *Core) settleOutcome(o *object, f *outcome) {
	t := f.transition
	if t.Kind == pb.Kind_KIND_HOOK {
		o.rec.HookInDoubt = f.err != nil
		if f.err == nil {
			o.rec.Hook = t.To
		}
		o.obs.State = o.hookState()
	}
	same := t.From == t.To
	happened := reached(t, o.obs.State)
	if t.Kind == pb.Kind_KIND_HOOK {
		happened = f.err == nil
	}
	if happened && (!same || f.err == nil && !o.obs.Outdated) {
		o.retryAt = 0
		if f.err == nil && f.digest != "" {
			o.rec.Applied = f.digest
		}
		return
	}
	why := failure(t, f)
	if t.Kind == pb.Kind_KIND_INSTANCE && t.From == pb.State_STATE_RUNNING {
		c.escalate(o, t, f, why)
		return
	}
	o.rec.Attempts++
	switch model.FaultOf(f.err) {
	case model.FaultInvalid, model.FaultUnsupported:
		// Nothing that time changes: only a newer order or another configuration helps.
		o.retryAt = c.now.Boot + backoff(1<<30)
	default:
		// Any other fault may pass, also one that the driver did not name.
		o.retryAt = c.now.Boot + backoff(o.rec.Attempts)
	}
	o.phase, o.message = pb.Phase_PHASE_FAILED, why
}

// failure says in a message what a call did not bring.
func failure(t model.Transition, f *outcome) string {
	what := strings.ToLower(verb(t))
	switch {
	case f.late && f.err != nil:
		return fmt.Sprintf("%s: no answer before the deadline: %v", what, f.err)
	case f.err != nil:
		return fmt.Sprintf("%s: %v", what, f.err)
	default:
		return what + ": the driver accepted it, but it was not observed to happen"
	}
}

func lateMessage(t model.Transition) string {
	return verb(t) + " passed its deadline; waiting for the driver to let go, then reading the state"
}

// verb names a transition for people.
func verb(t model.Transition) string {
	if t.From == t.To {
		return "renew " + model.StateName(t.To)
	}
	return "change " + model.StateName(t.From) + " to " + model.StateName(t.To)
}

// noticeExit counts an instance that stopped without our doing as an attempt that failed.
func (c *Core) noticeExit(o *object, before pb.State) {
	const running = pb.State_STATE_RUNNING
	if o.rec.Object.Kind() != pb.Kind_KIND_INSTANCE || before != running || !off(o.obs.State) ||
		o.rec.Order.GetSpec().GetState() != running || o.rec.LocalEnd {
		return
	}
	o.rec.Attempts++
	o.retryAt = c.now.Boot + backoff(o.rec.Attempts)
	o.phase, o.message = pb.Phase_PHASE_FAILED, "it stopped by itself; it is started again"
}

// imageOutcome resolves a restore that was begun: off without an image means that the image was
// taken and is gone. It is never loaded again; the disk is booted.
func (c *Core) imageOutcome(o *object) {
	switch s := o.obs.State; {
	case s == pb.State_STATE_SAVED:
		o.rec.ColdBoot, o.rec.ImageLost = false, false
	case o.rec.RestoreBegun && s == pb.State_STATE_RUNNING:
		o.rec.RestoreBegun, o.rec.ColdBoot = false, false
	case o.rec.RestoreBegun && off(s) && o.call == nil:
		o.rec.RestoreBegun, o.rec.ImageLost = false, true
		o.rec.Note = "the saved RAM could not be brought back; the disk was kept"
		o.rec.ColdBoot = true
	case s == pb.State_STATE_ABSENT:
		o.rec.RestoreBegun, o.rec.ImageLost, o.rec.ColdBoot = false, false, false
	case o.rec.ImageLost && s == pb.State_STATE_RUNNING && o.rec.Reclaim.Stage == 0:
		o.rec.ImageLost, o.rec.ColdBoot = false, true
	}
}

// dropArtefacts takes an object that is back in its first state out of the ledger.
func (c *Core) dropArtefacts(o *object) {
	for _, a := range c.ledgerOf(o.rec.Object) {
		delete(c.ledger, a.ArtefactKey)
		c.dropped = append(c.dropped, a.ArtefactKey)
	}
	o.rec.Applied = ""
}

// moveArtefacts books what exists on the epoch whose order it satisfies, so that nothing is left in the
// ledger of a run that went back: a replica that was promoted is there for its base again.
func (c *Core) moveArtefacts(o *object) {
	now := ArtefactKey{Object: o.rec.Object, Epoch: o.rec.Order.GetEpoch()}
	for _, a := range c.ledgerOf(o.rec.Object) {
		if a.Epoch == now.Epoch {
			continue
		}
		delete(c.ledger, a.ArtefactKey)
		c.dropped = append(c.dropped, a.ArtefactKey)
		if _, booked := c.ledger[now]; !booked {
			c.ledger[now] = Artefact{ArtefactKey: now, What: a.What}
			c.noted = append(c.noted, c.ledger[now])
		}
	}
}

// probeFor starts or stops the health probe as the observed state and the order ask for.
func (c *Core) probeFor(o *object) {
	inst := o.rec.Order.GetSpec().GetInstance()
	h := inst.GetHealth()
	want := ""
	if o.obs.State == pb.State_STATE_RUNNING && (h.GetHttp() != "" || h.GetTcp() != "") {
		want = digest(&pb.Spec{Parameters: &pb.Spec_Instance{Instance: &pb.InstanceSpec{Nics: inst.GetNics()}}}) +
			h.String()
	}
	if want == o.probe {
		return
	}
	o.probe, o.healthMessage = want, ""
	if want == "" {
		o.health = pb.HealthState_HEALTH_STATE_NONE
		c.emit(ProbeStop{Object: o.rec.Object})
		return
	}
	o.health = pb.HealthState_HEALTH_STATE_PENDING
	network, address := h.GetNetwork(), ""
	if nics := inst.GetNics(); len(nics) > 0 {
		address, _, _ = strings.Cut(nics[0].GetAddress(), "/")
		if network == "" {
			network = nics[0].GetNetwork()
		}
	}
	c.emit(ProbeStart{Object: o.rec.Object, Health: h, Network: network, Address: address})
}

// termEnd returns when the agent itself ends an instance; not for one that a failover took, that is
// not wanted, or that was ended already.
func (c *Core) termEnd(o *object) (time.Time, bool) {
	end := o.rec.Order.GetSpec().GetInstance().GetTermEnd()
	running := o.rec.Order.GetSpec().GetState() == pb.State_STATE_RUNNING
	if end == nil || !running || o.rec.Order.GetEpoch() != 0 || o.rec.LocalEnd || o.rec.Unnamed {
		return time.Time{}, false
	}
	return end.AsTime(), true
}

func (c *Core) termPassed(o *object) bool {
	end, ok := c.termEnd(o)
	return ok && !c.now.Wall.Before(end)
}
