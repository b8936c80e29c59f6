package simulation

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/model"
)

// link is the network between an agent and the coordinators. Either way can be cut alone.
type link struct {
	upCut, downCut bool
}

// session is one stream between an agent and a member, after the pattern of the packages fleet and
// session, whose goroutines cannot be part of a strict simulation. Messages arrive late and in
// order; what was sent over a cut way arrives when that is healed, unless the stream has ended.
type session struct {
	s *sim
	m *member
	a *agent
	l *link

	// The member's end.
	open          bool
	held          string
	heard         time.Duration
	dirty, forget map[string]bool
	flushing      bool
	up            lane

	// The agent's end.
	life     int
	answered time.Duration
	down     lane
}

// lane is one direction of a stream.
type lane struct {
	last    time.Duration
	stalled []func()
}

// deliver carries a message over a lane.
func (x *session) deliver(l *lane, cut *bool, f func()) {
	l.last = max(l.last, x.s.now+x.s.between(200*time.Microsecond, 5*time.Millisecond))
	x.s.at(l.last, func() {
		if *cut || len(l.stalled) > 0 {
			l.stalled = append(l.stalled, f)
			return
		}
		f()
	})
}

// healed delivers what waited.
func (x *session) healed() {
	for _, l := range []*lane{&x.up, &x.down} {
		waiting := l.stalled
		l.stalled = nil
		for _, f := range waiting {
			f()
		}
	}
}

// toMember sends to the member's end, toAgent to the agent's.
func (x *session) toMember(f func()) {
	x.deliver(&x.up, &x.l.upCut, func() {
		if x.open {
			x.heard = x.s.now
			f()
		}
	})
}

func (x *session) toAgent(f func()) {
	x.deliver(&x.down, &x.l.downCut, func() {
		if x.a.session == x && x.a.alive && x.a.life == x.life {
			f()
		}
	})
}

// end closes the member's end.
func (x *session) end() {
	if !x.open {
		return
	}
	x.toAgent(func() { x.a.session = nil })
	x.open = false
	if x.m.sessions[x.a.name] == x {
		delete(x.m.sessions, x.a.name)
		if v := x.m.view.Agent(x.a.name); v.Connected {
			v.Connected, v.Full, v.Since = false, false, x.s.wall()
			x.m.view = x.m.view.WithAgent(v)
		}
	}
	x.m.wake()
}

// agentGone closes the agent's end; the member hears of it, or notices the silence.
func (x *session) agentGone() { x.toMember(x.end) }

// connect looks for a leader again and again while there is none, or one of a newer term.
func (a *agent) connect() {
	l := a.s.links[a.name]
	m := pick(a.s, a.s.members)
	if a.session == nil && m.up && m.leads && !l.upCut && !l.downCut && m.term >= a.term {
		a.open(m, l)
	}
	a.after(a.s.between(200*time.Millisecond, 1500*time.Millisecond), a.connect)
}

func (a *agent) open(m *member, l *link) {
	x := &session{
		s: a.s, m: m, a: a, l: l, life: a.life, open: true, heard: a.s.now, answered: a.s.now,
		dirty: map[string]bool{}, forget: map[string]bool{},
	}
	a.session = x
	hello := a.hello()
	reign := m.reign
	x.toMember(func() {
		if !m.up || !m.leads || m.reign != reign {
			x.end()
			return
		}
		x.welcome(hello)
	})
}

// welcome registers the session and sends what the agent has to know.
func (x *session) welcome(h *pb.Hello) {
	m := x.m
	if old := m.sessions[x.a.name]; old != nil {
		old.end()
	}
	m.sessions[x.a.name] = x
	x.held = held(x, h)
	host := m.st.Host(h.GetAgent())
	confirmed := model.OrderKey{Era: host.GetConfirmedEra(), Generation: host.GetConfirmedGeneration()}
	if seen := m.view.Agent(h.GetAgent()).Confirmed; seen.Compare(confirmed) > 0 {
		confirmed = seen
	}
	// What was confirmed was in the journal before: an agent that says less here forgot something. Package
	// fleet asks it once more, for which there is no reason here: hellos do not overtake each other.
	older := confirmed.Compare(model.OrderKey{Era: h.GetEra(), Generation: h.GetGeneration()}) > 0
	if older {
		x.s.fail("journal", "%s confirmed %v and says hello with (%d, %d)", x.a.name, confirmed, h.GetEra(), h.GetGeneration())
	}
	m.view = m.view.WithAgent(live.Agent{
		Name: h.GetAgent(), Connected: true, Since: x.s.wall(), BootID: h.GetBootId(), JournalID: h.GetJournalId(),
		Capacity: h.GetCapacity(), Offer: h.GetOffer(), Held: x.held, Confirmed: confirmed,
	})
	all := x.allOrders()
	w := &pb.Welcome{Leads: true, Era: m.st.Meta().GetEra(), Term: m.term, Held: x.held, OrdersFollow: x.held == "" && !holds(h, all)}
	x.toAgent(func() { x.adopt(w) })
	if w.GetOrdersFollow() {
		x.send(all)
	}
	m.wake()
}

func held(x *session, h *pb.Hello) string {
	host, meta := x.m.st.Host(h.GetAgent()), x.m.st.Meta()
	switch {
	case host == nil:
		return "not joined"
	case host.GetQuarantined() || host.GetJournalId() != "" && host.GetJournalId() != h.GetJournalId():
		return "another journal"
	case h.GetEra() > meta.GetEra() || h.GetEra() == meta.GetEra() && h.GetGeneration() > meta.GetIndex():
		return fmt.Sprintf("knows a higher order: %d of %d", h.GetGeneration(), meta.GetIndex())
	default:
		return ""
	}
}

// adopt is the agent's side of a welcome.
func (x *session) adopt(w *pb.Welcome) {
	a, era, term := x.a, w.GetEra(), w.GetTerm()
	if era < a.era || era == a.era && term < a.term {
		a.session = nil
		x.agentGone()
		return
	}
	a.era, a.term = era, term
	a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.LeaderSeen(w, now) })
	if a.alive && a.session == x {
		x.report(true, a.core.Statuses())
	}
}

func (x *session) report(full bool, statuses []*pb.Status) {
	x.toMember(func() {
		m := x.m
		if !m.leads || m.sessions[x.a.name] != x {
			return
		}
		for _, st := range statuses {
			if x.s.o.Mutant == MutantAnyGeneration {
				st.Generation = 1 << 40
			}
			m.view = m.view.WithStatus(st).Confirm(m.st.Object(st.GetObject()), st)
			if m.st.Object(st.GetObject()) == nil && st.GetState() == pb.State_STATE_ABSENT {
				x.forget[st.GetObject()] = true
			}
		}
		if v := m.view.Agent(x.a.name); full && !v.Full {
			v.Full = true
			m.view = m.view.WithAgent(v)
		}
		x.flush()
		m.wake()
	})
}

// heartbeat asks for a permit, which counts from before it was sent.
func (a *agent) heartbeat() {
	if x := a.session; x != nil {
		if a.s.now-x.answered > answerLimit {
			a.session = nil
			x.agentGone()
		} else {
			sent, boot := a.s.now, a.clock().Boot
			x.toMember(func() {
				permit := x.m.permit(x.held)
				x.toAgent(func() {
					x.answered = a.s.now
					if permit > 0 {
						a.grant(sent+permit, boot+permit)
					}
				})
			})
		}
	}
	a.after(heartbeatEvery, a.heartbeat)
}

// allOrders builds the message with every spec of the agent.
func (x *session) allOrders() *pb.Orders {
	st := x.m.st
	all := &pb.Orders{Era: st.Meta().GetEra(), Term: x.m.term, Full: true}
	for o := range st.ObjectsOf(x.a.name) {
		all.Orders = append(all.Orders, order(o))
	}
	return all
}

// holds says whether the agent holds exactly these orders.
func holds(h *pb.Hello, all *pb.Orders) bool {
	var keys []model.OrderKey
	for _, o := range all.GetOrders() {
		keys = append(keys, model.OrderKey{Object: model.ObjectID(o.GetObject()), Era: all.GetEra(), Generation: o.GetGeneration()})
	}
	return bytes.Equal(model.OrdersDigest(keys), h.GetOrdersDigest())
}

// mark notes which of the agent's objects an entry changed.
func (x *session) mark(changed []string) {
	for _, key := range changed {
		id, ok := strings.CutPrefix(key, "object/")
		if !ok {
			continue
		}
		switch o := x.m.st.Object(id); {
		case o == nil:
			x.forget[id] = true
		case o.GetAgent() == x.a.name:
			x.dirty[id] = true
		}
	}
	x.flush()
}

// flush sends the newest specs of what was marked, soon, in one message.
func (x *session) flush() {
	if x.flushing || x.held != "" || len(x.dirty)+len(x.forget) == 0 {
		return
	}
	x.flushing = true
	x.s.after(x.s.between(0, 2*time.Millisecond), func() {
		x.flushing = false
		if !x.open {
			return
		}
		st := x.m.st
		out := &pb.Orders{Era: st.Meta().GetEra(), Term: x.m.term}
		for _, id := range slices.Sorted(maps.Keys(x.dirty)) {
			if o := st.Object(id); o != nil {
				out.Orders = append(out.Orders, order(o))
			}
		}
		for _, id := range slices.Sorted(maps.Keys(x.forget)) {
			if st.Object(id) == nil {
				out.Forget = append(out.Forget, id)
			}
		}
		x.dirty, x.forget = map[string]bool{}, map[string]bool{}
		x.send(out)
	})
}

func (x *session) send(o *pb.Orders) {
	if x.s.o.Mutant == MutantBlindMemory {
		for _, order := range o.GetOrders() {
			order.Spec = withoutGates(order.GetSpec())
		}
	}
	x.toAgent(func() {
		a := x.a
		if o.GetFull() && a.s.o.Mutant == MutantOldOrders {
			o = proto.CloneOf(o)
			o.Orders = slices.DeleteFunc(o.Orders, func(n *pb.Order) bool {
				_, old := a.journal.earlier[model.ObjectID(n.GetObject())]
				return old
			})
			o.Full = false
		}
		if o.GetEra() < a.era || o.GetEra() == a.era && o.GetTerm() < a.term {
			return
		}
		a.era, a.term = o.GetEra(), o.GetTerm()
		a.input(func(now reconcile.Now) []reconcile.Effect { return a.core.Orders(o, now) })
	})
}

func order(o *pb.Object) *pb.Order {
	owner := o.GetLease()
	if owner == "" {
		owner = o.GetPlan()
	}
	return &pb.Order{
		Object: o.GetId(), Kind: o.GetKind(), Generation: o.GetGeneration(), Spec: model.Effective(o), Owner: owner,
		Epoch: model.Winner(o).GetEpoch(),
	}
}
