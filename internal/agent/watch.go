package agent

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/hypervisor"
)

const (
	// relistEvery compares the hypervisor's list with what is known, whatever its events say.
	relistEvery = time.Minute
	// watchRetry is the wait before a broken watch is begun again.
	watchRetry = time.Second
	// capacityEvery is how often the host's capacity is read; watchRetry until it was read once.
	capacityEvery = 15 * time.Second
	// askLimit bounds a list or a capacity reading.
	askLimit = 10 * time.Second
)

// watch follows the hypervisor's events, and lists everything at the start of each watch and once
// in a while.
func (r *runtime) watch(ctx context.Context, h hypervisor.Driver) {
	for ctx.Err() == nil {
		if err := r.follow(ctx, h); err != nil && ctx.Err() == nil {
			r.o.Log.Warn("hypervisor not watched; trying again", "host", r.o.Name, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}

// follow watches until the watch breaks. It begins to watch before it lists, so that nothing is lost
// in between.
func (r *runtime) follow(ctx context.Context, h hypervisor.Driver) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := h.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch the hypervisor: %w", err)
	}
	if err := r.list(ctx, h); err != nil {
		return err
	}
	relist := time.NewTicker(relistEvery)
	defer relist.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-relist.C:
			if err := r.list(ctx, h); err != nil {
				return err
			}
		case id, ok := <-events:
			if !ok {
				return fmt.Errorf("watch the hypervisor: the connection broke")
			}
			r.submit(func() []reconcile.Effect { return r.core.DriverEvent(id, r.now()) })
		}
	}
}

// list gives the core the inventory.
func (r *runtime) list(ctx context.Context, h hypervisor.Driver) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	domains, err := h.List(ctx)
	if err != nil {
		return fmt.Errorf("list the hypervisor's domains: %w", err)
	}
	found := make([]reconcile.Found, 0, len(domains))
	for _, d := range domains {
		f := reconcile.Found{Object: d.ID, Owner: d.Owner}
		if d.State == pb.State_STATE_RUNNING {
			f.MemoryBytes = d.MemoryBytes
		}
		found = append(found, f)
	}
	r.submit(func() []reconcile.Effect { return r.core.Inventory(found, r.now()) })
	return nil
}

// measure reads the host's capacity once in a while.
func (r *runtime) measure(ctx context.Context, h hypervisor.Driver) {
	for {
		wait := capacityEvery
		if err := r.readCapacity(ctx, h); err != nil {
			wait = watchRetry
			if ctx.Err() == nil {
				r.o.Log.Warn("capacity not read; trying again", "host", r.o.Name, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (r *runtime) readCapacity(ctx context.Context, h hypervisor.Driver) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	c, err := h.Capacity(ctx)
	if err != nil {
		return fmt.Errorf("read the host's capacity: %w", err)
	}
	r.submit(func() []reconcile.Effect {
		if !proto.Equal(c, r.capacity) {
			r.capacity, r.sendCapacity, r.changed = c, true, true
		}
		return r.core.Capacity(c, r.now())
	})
	return nil
}
