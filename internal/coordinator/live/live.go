// Package live is what the leader sees of the agents now: sessions and statuses (R5). They do not go
// through raft; after an election everything is unknown until the agents have reported.
//
// A View is an immutable value, so that controllers can decide on one in peace. It decides only
// which status may be believed for an object: one of the agent's present boot that answers the
// object's newest generation. The fleet writes it; controllers and RPC handlers read it.
package live

import (
	"iter"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Agent is the leader's knowledge of one agent.
type Agent struct {
	Name      string
	Connected bool
	// Since when it is connected or silent.
	Since     time.Time
	BootID    string
	JournalID string
	// Full is true once the agent has sent all its statuses in this session.
	Full     bool
	Capacity *pb.Capacity
	Offer    *pb.AgentOffer
	// Held says why the agent gets no orders; empty: it gets them.
	Held string
	// Older is set when its journal knows less than it confirmed before (R13).
	Older bool
	// Confirmed is the newest order that it is known to have written down; its object does not count.
	Confirmed model.OrderKey
}

// View is one version of what is seen.
type View struct {
	agents *iradix.Tree[Agent]
	// silent are those of the agents that may get no new work.
	silent   *iradix.Tree[struct{}]
	statuses *iradix.Tree[*pb.Status]
	// LeaderSince is when this member began to lead; silence and timeouts count from there at the earliest.
	LeaderSince time.Time
	Clock       Clock
}

// Clock is what the leader knows of its own clock. The zero value: nothing speaks against it.
type Clock struct {
	// Doubt says why nothing may be decided by the time of day; empty: it may (R1).
	Doubt string
	// Alarms are what an operator should know about the members' clocks.
	Alarms []string
	// SiteAhead is how far the time of the newest command is ahead of the leader's clock, as an earlier
	// leader left it, and SiteSince what it was when this one began to lead.
	SiteAhead time.Duration
	SiteSince time.Time
}

// New returns the view of a leader that has heard nothing yet.
func New(leaderSince time.Time) View {
	return View{agents: iradix.New[Agent](), silent: iradix.New[struct{}](), statuses: iradix.New[*pb.Status](), LeaderSince: leaderSince}
}

// WithAgent returns a view in which the agent is as given.
func (v View) WithAgent(a Agent) View {
	v.agents, _, _ = v.agents.Insert([]byte(a.Name), a)
	if a.Connected && a.Held == "" {
		v.silent, _, _ = v.silent.Delete([]byte(a.Name))
	} else {
		v.silent, _, _ = v.silent.Insert([]byte(a.Name), struct{}{})
	}
	return v
}

// WithoutAgent returns a view that knows nothing of an agent.
func (v View) WithoutAgent(name string) View {
	v.agents, _, _ = v.agents.Delete([]byte(name))
	v.silent, _, _ = v.silent.Delete([]byte(name))
	return v
}

// WithoutStatus returns a view that knows nothing of an object.
func (v View) WithoutStatus(object string) View {
	v.statuses, _, _ = v.statuses.Delete([]byte(object))
	return v
}

// WithClock returns a view in which the leader's clock is judged as given.
func (v View) WithClock(c Clock) View {
	v.Clock = c
	return v
}

// WithStatus returns a view that holds the status as the newest of its object.
func (v View) WithStatus(s *pb.Status) View {
	v.statuses, _, _ = v.statuses.Insert([]byte(s.GetObject()), s)
	return v
}

// Agent returns what is known of an agent; the zero value when nothing is.
func (v View) Agent(name string) Agent {
	if v.agents == nil {
		return Agent{}
	}
	a, _ := v.agents.Get([]byte(name))
	return a
}

// Silent names the agents that may get no new work, in order: they are not connected, or held. One of which nothing is
// known yet since the leader began is not among them (R5: unknown is not gone).
func (v View) Silent() (out []string) {
	if v.silent == nil {
		return nil
	}
	it := v.silent.Root().Iterator()
	for name, _, ok := it.Next(); ok; name, _, ok = it.Next() {
		out = append(out, string(name))
	}
	return out
}

// WarmUp is how long after an election nothing is concluded from an agent's silence: it may have had no time to
// find the new leader yet (R5).
const WarmUp = 15 * time.Second

// Missing returns a view in which the hosts that said nothing since the leader began are silent since then, once they
// and their join are older than the warm-up, and whether there are any. Before that nothing is known of them.
func (v View) Missing(hosts iter.Seq[*pb.Host], now time.Time) (next View, changed bool) {
	if now.Sub(v.LeaderSince) < WarmUp {
		return v, false
	}
	for h := range hosts {
		if v.Agent(h.GetName()).Name == "" && now.Sub(h.GetJoinedAt().AsTime()) >= WarmUp {
			v, changed = v.WithAgent(Agent{Name: h.GetName(), Since: v.LeaderSince}), true
		}
	}
	return v, changed
}

// Confirm returns a view that knows from a status what its agent has written down. An answer to what
// was never ordered confirms nothing.
func (v View) Confirm(o *pb.Object, s *pb.Status) View {
	a, k := v.Agent(o.GetAgent()), model.OrderKey{Era: s.GetEra(), Generation: s.GetGeneration()}
	if o == nil || s.GetGeneration() > o.GetGeneration() || a.Held != "" || a.Confirmed.Compare(k) >= 0 {
		return v
	}
	a.Confirmed = k
	return v.WithAgent(a)
}

// Agents walks all agents that were heard of, by name.
func (v View) Agents() iter.Seq[Agent] {
	return func(yield func(Agent) bool) {
		if v.agents == nil {
			return
		}
		it := v.agents.Root().Iterator()
		for _, a, ok := it.Next(); ok; _, a, ok = it.Next() {
			if !yield(a) {
				return
			}
		}
	}
}

// Raw returns the newest status of an object, whatever order it answers, or nil.
func (v View) Raw(object string) *pb.Status {
	if v.statuses == nil {
		return nil
	}
	s, _ := v.statuses.Get([]byte(object))
	return s
}

// Current returns the status of an object if it may be believed: it answers the newest generation
// and comes from the present boot of an agent that is not held: a held one may answer orders that
// another journal or a lost log gave it. Otherwise nil: unknown.
func (v View) Current(o *pb.Object) *pb.Status {
	if o == nil {
		return nil
	}
	a, s := v.Agent(o.GetAgent()), v.Raw(o.GetId())
	if s == nil || a.Held != "" || s.GetGeneration() < o.GetGeneration() || s.GetBootId() != a.BootID {
		return nil
	}
	return s
}

// Settled says whether the object is known to be in the state that its newest spec asks for.
func (v View) Settled(o *pb.Object) bool {
	return v.Current(o).GetPhase() == pb.Phase_PHASE_SETTLED
}
