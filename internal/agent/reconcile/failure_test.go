package reconcile

import (
	"strings"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func TestAHangingCall(t *testing.T) {
	w := runningVM(t)
	w.order(2, b, vm(running))
	w.read()
	w.returns(b, true, nil)
	w.read()
	w.began("b ABSENT>DEFINED", "b DEFINED>RUNNING")
	w.pass(callTimeout)
	if len(w.cancelled) != 1 {
		t.Fatal("the call is not cancelled at its deadline")
	}
	w.is(b, defined, unknown)
	w.pass(10 * time.Second)
	w.read()
	w.is(b, defined, unknown)
	// A newer order waits: the start may still happen.
	w.order(3, b, vm(absent))
	w.read()
	w.pass(time.Minute)
	w.read()
	st := w.is(b, defined, unknown)
	if st.GetGeneration() != 3 || !strings.Contains(st.GetMessage(), "does not return") {
		t.Errorf("status %v", st)
	}
	w.began()
	// Others go on.
	w.order(4, a, vm(stopped))
	w.read()
	w.began("a RUNNING>STOPPED")
	w.returns(a, true, nil)
	w.read()
	w.is(a, defined, settled)
	// It happened after all, and the read-back shows it, although the call never returns.
	w.thing(b).state = running
	w.pass(stuckPoll)
	w.read()
	w.began("b RUNNING>STOPPED")
}

func TestAHangingSaveIsFollowedByAKill(t *testing.T) {
	spec := reclaim(pb.ReclaimAction_RECLAIM_ACTION_SAVE, 0, 30*time.Second)
	w := runningVM(t, spec)
	w.order(2, a, vm(saved, spec))
	w.read()
	w.pass(30*time.Second + cancelGrace - time.Millisecond)
	w.began("a RUNNING>SAVED")
	w.pass(time.Millisecond)
	w.began()
	w.read()
	w.began("a RUNNING>STOPPED")
	kill := w.calls[1]
	w.calls = w.calls[:1]
	w.effect(kill)
	w.do(w.core.CallReturned(a, kill.Seq, nil, w.now))
	w.read()
	w.is(a, defined, settled)
	// The save gives up at last; nothing follows from it.
	w.returns(a, false, errDriver)
	w.read()
	w.is(a, defined, settled)
	w.began()
}

func TestADriverThatDoesNotAnswer(t *testing.T) {
	w := runningVM(t)
	w.order(2, a, vm(stopped))
	w.pass(observeLimit)
	if st := w.is(a, running, unknown); len(w.cancelled) != 1 || st.GetGeneration() != 2 {
		t.Errorf("status %v, cancelled %v", st, w.cancelled)
	}
	e := w.reads[0]
	w.reads = nil
	w.do(w.core.Observed(a, e.Seq, Observation{}, errDriver, w.now))
	w.is(a, running, unknown)
	w.pass(time.Second)
	w.settle()
	w.is(a, defined, settled)
}

func TestFailuresAreRetriedWithBackoff(t *testing.T) {
	w := newWorld(t)
	w.order(1, a, vm(stopped))
	w.read()
	total := time.Duration(0)
	for i := range 12 {
		w.returns(a, false, errDriver)
		w.read()
		st := w.is(a, absent, failed)
		if !strings.Contains(st.GetMessage(), "the driver failed") || st.GetAttempts() != uint32(i+1) {
			t.Errorf("status %v", st)
		}
		before := w.now.Boot
		for len(w.calls) == 0 {
			w.pass(min(time.Second, w.core.NextTick(w.now)))
			w.read()
		}
		if wait := w.now.Boot - before; wait > 31*time.Second {
			t.Errorf("waited %v", wait)
		}
		total += w.now.Boot - before
	}
	if total < 2*time.Minute {
		t.Errorf("twelve tries within %v", total)
	}
	w.settle()
	w.is(a, defined, settled)
}

func TestAcceptedButNotApplied(t *testing.T) {
	w := newWorld(t)
	w.order(1, a, vm(stopped))
	w.read()
	w.returns(a, false, nil)
	w.read()
	if st := w.is(a, absent, failed); !strings.Contains(st.GetMessage(), "not observed") {
		t.Errorf("message %q", st.GetMessage())
	}
}

func TestFailedButDone(t *testing.T) {
	w := newWorld(t)
	w.order(1, a, vm(running))
	w.read()
	w.returns(a, true, nil)
	w.read()
	w.returns(a, true, errDriver)
	w.read()
	w.is(a, running, settled)
	w.began("a ABSENT>DEFINED", "a DEFINED>RUNNING")
}
