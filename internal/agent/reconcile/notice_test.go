package reconcile

import (
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

const (
	doSave, doShutdown, doDiscard = pb.ReclaimAction_RECLAIM_ACTION_SAVE, pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN, pb.ReclaimAction_RECLAIM_ACTION_DISCARD
	testGrace                     = 20 * time.Second
)

// preempting is what a failover adds to the spec of a victim.
func preempting(i *pb.InstanceSpec) {
	i.Band = pb.Band_BAND_LENT
	i.Preemption = &pb.Preemption{Failover: "fo-1", Reason: "flood", DeclaredBy: "ann"}
}

// lentVM returns a world in which the lent instance a runs, and the function that preempts it.
func lentVM(t *testing.T, action pb.ReclaimAction) (w *world, preempt func()) {
	t.Helper()
	spec := reclaim(action, testGrace, 30*time.Second)
	w = runningVM(t, spec, func(i *pb.InstanceSpec) { i.Band = pb.Band_BAND_LENT })
	return w, func() {
		w.order(2, a, vm(saved, spec, preempting))
		w.read()
	}
}

func (w *world) asks()  { w.do(w.core.GuestAsked(a, w.now)) }
func (w *world) ready() { w.do(w.core.GuestReady(a, w.now)) }

// The grace is used by a guest that listens and by no other, and never exceeded.
func TestGrace(t *testing.T) {
	none, stop := []string(nil), []string{"a RUNNING>STOPPED"}
	take := []string{"a RUNNING>SAVED"}
	for name, c := range map[string]struct {
		action pb.ReclaimAction
		// before the order and, when the guest was told, 12 s after it.
		before, after func(w *world)
		// called at once, after 12 s, and after the grace.
		first, then, last []string
	}{
		"listens":                         {doSave, (*world).asks, nil, none, none, take},
		"listens, discard":                {doDiscard, (*world).asks, nil, none, none, stop},
		"listens, ready early":            {doSave, (*world).asks, (*world).ready, none, take, none},
		"does not listen":                 {doSave, nil, nil, take, none, none},
		"does not listen, discard":        {doDiscard, nil, nil, stop, none, none},
		"asks only when it is told":       {doSave, nil, (*world).asks, take, none, none},
		"listened, and has stopped to":    {doSave, func(w *world) { w.asks(); w.live(61 * time.Second) }, nil, take, none, none},
		"listens still":                   {doSave, func(w *world) { w.asks(); w.live(59 * time.Second) }, nil, none, none, take},
		"ready without a notice":          {doSave, func(w *world) { w.asks(); w.ready() }, nil, none, none, take},
		"the power button is its warning": {doShutdown, (*world).asks, nil, stop, none, none},
		"the agent restarts meanwhile":    {doSave, (*world).asks, func(w *world) { w.restarts() }, none, none, take},
		"a restart before the notice":     {doSave, func(w *world) { w.asks(); w.restarts() }, nil, none, none, take},
	} {
		t.Run(name, func(t *testing.T) {
			w, preempt := lentVM(t, c.action)
			if c.before != nil {
				c.before(w)
			}
			preempt()
			w.began(c.first...)
			told := len(c.first) == 0
			if until := w.reported[a].GetInstance().GetGraceUntil(); (until != nil) != told ||
				told && !until.AsTime().Equal(w.now.Wall.Add(testGrace)) {
				t.Errorf("told %v, until %v; it is %v", told, until, w.now.Wall)
			}
			if !told {
				w.settle() // The call that was begun.
			}
			w.live(12 * time.Second)
			if c.after != nil {
				c.after(w)
			}
			w.read()
			w.began(c.then...)
			w.live(testGrace - 12*time.Second - time.Millisecond)
			w.began(none...)
			w.live(time.Millisecond)
			w.began(c.last...)
			w.settle()
			if st := w.reported[a]; st.GetInstance().GetGraceUntil() != nil || st.GetInstance().GetReady() || st.GetPhase() != settled {
				t.Errorf("afterwards: %v", st)
			}
		})
	}
}

// restarts ends the agent and starts it again from its journal.
func (w *world) restarts() {
	w.start()
	w.permit(time.Hour)
	w.tell()
	w.read()
}

// A failback within the grace takes the notice back: nothing happened to the guest.
func TestNoticeTakenBack(t *testing.T) {
	w, preempt := lentVM(t, doSave)
	w.asks()
	preempt()
	w.live(5 * time.Second)
	w.ready()
	w.order(3, a, vm(running, reclaim(doSave, testGrace, 30*time.Second)))
	w.settle()
	w.began("a RUNNING>SAVED", "a SAVED>RUNNING") // It had answered already.
	w.is(a, running, settled)

	w, preempt = lentVM(t, doSave)
	w.asks()
	preempt()
	w.live(5 * time.Second)
	w.order(3, a, vm(running, reclaim(doSave, testGrace, 30*time.Second)))
	w.live(time.Hour)
	w.began()
	if st := w.is(a, running, settled); st.GetInstance().GetGraceUntil() != nil {
		t.Errorf("the notice stands still: %v", st)
	}
}

// The save's own deadline counts from its beginning, behind the grace.
func TestSaveHasItsTimeBehindTheGrace(t *testing.T) {
	w, preempt := lentVM(t, doSave)
	w.asks()
	preempt()
	w.live(testGrace)
	w.began("a RUNNING>SAVED")
	w.live(29 * time.Second)
	w.is(a, running, working)
	w.live(2 * time.Second)
	w.is(a, running, unknown)
}

// What the guest is told is no part of the machine: a victim that comes back is not defined anew for it.
func TestNoticeIsNoOtherMachine(t *testing.T) {
	w, preempt := lentVM(t, doShutdown)
	preempt()
	w.settle()
	w.began("a RUNNING>STOPPED")
	w.order(3, a, vm(running, reclaim(doShutdown, testGrace, 30*time.Second), func(i *pb.InstanceSpec) { i.Band = pb.Band_BAND_LENT }))
	w.settle()
	w.began("a DEFINED>RUNNING")
	w.live(time.Second)
	w.order(4, a, vm(saved, reclaim(doSave, testGrace, 30*time.Second), preempting))
	w.read()
	w.began("a RUNNING>SAVED") // Who asked before this boot is gone.
}

func TestGuests(t *testing.T) {
	w, preempt := lentVM(t, doSave)
	w.order(5, b, vm(running, func(i *pb.InstanceSpec) { i.Band = pb.Band_BAND_PROTECTED }))
	w.settle()
	w.asks()
	if g := w.core.Guests(); len(g) != 1 || g[0].Object != a || g[0].Owner != "web" || !g[0].Until.IsZero() || g[0].Spec.GetPreemption() != nil || g[0].Decided {
		t.Fatalf("guests %+v", g)
	}
	preempt()
	until := w.now.Wall.Add(testGrace)
	w.restarts() // What was told is in the journal.
	if g := w.core.Guests(); len(g) != 1 || !g[0].Until.Equal(until) || g[0].Spec.GetPreemption().GetFailover() != "fo-1" || !g[0].Decided {
		t.Errorf("guests %+v", g)
	}
	w.orders(&pb.Orders{Era: 1, Term: 1, Full: true}) // The coordinator names none of them any more.
	if g := w.core.Guests(); len(g) != 0 {
		t.Errorf("guests %+v", g)
	}
	w.live(time.Hour)
}
