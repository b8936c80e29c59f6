package reconcile

import (
	"fmt"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// takeBack turns a call on a running instance into the stage at which taking it back stands:
//
//	wanted SAVED, action SAVE      save within the deadline; failed: stop within what is left; late: kill;
//	                               no contact with the hypervisor: save again
//	wanted SAVED, action SHUTDOWN  stop within grace and deadline, then kill
//	wanted SAVED, action DISCARD   kill
//	wanted off                     stop within the grace, then kill
//
// A preempted guest that listens has its grace before a save or a kill; see warned.
//
// The disk is kept in every case.
func (c *Core) takeBack(o *object, k *Call, want pb.State) {
	r := o.rec.Order.GetSpec().GetInstance().GetReclaim()
	state := &o.rec.Reclaim
	if state.Stage == 0 {
		first := firstStage(r, want)
		*state = Reclaim{
			Stage: first, Began: c.now.Boot, Save: first == StageSave, Until: state.Until, Ready: state.Ready,
		}
	}
	left := c.left(o)
	if state.Stage == StageSave && left <= 0 {
		state.Why = fmt.Sprintf("save passed its deadline of %v", deadlineOf(r))
		state.Stage = StageKill
	}
	k.Transition = model.Transition{
		Kind: pb.Kind_KIND_INSTANCE, From: pb.State_STATE_RUNNING, To: pb.State_STATE_STOPPED,
	}
	switch state.Stage {
	case StageSave:
		k.Transition.To = pb.State_STATE_SAVED
		k.Timeout = left
	case StageStop:
		k.Grace = max(min(graceOf(r), left), 0)
		k.Timeout = k.Grace + stopMargin
	default:
		k.Grace, k.Timeout = 0, stopMargin
	}
}

// left returns how much of the reclaim's deadline is left; a stop without a deadline has no end.
func (c *Core) left(o *object) time.Duration {
	r := o.rec.Order.GetSpec().GetInstance().GetReclaim()
	if r.GetDeadline() == nil && o.rec.Reclaim.Stage != StageSave {
		return graceOf(r)
	}
	return o.rec.Reclaim.Began + deadlineOf(r) - c.now.Boot
}

// firstStage says how an instance is taken back at first.
func firstStage(r *pb.Reclaim, want pb.State) Stage {
	switch {
	case r.GetAction() == pb.ReclaimAction_RECLAIM_ACTION_DISCARD:
		return StageKill
	case want == pb.State_STATE_SAVED && r.GetAction() != pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN:
		return StageSave
	default:
		return StageStop
	}
}

func deadlineOf(r *pb.Reclaim) time.Duration {
	if r.GetDeadline() == nil {
		return defaultSaveDeadline
	}
	return r.GetDeadline().AsDuration()
}

func graceOf(r *pb.Reclaim) time.Duration {
	if r.GetGrace() == nil {
		return defaultGrace
	}
	return r.GetGrace().AsDuration()
}

// escalate goes to the next stage after a save or stop that did not bring what it should. The first
// fallback begins at once, because somebody waits for the memory; a kill is repeated with backoff.
func (c *Core) escalate(o *object, t model.Transition, f *outcome, why string) {
	o.rec.Attempts++
	o.phase, o.message = pb.Phase_PHASE_FAILED, why
	state := &o.rec.Reclaim
	r := o.rec.Order.GetSpec().GetInstance().GetReclaim()
	switch {
	case t.To == pb.State_STATE_SAVED && !f.late && model.FaultOf(f.err) == model.FaultUnavailable && c.left(o) > 0:
		// Nothing is wrong with the save, only with the way to the hypervisor, which restarts. The deadline bounds the tries.
		o.retryAt = c.now.Boot + min(backoff(o.rec.Attempts), c.left(o))
	case t.To == pb.State_STATE_SAVED:
		state.Why = "save failed: " + causeOf(f)
		if f.late {
			state.Why = fmt.Sprintf("save passed its deadline of %v", deadlineOf(r))
		}
		state.Stage = StageStop
		if state.Began == 0 {
			state.Began = c.now.Boot
		}
		if c.left(o) <= 0 {
			state.Stage = StageKill
		}
	case state.Stage == StageKill:
		o.retryAt = c.now.Boot + backoff(o.rec.Attempts)
	default:
		if state.Why == "" {
			state.Why = "shutdown failed: " + causeOf(f)
		}
		state.Stage = StageKill
	}
	c.first = true
}

func causeOf(f *outcome) string {
	if f.err == nil {
		return "the driver accepted it, but it was not observed to happen"
	}
	return f.err.Error()
}

// reclaimed closes taking an instance back once it is observed not to run.
func (c *Core) reclaimed(o *object) {
	state := o.rec.Reclaim
	if state.Stage == 0 {
		return
	}
	switch {
	case o.obs.State == pb.State_STATE_SAVED:
		if !o.rec.LocalEnd {
			o.rec.Note = ""
		}
	case state.Why != "" && state.Stage == StageStop:
		o.rec.Note = state.Why + "; shut down, the disk was kept"
	case state.Why != "":
		o.rec.Note = state.Why + "; killed, the disk was kept"
	}
	if state.Save && off(o.obs.State) {
		o.rec.ImageLost = true
	}
	o.rec.Reclaim = Reclaim{}
}
