package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// maxAttemptsShown bounds the counter in statuses and in the journal.
const maxAttemptsShown = 1 << 20

// decide chooses what to do with an object whose state was just read.
func (c *Core) decide(o *object) {
	c.changed[o.rec.Object] = true
	order := o.rec.Order
	switch {
	case order == nil:
		c.hold(o, "there is no order for it; it is reported and not touched")
		return
	case o.invalid != nil:
		o.phase, o.message = pb.Phase_PHASE_FAILED, o.invalid.Error()
		return
	case o.rec.Unnamed:
		c.hold(o, "the coordinator does not name it; it is reported and not touched")
		return
	}
	c.endTerm(o)
	want := order.GetSpec().GetState()
	if o.rec.LocalEnd {
		if o.obs.State != pb.State_STATE_RUNNING {
			c.hold(o, "its term has ended; it waits for the coordinator")
			return
		}
		want = pb.State_STATE_SAVED
	}
	if want == pb.State_STATE_RUNNING {
		o.rec.Reclaim = Reclaim{}
	}
	t, done, err := c.choose(o, want)
	switch {
	case err != nil:
		o.phase, o.message = pb.Phase_PHASE_FAILED, err.Error()
	case o.call != nil && !mayFollow(o, t, done):
		o.phase = pb.Phase_PHASE_UNKNOWN
		o.message = fmt.Sprintf("%s does not return although it was cancelled; nothing else is tried before it does",
			verb(o.call.transition))
	case done:
		c.settle(o)
	default:
		c.try(o, t, want)
	}
}

// hold leaves an object as it is.
func (c *Core) hold(o *object, why string) {
	o.phase, o.message = pb.Phase_PHASE_WAITING, why
}

// mayFollow says whether an object may go on although an earlier call never returned: only to take
// memory back, when saving or stopping hangs (R11). Such a call cannot do harm to a guest that is off.
func mayFollow(o *object, t model.Transition, done bool) bool {
	stuck := o.call.transition
	hangs := stuck.Kind == pb.Kind_KIND_INSTANCE && stuck.From == pb.State_STATE_RUNNING
	return hangs && (done && o.obs.State != pb.State_STATE_RUNNING || t.From == pb.State_STATE_RUNNING)
}

// endTerm notes that the term of a lease has passed.
func (c *Core) endTerm(o *object) {
	if !c.termPassed(o) {
		return
	}
	o.rec.LocalEnd = true
	o.rec.Note = "term ended locally"
	c.first = true
}

// choose returns the transition that the object needs now.
func (c *Core) choose(o *object, want pb.State) (t model.Transition, done bool, err error) {
	kind := o.rec.Object.Kind()
	if kind == pb.Kind_KIND_HOOK && o.rec.HookInDoubt {
		// A hook whose end is not known is run again, on the side that is wanted: it has a key that
		// makes it idempotent.
		from := pb.State_STATE_REVERTED
		if want == from {
			from = pb.State_STATE_APPLIED
		}
		t, _ = model.Next(kind, from, want)
		return t, false, nil
	}
	t, done, err = next(kind, o.obs.State, want)
	if err != nil {
		return t, false, err
	}
	renew := refreshes(kind, o.obs.State) && (o.obs.Outdated || o.rec.Applied != digest(o.rec.Order.GetSpec()))
	switch {
	case done && renew && o.obs.State == want:
		return refresh(kind, o.obs.State), false, nil
	case renew && t.To == pb.State_STATE_RUNNING && off(o.obs.State):
		// The definition is older than the order: renew it before the start.
		return refresh(kind, o.obs.State), false, nil
	}
	return t, done, nil
}

// settle notes that nothing is left to do.
func (c *Core) settle(o *object) {
	if o.phase != pb.Phase_PHASE_SETTLED {
		o.settledAt = c.now.Boot
	}
	o.phase, o.message = pb.Phase_PHASE_SETTLED, o.obs.Problem
	o.retryAt = 0
	c.moveArtefacts(o)
}

// try begins a transition, or says what it waits for.
func (c *Core) try(o *object, t model.Transition, want pb.State) {
	if why := c.readOnly(t); why != "" {
		c.hold(o, why)
		o.waitsForOthers = true
		return
	}
	if c.now.Boot < o.retryAt {
		o.phase = pb.Phase_PHASE_FAILED
		return
	}
	if t.Acquiring {
		if why := c.gate(o, t); why != "" {
			o.phase, o.message, o.waitsForOthers = pb.Phase_PHASE_WAITING, why, true
			return
		}
	}
	call := Call{
		Object: o.rec.Object, Transition: t, Spec: o.rec.Order.GetSpec(), Owner: o.rec.Order.GetOwner(),
		Epoch: o.rec.Order.GetEpoch(), Era: o.rec.Era, Generation: o.rec.Order.GetGeneration(),
		Timeout: timeout(t, o.rec.Order.GetSpec()),
	}
	if t.Kind == pb.Kind_KIND_INSTANCE && t.From == pb.State_STATE_RUNNING {
		if c.warned(o) {
			return
		}
		c.takeBack(o, &call, want)
	} else {
		o.rec.Reclaim = Reclaim{}
	}
	c.start(o, call)
}

// start writes the intent and the ledger entry down, and lets the call go behind them.
func (c *Core) start(o *object, k Call) {
	c.first = true
	c.seq++
	k.Seq = c.seq
	t := k.Transition
	o.rec.Intent = Intent{From: t.From, To: t.To, Era: k.Era, Generation: k.Generation}
	o.rec.Attempts = min(o.rec.Attempts, maxAttemptsShown)
	if t.From == pb.State_STATE_SAVED && t.To == pb.State_STATE_RUNNING {
		o.rec.RestoreBegun = true
	}
	if t.Kind == pb.Kind_KIND_HOOK {
		o.rec.HookInDoubt = true
	}
	if off(t.From) && t.To == pb.State_STATE_RUNNING {
		o.rec.Listens = false // Another boot: nobody knows what runs in it.
	}
	key := ArtefactKey{Object: k.Object, Epoch: k.Epoch}
	if _, ok := c.ledger[key]; !ok && t.To != firstState(t.Kind) {
		c.ledger[key] = Artefact{ArtefactKey: key, What: artefact(k.Object, t.Kind, k.Spec)}
		c.noted = append(c.noted, c.ledger[key])
	}
	applied := ""
	if refreshes(t.Kind, t.To) && t.From != pb.State_STATE_RUNNING {
		// Until it is known to have succeeded nobody knows which parameters the driver has.
		applied = digest(k.Spec)
		o.rec.Applied = ""
	}
	o.call = &call{
		seq: k.Seq, transition: t, digest: applied, deadline: c.now.Boot + k.Timeout,
	}
	o.fresh = false
	o.began, o.returned = c.now.Wall, time.Time{}
	o.phase, o.message = pb.Phase_PHASE_WORKING, ""
	c.emit(k)
}

// readOnly says why nothing may be done about what was read, or "". A journal that is older than what was
// done by it cannot be told from the newest one by the agent itself (R13): after a start it does nothing
// before it has heard from a leader. But the coordinators may be gone for long. What takes a guest back,
// or withdraws it, loses nothing that a newer order would miss: that is waited with for a while only (R10).
func (c *Core) readOnly(t model.Transition) string {
	harmless := t.Kind == pb.Kind_KIND_INSTANCE && t.From == pb.State_STATE_RUNNING || t.To == pb.State_STATE_WITHDRAWN
	switch {
	case c.marks.Held:
		return "the coordinator gives this agent no orders; it is reported and not touched"
	case c.heard || harmless && c.lapsed:
		return ""
	default:
		return "waits for the first word of a leader since the agent started"
	}
}

// gate returns what an acquiring transition waits for, or "" when nothing does.
func (c *Core) gate(o *object, t model.Transition) string {
	for _, g := range o.rec.Order.GetSpec().GetAfter() {
		if why := c.localGate(g); why != "" {
			return why
		}
	}
	if t.Kind == pb.Kind_KIND_INSTANCE {
		if why := c.memoryGate(o); why != "" {
			return why
		}
		if why := c.deviceGate(o); why != "" {
			return why
		}
	}
	if c.now.Boot >= c.permitUntil {
		return "waits for a permit from the coordinator"
	}
	return ""
}

// localGate returns why a condition on another object of this agent does not hold, or "".
func (c *Core) localGate(g *pb.LocalGate) string {
	id := model.ObjectID(g.GetObject())
	o := c.objects[id]
	if o == nil {
		gone := c.inventoried || id.Kind() != pb.Kind_KIND_INSTANCE
		if gone && slices.Contains(g.GetStates(), firstState(id.Kind())) {
			return ""
		}
		return fmt.Sprintf("waits for %s, which this agent does not know", id)
	}
	if o.known && o.fresh && o.call == nil && slices.Contains(g.GetStates(), o.obs.State) {
		return ""
	}
	is := "not read yet"
	if o.known {
		is = model.StateName(o.obs.State)
	}
	names := make([]string, 0, len(g.GetStates()))
	for _, s := range g.GetStates() {
		names = append(names, model.StateName(s))
	}
	return fmt.Sprintf("waits for %s to be %s; it is %s", id, strings.Join(names, " or "), is)
}

// memoryGate returns why a start would take more memory than the host has, or "".
func (c *Core) memoryGate(o *object) string {
	if c.capacity == nil {
		return "waits for the hypervisor to report the host's memory"
	}
	if !c.inventoried {
		return "waits for the hypervisor to list its guests"
	}
	used := c.capacity.GetForeignMemoryBytes()
	for _, other := range c.objects {
		if other != o {
			used += c.holds(other)
		}
	}
	need := o.rec.Order.GetSpec().GetInstance().GetMemoryBytes() + c.capacity.GetOverheadBytes()
	if total := c.capacity.GetMemoryBytes(); used+need > total {
		return fmt.Sprintf("waits for memory: it needs %d MiB, and %d of %d MiB are in use",
			need>>20, used>>20, total>>20)
	}
	return ""
}

// deviceGate returns why a start would take a device that the host has not or another guest has, or "".
func (c *Core) deviceGate(o *object) string {
	want := o.rec.Order.GetSpec().GetInstance().GetDevices()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		used := uint32(0)
		for _, other := range c.objects {
			if other != o && c.holds(other) > 0 {
				used += other.rec.Order.GetSpec().GetInstance().GetDevices()[name]
			}
		}
		if has := c.capacity.GetDevices()[name]; used+want[name] > has {
			return fmt.Sprintf("waits for a device: it needs %d %s, and %d of %d are in use", want[name], name, used, has)
		}
	}
	return ""
}

// holds returns how much memory an object may be using. What was not read yet, what is being started,
// and what was started and not read back, counts as running.
func (c *Core) holds(o *object) uint64 {
	if o.rec.Object.Kind() != pb.Kind_KIND_INSTANCE {
		return 0
	}
	ordered := o.rec.Order.GetSpec().GetInstance().GetMemoryBytes()
	starting := o.call != nil && o.call.transition.To == pb.State_STATE_RUNNING ||
		o.pending != nil && o.pending.transition.To == pb.State_STATE_RUNNING
	switch {
	case o.known && o.obs.State == pb.State_STATE_RUNNING && o.obs.MemoryBytes > 0:
		return o.obs.MemoryBytes + c.capacity.GetOverheadBytes()
	case starting, !o.known, o.obs.State == pb.State_STATE_RUNNING:
		// What the inventory said is all there is about a guest that is neither ordered nor read.
		return max(ordered, o.obs.MemoryBytes) + c.capacity.GetOverheadBytes()
	default:
		return 0
	}
}
