package simulation

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

var errFault = errors.New("injected fault")

type callKey struct {
	object model.ObjectID
	seq    uint64
}

func compareCallKeys(a, b callKey) int {
	return cmp.Or(cmp.Compare(a.object, b.object), cmp.Compare(a.seq, b.seq))
}

// driverCall is a call or a reading under way.
type driverCall struct {
	applied bool
	// dropped: it never happens.
	dropped bool
	// deaf calls do not obey their context; others return within a second of its end.
	deaf        bool
	cancelled   bool
	cancelledAt time.Duration
	// abort ends the call with the error.
	abort func(error)
	// apply has the effect, for a call of a process that died.
	apply func()
}

// fault is a way in which a driver misbehaves.
type fault string

const (
	faultFail       fault = "fails"
	faultHang       fault = "hangs"
	faultDeaf       fault = "hangs deaf"
	faultSlow       fault = "slow"
	faultDone       fault = "done but error"
	faultNotApplied fault = "not applied"
	faultLate       fault = "late success"
	faultHalf       fault = "half restored"
)

// callFaults are those that any call can meet.
var callFaults = []fault{faultFail, faultHang, faultDeaf, faultSlow, faultDone, faultNotApplied, faultLate}

// faultOf draws what goes wrong with a call; "" for nothing.
func (s *sim) faultOf(t model.Transition) fault {
	if !s.chance(s.misbehave) {
		return ""
	}
	all := callFaults
	if t.From == pb.State_STATE_SAVED && t.To == pb.State_STATE_RUNNING {
		all = append(slices.Clone(all), faultHalf, faultHalf)
	}
	f := pick(s, all)
	if f == faultNotApplied && t.From == t.To {
		return "" // Drivers read other parameters back themselves: the state does not show them.
	}
	s.report.Faults[Cell{string(f), s.phase(), model.KindName(t.Kind)}]++
	return f
}

// took draws how long a driver needs for a transition.
func (s *sim) took(t model.Transition) time.Duration {
	switch {
	case t.Kind == pb.Kind_KIND_INSTANCE && (t.To == pb.State_STATE_SAVED || t.From == pb.State_STATE_SAVED):
		return s.between(500*time.Millisecond, 8*time.Second)
	case t.Kind == pb.Kind_KIND_INSTANCE:
		return s.between(100*time.Millisecond, 2*time.Second)
	default:
		return s.between(5*time.Millisecond, 500*time.Millisecond)
	}
}

// call hands one transition to a driver. What the driver answers is one thing; what happens, and
// when, is another.
func (a *agent) call(e reconcile.Call) {
	s := a.s
	s.report.Calls++
	s.checkCall(a, e)
	if e.Transition.Acquiring && a.clock().Boot >= a.permitUntil {
		a.after(0, func() { a.returned(e, reconcile.ErrNoPermit) })
		return
	}
	c := &driverCall{}
	key := callKey{e.Object, e.Seq}
	a.calls[key] = c
	f := s.faultOf(e.Transition)
	s.logf("%s calls %s %s>%s gen %d epoch %d %s", a.name, e.Object, model.StateName(e.Transition.From),
		model.StateName(e.Transition.To), e.Generation, e.Epoch, f)
	life := a.life
	c.abort = func(err error) {
		if a.alive && a.life == life && a.calls[key] == c {
			delete(a.calls, key)
			a.returned(e, err)
		}
	}
	a.happens(c, e, f)
}

// happens lets a call have its effect and its answer, as the fault demands.
func (a *agent) happens(c *driverCall, e reconcile.Call, f fault) {
	s, done := a.s, c.abort
	took := s.took(e.Transition)
	apply := func(d time.Duration, then func(error)) { a.apply(c, e, d, then) }
	switch f {
	case faultFail:
		s.after(took, func() { done(errFault) })
	case faultHang:
		c.dropped = s.chance(0.5)
		apply(s.between(time.Second, 2*time.Minute), nil)
	case faultDeaf:
		// It returns some day, after it did what it was asked or without.
		c.deaf = true
		if d := s.between(time.Second, 4*time.Minute); s.chance(0.3) {
			s.after(d, func() { done(errFault) })
		} else {
			apply(d, done)
		}
	case faultSlow:
		apply(took*20, done)
	case faultDone:
		apply(took/2, func(error) { s.after(took/2, func() { done(errFault) }) })
	case faultNotApplied:
		s.after(took, func() { done(nil) })
	case faultLate:
		c.dropped = !outlives(e.Transition)
		s.after(took, func() { done(errFault) })
		apply(took+s.between(10*time.Millisecond, lateAtMost), nil)
	case faultHalf:
		s.after(took, func() {
			if a.up {
				a.host.restoreHalf(e.Object)
			}
			done(errFault)
		})
	default:
		apply(took*3/4, func(err error) { s.after(took/4, func() { done(err) }) })
	}
}

// lateAtMost is how long after its error, or after it was cancelled, a call may still have its effect. One
// that comes after the way back and an edit of the plan finds its object forgotten, and nobody looks.
const lateAtMost = 5 * time.Second

// outlives says whether a call may still have its effect after it returned an error: a lost reply of
// DNS, of a power switch; the end of a guest. What starts or promotes something has its
// effect before it returns, or never: the drivers promise that (one process, one job at a time).
func outlives(t model.Transition) bool {
	switch t.Kind {
	case pb.Kind_KIND_ENDPOINT:
		return true
	case pb.Kind_KIND_FENCE:
		return t.To == pb.State_STATE_FENCED
	case pb.Kind_KIND_INSTANCE:
		return t.From == pb.State_STATE_RUNNING && t.To == pb.State_STATE_STOPPED
	default:
		return false
	}
}

// apply lets a call have its effect after a while, unless the machine lost its power meanwhile.
func (a *agent) apply(c *driverCall, e reconcile.Call, d time.Duration, then func(error)) {
	boots, guest := a.boots, a.guest(e.Object)
	act := func() error {
		if e.Transition.From == pb.State_STATE_RUNNING && a.guest(e.Object) != guest {
			return hypervisor.ErrState // What was to be ended is gone; another guest is not meant.
		}
		return a.s.act(a, e)
	}
	c.apply = func() {
		if a.up && a.boots == boots {
			_ = act()
		}
	}
	a.s.after(d, func() {
		if c.dropped || !a.up || a.boots != boots || c.cancelled && !c.deaf && !outlives(e.Transition) {
			return
		}
		if c.cancelled && !c.deaf && a.s.now-c.cancelledAt > lateAtMost {
			return
		}
		c.applied = true
		err := act()
		if then != nil {
			then(err)
		}
	})
}

// guest identifies the running guest of an instance: the process, not the memory.
func (a *agent) guest(id model.ObjectID) time.Duration {
	if a.host == nil || a.host.domains[id] == nil || !a.host.domains[id].running {
		return 0
	}
	return a.host.domains[id].since
}

// act lets a driver really do it.
func (s *sim) act(a *agent, e reconcile.Call) error {
	ran := s.runsNow(a, e.Object)
	err := a.actuator.Do(context.Background(), e)
	s.logf("%s %s is %s (%v)", a.name, e.Object, model.StateName(e.Transition.To), err)
	if ran && !s.runsNow(a, e.Object) {
		s.reclaimed(a, e)
	}
	return err
}

func (a *agent) returned(e reconcile.Call, err error) {
	a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.CallReturned(e.Object, e.Seq, err, now) })
}

// observe reads an object back. What is read is never wrong, but late, or not to be had.
func (a *agent) observe(e reconcile.Observe) {
	s := a.s
	c := &driverCall{}
	key := callKey{e.Object, e.Seq}
	a.calls[key] = c
	done := func(obs reconcile.Observation, err error) {
		if a.calls[key] == c {
			delete(a.calls, key)
			a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.Observed(e.Object, e.Seq, obs, err, now) })
		}
	}
	life := a.life
	c.abort = func(err error) {
		if a.alive && a.life == life {
			done(reconcile.Observation{}, err)
		}
	}
	wrong := s.chance(s.misbehave / 3)
	if wrong && s.chance(0.3) {
		return // It hangs until it is cancelled.
	}
	a.after(s.between(time.Millisecond, 20*time.Millisecond), func() {
		obs, err := a.actuator.Observe(context.Background(), e.Object, e.Spec)
		if s.o.Mutant == MutantBelieve && e.Spec != nil && s.chance(0.2) {
			obs.State = e.Spec.GetState()
		}
		if wrong {
			err = errFault
		}
		a.after(s.between(time.Millisecond, 20*time.Millisecond), func() { done(obs, err) })
	})
}

// cancel ends the context of a call.
func (a *agent) cancel(key callKey) {
	c := a.calls[key]
	if c == nil || c.cancelled {
		return
	}
	c.cancelled, c.cancelledAt = true, a.s.now
	if !c.deaf {
		a.after(a.s.between(0, time.Second), func() { c.abort(context.DeadlineExceeded) })
	}
}
