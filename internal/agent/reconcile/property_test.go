package reconcile

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// TestCoreUnderFaults drives a core with random orders, driver faults, lost time, crashes at every
// Persist and reboots. The world checks after each effect that must hold always (world.begin); at the
// end the faults stop and everything must settle.
func TestCoreUnderFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &chaos{world: emptyWorld(), rt: t, newest: map[model.ObjectID]*pb.Order{}}
		c.t = t
		c.capacity.MemoryBytes = 3 << 30
		c.start()
		c.revive()
		for range rapid.IntRange(10, 120).Draw(t, "steps") {
			c.step()
			if c.crashed {
				c.crash()
			}
		}
		c.heal()
	})
}

// chaos is a world with a random hand.
type chaos struct {
	*world
	rt         *rapid.T
	generation uint64
	newest     map[model.ObjectID]*pb.Order
}

// objects are drawn from evenly, so that those named often meet each other often.
var objects = []model.ObjectID{
	"instance/a", "instance/a", "instance/a", "instance/b", "instance/c", "instance/d", "instance/d",
	"volume/v", "network/n", "fence/f", "hook/h", "hook/h",
}

func (c *chaos) pick(label string, n int) int { return rapid.IntRange(0, n-1).Draw(c.rt, label) }

func (c *chaos) step() {
	switch c.pick("step", 19) {
	case 0, 1:
		c.newOrders()
	case 2, 3, 4, 5, 14, 15, 16:
		if len(c.reads) > 0 {
			c.someRead()
		}
	case 6, 7, 8, 17, 18:
		if len(c.calls) > 0 {
			c.someReturn()
		}
	case 9:
		c.pass(time.Duration(c.pick("ms", 20_000)) * time.Millisecond)
	case 10:
		c.permit(time.Duration(c.pick("permit", 10)) * time.Second)
	case 11:
		c.crashAt, c.crashAfter = 1+c.pick("crash", 3), c.pick("after", 2) == 1
	case 12:
		id := objects[c.pick("event", len(objects))]
		if th := c.thing(id); th.state == running && c.pick("dies", 2) == 0 {
			th.state, th.ramLost = defined, false
		}
		c.do(c.core.DriverEvent(id, c.now))
	case 13:
		// A repeated and an old order change nothing.
		id := objects[c.pick("repeat", len(objects))]
		if o := c.newest[id]; o != nil {
			old := anOrder(max(o.GetGeneration(), 2)-1, id, randomSpec(c, id))
			c.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{o, old}})
		}
	}
}

// someRead answers or fails a reading.
func (c *chaos) someRead() {
	if c.pick("read fails", 8) > 0 {
		c.answer()
		return
	}
	e := c.reads[0]
	c.reads = c.reads[1:]
	c.do(c.core.Observed(e.Object, e.Seq, Observation{}, errDriver, c.now))
}

// someReturn ends a call: well, failed, failed but done, or answered but not done.
func (c *chaos) someReturn() {
	k := c.calls[c.pick("call", len(c.calls))]
	switch c.pick("outcome", 7) {
	case 0:
		c.returns(k.Object, false, errDriver)
	case 1:
		c.returns(k.Object, true, errDriver)
	case 2:
		// What leaves the state as it is can only be read back by the driver itself.
		if k.Transition.Kind != pb.Kind_KIND_HOOK && k.Transition.From != k.Transition.To {
			c.returns(k.Object, false, nil)
		}
	case 3:
		if k.Transition.From == saved && k.Transition.To == running {
			c.loseImage(k.Object)
			c.returns(k.Object, false, errDriver)
		}
	case 4:
		c.returns(k.Object, false, ErrNoPermit)
	default:
		c.returns(k.Object, true, nil)
	}
}

func (c *chaos) newOrders() {
	o := &pb.Orders{Era: 1, Term: 1}
	for range 1 + c.pick("orders", 3) {
		id := objects[c.pick("object", len(objects))]
		c.generation++
		order := anOrder(c.generation, id, randomSpec(c, id))
		order.Epoch = uint64(c.pick("epoch", 2))
		c.newest[id] = order
		o.Orders = append(o.Orders, order)
	}
	c.orders(o)
}

func randomSpec(c *chaos, id model.ObjectID) *pb.Spec {
	states := model.States(id.Kind())
	s := states[c.pick("state", len(states))]
	switch id.Kind() {
	case pb.Kind_KIND_VOLUME:
		if s == pb.State_STATE_CLONE {
			s = pb.State_STATE_REPLICA
		}
		return &pb.Spec{State: s, Parameters: &pb.Spec_Volume{Volume: &pb.VolumeSpec{
			Pool: "west", Name: "v", Resync: uint64(c.pick("resync", 3)),
		}}}
	case pb.Kind_KIND_NETWORK:
		return &pb.Spec{State: s, Parameters: &pb.Spec_Network{Network: &pb.NetworkSpec{Name: "n"}}}
	case pb.Kind_KIND_FENCE:
		return &pb.Spec{State: s, Parameters: &pb.Spec_Fence{Fence: &pb.FenceSpec{Target: "east"}}}
	case pb.Kind_KIND_HOOK:
		return &pb.Spec{State: s, Parameters: &pb.Spec_Hook{Hook: &pb.HookSpec{Apply: []string{"true"}}}}
	}
	actions := []pb.ReclaimAction{
		pb.ReclaimAction_RECLAIM_ACTION_SAVE, pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN, pb.ReclaimAction_RECLAIM_ACTION_DISCARD,
	}
	spec := vm(s, reclaim(actions[c.pick("action", 3)], 5*time.Second, 10*time.Second))
	if id == "instance/d" && s == running {
		spec.After = []*pb.LocalGate{{Object: "instance/a", States: model.MemoryFree()}}
	}
	return spec
}

// crash kills the agent: what was not persisted is lost, and each call under way may have happened.
// Sometimes the whole host went down.
func (c *chaos) crash() {
	reboot := c.pick("reboot", 4) == 0
	for _, k := range c.calls {
		switch c.pick("lost call", 3) {
		case 0:
			c.effect(k)
		case 1:
			if k.Transition.From == saved && k.Transition.To == running {
				c.loseImage(k.Object)
			}
		}
	}
	if reboot {
		c.now.Boot = time.Second
		c.bootID += "'"
		for _, th := range c.things {
			if th.state == running {
				th.state, th.ramLost = defined, false
			}
		}
	}
	c.crashAt = 0
	c.start()
	c.revive()
}

// revive tells a new core what every agent learns soon. Orders that it has not seen, or lost with
// the crash, come again.
func (c *chaos) revive() {
	c.tell()
	if c.pick("permit at once", 2) == 0 {
		c.permit(5 * time.Second)
	}
	again := &pb.Orders{Era: 1, Term: 1, Full: true}
	for _, id := range slices.Compact(slices.Clone(objects)) {
		if o := c.newest[id]; o != nil {
			again.Orders = append(again.Orders, o)
		}
	}
	c.orders(again)
}

// heal ends all faults; everything must settle in bounded time.
func (c *chaos) heal() {
	c.crashAt = 0
	for round := range 400 {
		c.permit(time.Minute)
		c.settle()
		if c.settled() {
			c.compare()
			return
		}
		if round > 200 {
			// Memory may be too little for everything that is wanted; then something must wait for it.
			c.capacity.MemoryBytes = 64 << 30
			c.do(c.core.Capacity(c.capacity, c.now))
			if a := c.newest["instance/a"]; a.GetSpec().GetState() == running {
				c.generation++
				c.newest["instance/a"] = anOrder(c.generation, "instance/a", vm(stopped))
				c.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{c.newest["instance/a"]}})
			}
		}
		c.pass(5 * time.Second)
	}
	for _, id := range objects {
		c.rt.Logf("%s is %v: %v", id, c.thing(id).state, c.reported[id])
	}
	c.rt.Fatalf("it does not settle after all faults have ended")
}

func (c *chaos) settled() bool {
	for id, o := range c.newest {
		st := c.reported[id]
		if st.GetPhase() != pb.Phase_PHASE_SETTLED || st.GetGeneration() != o.GetGeneration() {
			return false
		}
	}
	return true
}

// compare looks at what there really is at the end.
func (c *chaos) compare() {
	for id, o := range c.newest {
		th, st := c.thing(id), c.reported[id]
		if id.Kind() != pb.Kind_KIND_HOOK && !model.Satisfies(id.Kind(), th.state, o.GetSpec().GetState()) {
			c.rt.Fatalf("%s is reported settled and is %v instead of %v", id, th.state, o.GetSpec().GetState())
		}
		if id.Kind() == pb.Kind_KIND_VOLUME && th.state != absent && th.applied != digest(o.GetSpec()) {
			c.rt.Fatalf("%s has other parameters than its newest order", id)
		}
		if th.state == running && th.ramLost != st.GetInstance().GetColdBoot() {
			c.rt.Fatalf("%s: RAM lost %v, reported %v", id, th.ramLost, st.GetInstance().GetColdBoot())
		}
		if th.state == firstState(id.Kind()) && len(c.core.ledgerOf(id)) > 0 {
			c.rt.Fatalf("%s is back where it was and still in the ledger %v: %v; %v", id, c.core.ledgerOf(id), st, c.log)
		}
	}
}

// TestCrashAtEveryWrite runs one life of a lent VM (start, preemption for a protected one, return)
// and kills the agent before and after each of its journal writes in turn, with the driver call that
// was under way done or not.
func TestCrashAtEveryWrite(t *testing.T) {
	script := []*pb.Orders{
		{Era: 1, Term: 1, Orders: []*pb.Order{anOrder(1, a, vm(running))}},
		{Era: 1, Term: 1, Orders: []*pb.Order{anOrder(2, a, vm(saved)), anOrder(2, b, gated())}},
		{Era: 1, Term: 1, Orders: []*pb.Order{anOrder(3, b, vm(absent)), anOrder(3, a, vm(running))}},
	}
	for n := 1; ; n++ {
		reached := false
		for _, after := range []bool{false, true} {
			for _, done := range []bool{false, true} {
				w := newWorld(t)
				w.capacity = &pb.Capacity{MemoryBytes: 3 << 29}
				w.do(w.core.Capacity(w.capacity, w.now))
				w.crashAt, w.crashAfter = n, after
				for _, o := range script {
					w.orders(o)
					for range 20 {
						w.settle()
						if w.crashed {
							reached = true
							w.restartAfterCrash(done, o)
							continue
						}
						w.pass(time.Second)
					}
				}
				st := w.is(a, running, settled)
				w.is(b, absent, settled)
				if w.thing(a).ramLost || st.GetInstance().GetColdBoot() {
					t.Fatalf("write %d, after %v, done %v: the RAM is lost: %v", n, after, done, w.log)
				}
			}
		}
		if !reached {
			if n < 8 {
				t.Fatalf("only %d writes: the script does nothing", n)
			}
			return
		}
	}
}

func gated() *pb.Spec {
	s := vm(running)
	s.After = []*pb.LocalGate{{Object: string(a), States: model.MemoryFree()}}
	return s
}

func (w *world) restartAfterCrash(done bool, again *pb.Orders) {
	for _, k := range w.calls {
		if done {
			w.effect(k)
		}
	}
	w.start()
	w.permit(time.Hour)
	w.tell()
	w.orders(again)
}
