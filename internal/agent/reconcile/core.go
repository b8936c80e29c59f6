package reconcile

import (
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// ErrNoPermit is given to CallReturned for an acquiring call that was not begun, because the permit
// lapsed between the decision and the driver.
var ErrNoPermit = errors.New("the permit lapsed before the call began")

const (
	// observeLimit is how long a driver may take to answer a question before the object is UNKNOWN.
	observeLimit = 10 * time.Second
	// cancelGrace is how long a call may go on after its context ended; drivers promise a second.
	cancelGrace = 5 * time.Second
	// stuckPoll is how often an object is read while a call on it does not return.
	stuckPoll = 5 * time.Second
	// wordLimit is how long a restarted agent waits for a leader before it goes on with taking back what
	// its journal says. Its journal may be an older copy, and only a coordinator can tell (R13).
	wordLimit = 15 * time.Second
	// stableAfter is how long an object must stay settled before its attempts are forgotten, so that
	// a guest which dies a second after each start is not started in a tight loop.
	stableAfter = time.Minute
)

// Config is what a core knows from the start.
type Config struct {
	BootID string
	// RestoredAt is the time of the start.
	RestoredAt Now
}

// Core is the state machine. It is not safe for concurrent use: one goroutine owns it.
type Core struct {
	bootID  string
	marks   Marks
	objects map[model.ObjectID]*object
	ledger  map[ArtefactKey]Artefact

	capacity    *pb.Capacity
	permitUntil time.Duration
	inventoried bool
	// startedAt is when this life of the agent began. heard: a leader has spoken since; lapsed: it was
	// waited for long enough.
	startedAt     time.Duration
	heard, lapsed bool
	seq           uint64

	// What follows belongs to the input that is being handled.
	now Now
	// dirty objects are looked at before the input is done.
	dirty map[model.ObjectID]bool
	// changed objects may need a write or a report.
	changed map[model.ObjectID]bool
	out     []Effect
	// first is set when what changed must be durable before anything else happens.
	first      bool
	deleted    []model.ObjectID
	noted      []Artefact
	dropped    []ArtefactKey
	savedMarks Marks
	// forced objects report again although nothing changed.
	forced map[model.ObjectID]bool
}

// object is one object with what is only in memory.
type object struct {
	rec   Record
	saved Record
	// invalid says what is wrong with the newest order.
	invalid error

	obs Observation
	// known: obs was read in this life of the agent. fresh: nothing happened since that may have
	// changed it.
	known, fresh bool
	observing    bool
	// again: something happened while the driver was being asked; its answer may be older.
	again         bool
	observeSeq    uint64
	observeBegan  time.Duration
	observeStuck  bool
	observeAt     time.Duration
	observeFails  uint32
	lastObserved  time.Duration
	call          *call
	pending       *outcome
	retryAt       time.Duration
	settledAt     time.Duration
	phase         pb.Phase
	message       string
	began         time.Time
	returned      time.Time
	health        pb.HealthState
	healthMessage string
	probe         string
	// asked is when the guest last asked whether it is preempted, on the boot-time clock.
	asked          time.Duration
	reported       *pb.Status
	waitsForOthers bool
	// unwanted: the coordinator has forgotten it; it is forgotten here once it is read as ABSENT.
	unwanted bool
}

// call is a driver call under way.
type call struct {
	seq        uint64
	transition model.Transition
	digest     string
	deadline   time.Duration
	cancelled  bool
	cancelAt   time.Duration
	// abandoned: it did not return although it was cancelled.
	abandoned bool
}

// outcome is what a call returned, until it was read back.
type outcome struct {
	transition model.Transition
	digest     string
	err        error
	// late: it was cancelled at its deadline.
	late bool
}

// New returns a core that holds what the journal held, and the effects that begin its work. All
// permits are void (R10): a core never remembers one.
func New(cfg Config, content Content) (*Core, []Effect) {
	c := &Core{
		bootID: cfg.BootID, marks: content.Marks, savedMarks: content.Marks,
		objects: map[model.ObjectID]*object{}, ledger: map[ArtefactKey]Artefact{}, startedAt: cfg.RestoredAt.Boot,
	}
	c.begin(cfg.RestoredAt)
	rebooted := c.marks.BootID != cfg.BootID
	c.marks.BootID = cfg.BootID
	for _, a := range content.Ledger {
		c.ledger[a.ArtefactKey] = a
	}
	for _, r := range content.Records {
		o := &object{rec: r, saved: r, health: pb.HealthState_HEALTH_STATE_NONE, asked: cfg.RestoredAt.Boot}
		if rebooted {
			// The boot-time clock began again, and no guest outlived the boot.
			o.rec.Reclaim = Reclaim{}
			if r.Object.Kind() != pb.Kind_KIND_INSTANCE {
				// Exports, mirrors and the like may have to be made again.
				o.rec.Applied = ""
			}
		}
		if r.Order != nil {
			o.invalid = checkOrder(r.Order)
		}
		// A call that was under way is known by its intent. Nothing is known to have failed: the object
		// is read, and what is left to do is done.
		o.phase, o.message = pb.Phase_PHASE_UNKNOWN, "not read since the agent started"
		c.objects[r.Object] = o
		c.touch(o)
	}
	return c, c.finish()
}

// begin starts the handling of one input.
func (c *Core) begin(now Now) {
	c.now = now
	c.dirty, c.changed = map[model.ObjectID]bool{}, map[model.ObjectID]bool{}
	c.forced = map[model.ObjectID]bool{}
	c.out, c.deleted, c.noted, c.dropped = nil, nil, nil, nil
	c.first = false
}

// touch makes sure that an object is looked at before the input is done.
func (c *Core) touch(o *object) {
	c.dirty[o.rec.Object] = true
	c.changed[o.rec.Object] = true
}

// wake looks again at all objects that wait for something outside of themselves.
func (c *Core) wake() {
	for _, o := range c.objects {
		if o.waitsForOthers {
			c.touch(o)
		}
	}
}

// finish advances what was touched until nothing moves, and returns the effects: what must be
// durable first, then reports, then the rest, then what may become durable at leisure.
func (c *Core) finish() []Effect {
	for len(c.dirty) > 0 {
		ids := slices.Sorted(maps.Keys(c.dirty))
		c.dirty = map[model.ObjectID]bool{}
		for _, id := range ids {
			if o := c.objects[id]; o != nil {
				c.advance(o)
			}
		}
	}
	var out []Effect
	persist, changed := c.persist()
	if changed && c.first {
		out = append(out, persist)
	}
	out = append(out, c.reports()...)
	out = append(out, c.out...)
	if changed && !c.first {
		out = append(out, persist)
	}
	c.out = nil
	return out
}

// persist gathers what differs from the journal.
func (c *Core) persist() (Persist, bool) {
	p := Persist{Delete: c.deleted, Note: c.noted, Drop: c.dropped}
	for _, id := range slices.Sorted(maps.Keys(c.changed)) {
		if o := c.objects[id]; o != nil && o.rec != o.saved {
			p.Put = append(p.Put, o.rec)
			o.saved = o.rec
		}
	}
	if c.marks != c.savedMarks {
		m := c.marks
		p.Marks, c.savedMarks = &m, m
	}
	return p, len(p.Put)+len(p.Delete)+len(p.Note)+len(p.Drop) > 0 || p.Marks != nil
}

// reports returns the statuses that changed or were asked for.
func (c *Core) reports() []Effect {
	var out []Effect
	for _, id := range slices.Sorted(maps.Keys(c.changed)) {
		o := c.objects[id]
		if o == nil {
			continue
		}
		st := c.status(o)
		if !c.forced[id] && proto.Equal(st, o.reported) {
			continue
		}
		o.reported = st
		out = append(out, Report{Status: st})
	}
	return out
}

// emit adds an effect to those of the input.
func (c *Core) emit(e Effect) { c.out = append(c.out, e) }

// sorted returns all objects in the order of their names.
func (c *Core) sorted() []*object {
	out := make([]*object, 0, len(c.objects))
	for _, id := range slices.Sorted(maps.Keys(c.objects)) {
		out = append(out, c.objects[id])
	}
	return out
}
