// Package fleet keeps the sessions of the agents: it takes statuses into the live view, sends each
// agent the newest specs of its objects, and grants permits while this member leads. It decides
// nothing about objects; it only refuses orders to an agent that must not get any (another or an older
// journal, a higher order than ours).
//
// Agents reach it through AgentService; the coordinator tells it about changes of the state and of
// leadership.
package fleet

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// PermitDuration is how long an acquiring action may still begin after the agent sent the heartbeat
// that was answered (R10). It outlasts a leader change, so that work goes on over one.
const PermitDuration = 10 * time.Second

// Options are what a Fleet needs.
type Options struct {
	Log *slog.Logger
	// Now is the wall clock.
	Now func() time.Time
	// State returns the present replicated state.
	State func() *state.State
	// Leader returns the name of the leader as this member knows it, and the raft term.
	Leader func() (name string, term uint64)
	// Changed is called when a status or a session changed: the controllers then look again. It must not block.
	Changed func()
}

// Fleet is the set of sessions on this member.
type Fleet struct {
	o Options

	mu       sync.Mutex
	view     live.View
	leads    bool
	verified time.Time // when leadership was last confirmed by a quorum
	sessions map[string]*session
	// doubted agents said less in their last hello than they had confirmed.
	doubted map[string]bool
}

// New returns a fleet without sessions, on a member that does not lead.
func New(o Options) *Fleet {
	return &Fleet{o: o, view: live.New(o.Now()), sessions: map[string]*session{}, doubted: map[string]bool{}}
}

// View returns the present live view.
func (f *Fleet) View() live.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

// Lead begins a leadership with an empty view. Open streams are ended so that each agent says hello
// to the leader anew; their connections stay warm.
func (f *Fleet) Lead() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leads, f.verified = true, f.o.Now()
	f.view = live.New(f.o.Now())
	clear(f.doubted)
	f.endAll()
}

// Resign ends all sessions: a member that lost its quorum must not hold agents (R4).
func (f *Fleet) Resign() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leads = false
	f.view = live.New(f.o.Now()) // What was seen is not looked after any more: unknown, not as it was (R5).
	f.endAll()
}

// Verified notes that a quorum confirmed this member's leadership at the given time: permits may be
// granted for a while.
func (f *Fleet) Verified(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verified = at
}

// Miss counts the agents that this leader has never heard of as silent, once they had the time to come.
func (f *Fleet) Miss() {
	st := f.o.State()
	f.mu.Lock()
	changed := false
	if f.leads {
		f.view, changed = f.view.Missing(st.Hosts(), f.o.Now())
	}
	f.mu.Unlock()
	if changed {
		f.o.Changed()
	}
}

// VerifiedAt is when a quorum last confirmed this member's leadership.
func (f *Fleet) VerifiedAt() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.verified
}

// Clock keeps what was found out about this leader's clock; the controllers look again when it changed.
func (f *Fleet) Clock(c live.Clock) {
	f.mu.Lock()
	changed := c.Doubt != f.view.Clock.Doubt
	f.view = f.view.WithClock(c)
	f.mu.Unlock()
	if changed {
		f.o.Changed()
	}
}

func (f *Fleet) endAll() {
	for _, s := range f.sessions {
		s.end()
	}
}

// StateChanged marks the objects of one entry for their agents. All of one entry are sent together,
// because the agent journals them together.
func (f *Fleet) StateChanged(st *state.State, changed []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.leads {
		return
	}
	if changed == nil {
		f.endAll()
		return
	}
	for _, key := range changed {
		name, ok := strings.CutPrefix(key, "host/")
		if a := f.view.Agent(name); ok && st.Host(name).GetQuarantined() && a.Name != "" {
			a.Older, a.Confirmed = false, model.OrderKey{} // The state knows now; nothing of it outlasts a readmission.
			f.view = f.view.WithAgent(a)
		}
	}
	f.forgetGone(st, changed)
	for _, s := range f.sessions {
		if slices.Contains(changed, "host/"+s.agent) && held(st, s.agent, s.hello) != s.held {
			s.end() // Readmitted, quarantined or removed: it says hello anew and is told.
			continue
		}
		s.mark(st, changed)
	}
}

// forgetGone drops from the view what one entry removed. An agent that is still connected stays in it
// until its session has ended. The caller holds mu.
func (f *Fleet) forgetGone(st *state.State, changed []string) {
	for _, key := range changed {
		kind, name, _ := strings.Cut(key, "/")
		switch {
		case kind == "object" && st.Object(name) == nil:
			f.view = f.view.WithoutStatus(name)
		case kind == "host" && st.Host(name) == nil && f.sessions[name] == nil:
			f.view = f.view.WithoutAgent(name)
		}
	}
}

// update changes the view by what a session reported and wakes the controllers. A session that was
// ended or replaced changes nothing: what its agent said before is older than what it says now.
func (f *Fleet) update(s *session, change func(v live.View) live.View) {
	f.mu.Lock()
	current := f.sessions[s.agent] == s && s.ctx.Err() == nil
	if current {
		f.view = change(f.view)
	}
	f.mu.Unlock()
	if current {
		f.o.Changed()
	}
}

// take keeps the statuses of a report: those of the agent's own objects, under orders of this era.
func (f *Fleet) take(s *session, r *pb.StatusReport) {
	st := f.o.State()
	f.update(s, func(v live.View) live.View {
		for _, status := range r.GetStatuses() {
			o := st.Object(status.GetObject())
			if o == nil || o.GetAgent() != s.agent || status.GetEra() != st.Meta().GetEra() {
				continue
			}
			v = v.WithStatus(status).Confirm(o, status)
		}
		if a := v.Agent(s.agent); r.GetFull() && !a.Full {
			a.Full = true
			v = v.WithAgent(a)
		}
		return v
	})
}

// permit returns how long an acquiring action may begin from now, zero for none.
func (f *Fleet) permit(held string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.leads || held != "" || f.o.Now().Sub(f.verified) > verifyLimit {
		return 0
	}
	return PermitDuration
}

// verifyLimit is how old the quorum's confirmation may be for a permit to be granted.
const verifyLimit = 2 * time.Second
