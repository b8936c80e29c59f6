package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	absent  = pb.State_STATE_ABSENT
	defined = pb.State_STATE_DEFINED
	running = pb.State_STATE_RUNNING
	saved   = pb.State_STATE_SAVED
	stopped = pb.State_STATE_STOPPED
)

var errDriver = errors.New("the driver failed")

// thing is one object as it really is.
type thing struct {
	state pb.State
	// ramLost: the guest should have its RAM from before, but was booted from its disk.
	ramLost bool
	// owed: the RAM of the guest was in an image or should have been saved.
	owed bool
	// applied digest of the parameters that the driver has.
	applied string
}

// world is a core with its journal and what it drives, in one goroutine. Tests script it.
type world struct {
	t interface {
		Helper()
		Fatalf(format string, args ...any)
		Logf(format string, args ...any)
	}
	core    *Core
	journal map[model.ObjectID]Record
	ledger  map[ArtefactKey]Artefact
	marks   Marks
	bootID  string
	now     Now
	things  map[model.ObjectID]*thing
	// reported is the newest status of each object.
	reported map[model.ObjectID]*pb.Status
	probing  map[model.ObjectID]bool
	// calls and readings under way, in the order in which they began.
	calls     []Call
	cancelled map[uint64]time.Duration
	reads     []Observe
	// log holds every transition that was begun.
	log         []string
	permitUntil time.Duration
	capacity    *pb.Capacity
	// crashAt counts down with every Persist; the agent dies before (false) or after (true) the one
	// at which it reaches zero.
	crashAt    int
	crashAfter bool
	crashed    bool
}

func newWorld(t *testing.T) *world {
	w := emptyWorld()
	w.t = t
	w.start()
	w.permit(time.Hour)
	w.tell()
	return w
}

// tell gives a new core what every agent learns soon.
func (w *world) tell() {
	w.do(w.core.Capacity(w.capacity, w.now))
	w.do(w.core.Inventory(nil, w.now))
}

func emptyWorld() *world {
	return &world{
		journal: map[model.ObjectID]Record{}, ledger: map[ArtefactKey]Artefact{}, bootID: "boot-1",
		now:    Now{Wall: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC), Boot: time.Minute},
		things: map[model.ObjectID]*thing{}, capacity: &pb.Capacity{MemoryBytes: 64 << 30},
	}
}

// start begins a new life of the agent from its journal.
func (w *world) start() {
	w.reported, w.probing = map[model.ObjectID]*pb.Status{}, map[model.ObjectID]bool{}
	w.cancelled = map[uint64]time.Duration{}
	w.calls, w.reads = nil, nil
	w.permitUntil, w.crashed = 0, false
	var content Content
	content.Marks = w.marks
	for _, id := range slices.Sorted(maps.Keys(w.journal)) {
		content.Records = append(content.Records, w.journal[id])
	}
	for _, a := range w.ledger {
		content.Ledger = append(content.Ledger, a)
	}
	core, effects := New(Config{BootID: w.bootID, RestoredAt: w.now}, content)
	w.core = core
	w.do(effects)
}

// hear lets the leader of era 1 say welcome, if none of a newer one has.
func (w *world) hear() { w.do(w.core.LeaderSeen(&pb.Welcome{Era: 1, Term: 1}, w.now)) }

// permit lets a leader speak and grant a permit.
func (w *world) permit(d time.Duration) {
	w.hear()
	w.permitUntil = max(w.permitUntil, w.now.Boot+d)
	w.do(w.core.PermitGranted(w.permitUntil, w.now))
}

func (w *world) thing(id model.ObjectID) *thing {
	if w.things[id] == nil {
		w.things[id] = &thing{state: firstState(id.Kind())}
	}
	return w.things[id]
}

// do executes effects as the runtime does; after a crash nothing more.
func (w *world) do(effects []Effect) {
	for _, e := range effects {
		if w.crashed {
			return
		}
		switch e := e.(type) {
		case Persist:
			w.persist(e)
		case Observe:
			if slices.ContainsFunc(w.reads, func(r Observe) bool { return r.Object == e.Object }) {
				w.t.Fatalf("once: %s is read twice at a time", e.Object)
			}
			w.reads = append(w.reads, e)
		case Call:
			w.begin(e)
		case Cancel:
			w.cancelled[e.Seq] = w.now.Boot
		case Report:
			w.reported[model.ObjectID(e.Status.GetObject())] = e.Status
		case ProbeStart:
			w.probing[e.Object] = true
		case ProbeStop:
			delete(w.probing, e.Object)
		default:
			w.t.Fatalf("unknown effect %T", e)
		}
	}
}

func (w *world) persist(p Persist) {
	if w.crashAt > 0 {
		w.crashAt--
		w.crashed = w.crashAt == 0
		if w.crashed && !w.crashAfter {
			return
		}
	}
	for _, r := range p.Put {
		w.journal[r.Object] = r
	}
	for _, id := range p.Delete {
		delete(w.journal, id)
	}
	for _, k := range p.Drop {
		delete(w.ledger, k)
	}
	for _, a := range p.Note {
		w.ledger[a.ArtefactKey] = a
	}
	if p.Marks != nil {
		w.marks = *p.Marks
	}
}

// begin checks what must hold whenever a driver is called.
func (w *world) begin(c Call) {
	w.t.Helper()
	t := c.Transition
	rec := w.journal[c.Object]
	w.log = append(w.log, fmt.Sprintf("%s %s>%s", c.Object.Name(), model.StateName(t.From), model.StateName(t.To)))
	if rec.Order == nil || rec.Era != c.Era || rec.Order.GetGeneration() != c.Generation {
		w.t.Fatalf("order: call %v of (%d, %d), the journal has %v", w.log[len(w.log)-1], c.Era, c.Generation, rec.Order)
	}
	if rec.Intent.From != t.From || rec.Intent.To != t.To {
		w.t.Fatalf("journal: call %v was not written down before, but %v", w.log[len(w.log)-1], rec.Intent)
	}
	if t.Acquiring && w.now.Boot >= w.permitUntil {
		w.t.Fatalf("permit: %v was begun without one", w.log[len(w.log)-1])
	}
	if t.To != firstState(t.Kind) {
		if _, ok := w.ledger[ArtefactKey{c.Object, c.Epoch}]; !ok {
			w.t.Fatalf("ledger: %v is not in it", w.log[len(w.log)-1])
		}
	}
	want := rec.Order.GetSpec().GetState()
	if t.To == absent && want != absent {
		w.t.Fatalf("keep: %s is deleted although %v is ordered", c.Object, want)
	}
	if t.From == saved && t.To == stopped && want != stopped && want != defined {
		w.t.Fatalf("keep: the RAM of %s is dropped although %v is ordered", c.Object, want)
	}
	for _, other := range w.calls {
		if other.Object != c.Object {
			continue
		}
		at, ended := w.cancelled[other.Seq]
		if !ended || w.now.Boot < at+cancelGrace ||
			((other.Transition.From != running || t.From != running) && !reached(other.Transition, t.From)) {
			w.t.Fatalf("once: %v while %v is under way", w.log[len(w.log)-1], other.Transition)
		}
	}
	if t.To == running {
		w.checkStart(c)
	}
	w.calls = append(w.calls, c)
}

// checkStart compares a start with what is really there.
func (w *world) checkStart(c Call) {
	w.t.Helper()
	used := w.capacity.GetForeignMemoryBytes()
	for id, th := range w.things {
		if th.state == running && id != c.Object {
			used += w.journal[id].Order.GetSpec().GetInstance().GetMemoryBytes()
		}
	}
	if used+c.Spec.GetInstance().GetMemoryBytes() > w.capacity.GetMemoryBytes() {
		w.t.Fatalf("memory: %s is started while %d MiB are in use", c.Object, used>>20)
	}
	for _, g := range c.Spec.GetAfter() {
		if is := w.thing(model.ObjectID(g.GetObject())).state; !slices.Contains(g.GetStates(), is) {
			w.t.Fatalf("gate: %s is started while %s is %v", c.Object, g.GetObject(), is)
		}
	}
}

// effect makes a transition really happen.
func (w *world) effect(c Call) {
	th := w.thing(c.Object)
	t := c.Transition
	if t.Kind != pb.Kind_KIND_INSTANCE {
		if th.state == t.From {
			th.state = t.To
			th.applied = digest(c.Spec)
		}
		return
	}
	switch {
	case t.From == t.To:
	case t.To == defined && th.state == absent:
		*th = thing{state: defined}
	case t.From == saved && t.To == running && th.state == saved:
		th.state, th.ramLost, th.owed = running, false, false
	case t.To == running && th.state == defined:
		th.state, th.ramLost, th.owed = running, th.owed, false
	case t.To == saved && th.state == running:
		th.state, th.owed = saved, true
	case t.From == running && t.To == stopped && th.state == running:
		th.state = defined
	case t.From == saved && t.To == stopped && th.state == saved:
		th.state, th.owed = defined, false
	case t.To == absent && th.state != running:
		*th = thing{state: absent}
	}
}

// loseImage is a restore that took the image out of the way and then failed.
func (w *world) loseImage(id model.ObjectID) {
	if th := w.thing(id); th.state == saved {
		th.state, th.owed = defined, true
	}
}

// answer gives the oldest reading its answer.
func (w *world) answer() {
	e := w.reads[0]
	w.reads = w.reads[1:]
	w.do(w.core.Observed(e.Object, e.Seq, Observation{State: w.thing(e.Object).state}, nil, w.now))
}

// returns ends the oldest call on an object.
func (w *world) returns(id model.ObjectID, happens bool, err error) {
	w.t.Helper()
	i := slices.IndexFunc(w.calls, func(c Call) bool { return c.Object == id })
	if i < 0 {
		w.t.Fatalf("no call on %s is under way: %v", id, w.log)
	}
	c := w.calls[i]
	w.calls = slices.Delete(w.calls, i, i+1)
	if happens {
		w.effect(c)
	}
	w.do(w.core.CallReturned(id, c.Seq, err, w.now))
}

// read answers all readings.
func (w *world) read() {
	for len(w.reads) > 0 && !w.crashed {
		w.answer()
	}
}

// settle answers everything, well, until nothing is under way. Time does not pass.
func (w *world) settle() {
	w.t.Helper()
	for range 1000 {
		switch {
		case w.crashed:
			return
		case len(w.reads) > 0:
			w.answer()
		case len(w.calls) > 0:
			w.returns(w.calls[0].Object, true, nil)
		default:
			return
		}
	}
	w.t.Fatalf("it does not settle: %v", w.log[len(w.log)-20:])
}

// pass lets time pass, with a tick whenever the core wants one.
func (w *world) pass(d time.Duration) {
	end := w.now.Boot + d
	for range 10_000 {
		wait := min(w.core.NextTick(w.now), end-w.now.Boot)
		w.now.Boot += wait
		w.now.Wall = w.now.Wall.Add(wait)
		w.do(w.core.Tick(w.now))
		if w.crashed || w.now.Boot >= end {
			return
		}
	}
	w.t.Fatalf("the core wants a tick again and again without anything to do at %v", w.now.Boot)
}

// live lets time pass and answers readings as they come.
func (w *world) live(d time.Duration) {
	for end := w.now.Boot + d; w.now.Boot < end; {
		w.pass(min(end-w.now.Boot, max(w.core.NextTick(w.now), time.Millisecond)))
		w.read()
	}
}

// order sends one order of era 1.
func (w *world) order(generation uint64, id model.ObjectID, spec *pb.Spec) {
	w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{anOrder(generation, id, spec)}})
}

func (w *world) orders(o *pb.Orders) { w.do(w.core.Orders(o, w.now)) }

func anOrder(generation uint64, id model.ObjectID, spec *pb.Spec) *pb.Order {
	return &pb.Order{Object: string(id), Kind: id.Kind(), Generation: generation, Spec: spec, Owner: "web"}
}

// vm returns the spec of an instance of 1 GiB.
func vm(s pb.State, change ...func(*pb.InstanceSpec)) *pb.Spec {
	i := &pb.InstanceSpec{Vcpus: 1, MemoryBytes: 1 << 30}
	for _, f := range change {
		f(i)
	}
	return &pb.Spec{State: s, Parameters: &pb.Spec_Instance{Instance: i}}
}

func reclaim(a pb.ReclaimAction, grace, deadline time.Duration) func(*pb.InstanceSpec) {
	return func(i *pb.InstanceSpec) {
		i.Reclaim = &pb.Reclaim{Action: a, Grace: durationpb.New(grace), Deadline: durationpb.New(deadline)}
	}
}

// is checks state and phase of the newest status.
func (w *world) is(id model.ObjectID, s pb.State, p pb.Phase) *pb.Status {
	w.t.Helper()
	st := w.reported[id]
	if st.GetState() != s || st.GetPhase() != p {
		w.t.Fatalf("%s is %v %v (%s), not %v %v; calls %v", id, st.GetState(), st.GetPhase(), st.GetMessage(), s, p, w.log)
	}
	return st
}

// began checks which calls were begun since the last time.
func (w *world) began(want ...string) {
	w.t.Helper()
	if !slices.Equal(w.log, want) {
		w.t.Fatalf("calls %q, not %q", w.log, want)
	}
	w.log = nil
}
