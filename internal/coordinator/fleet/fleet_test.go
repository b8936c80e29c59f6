package fleet_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/fleet"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// stream is one agent's end of a session, in memory.
type stream struct {
	ctx  context.Context //nolint:containedctx // It stands for the stream's lifetime.
	up   chan *pb.SessionRequest
	down chan *pb.SessionResponse
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Recv() (*pb.SessionRequest, error) {
	select {
	case m, open := <-s.up:
		if !open {
			return nil, io.EOF
		}
		return m, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *stream) Send(m *pb.SessionResponse) error {
	select {
	case s.down <- proto.CloneOf(m):
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// site is a fleet over a fixture's state, in a synctest bubble.
type site struct {
	t     *testing.T
	w     *fixture.World
	fleet *fleet.Fleet
	mu    sync.Mutex
	wg    sync.WaitGroup
}

func run(t *testing.T, test func(s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &site{t: t, w: fixture.New(t)}
		s.fleet = fleet.New(fleet.Options{
			Log: slog.New(slog.DiscardHandler), Now: time.Now, Changed: func() {},
			State:  func() *state.State { s.mu.Lock(); defer s.mu.Unlock(); return s.w.State },
			Leader: func() (string, uint64) { return "c1", 7 },
		})
		s.fleet.Lead()
		test(s)
		s.fleet.Resign()
		s.wg.Wait()
	})
}

// do applies a command as raft does and tells the fleet.
func (s *site) do(c *pb.Command) {
	s.t.Helper()
	s.mu.Lock()
	res := s.w.Do("ann", c)
	st := s.w.State
	s.mu.Unlock()
	if res.Err != nil {
		s.t.Fatal(res.Err)
	}
	s.fleet.StateChanged(st, res.Changed)
}

type session struct {
	*stream
	t   *testing.T
	end context.CancelFunc
	err error
	out chan struct{}
}

func (s *site) connect(agent string, change func(*pb.Hello)) *session {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	c := &session{
		t: s.t, end: cancel, out: make(chan struct{}),
		stream: &stream{ctx: ctx, up: make(chan *pb.SessionRequest), down: make(chan *pb.SessionResponse, 100)},
	}
	s.wg.Go(func() {
		c.err = s.fleet.Serve(agent, c)
		cancel() // As gRPC does when the handler returns.
		close(c.out)
	})
	hello := &pb.Hello{Agent: agent, BootId: "boot-1", JournalId: "journal-" + agent}
	if change != nil {
		change(hello)
	}
	c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: hello}}
	synctest.Wait() // Until the fleet has taken the session in.
	return c
}

// next returns the next message, or nil when nothing is under way.
func (c *session) next() *pb.SessionResponse {
	c.t.Helper()
	synctest.Wait()
	select {
	case m := <-c.down:
		return m
	default:
		return nil
	}
}

func (c *session) ended() bool {
	synctest.Wait()
	select {
	case <-c.out:
		return true
	default:
		return false
	}
}

func (c *session) heartbeat() *pb.HeartbeatAnswer {
	c.t.Helper()
	c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Heartbeat{Heartbeat: &pb.Heartbeat{Sequence: 4}}}
	a := c.next().GetHeartbeat()
	if a.GetSequence() != 4 {
		c.t.Fatalf("answer %v", a)
	}
	return a
}

func held(s *site, orders int) []model.OrderKey {
	var keys []model.OrderKey
	for o := range s.w.State.ObjectsOf("store1") {
		keys = append(keys, model.OrderKey{Object: model.ObjectID(o.GetId()), Era: 1, Generation: o.GetGeneration()})
	}
	return keys[:min(orders, len(keys))]
}

func TestWelcomeAndFullOrders(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("store1", nil)
		if w := c.next().GetWelcome(); !w.GetLeads() || w.GetLeader() != "c1" || w.GetTerm() != 7 || w.GetEra() != 1 || w.GetHeld() != "" {
			t.Errorf("welcome %v", w)
		}
		o := c.next().GetOrders()
		if !o.GetFull() || len(o.GetOrders()) != 3 {
			t.Errorf("orders %v, want the three volumes", o)
		}
		if a := s.fleet.View().Agent("store1"); !a.Connected || a.Full {
			t.Errorf("agent %+v", a)
		}
		c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Statuses{Statuses: &pb.StatusReport{Full: true}}}
		synctest.Wait()
		if !s.fleet.View().Agent("store1").Full {
			t.Error("a full report was not taken")
		}
		c.end()
		if !c.ended() || s.fleet.View().Agent("store1").Connected {
			t.Error("the agent is gone and counts as connected")
		}
	})
}

func TestEqualDigestNeedsNoOrders(t *testing.T) {
	run(t, func(s *site) {
		same := s.connect("store1", func(h *pb.Hello) { h.OrdersDigest = model.OrdersDigest(held(s, 3)) })
		if same.next().GetWelcome() == nil || same.next() != nil {
			t.Error("orders were sent although the agent holds them")
		}
		less := s.connect("store1", func(h *pb.Hello) { h.OrdersDigest = model.OrdersDigest(held(s, 2)) })
		if less.next().GetWelcome() == nil || !less.next().GetOrders().GetFull() {
			t.Error("an agent that holds less gets everything")
		}
	})
}

func TestHeldAgentsGetNothing(t *testing.T) {
	for name, c := range map[string]struct {
		agent  string
		change func(*pb.Hello)
		why    string
	}{
		"not joined":        {"stranger", nil, "has not joined"},
		"another journal":   {"store1", func(h *pb.Hello) { h.JournalId = "new" }, "another journal"},
		"higher generation": {"store1", func(h *pb.Hello) { h.Era, h.Generation = 1, 1<<40 }, "higher order"},
		"higher era":        {"store1", func(h *pb.Hello) { h.Era = 2 }, "higher order"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(s *site) {
				ses := s.connect(c.agent, c.change)
				if w := ses.next().GetWelcome(); !strings.Contains(w.GetHeld(), c.why) {
					t.Errorf("held: %q, want %q", w.GetHeld(), c.why)
				}
				if m := ses.next(); m != nil {
					t.Errorf("a held agent got %v", m)
				}
				if p := ses.heartbeat().GetPermit().AsDuration(); p != 0 {
					t.Errorf("a held agent got a permit of %v", p)
				}
				s.do(retire("volume/webshop-db-root"))
				if m := ses.next(); m != nil {
					t.Errorf("a held agent got %v", m)
				}
			})
		})
	}
}

// retire changes the base of objects in one entry.
func retire(ids ...string) *pb.Command {
	return &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Drop: ids}}}
}

func TestOrdersOfOneEntryTravelTogether(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("store1", nil)
		c.next()
		c.next()
		other := s.connect("gateway1", nil)
		other.next()
		other.next()
		s.do(retire("volume/webshop-web-1", "volume/webshop-db-root"))
		o := c.next().GetOrders()
		if o.GetFull() || len(o.GetOrders()) != 2 || o.GetOrders()[0].GetGeneration() != s.w.State.Index() {
			t.Errorf("orders %v, want both in one message", o)
		}
		if m := other.next(); m != nil {
			t.Errorf("another agent got %v", m)
		}
		s.do(&pb.Command{Body: &pb.Command_ForgetObjects{ForgetObjects: &pb.ForgetObjects{Objects: []*pb.ObjectVersion{
			{Object: "volume/webshop-db-root", Generation: s.w.State.Index()},
		}}}})
		if f := c.next().GetOrders().GetForget(); !slices.Equal(f, []string{"volume/webshop-db-root"}) {
			t.Errorf("forget %v", f)
		}
		c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Statuses{Statuses: &pb.StatusReport{Statuses: []*pb.Status{
			{Object: "volume/long-gone", State: pb.State_STATE_ABSENT},
		}}}}
		if f := c.next().GetOrders().GetForget(); !slices.Equal(f, []string{"volume/long-gone"}) {
			t.Errorf("forget %v", f)
		}
	})
}

func TestPermits(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("store1", nil)
		c.next()
		c.next()
		if p := c.heartbeat().GetPermit().AsDuration(); p != fleet.PermitDuration {
			t.Errorf("permit %v", p)
		}
		<-time.After(3 * time.Second) // Virtual time: nobody confirmed the leadership meanwhile.
		if p := c.heartbeat().GetPermit().AsDuration(); p != 0 {
			t.Errorf("permit %v from a leader that may not lead any more", p)
		}
		s.fleet.Verified(time.Now())
		if p := c.heartbeat().GetPermit().AsDuration(); p != fleet.PermitDuration {
			t.Errorf("permit %v after a confirmation", p)
		}
		s.fleet.Resign()
		if !c.ended() || model.FaultOf(c.err) != model.FaultUnavailable {
			t.Errorf("after the resignation: %v", c.err)
		}
		follower := s.connect("store1", nil)
		if w := follower.next().GetWelcome(); w.GetLeads() {
			t.Error("a follower says that it leads")
		}
		if p := follower.heartbeat().GetPermit().AsDuration(); p != 0 {
			t.Errorf("a follower granted %v", p)
		}
		if m := follower.next(); m != nil {
			t.Errorf("a follower sent %v", m)
		}
		s.fleet.Lead()
		if !follower.ended() {
			t.Error("a new leader's old streams must end, so that each agent says hello anew")
		}
	})
}

func TestSecondSessionReplacesTheFirst(t *testing.T) {
	run(t, func(s *site) {
		first := s.connect("store1", nil)
		first.next()
		second := s.connect("store1", func(h *pb.Hello) { h.BootId = "boot-2" })
		if !first.ended() {
			t.Fatal("the first session goes on")
		}
		if second.ended() || !s.fleet.View().Agent("store1").Connected || s.fleet.View().Agent("store1").BootID != "boot-2" {
			t.Errorf("the end of the first session touched the second: %+v", s.fleet.View().Agent("store1"))
		}
	})
}

func TestStatusesThatAreNotBelieved(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("gateway1", nil)
		c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Statuses{Statuses: &pb.StatusReport{Statuses: []*pb.Status{
			{Object: "volume/webshop-db-root", Era: 1, Generation: 1 << 40},
			{Object: "fence/east-bmc", Era: 9, Generation: 1 << 40},
		}}}}
		synctest.Wait()
		for _, id := range []string{"volume/webshop-db-root", "fence/east-bmc"} {
			if st := s.fleet.View().Raw(id); st != nil {
				t.Errorf("taken: %v", st)
			}
		}
	})
}

func TestReadmittedAgentSaysHelloAnew(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("store1", func(h *pb.Hello) { h.JournalId = "new" })
		if c.next().GetWelcome().GetHeld() == "" {
			t.Fatal("not held")
		}
		s.do(&pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "store1", Action: "readmit"}}})
		if !c.ended() {
			t.Error("a readmitted agent would stay held until it connects again by chance")
		}
		if w := s.connect("store1", func(h *pb.Hello) { h.JournalId = "new" }).next().GetWelcome(); w.GetHeld() != "" {
			t.Errorf("still held: %s", w.GetHeld())
		}
	})
}

func TestWrongMessages(t *testing.T) {
	run(t, func(s *site) {
		wrong := s.connect("store1", func(h *pb.Hello) { h.Agent = "h1" })
		if !wrong.ended() || model.FaultOf(wrong.err) != model.FaultInvalid {
			t.Errorf("a hello in another's name: %v", wrong.err)
		}
		twice := s.connect("store1", nil)
		twice.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: &pb.Hello{Agent: "store1"}}}
		if !twice.ended() || model.FaultOf(twice.err) != model.FaultInvalid {
			t.Errorf("a second hello: %v, want to be told what was wrong", twice.err)
		}
		gone := s.connect("store1", nil)
		close(gone.up)
		if !gone.ended() || !errors.Is(gone.err, io.EOF) {
			t.Errorf("the agent closed its end: %v", gone.err)
		}
	})
}

func TestRestoreEndsTheSessions(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("store1", nil)
		s.fleet.StateChanged(s.w.State, nil)
		if !c.ended() || s.fleet.View().Agent("store1").Connected {
			t.Error("after a restore everything must be said anew")
		}
	})
}

// What is gone is not remembered, and a member that does not lead any more does not show what it saw.
func TestTheViewForgets(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("store1", nil)
		const id = "volume/webshop-db-root"
		s.do(retire(id))
		gone := s.w.State.Index()
		c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Statuses{Statuses: &pb.StatusReport{Statuses: []*pb.Status{
			{Object: id, Era: 1, Generation: gone}, {Object: "volume/never-heard-of", Era: 1},
		}}}}
		synctest.Wait()
		if s.fleet.View().Raw(id) == nil || s.fleet.View().Raw("volume/never-heard-of") != nil {
			t.Error("want the status of what exists and of nothing else")
		}
		s.do(&pb.Command{Body: &pb.Command_ForgetObjects{ForgetObjects: &pb.ForgetObjects{Objects: []*pb.ObjectVersion{{Object: id, Generation: gone}}}}})
		if st := s.fleet.View().Raw(id); st != nil {
			t.Errorf("the status of an object that is gone: %v", st)
		}
		for _, name := range []string{"h8", "h9"} {
			s.w.Join(name, &pb.AgentOffer{})
		}
		g := s.connect("h8", nil)
		h := s.connect("h9", nil)
		h.end()
		synctest.Wait()
		for _, name := range []string{"h8", "h9"} { // One is connected.
			s.do(&pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: name, Action: "remove"}}})
		}
		if !g.ended() {
			t.Fatal("a removed agent's session goes on")
		}
		for _, name := range []string{"h8", "h9"} {
			if a := s.fleet.View().Agent(name); a.Name != "" {
				t.Errorf("a removed agent: %+v", a)
			}
		}
		s.fleet.Resign()
		synctest.Wait()
		if a := s.fleet.View().Agent("store1"); a.Connected {
			t.Errorf("after the resignation: %+v", a)
		}
	})
}
