package simulation

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/model"
)

// agent is a machine with the agent's real core, and in place of its runtime this file: it executes
// effects, keeps the journal, and dies at any of its writes.
type agent struct {
	s        *sim
	name     string
	drivers  actuate.Drivers
	actuator *actuate.Actuator
	// host is nil for an agent without a hypervisor.
	host *host

	// The machine.
	up       bool
	boots    int
	bootedAt time.Duration

	// The process. A life ends with it; what was planned in an earlier one does not happen.
	alive bool
	life  int
	core  *reconcile.Core
	calls map[callKey]*driverCall
	// probed holds the number of the running probe of each instance.
	probed      map[model.ObjectID]int
	probes      int
	permitUntil time.Duration
	tickAt      time.Duration
	session     *session
	era, term   uint64

	journal journal
	// The process dies at this many writes from now (0: it does not), before or after the write is durable.
	dieIn    int
	dieAfter bool

	// allowedUntil is the end of the permits that were really granted in this boot, in virtual time;
	// stale is that of the boot before, for a mutant.
	allowedUntil, stale time.Duration
}

// journal is what is on the agent's disk.
type journal struct {
	id      string
	marks   reconcile.Marks
	records map[model.ObjectID]reconcile.Record
	ledger  map[reconcile.ArtefactKey]reconcile.Artefact
	// newest holds the highest order ever written for an object, for the checks.
	newest map[model.ObjectID]model.OrderKey
	// earlier is a copy from some time ago, for a mutant.
	earlier map[model.ObjectID]reconcile.Record
}

func newJournal(id string) journal {
	return journal{
		id: id, records: map[model.ObjectID]reconcile.Record{}, ledger: map[reconcile.ArtefactKey]reconcile.Artefact{},
		newest: map[model.ObjectID]model.OrderKey{},
	}
}

func (j *journal) content() reconcile.Content {
	c := reconcile.Content{Marks: j.marks}
	for _, id := range slices.Sorted(maps.Keys(j.records)) {
		c.Records = append(c.Records, j.records[id])
		for _, k := range ledgerKeys(j.ledger, id) {
			c.Ledger = append(c.Ledger, j.ledger[k])
		}
	}
	return c
}

func ledgerKeys(ledger map[reconcile.ArtefactKey]reconcile.Artefact, id model.ObjectID) []reconcile.ArtefactKey {
	var out []reconcile.ArtefactKey
	for k := range ledger {
		if k.Object == id {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b reconcile.ArtefactKey) int { return int(a.Epoch) - int(b.Epoch) })
	return out
}

func (j *journal) write(p reconcile.Persist) {
	for _, r := range p.Put {
		j.records[r.Object] = r
		if k := r.Key(); r.Order != nil && k.Compare(j.newest[r.Object]) > 0 {
			j.newest[r.Object] = k
		}
	}
	for _, id := range p.Delete {
		delete(j.records, id)
	}
	for _, a := range p.Note {
		j.ledger[a.ArtefactKey] = a
	}
	for _, k := range p.Drop {
		delete(j.ledger, k)
	}
	if p.Marks != nil {
		j.marks = *p.Marks
	}
}

func (a *agent) bootID() string { return fmt.Sprintf("%s-boot-%d", a.name, a.boots) }

// clock is both clocks of the machine.
func (a *agent) clock() reconcile.Now {
	return reconcile.Now{Wall: a.s.wall(), Boot: a.s.now - a.bootedAt + time.Second}
}

// after runs f later in the same life of the process.
func (a *agent) after(d time.Duration, f func()) {
	life := a.life
	a.s.after(d, func() {
		if a.alive && a.life == life {
			f()
		}
	})
}

// boot turns the machine on.
func (a *agent) boot() {
	a.up, a.bootedAt = true, a.s.now
	a.boots++
	a.stale, a.allowedUntil = a.allowedUntil, 0
	a.s.logf("%s boots (%s)", a.name, a.bootID())
	a.start()
}

// start begins a new life of the process from the journal.
func (a *agent) start() {
	if !a.up || a.alive {
		return
	}
	a.life++
	a.alive, a.session, a.dieIn, a.tickAt = true, nil, 0, -1
	a.calls, a.probed = map[callKey]*driverCall{}, map[model.ObjectID]int{}
	a.permitUntil = 0
	content := a.journal.content()
	if a.s.o.Mutant == MutantOldOrders && a.journal.earlier != nil {
		for i, r := range content.Records {
			if old, ok := a.journal.earlier[r.Object]; ok {
				content.Records[i] = old
			}
		}
	}
	core, effects := reconcile.New(reconcile.Config{BootID: a.bootID(), RestoredAt: a.clock()}, content)
	a.core = core
	a.era, a.term = core.Marks().Era, core.Marks().Term
	a.s.logf("%s agent starts", a.name)
	a.do(effects)
	a.after(a.s.between(10*time.Millisecond, 500*time.Millisecond), a.connect)
	a.after(a.s.between(0, time.Second), a.heartbeat)
	if a.host != nil {
		a.after(a.s.between(10*time.Millisecond, time.Second), a.inventory)
		a.after(a.s.between(10*time.Millisecond, time.Second), a.measure)
		a.after(a.s.between(0, askEvery), a.guestsAsk)
	}
	if a.s.o.Mutant == MutantIgnoreBoot {
		a.permitUntil = a.stale + time.Hour
		a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.PermitGranted(a.permitUntil, now) })
	}
}

// kill ends the process at once. What was handed to a driver may still happen.
func (a *agent) kill(why string) {
	if !a.alive {
		return
	}
	a.s.logf("%s agent dies: %s", a.name, why)
	a.alive = false
	for _, k := range slices.SortedFunc(maps.Keys(a.calls), compareCallKeys) {
		// A driver ends what it was doing, or not, before the next life of the process begins.
		if c := a.calls[k]; c.apply != nil && !c.applied && !c.dropped {
			if apply := c.apply; a.s.chance(0.5) {
				a.s.after(a.s.between(0, restartAfter/2), apply)
			}
			c.dropped = true
		}
	}
	if x := a.session; x != nil {
		a.session = nil
		x.agentGone()
	}
}

// askEvery is about how often a guest that listens asks whether it is preempted.
const askEvery = 20 * time.Second

// guestsAsk lets some guests ask for notices, and some say that they are ready, also when nothing was announced.
func (a *agent) guestsAsk() {
	for _, g := range a.core.Guests() {
		id := g.Object
		switch {
		case a.s.chance(0.4):
			a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.GuestAsked(id, now) })
		case a.s.chance(0.1):
			a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.GuestReady(id, now) })
		}
		if !a.alive {
			return // It died at a write.
		}
	}
	a.after(a.s.between(askEvery/10, askEvery), a.guestsAsk)
}

// restartAfter is the shortest time after which a supervisor starts a dead agent again.
const restartAfter = time.Second

// crash is a loss of power of the machine.
func (a *agent) crash() {
	if !a.up {
		return
	}
	a.kill("power loss")
	a.s.logf("%s loses power", a.name)
	a.up = false
	if a.host != nil {
		a.host.crash()
	}
	switch a.name {
	case poolAgent:
		a.s.world.pool.crash()
	case oldAgent:
		a.s.world.home.crash()
	}
}

// input gives the core one input and executes what follows.
func (a *agent) input(f func(now reconcile.Now) []reconcile.Effect) {
	if !a.alive {
		return
	}
	a.do(f(a.clock()))
	a.scheduleTick()
}

func (a *agent) scheduleTick() {
	if !a.alive {
		return
	}
	at := a.s.now + max(a.core.NextTick(a.clock()), time.Millisecond)
	if a.tickAt > a.s.now && a.tickAt <= at {
		return
	}
	a.tickAt = at
	a.after(at-a.s.now, func() {
		if a.tickAt == at {
			a.tickAt = -1
			a.input(a.core.Tick)
		}
	})
}

// do executes effects in their order; a process that dies at a write executes none behind it.
func (a *agent) do(effects []reconcile.Effect) {
	life := a.life
	for _, e := range effects {
		if !a.alive || a.life != life {
			return
		}
		switch e := e.(type) {
		case reconcile.Persist:
			a.persist(e)
		case reconcile.Observe:
			a.observe(e)
		case reconcile.Call:
			a.call(e)
		case reconcile.Cancel:
			a.cancel(callKey{e.Object, e.Seq})
		case reconcile.Report:
			if a.session != nil {
				a.session.report(false, []*pb.Status{e.Status})
			}
		case reconcile.ProbeStart:
			a.probes++
			a.probed[e.Object] = a.probes
			a.probe(e.Object, a.probes, pb.HealthState_HEALTH_STATE_PENDING)
		case reconcile.ProbeStop:
			delete(a.probed, e.Object)
		}
	}
}

func (a *agent) persist(p reconcile.Persist) {
	dies := a.dieIn == 1
	if a.dieIn > 0 {
		a.dieIn--
	}
	if !dies || a.dieAfter {
		if a.s.o.Mutant == MutantOldOrders && a.journal.earlier == nil && len(a.journal.records) > 3 {
			a.journal.earlier = maps.Clone(a.journal.records)
		}
		a.journal.write(p)
	}
	if dies {
		a.kill("at a write of its journal")
		a.s.after(a.s.between(restartAfter, 15*time.Second), a.start)
	}
}

// grant takes a permit until a moment of the virtual time, which is the other on the machine's clock.
func (a *agent) grant(until, boot time.Duration) {
	a.allowedUntil = max(a.allowedUntil, until)
	a.permitUntil = max(a.permitUntil, boot)
	a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.PermitGranted(boot, now) })
}

func (a *agent) driverEvent(id model.ObjectID) {
	a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.DriverEvent(id, now) })
}

// Intervals of the runtime, as in package agent; heartbeats are rarer to save events.
const (
	heartbeatEvery = 2 * time.Second
	answerLimit    = 3 * heartbeatEvery
	relistEvery    = time.Minute
)

func (a *agent) inventory() {
	var found []reconcile.Found
	for _, id := range a.host.ids() {
		found = append(found, reconcile.Found{Object: id, Owner: a.host.domains[id].def.Owner})
	}
	a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.Inventory(found, now) })
	a.after(relistEvery, a.inventory)
}

func (a *agent) measure() {
	c := a.host.capacity
	if a.s.o.Mutant == MutantBlindMemory {
		c = &pb.Capacity{Vcpus: c.GetVcpus(), MemoryBytes: c.GetMemoryBytes() * 8, OverheadBytes: c.GetOverheadBytes()}
	}
	a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.Capacity(c, now) })
}

// probe asks again and again whether a guest serves, and tells the core when that changes.
func (a *agent) probe(id model.ObjectID, number int, last pb.HealthState) {
	a.after(a.s.between(500*time.Millisecond, 3*time.Second), func() {
		if a.probed[id] != number {
			return
		}
		h := pb.HealthState_HEALTH_STATE_PENDING
		if a.s.world.serves(a.host, id) {
			h = pb.HealthState_HEALTH_STATE_HEALTHY
		} else if last != pb.HealthState_HEALTH_STATE_PENDING {
			h = pb.HealthState_HEALTH_STATE_UNHEALTHY
		}
		if h != last {
			a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.HealthChanged(id, h, "probed", now) })
		}
		a.probe(id, number, h)
	})
}

// bootTime is how long a guest takes until it serves.
const bootTime = 4 * time.Second

func (w *world) serves(h *host, id model.ObjectID) bool {
	d := h.domains[id]
	return d != nil && d.running && w.s.now >= d.since+bootTime
}

// hello is the first message of a session.
func (a *agent) hello() *pb.Hello {
	m := a.core.Marks()
	h := &pb.Hello{
		Agent: a.name, BootId: a.bootID(), JournalId: a.journal.id, Era: m.Era, Generation: m.Generation, Term: m.Term,
		OrdersDigest: model.OrdersDigest(a.core.Held()), Offer: a.drivers.Offer(),
	}
	if a.host != nil {
		h.Capacity = a.host.capacity
	}
	return h
}

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
