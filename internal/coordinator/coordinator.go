package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/fleet"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/metrics"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/coordinator/rpc"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/store"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// Options are what a coordinator needs.
type Options struct {
	Name string
	// Dir holds the raft log and the snapshots.
	Dir       string
	Transport raftnode.Transport
	Log       *slog.Logger
	// Now is the wall clock.
	Now func() time.Time
	// Alone: the site has and will have only this coordinator, as in `hotspare dev`.
	Alone bool
	// Authority is stored as the site's certificate authority when the site has none yet.
	Authority *trust.Authority
	// Addresses are where each member's API is reached, by name, this one's included.
	Addresses map[string]string
}

// Coordinator is one running member.
type Coordinator struct {
	o     Options
	node  *raftnode.Node
	store *store.Store
	fleet *fleet.Fleet
	rpc   *rpc.Server
	// metrics are shown to monitoring systems.
	metrics *metrics.Metrics

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	leads   bool          // set once everything committed before was applied
	// peer returns a connection to another member; nil while nothing is served.
	peer func(name string) (*grpc.ClientConn, error)

	clock *siteClock
	// judgedSteps is how often the clock had been set when it was last judged; guarded by mu.
	judgedSteps uint64

	// placed is when room was last searched for what open runs left out; the control loop's own.
	placed time.Time

	stop context.CancelFunc
	done sync.WaitGroup
}

// Start opens the member and begins to take part. The caller bootstraps a new site with Bootstrap.
func Start(ctx context.Context, o Options) (*Coordinator, error) {
	c := &Coordinator{o: o, store: store.New(), changed: make(chan struct{}), clock: &siteClock{wall: o.Now}}
	c.fleet = fleet.New(fleet.Options{
		Log: o.Log, Now: o.Now, State: c.store.State, Leader: c.leader, Changed: c.notify,
	})
	c.store.OnChange(c.fleet.StateChanged)
	narrator := newNarrator(o.Log)
	c.store.OnChange(func(st *state.State, changed []string) {
		c.mu.Lock()
		leads := c.leads
		c.mu.Unlock()
		narrator.take(st, changed, leads)
		c.notify()
	})
	node, err := raftnode.Open(raftnode.Options{
		Name: o.Name, Dir: o.Dir, Machine: c.store, Transport: o.Transport, Alone: o.Alone, Logger: o.Log.With("part", "raft"),
	})
	if err != nil {
		return nil, err
	}
	c.node = node
	c.metrics = metrics.New(c)
	c.rpc = rpc.New(c, c.fleet, c.metrics.Refused)
	ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.done.Go(func() { c.followLeadership(ctx) })
	return c, nil
}

// Bootstrap makes a new site of this member and the others, which all vote from the start.
func (c *Coordinator) Bootstrap(ctx context.Context, others ...raftnode.Member) error {
	return c.node.Bootstrap(ctx, others...)
}

// Node returns the raft node, for membership and diagnosis.
func (c *Coordinator) Node() *raftnode.Node { return c.node }

// RPC returns the handlers, to be registered on servers.
func (c *Coordinator) RPC() *rpc.Server { return c.rpc }

// Stop ends the controllers, the sessions and the raft node.
func (c *Coordinator) Stop() error {
	c.stop()
	c.fleet.Resign()
	err := c.node.Close()
	c.done.Wait()
	return err
}

// State returns the present replicated state of this member.
func (c *Coordinator) State() *state.State { return c.store.State() }

// Live returns what this member sees of the agents.
func (c *Coordinator) Live() live.View { return c.fleet.View() }

// Now returns the wall clock.
func (c *Coordinator) Now() time.Time { return c.o.Now() }

// Changed returns a channel that is closed at the next change of state or live view.
func (c *Coordinator) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *Coordinator) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Coordinator) leader() (name string, term uint64) {
	name, _ = c.node.Leader()
	return name, c.node.Term()
}

// Leads says whether this member leads and has applied what was committed before it did.
func (c *Coordinator) Leads() bool { return c.Leading() == nil }

// Leading returns nil when this member leads and has applied what was committed before it did.
func (c *Coordinator) Leading() error {
	c.mu.Lock()
	leads := c.leads
	c.mu.Unlock()
	if leads {
		return nil
	}
	name, _ := c.node.Leader()
	if name == "" || name == c.o.Name {
		return model.Errorf(model.FaultUnavailable, "", "no coordinator leads now").WithRemedy("it is decided within seconds; try again")
	}
	return model.Errorf(model.FaultUnavailable, "", "coordinator %s leads, not this one", name).WithRemedy("try again, or ask %s", name)
}

// Verify returns nil when a quorum confirmed that this member leads after the call began.
func (c *Coordinator) Verify(ctx context.Context) error {
	if err := c.Leading(); err != nil {
		return err
	}
	if err := c.node.VerifyLeader(ctx); err != nil {
		return &model.Error{Fault: model.FaultUnavailable, What: "leadership is not certain now", Err: err, Remedy: "try again, or read with --stale"}
	}
	return nil
}

// unknownAge is what a member says that never heard from a leader.
const unknownAge = 365 * 24 * time.Hour

// Age says how old what this member shows may be.
func (c *Coordinator) Age() time.Duration {
	at := c.fleet.VerifiedAt()
	if c.Leading() != nil {
		stats, err := c.node.Stats()
		if err != nil || stats.LastContact.IsZero() {
			return unknownAge
		}
		at = stats.LastContact
	}
	return max(c.o.Now().Sub(at), time.Millisecond)
}

// Members lists the coordinators.
func (c *Coordinator) Members() []*pb.Member {
	members, err := c.node.Members()
	if err != nil {
		return nil
	}
	leader, _ := c.node.Leader()
	out := make([]*pb.Member, 0, len(members))
	for _, m := range members {
		out = append(out, &pb.Member{
			Name: m.Name, Address: c.o.Addresses[m.Name], Leader: m.Name == leader, Self: m.Name == c.o.Name,
		})
	}
	return out
}

// errNotServing: this member has no way to the others.
var errNotServing = errors.New("the API is not served")

// proposeTimeout bounds one commit; without a quorum raft gives up earlier.
const proposeTimeout = 10 * time.Second

// Propose commits a command and returns its outcome: the error of raft or the refusal of apply.
func (c *Coordinator) Propose(ctx context.Context, actor string, cmd *pb.Command) (state.Result, error) {
	cmd.Time, cmd.Actor, cmd.Level = timestamppb.New(c.clock.look(c.State().Time()).site), actor, state.SupportedLevel
	data, err := proto.Marshal(cmd)
	if err != nil {
		return state.Result{}, fmt.Errorf("encode command: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	out, _, err := c.node.Propose(ctx, data)
	if err != nil {
		return state.Result{}, err
	}
	r, ok := out.(state.Result)
	if !ok {
		return state.Result{}, fmt.Errorf("propose: apply returned %T", out)
	}
	return r, r.Err
}

// isShutdown says whether an error only means that this member is stopping or does not lead any more.
func isShutdown(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, raftnode.ErrClosed) || errors.Is(err, raftnode.ErrNotLeader)
}
