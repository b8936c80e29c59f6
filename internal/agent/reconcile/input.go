package reconcile

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Orders takes the newest specs. All of them are in one Persist before any object acts (R8). Orders
// of an older term or era than one seen are ignored as a whole.
func (c *Core) Orders(o *pb.Orders, now Now) []Effect {
	c.begin(now)
	if !c.lead(o.GetEra(), o.GetTerm()) {
		return c.finish()
	}
	c.word(false, true)
	c.first = true
	named := map[model.ObjectID]bool{}
	for _, order := range o.GetOrders() {
		named[model.ObjectID(order.GetObject())] = true
		c.order(o.GetEra(), order)
	}
	for _, id := range o.GetForget() {
		named[model.ObjectID(id)] = true
		c.forget(model.ObjectID(id))
	}
	if o.GetFull() {
		for _, obj := range c.objects {
			if !named[obj.rec.Object] {
				obj.rec.Unnamed = true
				c.forced[obj.rec.Object] = true
				c.touch(obj)
			}
		}
	}
	return c.finish()
}

// order takes the newest spec of one object, unless it is not newer than what is held.
func (c *Core) order(era uint64, order *pb.Order) {
	id := model.ObjectID(order.GetObject())
	o := c.objects[id]
	if o == nil {
		o = &object{rec: Record{Object: id}, health: pb.HealthState_HEALTH_STATE_NONE}
		c.objects[id] = o
	}
	o.rec.Unnamed, o.unwanted = false, false
	c.touch(o)
	c.forced[id] = true
	key := model.OrderKey{Object: id, Era: era, Generation: order.GetGeneration()}
	if o.rec.Order != nil && key.Compare(o.rec.Key()) <= 0 {
		return
	}
	c.marks.Generation = max(c.marks.Generation, order.GetGeneration())
	next := proto.Clone(order).(*pb.Order)
	if next.GetSpec() != nil && next.GetSpec().GetParameters() == nil {
		// A base of ABSENT may come without parameters, but the driver needs to know what to remove.
		next.Spec.Parameters = o.rec.Order.GetSpec().GetParameters()
	}
	o.rec.Order, o.rec.Era = next, era
	o.rec.LocalEnd = false
	o.rec.Attempts, o.retryAt = 0, 0
	o.observeAt, o.observeFails = 0, 0
	o.invalid = checkOrder(next)
	if o.call == nil {
		o.phase, o.message = pb.Phase_PHASE_WORKING, ""
	}
	c.reread(o)
	c.shorten(o)
}

// shorten brings the deadline of a stop or save that is under way forward when a newer order leaves
// it less time: a guest that shuts down at leisure must not hold up a failover.
func (c *Core) shorten(o *object) {
	want := o.rec.Order.GetSpec()
	if o.call == nil || o.call.transition.From != pb.State_STATE_RUNNING ||
		want.GetState() != pb.State_STATE_SAVED {
		return
	}
	if d := want.GetInstance().GetReclaim().GetDeadline(); d != nil {
		o.call.deadline = min(o.call.deadline, c.now.Boot+d.AsDuration())
	}
}

// forget removes the record of an object that is observed ABSENT; any other is only reported. One that is
// not read yet waits for that: an answer before would only be told again to forget it.
func (c *Core) forget(id model.ObjectID) {
	if o := c.objects[id]; o != nil {
		o.unwanted = true
		c.touch(o)
	}
}

// dropUnwanted forgets an object that was read, if that was asked for and it is gone.
func (c *Core) dropUnwanted(o *object) (dropped bool) {
	if !o.unwanted || o.call != nil {
		return false
	}
	id := o.rec.Object
	o.unwanted = false
	if o.obs.State != firstState(id.Kind()) {
		c.forced[id] = true
		return false
	}
	delete(c.objects, id)
	c.deleted = append(c.deleted, id)
	return true
}

// LeaderSeen takes the welcome of a coordinator that leads; orders of older ones are ignored from now
// on. While it holds this agent nothing is touched; when orders follow they have the word.
func (c *Core) LeaderSeen(w *pb.Welcome, now Now) []Effect {
	c.begin(now)
	c.first = true
	if c.lead(w.GetEra(), w.GetTerm()) {
		c.word(w.GetHeld() != "" || c.marks.Held && w.GetOrdersFollow(), !w.GetOrdersFollow())
	}
	return c.finish()
}

// lead raises the marks, and says whether the era and term are not older than those seen. A new era
// begins with a restore or a recovery: the raft terms and indexes of an older one do not count.
func (c *Core) lead(era, term uint64) bool {
	if era < c.marks.Era || (era == c.marks.Era && term < c.marks.Term) {
		return false
	}
	if era > c.marks.Era {
		c.marks.Generation = 0
	}
	c.marks.Era, c.marks.Term = era, term
	return true
}

// word notes what a leader lets this agent do.
func (c *Core) word(held, heard bool) {
	if c.marks.Held != held || !c.heard && heard {
		c.marks.Held, c.heard = held, c.heard || heard
		c.wake()
	}
}

// Inventory takes the list of everything of ours that the hypervisor has. What is not known is
// adopted: reported, but not touched before there is an order for it (R13).
func (c *Core) Inventory(found []Found, now Now) []Effect {
	c.begin(now)
	c.inventoried = true
	listed := map[model.ObjectID]bool{}
	for _, f := range found {
		listed[f.Object] = true
		if c.objects[f.Object] != nil || f.Object.Kind() == pb.Kind_KIND_UNSPECIFIED {
			continue
		}
		o := &object{rec: Record{Object: f.Object}, health: pb.HealthState_HEALTH_STATE_NONE}
		o.obs.Owner, o.obs.MemoryBytes = f.Owner, f.MemoryBytes
		c.objects[f.Object] = o
		c.touch(o)
	}
	for _, o := range c.objects {
		isThere := o.known && o.obs.State != pb.State_STATE_ABSENT
		if o.rec.Object.Kind() == pb.Kind_KIND_INSTANCE && o.fresh && isThere != listed[o.rec.Object] {
			c.reread(o)
		}
	}
	c.wake()
	return c.finish()
}

// DriverEvent says that an object may have changed.
func (c *Core) DriverEvent(id model.ObjectID, now Now) []Effect {
	c.begin(now)
	o := c.objects[id]
	if o == nil {
		o = &object{rec: Record{Object: id}, health: pb.HealthState_HEALTH_STATE_NONE}
		c.objects[id] = o
	}
	c.reread(o)
	return c.finish()
}

// reread has an object observed again; what was read before counts as old from now on.
func (c *Core) reread(o *object) {
	o.fresh = false
	o.again = o.observing
	c.touch(o)
}

// Observed takes the answer to an Observe.
func (c *Core) Observed(id model.ObjectID, seq uint64, obs Observation, err error, now Now) []Effect {
	c.begin(now)
	o := c.objects[id]
	if o == nil || !o.observing || o.observeSeq != seq {
		return c.finish()
	}
	o.observing, o.observeStuck = false, false
	c.touch(o)
	if err != nil {
		o.fresh, o.again = false, false
		o.observeFails++
		o.observeAt = now.Boot + backoff(o.observeFails)
		o.phase, o.message = pb.Phase_PHASE_UNKNOWN, fmt.Sprintf("read the state of %s: %v", id, err)
		return c.finish()
	}
	o.observeFails = 0
	o.fresh = !o.again
	o.again = false
	c.observed(o, obs)
	return c.finish()
}

// CallReturned takes the outcome of a Call. Whatever it says, the object is read back.
func (c *Core) CallReturned(id model.ObjectID, seq uint64, err error, now Now) []Effect {
	c.begin(now)
	o := c.objects[id]
	if o == nil {
		return c.finish()
	}
	c.reread(o)
	if o.call == nil || o.call.seq != seq {
		// A call that was given up has returned after all; only the state counts.
		return c.finish()
	}
	done := o.call
	o.call = nil
	o.returned = now.Wall
	if errors.Is(err, ErrNoPermit) {
		c.permitUntil = 0
		if done.transition.From == pb.State_STATE_SAVED {
			o.rec.RestoreBegun = false
		}
		o.rec.Intent = Intent{}
		return c.finish()
	}
	o.pending = &outcome{transition: done.transition, digest: done.digest, err: err, late: done.cancelled}
	return c.finish()
}

// PermitGranted takes a permit for acquiring actions until a time on the boot-time clock (R10).
func (c *Core) PermitGranted(until time.Duration, now Now) []Effect {
	c.begin(now)
	lived := c.permitUntil > now.Boot
	c.permitUntil = max(c.permitUntil, until)
	if !lived && c.permitUntil > now.Boot {
		c.wake()
	}
	return c.finish()
}

// PermitVoided ends a permit before its time.
func (c *Core) PermitVoided(now Now) []Effect {
	c.begin(now)
	c.permitUntil = 0
	return c.finish()
}

// HealthChanged takes the outcome of an instance's probe.
func (c *Core) HealthChanged(id model.ObjectID, h pb.HealthState, message string, now Now) []Effect {
	c.begin(now)
	if o := c.objects[id]; o != nil && o.probe != "" {
		o.health, o.healthMessage = h, message
		c.changed[id] = true
	}
	return c.finish()
}

// Capacity takes what the host can run.
func (c *Core) Capacity(capacity *pb.Capacity, now Now) []Effect {
	c.begin(now)
	c.capacity = capacity
	c.wake()
	return c.finish()
}

// Tick lets time pass: deadlines, retries, terms of leases, and readings that are due.
func (c *Core) Tick(now Now) []Effect {
	c.begin(now)
	if !c.heard && !c.lapsed && now.Boot >= c.startedAt+wordLimit {
		c.lapsed = true
		c.wake()
	}
	for _, o := range c.sorted() {
		c.tickCall(o)
		c.tickObject(o)
	}
	return c.finish()
}

// tickCall ends the contexts of calls and readings that passed their deadline.
func (c *Core) tickCall(o *object) {
	now := c.now.Boot
	if k := o.call; k != nil {
		switch {
		case !k.cancelled && now >= k.deadline:
			k.cancelled, k.cancelAt = true, now
			o.phase, o.message = pb.Phase_PHASE_UNKNOWN, lateMessage(k.transition)
			c.emit(Cancel{Object: o.rec.Object, Seq: k.seq})
			c.changed[o.rec.Object] = true
		case k.cancelled && !k.abandoned && now >= k.cancelAt+cancelGrace:
			k.abandoned = true
			c.reread(o)
		}
	}
	if o.observing && !o.observeStuck && now >= o.observeBegan+observeLimit {
		o.observeStuck = true
		o.phase = pb.Phase_PHASE_UNKNOWN
		o.message = fmt.Sprintf("the driver does not answer since %v", observeLimit)
		c.emit(Cancel{Object: o.rec.Object, Seq: o.observeSeq})
		c.changed[o.rec.Object] = true
	}
}

// tickObject looks at what is due for an object without a call.
func (c *Core) tickObject(o *object) {
	now := c.now.Boot
	if c.termPassed(o) {
		c.touch(o)
	}
	if o.observing {
		return
	}
	switch {
	case o.call != nil && !o.call.abandoned:
	case !o.fresh && now >= o.observeAt:
		c.touch(o)
	case o.fresh && now >= o.lastObserved+c.pollOf(o):
		c.read(o)
	case o.retryAt > 0 && now >= o.retryAt:
		o.retryAt = 0
		c.touch(o)
	case now >= c.graceEnd(o):
		c.touch(o)
	case o.phase == pb.Phase_PHASE_SETTLED && o.rec.Attempts > 0 && now >= o.settledAt+stableAfter:
		o.rec.Attempts = 0
		c.changed[o.rec.Object] = true
	}
}

func (c *Core) pollOf(o *object) time.Duration {
	if o.call != nil {
		return stuckPoll
	}
	sealing := o.rec.Order.GetSpec().GetVolume().GetSealed()
	if v := o.obs.Volume; v.GetMirroring() && (sealing || !v.GetInSync()) {
		return convergingPoll
	}
	return pollEvery(o.rec.Object.Kind())
}

// NextTick returns how long the caller may wait before it calls Tick, at most a minute.
func (c *Core) NextTick(now Now) time.Duration {
	at := time.Duration(math.MaxInt64)
	if !c.heard && !c.lapsed {
		at = c.startedAt + wordLimit
	}
	for _, o := range c.objects {
		at = min(at, c.nextOf(o, now))
	}
	return min(max(at-now.Boot, 0), time.Minute)
}

func (c *Core) nextOf(o *object, now Now) time.Duration {
	at := time.Duration(math.MaxInt64)
	if k := o.call; k != nil && !k.abandoned {
		at = k.deadline
		if k.cancelled {
			at = k.cancelAt + cancelGrace
		}
	}
	switch {
	case o.observing && !o.observeStuck:
		at = min(at, o.observeBegan+observeLimit)
	case o.observing || (o.call != nil && !o.call.abandoned):
	case !o.fresh:
		at = min(at, o.observeAt)
	default:
		at = min(at, o.lastObserved+c.pollOf(o))
		if o.retryAt > 0 {
			at = min(at, o.retryAt)
		}
		if o.phase == pb.Phase_PHASE_SETTLED && o.rec.Attempts > 0 {
			at = min(at, o.settledAt+stableAfter)
		}
		at = min(at, c.graceEnd(o))
	}
	if end, ok := c.termEnd(o); ok && now.Wall.Before(end) {
		at = min(at, now.Boot+end.Sub(now.Wall))
	}
	return at
}
