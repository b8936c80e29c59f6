package session

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

const (
	// connectLimit is how long connecting and the answer to Hello may take.
	connectLimit = 2 * time.Second
	// The wait before the next try: doubled from the first to the last, and jittered, so that the
	// agents of a site do not come back in step.
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 500 * time.Millisecond
	// answerLimit ends a leader's stream on which no heartbeat is answered any more: three are lost.
	answerLimit = 3 * time.Second
	// keepaliveTime is above the ten seconds that gRPC clients are held to, and twice the minimum
	// that the coordinators enforce; more often is answered with "too many pings".
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// maxOrdersBytes bounds a message from a coordinator: a full list for the largest host.
	maxOrdersBytes = 32 << 20
	// maxUnanswered bounds the heartbeats whose answers are waited for.
	maxUnanswered = 16
)

// Handler is the agent. Its methods are called from the streams' goroutines and may block.
type Handler interface {
	// Hello returns the first message of a new stream.
	Hello() *pb.Hello
	// Leader tells that a stream to a leader has begun; the agent answers with Client.ReportFull.
	Leader(w *pb.Welcome)
	// Orders takes orders of the leader.
	Orders(o *pb.Orders)
	// Permit takes a permit until a time on the boot-time clock.
	Permit(until time.Duration)
}

// Options configure a client.
type Options struct {
	// Coordinators are gRPC targets: "c1.example.:7443".
	Coordinators []string
	// DialOptions returns the credentials for one of them.
	DialOptions func(coordinator string) []grpc.DialOption
	// Era and Term are the highest that the journal knows.
	Era, Term uint64
	// Boot is the boot-time clock, which permits are counted on.
	Boot    func() time.Duration
	Handler Handler
	// Console answers a question about a console with Client.AnswerConsole; it must not block.
	Console func(q *pb.ConsoleQuestion)
	Log     *slog.Logger
}

// Client holds the streams.
type Client struct {
	o Options

	mu        sync.Mutex
	era, term uint64
	leader    *stream
}

// New returns a client; Run connects it.
func New(o Options) *Client { return &Client{o: o, era: o.Era, term: o.Term} }

// Run keeps a stream to every coordinator until the context ends.
func (c *Client) Run(ctx context.Context) error {
	var all sync.WaitGroup
	conns := make([]*grpc.ClientConn, 0, len(c.o.Coordinators))
	defer func() {
		for _, conn := range conns {
			// The streams have ended; nothing can be done about a connection that does not close.
			_ = conn.Close()
		}
	}()
	for _, name := range c.o.Coordinators {
		conn, err := c.connection(name)
		if err != nil {
			return err
		}
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		all.Go(func() { c.keep(ctx, c.o.Coordinators[i], conn) })
	}
	all.Wait()
	<-ctx.Done()
	return nil
}

// connection prepares the connection to one coordinator; it is made with the first stream.
func (c *Client) connection(name string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(name, append([]grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstBackoff, Multiplier: 2, Jitter: 0.5, MaxDelay: lastBackoff},
			MinConnectTimeout: connectLimit,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxOrdersBytes)),
	}, c.o.DialOptions(name)...)...)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to coordinator %s: %w", name, err)
	}
	return conn, nil
}

// keep opens a stream to one coordinator again and again.
func (c *Client) keep(ctx context.Context, name string, conn *grpc.ClientConn) {
	wait := firstBackoff
	for ctx.Err() == nil {
		welcomed, err := c.serve(ctx, name, conn)
		if ctx.Err() != nil {
			return
		}
		if welcomed {
			wait = firstBackoff
			c.o.Log.Info("session ended", "coordinator", name, "error", err)
		} else {
			c.o.Log.Debug("coordinator not reached", "coordinator", name, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, lastBackoff)
	}
}

// serve runs one stream to its end and says whether the coordinator answered Hello.
func (c *Client) serve(ctx context.Context, name string, conn *grpc.ClientConn) (bool, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(connectLimit, func() {
		cancel(fmt.Errorf("coordinator %s did not answer within %v", name, connectLimit))
	})
	defer late.Stop()
	s, welcome, err := c.open(ctx, cancel, name, conn)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return false, err
	}
	if !late.Stop() {
		return false, context.Cause(ctx)
	}
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel(nil)
	sender.Go(func() { s.send(ctx) })
	defer c.drop(s)
	c.adopt(s, welcome)
	for {
		m, err := s.rpc.Recv()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return true, err
		}
		c.receive(s, m)
	}
}

// open begins a stream with Hello and waits for Welcome.
func (c *Client) open(ctx context.Context, cancel context.CancelCauseFunc, name string, conn *grpc.ClientConn) (*stream, *pb.Welcome, error) {
	rpc, err := pb.NewAgentServiceClient(conn).Session(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, nil, fmt.Errorf("open a session with coordinator %s: %w", name, err)
	}
	hello := &pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: c.o.Handler.Hello()}}
	if err := rpc.Send(hello); err != nil {
		return nil, nil, fmt.Errorf("say hello to coordinator %s: %w", name, err)
	}
	first, err := rpc.Recv()
	if err != nil {
		return nil, nil, fmt.Errorf("wait for the welcome of coordinator %s: %w", name, err)
	}
	if first.GetWelcome() == nil {
		return nil, nil, fmt.Errorf("coordinator %s began with %T instead of a welcome", name, first.GetMessage())
	}
	return newStream(name, rpc, cancel), first.GetWelcome(), nil
}

// adopt follows a stream whose coordinator leads in the newest term.
func (c *Client) adopt(s *stream, w *pb.Welcome) {
	log := c.o.Log.With("coordinator", s.name, "era", w.GetEra(), "term", w.GetTerm())
	if !w.GetLeads() {
		log.Debug("coordinator does not lead", "leader", w.GetLeader())
		return
	}
	c.mu.Lock()
	ok := c.newest(w.GetEra(), w.GetTerm())
	if ok {
		c.leader = s
	}
	c.mu.Unlock()
	if !ok {
		log.Warn("coordinator leads in an older term; its orders are ignored")
		return
	}
	if w.GetHeld() != "" {
		log.Warn("coordinator gives no orders", "held", w.GetHeld())
	}
	log.Info("following the leader")
	c.o.Handler.Leader(w)
}

// newest raises the highest era and term seen, and says whether these are not older. The caller holds mu.
func (c *Client) newest(era, term uint64) bool {
	if era < c.era || (era == c.era && term < c.term) {
		return false
	}
	c.era, c.term = era, term
	return true
}

// drop forgets a stream that ended.
func (c *Client) drop(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader == s {
		c.leader = nil
	}
}

// receive takes one message; only the leader's stream gives orders and permits.
func (c *Client) receive(s *stream, m *pb.SessionResponse) {
	c.mu.Lock()
	follows := c.leader == s
	if o := m.GetOrders(); o != nil && follows {
		follows = c.newest(o.GetEra(), o.GetTerm())
	}
	c.mu.Unlock()
	if !follows {
		if m.GetOrders() != nil {
			c.o.Log.Warn("orders ignored: not from the newest leader", "coordinator", s.name)
		}
		return
	}
	switch b := m.GetMessage().(type) {
	case *pb.SessionResponse_Orders:
		c.o.Handler.Orders(b.Orders)
	case *pb.SessionResponse_Heartbeat:
		sent, ok := s.answered(b.Heartbeat.GetSequence())
		if permit := b.Heartbeat.GetPermit().AsDuration(); ok && permit > 0 {
			c.o.Handler.Permit(sent + permit)
		}
	case *pb.SessionResponse_Console:
		c.o.Console(b.Console)
	}
}

// Following says whether there is a leader's stream.
func (c *Client) Following() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader != nil
}

// Report sends a changed status to the leader, at once. Without a leader it is dropped: the next
// session begins with a full report. It never blocks; of one object only the newest status waits.
func (c *Client) Report(st *pb.Status) {
	c.mu.Lock()
	s := c.leader
	c.mu.Unlock()
	if s != nil {
		s.report(st)
	}
}

// ReportFull sends all statuses to the leader; those reported before are superseded.
func (c *Client) ReportFull(all []*pb.Status) {
	c.mu.Lock()
	s := c.leader
	c.mu.Unlock()
	if s != nil {
		s.reportFull(all)
	}
}

// AnswerConsole sends the answer to a question about a console, or drops it when nobody leads or too many wait:
// the coordinator does not wait for ever.
func (c *Client) AnswerConsole(a *pb.ConsoleAnswer) {
	c.mu.Lock()
	s := c.leader
	c.mu.Unlock()
	if s != nil {
		s.answerConsole(a)
	}
}

// Heartbeat asks the leader for a permit. The permit counts from now, before it is sent. A leader
// that does not answer is left. Capacity may be nil.
func (c *Client) Heartbeat(capacity *pb.Capacity) {
	c.mu.Lock()
	s := c.leader
	c.mu.Unlock()
	if s != nil {
		s.heartbeat(c.o.Boot(), capacity)
	}
}
