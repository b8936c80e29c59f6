package agent

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// coordinator is one member as an agent sees it: it answers sessions from what the test sets.
type coordinator struct {
	pb.UnimplementedAgentServiceServer
	name string

	mu     sync.Mutex
	leads  bool
	era    uint64
	term   uint64
	permit time.Duration
	// held is why this member gives no orders.
	held string
	// orders sent in full to every new session, by object.
	orders map[string]*pb.Order
	// mute: heartbeats are not answered.
	mute     bool
	hellos   []*pb.Hello
	statuses map[string]*pb.Status
	// history of all statuses of all objects.
	history []*pb.Status
	fulls   int
	// consoles are the answers about consoles, by the question's id.
	consoles map[uint64]*pb.ConsoleAnswer
	end      context.CancelFunc
	send     chan *pb.SessionResponse
	// lis is replaced while the member is down.
	lis    *bufconn.Listener
	server *grpc.Server
}

func newCoordinator(t *testing.T, name string, term uint64) *coordinator {
	t.Helper()
	c := &coordinator{
		name: name, term: term, permit: 10 * time.Second,
		orders: map[string]*pb.Order{}, statuses: map[string]*pb.Status{}, consoles: map[uint64]*pb.ConsoleAnswer{},
	}
	c.up()
	t.Cleanup(c.down)
	return c
}

func (c *coordinator) up() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lis = bufconn.Listen(1 << 20)
	c.server = grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}))
	pb.RegisterAgentServiceServer(c.server, c)
	server, lis := c.server, c.lis
	go func() {
		// It ends when the server is stopped.
		_ = server.Serve(lis)
	}()
}

func (c *coordinator) down() {
	c.mu.Lock()
	server, lis := c.server, c.lis
	c.mu.Unlock()
	server.Stop()
	// A stopped server has closed it already.
	_ = lis.Close()
}

func (c *coordinator) dial(ctx context.Context, _ string) (net.Conn, error) {
	c.mu.Lock()
	lis := c.lis
	c.mu.Unlock()
	return lis.DialContext(ctx)
}

// lead makes this member the leader, or not, and ends its sessions as the real one does.
func (c *coordinator) lead(leads bool, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leads, c.term = leads, term
	if c.end != nil {
		c.end()
	}
}

func (c *coordinator) setPermit(d time.Duration, mute bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.permit, c.mute = d, mute
}

// order gives the member orders, and sends them if the agent is there.
func (c *coordinator) order(orders ...*pb.Order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range orders {
		c.orders[o.GetObject()] = o
	}
	if c.send != nil && c.leads {
		c.send <- ordersOf(&pb.Orders{Era: c.era, Term: c.term, Orders: orders})
	}
}

func ordersOf(o *pb.Orders) *pb.SessionResponse {
	return &pb.SessionResponse{Message: &pb.SessionResponse_Orders{Orders: o}}
}

// Session implements the service.
func (c *coordinator) Session(stream pb.AgentService_SessionServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	send := make(chan *pb.SessionResponse, 64)
	c.mu.Lock()
	c.hellos = append(c.hellos, first.GetHello())
	c.end, c.send = cancel, send
	leads := c.leads
	send <- &pb.SessionResponse{Message: &pb.SessionResponse_Welcome{
		Welcome: &pb.Welcome{Leads: c.leads, Term: c.term, Era: c.era, Held: c.held},
	}}
	if leads && c.held == "" {
		all := &pb.Orders{Era: c.era, Term: c.term, Full: true}
		for _, id := range slices.Sorted(maps.Keys(c.orders)) {
			all.Orders = append(all.Orders, c.orders[id])
		}
		send <- ordersOf(all)
	}
	c.mu.Unlock()
	go func() {
		defer cancel()
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			c.take(m, send)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-send:
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

func (c *coordinator) take(m *pb.SessionRequest, send chan<- *pb.SessionResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := m.GetStatuses(); r != nil {
		if r.GetFull() {
			c.fulls++
			clear(c.statuses)
		}
		for _, st := range r.GetStatuses() {
			c.statuses[st.GetObject()] = st
			c.history = append(c.history, st)
		}
	}
	if a := m.GetConsole(); a != nil {
		c.consoles[a.GetId()] = a
	}
	if h := m.GetHeartbeat(); h != nil && !c.mute {
		permit := c.permit
		if !c.leads {
			permit = 0
		}
		send <- &pb.SessionResponse{Message: &pb.SessionResponse_Heartbeat{Heartbeat: &pb.HeartbeatAnswer{
			Sequence: h.GetSequence(), Permit: durationpb.New(permit),
		}}}
	}
}

// ask asks for a console.
func (c *coordinator) ask(id uint64, object string, after uint64, limit uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send <- &pb.SessionResponse{Message: &pb.SessionResponse_Console{Console: &pb.ConsoleQuestion{
		Id: id, Object: object, After: after, Limit: limit,
	}}}
}

// answer waits for an answer, for at most a virtual minute.
func (c *coordinator) answer(id uint64) *pb.ConsoleAnswer {
	for range 6000 {
		c.mu.Lock()
		a := c.consoles[id]
		c.mu.Unlock()
		if a != nil {
			return a
		}
		<-time.After(10 * time.Millisecond)
	}
	return nil
}

// console asks for a console and waits for the answer.
func (c *coordinator) console(id uint64, object string, after uint64, limit uint32) *pb.ConsoleAnswer {
	c.ask(id, object, after, limit)
	return c.answer(id)
}

// status returns the newest status of an object.
func (c *coordinator) status(object string) *pb.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.statuses[object]
}

// counts returns how many sessions and full reports there were.
func (c *coordinator) counts() (hellos, fulls int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.hellos), c.fulls
}

func (c *coordinator) lastHello() *pb.Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hellos[len(c.hellos)-1]
}

// insecurely returns dial options for in-memory members, by name.
func insecurely(members ...*coordinator) func(string) []grpc.DialOption {
	return func(target string) []grpc.DialOption {
		i := slices.IndexFunc(members, func(c *coordinator) bool { return "passthrough:///"+c.name == target })
		return []grpc.DialOption{
			grpc.WithContextDialer(members[i].dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		}
	}
}
