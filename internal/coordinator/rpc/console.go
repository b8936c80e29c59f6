package rpc

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

const (
	// defaultConsole and maxConsole bound what a console shows of what is there already.
	defaultConsole = 16 << 10
	maxConsole     = 64 << 10
	// consoleEvery is the pause between two readings of a console that is followed.
	consoleEvery = 500 * time.Millisecond
	// maxConsoles and maxConsolesEach bound the consoles open on this member, and those of one caller.
	maxConsoles, maxConsolesEach = 64, 8
)

// consoles counts the open consoles by who reads them.
type consoles struct {
	mu   sync.Mutex
	open map[trust.Identity]int
	all  int
}

// enter takes a place for a caller; the returned function gives it back.
func (c *consoles) enter(who trust.Identity) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= maxConsoles || c.open[who] >= maxConsolesEach {
		return nil, model.Errorf(model.FaultTooMany, "", "too many consoles are open: %d, of %s %d", c.all, who, c.open[who]).
			WithRemedy("close one; at most %d for each user and %d in all", maxConsolesEach, maxConsoles)
	}
	c.all++
	c.open[who]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all--
		if c.open[who]--; c.open[who] == 0 {
			delete(c.open, who)
		}
	}, nil
}

// consoleOf returns the VM whose console the caller may read.
func (s *Server) consoleOf(ctx context.Context, st *state.State, req *pb.ReadConsoleRequest) (*pb.LeaseInstance, error) {
	l, err := s.mine(ctx, st, req.GetName())
	if err != nil {
		return nil, err
	}
	key := "lease/" + l.GetName()
	if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST {
		return nil, model.Errorf(model.FaultPrecondition, key, "is lost, its console with it: %s", l.GetReason())
	}
	if n := len(l.GetInstances()); int64(req.GetVm()) >= int64(n) {
		return nil, model.Errorf(model.FaultNotFound, key, "has no VM %d", req.GetVm()).WithRemedy("it has %d, counted from 0", n)
	}
	return l.GetInstances()[req.GetVm()], nil
}

// ReadConsole shows the newest output of a VM's serial console, and goes on with what follows when asked to.
// The agent is asked over the session that it made.
func (s *Server) ReadConsole(req *pb.ReadConsoleRequest, stream grpc.ServerStreamingServer[pb.ReadConsoleResponse]) error {
	ctx := stream.Context()
	st, err := s.read(ctx, false)
	if err != nil {
		return err
	}
	vm, err := s.consoleOf(ctx, st, req)
	if err != nil {
		return err
	}
	leave, err := s.consoles.enter(actor(ctx))
	if err != nil {
		return err
	}
	defer leave()
	limit := req.GetMaxBytes()
	if limit == 0 {
		limit = defaultConsole
	}
	q := &pb.ConsoleQuestion{Object: vm.GetObject(), After: req.GetAfter(), Limit: min(limit, maxConsole)}
	for first := true; ; first = false {
		a, err := s.fleet.Console(ctx, vm.GetHost(), q)
		if err != nil {
			return err
		}
		if a.GetError() != "" {
			return model.Errorf(model.FaultPrecondition, vm.GetObject(), "console not read: %s", a.GetError()).
				WithRemedy("see: hotspare lease describe %s", req.GetName())
		}
		q.After, q.Limit = a.GetEnd(), maxConsole
		if first || len(a.GetText()) > 0 {
			out := &pb.ReadConsoleResponse{Text: a.GetText(), End: a.GetEnd(), State: s.site.Live().Raw(vm.GetObject()).GetState()}
			if err := stream.Send(out); err != nil {
				return err
			}
		}
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(consoleEvery):
		}
		// It may have been given to somebody else's hands meanwhile, or be gone.
		if vm, err = s.consoleOf(ctx, s.site.State(), req); err != nil {
			return err
		}
	}
}
