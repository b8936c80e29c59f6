package simulation

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// raft is "a log that delivers in order, late, or not yet, and may change its leader".
type raft struct {
	entries []entry
	index   uint64
	term    uint64
	// leader is the member that a quorum follows; nil while there is none.
	leader  *member
	pending []*proposal
}

// entry is one committed command, encoded as in the real log.
type entry struct {
	index, term uint64
	data        []byte
}

// proposal waits to be committed.
type proposal struct {
	data []byte
	by   *member
	done func(state.Result, error)
}

var (
	errNotLeader = errors.New("not the leader: nothing was done")
	errUnknown   = errors.New("leadership was lost: it may be applied now or later")
)

// member is one coordinator: its copy of the state, and while it leads what the leader keeps.
type member struct {
	s    *sim
	name string
	up   bool
	st   *state.State
	// applied counts the entries of the log that st holds.
	applied int
	// snapshot is what a restart begins from.
	snapshot []byte
	// snapped counts the entries that it holds.
	snapped int

	// leads: it believes so. cutOff: the quorum does not hear it any more.
	leads, cutOff bool
	reign         int
	term          uint64
	verified      time.Duration
	view          live.View
	keeper        standing.Keeper
	sessions      map[string]*session
	// The control loop: a round is under way; something changed meanwhile.
	busy, again bool
}

const (
	// verifyLimit is how old the quorum's confirmation may be for a permit, and how long a member
	// that lost its quorum goes on leading.
	verifyLimit = 2 * time.Second
	// permitDuration is that of package fleet.
	permitDuration = 10 * time.Second
	// silenceLimit ends the session of an agent that says nothing any more.
	silenceLimit = 15 * time.Second
)

// propose hands a command to the log. done hears the outcome once, or never if the member dies.
func (m *member) propose(actor string, cmd *pb.Command, done func(state.Result, error)) {
	cmd.Time, cmd.Actor, cmd.Level = stamp(m.s.wall()), actor, state.SupportedLevel
	data, err := proto.Marshal(cmd)
	if err != nil {
		m.s.fail("encode", "command of %s: %v", actor, err)
	}
	p := &proposal{data: data, by: m, done: done}
	if m.cutOff {
		// Nobody hears it; what becomes of it is known when it stops leading.
		m.s.after(verifyLimit, func() { done(state.Result{}, errUnknown) })
		return
	}
	if m.s.raft.leader != m {
		m.s.after(time.Millisecond, func() { done(state.Result{}, errNotLeader) })
		return
	}
	m.s.raft.pending = append(m.s.raft.pending, p)
	m.s.after(m.s.commitTime(), m.s.commitNext)
}

// commitTime is how long a commit takes: sometimes a disk is slow.
func (s *sim) commitTime() time.Duration {
	if !s.healing && s.chance(0.02) {
		return s.between(50*time.Millisecond, time.Second)
	}
	return s.between(time.Millisecond, 5*time.Millisecond)
}

// commitNext commits the oldest proposal.
func (s *sim) commitNext() {
	if len(s.raft.pending) == 0 || s.raft.leader == nil {
		return
	}
	p := s.raft.pending[0]
	s.raft.pending = s.raft.pending[1:]
	res := s.commit(p)
	if p.by == s.raft.leader {
		p.done(res, res.Err)
	}
}

// commit appends an entry and lets the leader apply it.
func (s *sim) commit(p *proposal) state.Result {
	s.raft.index++
	e := entry{s.raft.index, s.raft.term, p.data}
	s.raft.entries = append(s.raft.entries, e)
	s.report.Entries++
	res := s.applyFirst(e)
	if m := s.raft.leader; m != nil {
		m.catchUp()
		m.stateChanged(res.Changed)
	}
	for _, m := range s.members {
		if m.up && m != s.raft.leader && s.chance(0.2) {
			m.catchUp()
		}
	}
	return res
}

// applyFirst applies an entry to the committed state and checks what it did.
func (s *sim) applyFirst(e entry) state.Result {
	cmd := decode(s, e.data)
	before := s.state
	var mark []byte
	if s.chance(0.01) {
		mark = snapshotOf(s, before)
	}
	next, res := before.Apply(e.index, e.term, cmd)
	if mark != nil && !bytes.Equal(mark, snapshotOf(s, before)) {
		s.fail("R1 pure apply", "%T changed the state that it was applied to", cmd.GetBody())
	}
	s.state = next
	s.logf("entry %d %s: %v", e.index, describe(cmd), res.Err)
	s.checkEntry(before, next, cmd, res)
	return res
}

func decode(s *sim, data []byte) *pb.Command {
	cmd := new(pb.Command)
	if err := proto.Unmarshal(data, cmd); err != nil {
		s.fail("encode", "an entry cannot be decoded: %v", err)
	}
	return cmd
}

func snapshotOf(s *sim, st *state.State) []byte {
	var b bytes.Buffer
	if err := st.WriteSnapshot(&b); err != nil {
		s.fail("encode", "snapshot: %v", err)
	}
	return b.Bytes()
}

// catchUp applies what a member has not applied yet.
func (m *member) catchUp() {
	for ; m.applied < len(m.s.raft.entries); m.applied++ {
		e := m.s.raft.entries[m.applied]
		if m.s.o.Mutant == MutantSkipEntry && m.name == "c3" && m.applied == 40 {
			continue
		}
		m.st, _ = m.st.Apply(e.index, e.term, decode(m.s, e.data))
	}
	if m.s.chance(0.02) {
		m.snapshot, m.snapped = snapshotOf(m.s, m.st), m.applied
	}
}

// restart begins again from the snapshot.
func (m *member) restart() {
	if m.up {
		return
	}
	m.up, m.applied, m.st = true, m.snapped, state.New()
	if m.snapshot != nil {
		st, err := state.ReadSnapshot(bytes.NewReader(m.snapshot))
		if err != nil {
			m.s.fail("restore", "snapshot of %s: %v", m.name, err)
		}
		m.st = st
	}
	m.s.logf("%s restarts from entry %d", m.name, m.snapped)
}

// elect makes a member the leader of a new term, after it applied all that was committed. What was
// proposed to the old leader is committed before, or lost.
func (s *sim) elect() {
	if s.raft.leader != nil {
		return
	}
	var able []*member
	for _, m := range s.members {
		if m.up && !m.cutOff {
			able = append(able, m)
		}
	}
	if len(able) < 2 {
		s.after(time.Second, s.elect)
		return
	}
	m := pick(s, able)
	pending := s.raft.pending
	s.raft.pending = nil
	for _, p := range pending {
		if s.chance(0.5) {
			s.commit(p)
		}
		p.lost()
	}
	s.raft.term++
	s.raft.index++ // The entry that opens a term.
	s.raft.leader = m
	s.report.Elections++
	m.lead()
}

// lost tells the proposer, if it still lives, that the outcome is not known.
func (p *proposal) lost() {
	if p.by.up {
		p.by.s.after(time.Millisecond, func() { p.done(state.Result{}, errUnknown) })
	}
}

func (m *member) lead() {
	m.catchUp()
	m.leads, m.term = true, m.s.raft.term
	m.reign++
	m.verified = m.s.now
	m.view, m.keeper = live.New(m.s.wall()), standing.Keeper{Fault: func(err error) { m.s.fail("2 guarantee", "%v", err) }}
	m.sessions = map[string]*session{}
	m.busy, m.again = false, false
	m.s.logf("%s leads in term %d", m.name, m.term)
	m.tick(m.reign)
}

// resign ends all sessions: a member that lost its quorum must not hold agents.
func (m *member) resign() {
	if !m.leads {
		return
	}
	m.leads = false
	m.reign++
	m.s.logf("%s leads no more", m.name)
	for _, name := range slices.Sorted(maps.Keys(m.sessions)) {
		m.sessions[name].end()
	}
}

// depose lets the quorum lose its leader: it dies, or is cut off and does not know yet.
func (s *sim) depose(dies bool, without time.Duration) {
	m := s.raft.leader
	if m == nil {
		return
	}
	s.raft.leader = nil
	if dies {
		s.logf("%s dies", m.name)
		m.up = false
		m.resign()
		s.after(s.between(time.Second, 30*time.Second), m.restart)
	} else {
		s.logf("%s is cut off from the quorum", m.name)
		m.cutOff = true
		m.verified = s.now
		s.after(verifyLimit, m.resign)
		s.after(s.between(verifyLimit, 30*time.Second), func() { m.cutOff = false })
	}
	s.after(without, s.elect)
}

// tick looks at the clock once in a while, and ends sessions that are silent.
func (m *member) tick(reign int) {
	if !m.leads || m.reign != reign {
		return
	}
	if !m.cutOff {
		m.verified = m.s.now
	}
	for _, name := range slices.Sorted(maps.Keys(m.sessions)) {
		if x := m.sessions[name]; m.s.now-x.heard > silenceLimit {
			x.end()
		}
	}
	m.wake()
	m.s.after(m.s.between(500*time.Millisecond, 1500*time.Millisecond), func() { m.tick(reign) })
}

// permit is what a heartbeat is answered with.
func (m *member) permit(held string) time.Duration {
	if !m.leads || held != "" || m.s.now-m.verified > verifyLimit {
		return 0
	}
	return permitDuration
}

// stateChanged marks what an entry changed for the agents, and wakes the controllers.
func (m *member) stateChanged(changed []string) {
	if !m.leads {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m.sessions)) {
		m.sessions[name].mark(changed)
	}
	m.wake()
}

// describe names a command for the event log.
func describe(c *pb.Command) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	_ = err
	var name strings.Builder
	name.WriteString(string(c.ProtoReflect().WhichOneof(c.ProtoReflect().Descriptor().Oneofs().Get(0)).Name()))
	switch body := c.GetBody().(type) {
	case *pb.Command_AdvanceRun:
		name.WriteString(" " + body.AdvanceRun.GetFailover() + " " + model.PhaseName(body.AdvanceRun.GetPhase()))
		for _, ch := range body.AdvanceRun.GetChanges() {
			name.WriteString(" [" + ch.GetStep() + " " + ch.GetPhase().String()[len("STEP_PHASE_"):] + "]")
		}
	case *pb.Command_CreateLease:
		name.WriteString(" " + body.CreateLease.GetLease().GetName())
	case *pb.Command_EndLease:
		name.WriteString(" " + body.EndLease.GetLease() + ": " + body.EndLease.GetReason())
	case *pb.Command_Control:
		name.WriteString(" " + body.Control.GetName() + " " + body.Control.GetAction().String())
	case *pb.Command_Declare:
		name.WriteString(" " + body.Declare.GetFailover().GetName())
	}
	return name.String() + " (" + model.Bytes(uint64(len(b))) + ")"
}
