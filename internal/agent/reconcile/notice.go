package reconcile

import (
	"fmt"
	"math"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// listenFor is how long a guest counts as listening after it asked: one that polls asks far more often, and one
// whose program has died must not hold up a failover.
const listenFor = time.Minute

// GuestAsked notes that a guest asks whether it is preempted. Only such a guest can use a warning, so only for it
// the grace is waited.
func (c *Core) GuestAsked(id model.ObjectID, now Now) []Effect {
	c.begin(now)
	if o := c.objects[id]; o != nil && o.known && o.obs.State == pb.State_STATE_RUNNING {
		o.asked = now.Boot
		o.rec.Listens = true
		c.changed[id] = true
	}
	return c.finish()
}

// GuestReady ends the grace of a guest that says that it may be taken; without a notice it does nothing.
func (c *Core) GuestReady(id model.ObjectID, now Now) []Effect {
	c.begin(now)
	if o := c.objects[id]; o != nil && preempted(o) && o.obs.State == pb.State_STATE_RUNNING {
		o.rec.Reclaim.Ready = true
		c.touch(o)
	}
	return c.finish()
}

// preempted says whether the guest is told that it will be taken, and nothing was begun yet.
func preempted(o *object) bool {
	stage := o.rec.Reclaim.Stage
	return o.rec.Order.GetSpec().GetInstance().GetPreemption() != nil && (stage == 0 || stage == StageNotice)
}

// warned says whether the guest has its grace now: it was told when the order came, and is taken when it is ready
// or the grace has passed, whichever is first. A guest that does not listen is taken at once, and so is one that
// shuts down: the power button is its warning, and the grace its time.
func (c *Core) warned(o *object) bool {
	inst := o.rec.Order.GetSpec().GetInstance()
	r, state := inst.GetReclaim(), &o.rec.Reclaim
	switch {
	case state.Stage == StageNotice:
	case state.Stage != 0 || inst.GetPreemption() == nil || graceOf(r) <= 0 || !c.listens(o),
		r.GetAction() == pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN:
		return false
	default:
		*state = Reclaim{
			Stage: StageNotice, Began: c.now.Boot, Until: c.now.Wall.Add(graceOf(r)).UnixMilli(), Ready: state.Ready,
		}
		c.first = true
	}
	if state.Ready || inst.GetPreemption() == nil || c.now.Boot >= graceOver(o) {
		state.Stage = 0
		return false
	}
	o.phase = pb.Phase_PHASE_WAITING
	o.message = fmt.Sprintf("its guest was told, and has %v", graceOf(r))
	return true
}

func (c *Core) listens(o *object) bool {
	return o.rec.Listens && c.now.Boot-o.asked <= listenFor
}

// graceEnd is when a grace that is waited for ends, on the boot-time clock: never when there is none, or nothing may
// be done to the object.
func (c *Core) graceEnd(o *object) time.Duration {
	if o.rec.Reclaim.Stage != StageNotice || o.phase != pb.Phase_PHASE_WAITING || o.rec.Unnamed {
		return math.MaxInt64
	}
	return graceOver(o)
}

// graceOver is when the grace of a guest that was told is over, whatever the object waits for.
func graceOver(o *object) time.Duration {
	return o.rec.Reclaim.Began + graceOf(o.rec.Order.GetSpec().GetInstance().GetReclaim())
}

// Guest is a lent instance as its own guest may see it.
type Guest struct {
	Object model.ObjectID
	// Owner is the lease.
	Owner string
	Spec  *pb.InstanceSpec
	// Until is when its grace ends; zero when it has none, or had none.
	Until time.Time
	Ready bool
	// Decided says that its preemption has begun, with a grace or without: an order that was just received is
	// neither until it is in the journal.
	Decided bool
}

// Guests returns all lent instances that there is an order for, in the order of their names.
func (c *Core) Guests() []Guest {
	var out []Guest
	for _, o := range c.sorted() {
		inst := o.rec.Order.GetSpec().GetInstance()
		if o.rec.Unnamed || inst.GetBand() != pb.Band_BAND_LENT || o.invalid != nil {
			continue
		}
		g := Guest{Object: o.rec.Object, Owner: o.rec.Order.GetOwner(), Spec: inst, Ready: o.rec.Reclaim.Ready, Decided: o.rec.Reclaim.Stage != 0}
		if ms := o.rec.Reclaim.Until; ms != 0 {
			g.Until, g.Decided = time.UnixMilli(ms), true
		}
		out = append(out, g)
	}
	return out
}

// LentNetworks names the lent networks that are wanted here.
func (c *Core) LentNetworks() []string {
	var out []string
	for _, o := range c.sorted() {
		n := o.rec.Order.GetSpec().GetNetwork()
		if n.GetRole() == pb.NetworkRole_NETWORK_ROLE_LENT && o.rec.Order.GetSpec().GetState() == pb.State_STATE_PRESENT {
			out = append(out, n.GetName())
		}
	}
	return out
}
