package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	a, b, v = model.ObjectID("instance/a"), model.ObjectID("instance/b"), model.ObjectID("volume/v")

	settled = pb.Phase_PHASE_SETTLED
	working = pb.Phase_PHASE_WORKING
	waiting = pb.Phase_PHASE_WAITING
	failed  = pb.Phase_PHASE_FAILED
	unknown = pb.Phase_PHASE_UNKNOWN
)

// runningVM returns a world in which instance a runs by order 1.
func runningVM(t *testing.T, change ...func(*pb.InstanceSpec)) *world {
	t.Helper()
	w := newWorld(t)
	w.order(1, a, vm(running, change...))
	w.settle()
	w.is(a, running, settled)
	w.began("a ABSENT>DEFINED", "a DEFINED>RUNNING")
	return w
}

func TestOrderIsReadActedOnAndReadBack(t *testing.T) {
	w := newWorld(t)
	w.order(7, a, vm(running))
	if st := w.reported[a]; st.GetGeneration() != 7 || st.GetPhase() != working {
		t.Errorf("the order is not acknowledged at once: %v", st)
	}
	w.read()
	w.is(a, absent, working)
	w.returns(a, true, nil)
	w.read()
	w.is(a, defined, working)
	w.returns(a, true, nil)
	if st := w.reported[a]; st.GetPhase() == settled {
		t.Errorf("a call that returned is believed without the read-back: %v", st)
	}
	w.read()
	st := w.is(a, running, settled)
	if st.GetGeneration() != 7 || st.GetEra() != 1 || st.GetBootId() != "boot-1" {
		t.Errorf("status %v", st)
	}
	w.began("a ABSENT>DEFINED", "a DEFINED>RUNNING")
}

// TestOrdersAreDurableFirst looks at the effects themselves.
func TestOrdersAreDurableFirst(t *testing.T) {
	w := newWorld(t)
	effects := w.core.Orders(&pb.Orders{Era: 1, Term: 4, Orders: []*pb.Order{
		anOrder(3, a, vm(running)), anOrder(3, b, vm(stopped)),
	}}, w.now)
	p, ok := effects[0].(Persist)
	if !ok || len(p.Put) != 2 || p.Marks == nil || p.Marks.Generation != 3 || p.Marks.Term != 4 {
		t.Fatalf("the first effect is %+v", effects[0])
	}
	for _, e := range effects[1:] {
		if _, ok := e.(Persist); ok {
			t.Error("the orders of one message are in two writes")
		}
	}
}

func TestOlderOrdersAreNotActedOn(t *testing.T) {
	older := func(era, term, generation uint64) *pb.Orders {
		return &pb.Orders{Era: era, Term: term, Orders: []*pb.Order{anOrder(generation, a, vm(absent))}}
	}
	cases := map[string]struct {
		orders *pb.Orders
		acts   bool
	}{
		"older generation":          {older(2, 5, 4), false},
		"same generation":           {older(2, 5, 5), false},
		"older era":                 {older(1, 9, 99), false},
		"older term":                {older(2, 4, 99), false},
		"newer generation":          {older(2, 5, 6), true},
		"newer era begins anew":     {older(3, 1, 1), true},
		"newer term, same order":    {older(2, 6, 5), false},
		"newer term, older order":   {older(2, 6, 1), false},
		"newer term, newer order":   {older(2, 6, 6), true},
		"newer era, same old order": {older(3, 9, 5), true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.orders(&pb.Orders{Era: 2, Term: 5, Orders: []*pb.Order{anOrder(5, a, vm(running))}})
			w.settle()
			w.log = nil
			delete(w.reported, a)
			w.orders(c.orders)
			w.settle()
			if acted := len(w.log) > 0; acted != c.acts {
				t.Errorf("acted %v: %v", acted, w.log)
			}
			if c.orders.GetEra() == 2 && c.orders.GetTerm() >= 5 && w.reported[a] == nil {
				t.Error("a repeated order is not answered")
			}
		})
	}
}

func TestFullListAndForget(t *testing.T) {
	w := runningVM(t)
	w.order(2, b, vm(running))
	w.settle()
	w.log = nil
	w.orders(&pb.Orders{Era: 1, Term: 1, Full: true, Orders: []*pb.Order{anOrder(2, b, vm(running))}})
	w.settle()
	w.began()
	if st := w.is(a, running, waiting); !strings.Contains(st.GetMessage(), "not touched") {
		t.Errorf("message %q", st.GetMessage())
	}
	if held := w.core.Held(); len(held) != 1 || held[0].Object != b {
		t.Errorf("held %v", held)
	}
	w.orders(&pb.Orders{Era: 1, Term: 1, Forget: []string{string(a)}})
	w.settle()
	if _, ok := w.journal[a]; !ok {
		t.Fatal("a running instance was forgotten")
	}
	w.order(3, a, vm(absent))
	w.settle()
	w.is(a, absent, settled)
	w.began("a RUNNING>STOPPED", "a DEFINED>ABSENT")
	w.orders(&pb.Orders{Era: 1, Term: 1, Forget: []string{string(a)}})
	if _, ok := w.journal[a]; ok {
		t.Error("an absent instance is still known")
	}
	if len(w.ledger) != 1 {
		t.Errorf("ledger %v", w.ledger)
	}
}

func TestAcquiringWaitsForAPermit(t *testing.T) {
	w := newWorld(t)
	w.do(w.core.PermitVoided(w.now))
	w.permitUntil = 0
	w.order(1, a, vm(running))
	w.settle()
	w.began("a ABSENT>DEFINED")
	if st := w.is(a, defined, waiting); st.GetMessage() != "waits for a permit from the coordinator" {
		t.Errorf("message %q", st.GetMessage())
	}
	w.pass(time.Hour)
	w.settle()
	w.began()
	w.permit(time.Second)
	w.began("a DEFINED>RUNNING")
	// It lapsed before the runtime came to the call.
	w.returns(a, false, ErrNoPermit)
	w.read()
	if st := w.is(a, defined, waiting); st.GetAttempts() != 0 {
		t.Errorf("a call that did not begin counts: %v", st)
	}
	w.pass(10 * time.Second)
	w.permit(10 * time.Second)
	w.settle()
	w.is(a, running, settled)
}

func TestReleasingNeedsNoPermit(t *testing.T) {
	w := runningVM(t)
	w.order(2, a, vm(saved))
	// The agent dies with the call under way, and comes back without any session.
	w.read()
	w.start()
	w.settle()
	w.is(a, running, waiting)
	w.live(wordLimit)
	w.settle()
	w.is(a, saved, settled)
	w.began("a RUNNING>SAVED", "a RUNNING>SAVED")
}

func TestLocalGate(t *testing.T) {
	w := runningVM(t)
	spec := vm(running)
	spec.After = []*pb.LocalGate{{Object: string(a), States: model.MemoryFree()}}
	w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{anOrder(2, a, vm(saved)), anOrder(2, b, spec)}})
	w.read()
	w.returns(b, true, nil)
	w.read()
	if st := w.is(b, defined, waiting); !strings.Contains(st.GetMessage(), "waits for instance/a to be SAVED") {
		t.Errorf("message %q", st.GetMessage())
	}
	w.returns(a, true, nil)
	w.settle()
	w.is(b, running, settled)
	w.began("a RUNNING>SAVED", "b ABSENT>DEFINED", "b DEFINED>RUNNING")
}

func TestGateOnAnObjectThatIsNotKnown(t *testing.T) {
	spec := vm(running)
	spec.After = []*pb.LocalGate{{Object: string(a), States: model.MemoryFree()}}
	w := emptyWorld()
	w.t = t
	w.start()
	w.permit(time.Hour)
	w.do(w.core.Capacity(w.capacity, w.now))
	w.order(1, b, spec)
	w.settle()
	w.is(b, defined, waiting)
	// Only the inventory can say that there is no such guest.
	w.do(w.core.Inventory(nil, w.now))
	w.settle()
	w.is(b, running, settled)
}

// TestLocalGateWhileItsObjectMoves: what was read before a call on the object began opens no gate.
func TestLocalGateWhileItsObjectMoves(t *testing.T) {
	w := runningVM(t)
	w.order(2, a, vm(saved))
	w.settle()
	w.order(3, a, vm(running))
	w.read()
	w.began("a RUNNING>SAVED", "a SAVED>RUNNING")
	w.order(4, b, gated())
	w.read()
	w.returns(b, true, nil)
	w.read()
	w.is(b, defined, waiting)
	w.settle()
	w.is(a, running, settled)
	w.is(b, defined, waiting)
}

func TestNothingStartsBeforeTheInventory(t *testing.T) {
	w := emptyWorld()
	w.t = t
	w.start()
	w.permit(time.Hour)
	w.order(1, a, vm(running))
	w.settle()
	w.is(a, defined, waiting)
	w.do(w.core.Capacity(w.capacity, w.now))
	w.settle()
	w.is(a, defined, waiting)
	// A guest that nobody ordered takes room, even before it was read.
	w.do(w.core.Inventory([]Found{{Object: a}, {Object: b, MemoryBytes: 64 << 30}}, w.now))
	w.is(a, defined, waiting)
	w.settle()
	w.is(a, running, settled)
}

func TestANewerOrderWaitsForTheCall(t *testing.T) {
	w := runningVM(t)
	w.order(2, a, vm(saved))
	w.read()
	w.order(3, a, vm(stopped))
	w.order(4, a, vm(running))
	w.read()
	w.began("a RUNNING>SAVED")
	if st := w.reported[a]; st.GetGeneration() != 4 || st.GetPhase() != working {
		t.Errorf("the newer order is not acknowledged: %v", st)
	}
	w.settle()
	w.is(a, running, settled)
	w.began("a SAVED>RUNNING")
}

func TestMemoryGate(t *testing.T) {
	w := runningVM(t)
	w.capacity = &pb.Capacity{MemoryBytes: 3 << 30, ForeignMemoryBytes: 1 << 30, OverheadBytes: 1 << 20}
	w.do(w.core.Capacity(w.capacity, w.now))
	w.order(2, b, vm(running))
	w.settle()
	if st := w.is(b, defined, waiting); !strings.Contains(st.GetMessage(), "waits for memory: it needs 1025 MiB") {
		t.Errorf("message %q", st.GetMessage())
	}
	w.order(3, a, vm(stopped))
	w.settle()
	w.is(b, running, settled)
}

// TestStartsReserveMemory: two starts that fit only one by one are not begun together.
func TestStartsReserveMemory(t *testing.T) {
	w := newWorld(t)
	w.capacity = &pb.Capacity{MemoryBytes: 3 << 29}
	w.do(w.core.Capacity(w.capacity, w.now))
	w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{anOrder(1, a, vm(running)), anOrder(1, b, vm(running))}})
	w.settle()
	w.is(a, running, settled)
	w.is(b, defined, waiting)
}

// TestMemoryBetweenAnswerAndReading: what was started counts before it was read back.
func TestMemoryBetweenAnswerAndReading(t *testing.T) {
	w := newWorld(t)
	w.capacity = &pb.Capacity{MemoryBytes: 3 << 29}
	w.do(w.core.Capacity(w.capacity, w.now))
	w.order(1, a, vm(running))
	w.read()
	w.returns(a, true, nil)
	w.read()
	w.returns(a, true, nil)
	w.reads = nil // The reading of a goes on.
	w.order(2, b, vm(running))
	w.read()
	w.returns(b, true, nil)
	w.read()
	w.is(b, defined, waiting)
}

// TestLedgerFollowsTheEpoch: what stays when a run has gone back is not booked on the run any more.
func TestLedgerFollowsTheEpoch(t *testing.T) {
	w := newWorld(t)
	const v = model.ObjectID("volume/v")
	for generation, epoch := range []uint64{0, 3, 0} {
		state := pb.State_STATE_REPLICA
		if epoch > 0 {
			state = pb.State_STATE_PRIMARY
		}
		o := anOrder(uint64(generation+1), v, &pb.Spec{State: state, Parameters: &pb.Spec_Volume{
			Volume: &pb.VolumeSpec{Pool: "west", Name: "v"},
		}})
		o.Epoch = epoch
		w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{o}})
		w.settle()
		if l := w.core.Ledger(); len(l) != 1 || l[0].Epoch != epoch || len(w.ledger) != 1 {
			t.Errorf("in epoch %d the ledger is %v, in the journal %v", epoch, l, w.ledger)
		}
	}
}

func TestReclaim(t *testing.T) {
	const save, shutdown, discard = pb.ReclaimAction_RECLAIM_ACTION_SAVE, pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN, pb.ReclaimAction_RECLAIM_ACTION_DISCARD
	fail := func(w *world) { w.returns(a, false, errDriver); w.read() }
	good := func(w *world) { w.returns(a, true, nil); w.read() }
	noContact := func(w *world) {
		w.returns(a, false, &model.Error{Fault: model.FaultUnavailable, What: "no contact"})
		w.read()
		w.pass(time.Second)
		w.read()
	}
	late := func(w *world) {
		w.pass(31 * time.Second)
		w.is(a, running, unknown)
		w.returns(a, false, fmt.Errorf("context canceled"))
		w.read()
	}
	cases := map[string]struct {
		action pb.ReclaimAction
		steps  []func(*world)
		calls  []string
		graces []time.Duration
		note   string
		state  pb.State
		cold   bool
	}{
		"save": {
			save,
			[]func(*world){good},
			[]string{"a RUNNING>SAVED"},
			[]time.Duration{0},
			"", saved, false,
		},
		"save fails": {
			save,
			[]func(*world){fail, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 20 * time.Second},
			"save failed: the driver failed; shut down, the disk was kept", defined, true,
		},
		"hypervisor restarts in mid-save": {
			save,
			[]func(*world){noContact, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>SAVED"},
			[]time.Duration{0, 0},
			"", saved, false,
		},
		"hypervisor stays away": {
			save,
			[]func(*world){noContact, func(w *world) { w.pass(31 * time.Second); noContact(w) }, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>SAVED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 0, 0},
			"save passed its deadline of 30s; killed, the disk was kept", defined, true,
		},
		"save fails late": {
			save,
			[]func(*world){func(w *world) { w.pass(25 * time.Second); fail(w) }, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 5 * time.Second},
			"save failed: the driver failed; shut down, the disk was kept", defined, true,
		},
		"save passes its deadline": {
			save,
			[]func(*world){late, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 0},
			"save passed its deadline of 30s; killed, the disk was kept", defined, true,
		},
		"save passes its deadline and succeeds": {save, []func(*world){func(w *world) {
			w.pass(31 * time.Second)
			w.returns(a, true, errDriver)
			w.read()
		}}, []string{"a RUNNING>SAVED"}, []time.Duration{0}, "", saved, false},
		"nothing helps but the third kill": {
			save,
			[]func(*world){
				fail, fail, fail,
				func(w *world) {
					if len(w.calls) > 0 {
						w.t.Fatalf("a kill that failed is repeated without a pause")
					}
					w.pass(time.Minute)
					fail(w)
					w.pass(time.Minute)
				}, good,
			},
			[]string{"a RUNNING>SAVED", "a RUNNING>STOPPED", "a RUNNING>STOPPED", "a RUNNING>STOPPED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 20 * time.Second, 0, 0, 0},
			"save failed: the driver failed; killed, the disk was kept", defined, true,
		},
		"shutdown": {
			shutdown,
			[]func(*world){good},
			[]string{"a RUNNING>STOPPED"},
			[]time.Duration{20 * time.Second},
			"", defined, false,
		},
		"shutdown fails": {
			shutdown,
			[]func(*world){fail, good},
			[]string{"a RUNNING>STOPPED", "a RUNNING>STOPPED"},
			[]time.Duration{20 * time.Second, 0},
			"shutdown failed: the driver failed; killed, the disk was kept", defined, false,
		},
		"discard": {
			discard,
			[]func(*world){good},
			[]string{"a RUNNING>STOPPED"},
			[]time.Duration{0},
			"", defined, false,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			spec := reclaim(c.action, 20*time.Second, 30*time.Second)
			w := runningVM(t, spec)
			w.order(2, a, vm(saved, spec))
			w.read()
			var graces []time.Duration
			for _, step := range c.steps {
				graces = append(graces, graceOfLast(w)...)
				step(w)
			}
			// A kill that is repeated is seen only through the log.
			if len(graces) < len(c.graces) {
				graces = append(graces, 0)
			}
			if !slices.Equal(graces, c.graces) {
				t.Errorf("graces %v, not %v", graces, c.graces)
			}
			w.began(c.calls...)
			if st := w.is(a, c.state, settled); st.GetNote() != c.note {
				t.Errorf("note %q", st.GetNote())
			}
			w.order(3, a, vm(running, spec))
			w.settle()
			if st := w.is(a, running, settled); st.GetInstance().GetColdBoot() != c.cold {
				t.Errorf("cold boot %v", st.GetInstance().GetColdBoot())
			}
		})
	}
}

func graceOfLast(w *world) []time.Duration {
	if len(w.calls) == 0 {
		return nil
	}
	return []time.Duration{w.calls[len(w.calls)-1].Grace}
}

// TestReclaimTimeBeginsAnew: an old attempt to save must not shorten the next one.
func TestReclaimTimeBeginsAnew(t *testing.T) {
	spec := reclaim(pb.ReclaimAction_RECLAIM_ACTION_SAVE, 20*time.Second, 30*time.Second)
	w := runningVM(t, spec)
	w.order(2, a, vm(saved, spec))
	w.read()
	w.order(3, a, vm(running, spec))
	w.returns(a, false, errDriver)
	w.settle()
	st := w.is(a, running, settled)
	if st.GetInstance().GetColdBoot() {
		t.Error("a guest that never stopped is called cold")
	}
	w.pass(time.Hour)
	w.settle()
	w.order(4, a, vm(saved, spec))
	w.settle()
	w.is(a, saved, settled)
	w.began("a RUNNING>SAVED", "a RUNNING>SAVED")
}

func TestANewerOrderShortensAStop(t *testing.T) {
	w := runningVM(t)
	w.order(2, a, vm(stopped, reclaim(0, 10*time.Minute, 20*time.Minute)))
	w.read()
	w.order(3, a, vm(saved, reclaim(0, time.Second, 5*time.Second)))
	w.pass(6 * time.Second)
	if len(w.cancelled) != 1 {
		t.Error("a guest that shuts down at leisure holds up a failover")
	}
}

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

func TestTermEnd(t *testing.T) {
	ends := func(w *world, d time.Duration) func(*pb.InstanceSpec) {
		at := timestamppb.New(w.now.Wall.Add(d))
		return func(i *pb.InstanceSpec) { i.TermEnd = at }
	}
	t.Run("stops the instance and keeps all of it", func(t *testing.T) {
		w := newWorld(t)
		w.order(1, a, vm(running, ends(w, time.Hour)))
		w.settle()
		w.log = nil
		for range 59 {
			w.pass(time.Minute)
			w.settle()
		}
		w.began()
		w.pass(2 * time.Minute)
		w.settle()
		w.began("a RUNNING>SAVED")
		if st := w.is(a, saved, waiting); st.GetNote() != "term ended locally" {
			t.Errorf("note %q", st.GetNote())
		}
		w.start()
		w.permit(time.Hour)
		w.settle()
		w.began()
		w.tell()
		w.order(2, a, vm(running, ends(w, time.Hour)))
		w.settle()
		w.is(a, running, settled)
		w.began("a SAVED>RUNNING")
	})
	t.Run("leaves what a failover holds", func(t *testing.T) {
		w := newWorld(t)
		o := anOrder(1, a, vm(running, ends(w, time.Hour)))
		o.Epoch = 4
		w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{o}})
		w.settle()
		victim := anOrder(1, b, vm(saved, ends(w, time.Hour)))
		victim.Epoch = 4
		w.thing(b).state = saved
		w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{victim}})
		w.settle()
		w.log = nil
		w.pass(3 * time.Hour)
		w.settle()
		w.began()
		w.is(a, running, settled)
		w.is(b, saved, settled)
	})
	t.Run("begins nothing afterwards", func(t *testing.T) {
		w := newWorld(t)
		w.order(1, a, vm(running, ends(w, -time.Minute)))
		w.settle()
		w.began()
		w.is(a, absent, waiting)
	})
}

func TestRestoreIsTriedOnce(t *testing.T) {
	cases := map[string]struct {
		// happens while the agent is dead, with the restore under way.
		happens func(w *world)
		calls   []string
		cold    bool
	}{
		"it was done":           {func(w *world) { w.thing(a).state = running }, nil, false},
		"the image was taken":   {func(w *world) { w.thing(a).state = defined }, []string{"a DEFINED>RUNNING"}, true},
		"it had not even begun": {func(*world) {}, []string{"a SAVED>RUNNING"}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := runningVM(t)
			w.order(2, a, vm(saved))
			w.settle()
			w.order(3, a, vm(running))
			w.read()
			w.began("a RUNNING>SAVED", "a SAVED>RUNNING")
			if !w.journal[a].RestoreBegun {
				t.Fatal("the restore was begun without being written down")
			}
			c.happens(w)
			w.start()
			w.tell()
			w.permit(time.Minute)
			w.settle()
			w.began(c.calls...)
			st := w.is(a, running, settled)
			if st.GetInstance().GetColdBoot() != c.cold || (st.GetNote() != "") != c.cold {
				t.Errorf("status %v", st)
			}
			if w.journal[a].RestoreBegun {
				t.Error("the restore is still open")
			}
		})
	}
}

func TestACrashedGuestIsStartedAgain(t *testing.T) {
	w := runningVM(t)
	for i, wait := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
		w.thing(a).state = defined
		w.do(w.core.DriverEvent(a, w.now))
		w.read()
		if st := w.is(a, defined, failed); st.GetAttempts() != uint32(i+1) {
			t.Errorf("attempts %d", st.GetAttempts())
		}
		w.pass(wait - time.Millisecond)
		w.began()
		w.pass(time.Millisecond)
		w.settle()
		w.began("a DEFINED>RUNNING")
	}
	w.pass(stableAfter)
	w.settle()
	w.pass(stableAfter)
	if st := w.is(a, running, settled); st.GetAttempts() != 0 {
		t.Errorf("attempts %d after a stable minute", st.GetAttempts())
	}
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
