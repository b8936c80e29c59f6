package reconcile

import (
	"strings"
	"testing"
	"time"

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

// TestDeviceGate: a start waits until the guest that has the device is seen to be off, and for one that the host lacks.
func TestDeviceGate(t *testing.T) {
	with := func(s pb.State, n uint32) *pb.Spec {
		spec := vm(s)
		spec.GetInstance().Devices = map[string]uint32{"gpu": n}
		return spec
	}
	w := newWorld(t)
	w.capacity = &pb.Capacity{MemoryBytes: 64 << 30, Devices: map[string]uint32{"gpu": 2}}
	w.do(w.core.Capacity(w.capacity, w.now))
	w.order(1, a, with(running, 1))
	w.settle()
	w.order(2, b, with(running, 2))
	w.settle()
	if st := w.is(b, defined, waiting); !strings.Contains(st.GetMessage(), "it needs 2 gpu, and 1 of 2 are in use") {
		t.Errorf("message %q", st.GetMessage())
	}
	w.order(3, a, with(stopped, 1))
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
