package fleet

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// Stream is one agent's stream, as gRPC gives it.
type Stream interface {
	Context() context.Context
	Recv() (*pb.SessionRequest, error)
	Send(*pb.SessionResponse) error
}

// session is one agent's stream on this member.
type session struct {
	f     *Fleet
	agent string
	ctx   context.Context //nolint:containedctx // The session is the stream's lifetime.
	end   context.CancelFunc
	wake  chan struct{}
	// What the agent said of itself, and what it was told: why it gets no orders.
	hello *pb.Hello
	held  string

	mu      sync.Mutex // guards what follows
	dirty   map[string]bool
	forget  map[string]bool
	answers []*pb.SessionResponse
	// questions about consoles that wait to be sent, and who waits for the answers, by id.
	questions    []*pb.SessionResponse
	asked        map[uint64]chan<- *pb.ConsoleAnswer
	lastQuestion uint64
}

// Serve runs one session to its end. The caller has checked that the peer is this agent.
func (f *Fleet) Serve(agent string, stream Stream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil || hello.GetAgent() != agent {
		return model.Errorf(model.FaultInvalid, "host/"+agent, "the first message of a session must be a hello of this agent")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	s := &session{
		f: f, agent: agent, ctx: ctx, end: cancel, wake: make(chan struct{}, 1), hello: hello,
		dirty: map[string]bool{}, forget: map[string]bool{}, asked: map[uint64]chan<- *pb.ConsoleAnswer{},
	}
	welcome, err := f.open(s, hello)
	if err != nil {
		return err
	}
	defer f.close(s)
	if err := stream.Send(&pb.SessionResponse{Message: &pb.SessionResponse_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() {
		received <- s.receive(stream, welcome) // Before the end, so that what the peer did wrong is the answer.
		s.end()
	}()
	if err := s.send(stream, hello, welcome); err != nil && ctx.Err() == nil {
		return err
	}
	select {
	case err := <-received:
		return err
	default:
		return model.Errorf(model.FaultUnavailable, "host/"+agent, "this member ended the session").
			WithRemedy("the agent connects again by itself")
	}
}

// open registers the session and says what the agent may expect.
func (f *Fleet) open(s *session, hello *pb.Hello) (*pb.Welcome, error) {
	leader, term := f.o.Leader()
	st := f.o.State()
	f.mu.Lock()
	older := f.leads && f.older(st, s.agent, hello)
	if older && !f.doubted[s.agent] {
		f.doubted[s.agent] = true
		f.mu.Unlock()
		f.o.Log.Warn("agent knows less than it confirmed; it is asked once more", "host", s.agent, "generation", hello.GetGeneration())
		return nil, model.Errorf(model.FaultUnavailable, "host/"+s.agent, "this hello may be older than what the agent confirmed").
			WithRemedy("the agent says hello again by itself")
	}
	f.doubted[s.agent] = older
	if old := f.sessions[s.agent]; old != nil {
		old.end()
	}
	f.sessions[s.agent] = s
	w := &pb.Welcome{Leads: f.leads, Leader: leader, Term: term, Era: st.Meta().GetEra()}
	if f.leads {
		w.Held = held(st, s.agent, hello)
		s.held = w.Held
		if older && w.GetHeld() == "" {
			w.Held = "the agent's journal is older than what it confirmed before: look at the host, then hotspare host readmit " + s.agent
		}
		w.OrdersFollow = w.GetHeld() == "" && !holds(hello, s.all(st, w))
		f.view = f.view.WithAgent(live.Agent{
			Name: s.agent, Connected: true, Since: f.o.Now(), BootID: hello.GetBootId(), JournalID: hello.GetJournalId(),
			Capacity: hello.GetCapacity(), Offer: hello.GetOffer(), Held: w.GetHeld(), Older: older, Confirmed: f.confirmed(st, s.agent),
		})
	}
	f.mu.Unlock()
	f.o.Changed()
	f.o.Log.Info("agent connected", "host", s.agent, "leads", w.GetLeads(), "held", w.GetHeld())
	return w, nil
}

// older says whether the hello knows less than the agent confirmed. One such hello proves nothing: it may
// have been under way to this member while the agent confirmed more to another. A second one was said
// after the first was answered, and what is confirmed was in the journal before it was reported (R13).
// The caller holds mu.
func (f *Fleet) older(st *state.State, agent string, hello *pb.Hello) bool {
	says := model.OrderKey{Era: hello.GetEra(), Generation: hello.GetGeneration()}
	return f.confirmed(st, agent).Compare(says) > 0
}

// confirmed is the newest order that the agent is known to have written down. The caller holds mu.
func (f *Fleet) confirmed(st *state.State, agent string) model.OrderKey {
	h := st.Host(agent)
	if h.GetQuarantined() {
		return model.OrderKey{}
	}
	kept := model.OrderKey{Era: h.GetConfirmedEra(), Generation: h.GetConfirmedGeneration()}
	if seen := f.view.Agent(agent).Confirmed; seen.Compare(kept) > 0 {
		return seen
	}
	return kept
}

// held says why an agent must get no orders.
func held(st *state.State, agent string, hello *pb.Hello) string {
	h := st.Host(agent)
	meta := st.Meta()
	switch {
	case h == nil:
		return "this host has not joined: hotspare agent token create --host " + agent
	case h.GetLostAt() != nil:
		return "this host was declared lost and its VMs run elsewhere: stop what runs here, wipe it, then hotspare host remove " + agent + " and let it join anew"
	case h.GetQuarantined() || h.GetJournalId() != "" && h.GetJournalId() != hello.GetJournalId():
		return "the agent has another journal than the one known, or an older one: look at the host, then hotspare host readmit " + agent
	case hello.GetEra() > meta.GetEra() || hello.GetEra() == meta.GetEra() && hello.GetGeneration() > meta.GetIndex():
		return fmt.Sprintf("the agent knows a higher order (%d, %d) than the coordinators (%d, %d): they lost part of their log",
			hello.GetEra(), hello.GetGeneration(), meta.GetEra(), meta.GetIndex())
	default:
		return ""
	}
}

func (f *Fleet) close(s *session) {
	f.mu.Lock()
	if f.sessions[s.agent] == s {
		delete(f.sessions, s.agent)
		if a := f.view.Agent(s.agent); a.Connected {
			a.Connected, a.Full, a.Since = false, false, f.o.Now()
			f.view = f.view.WithAgent(a)
		}
		if f.o.State().Host(s.agent) == nil {
			f.view = f.view.WithoutAgent(s.agent)
		}
	}
	f.mu.Unlock()
	f.o.Changed()
	f.o.Log.Info("agent disconnected", "host", s.agent)
}

// silence is how long the leader waits for a word of an agent, which sends a heartbeat every second.
// A host without power and a cut link end no connection: without this limit such an agent would count as
// connected for hours.
const silence = 5 * time.Second

// receive takes what the agent says until the stream ends.
func (s *session) receive(stream Stream, w *pb.Welcome) error {
	late := func() {}
	if w.GetLeads() { // To others an agent says hello only.
		t := time.AfterFunc(silence, func() {
			s.f.o.Log.Warn("agent is silent; its session is ended", "host", s.agent, "took", silence)
			s.end()
		})
		defer t.Stop()
		late = func() { t.Reset(silence) }
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		late()
		switch b := m.GetMessage().(type) {
		case *pb.SessionRequest_Heartbeat:
			s.answer(b.Heartbeat, w.GetHeld())
			if c := b.Heartbeat.GetCapacity(); c != nil && w.GetLeads() {
				s.f.capacity(s, c)
			}
		case *pb.SessionRequest_Statuses:
			if w.GetLeads() {
				s.f.take(s, b.Statuses)
				s.forgetUnknown(b.Statuses)
			}
		case *pb.SessionRequest_Console:
			s.answered(b.Console)
		default:
			return model.Errorf(model.FaultInvalid, "host/"+s.agent, "a session carries one hello, then heartbeats and statuses")
		}
	}
}

func (f *Fleet) capacity(s *session, c *pb.Capacity) {
	f.update(s, func(v live.View) live.View {
		a := v.Agent(s.agent)
		a.Capacity = c
		return v.WithAgent(a)
	})
}

func (s *session) answer(h *pb.Heartbeat, held string) {
	now := s.f.o.Now()
	s.queue(&pb.SessionResponse{Message: &pb.SessionResponse_Heartbeat{Heartbeat: &pb.HeartbeatAnswer{
		Sequence: h.GetSequence(), Permit: durationpb.New(s.f.permit(held)), CoordinatorTime: timestamppb.New(now),
	}}})
}

// forgetUnknown tells the agent to forget objects that are gone at both ends.
func (s *session) forgetUnknown(r *pb.StatusReport) {
	st := s.f.o.State()
	s.mu.Lock()
	for _, status := range r.GetStatuses() {
		if st.Object(status.GetObject()) == nil && status.GetState() == pb.State_STATE_ABSENT {
			s.forget[status.GetObject()] = true
		}
	}
	s.mu.Unlock()
	s.signal()
}

// mark notes which of this agent's objects one entry changed.
func (s *session) mark(st *state.State, changed []string) {
	s.mu.Lock()
	for _, key := range changed {
		id, ok := strings.CutPrefix(key, "object/")
		if !ok {
			continue
		}
		switch o := st.Object(id); {
		case o == nil:
			s.forget[id] = true
		case o.GetAgent() == s.agent:
			s.dirty[id] = true
		}
	}
	marked := len(s.dirty)+len(s.forget) > 0
	s.mu.Unlock()
	if marked {
		s.signal()
	}
}

// maxAnswers bounds the heartbeat answers that wait to be sent; an agent that does not read gets none.
const maxAnswers = 16

func (s *session) queue(m *pb.SessionResponse) {
	s.mu.Lock()
	if len(s.answers) < maxAnswers {
		s.answers = append(s.answers, m)
	}
	s.mu.Unlock()
	s.signal()
}

func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// send writes orders and answers until the session ends. It always sends the newest specs, so a
// burst of changes costs one message.
func (s *session) send(stream Stream, hello *pb.Hello, w *pb.Welcome) error {
	orders := w.GetLeads() && w.GetHeld() == ""
	if orders {
		if err := s.sendAll(stream, hello, w); err != nil {
			return err
		}
	}
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-s.wake:
		}
		s.mu.Lock()
		dirty, forget, messages, questions := s.dirty, s.forget, s.answers, s.questions
		s.dirty, s.forget, s.answers, s.questions = map[string]bool{}, map[string]bool{}, nil, nil
		s.mu.Unlock()
		if orders && len(dirty)+len(forget) > 0 {
			messages = append(messages, s.orders(w, dirty, forget))
		}
		for _, m := range append(messages, questions...) {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}
