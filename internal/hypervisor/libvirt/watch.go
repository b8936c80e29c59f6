package libvirt

import (
	"context"
	"fmt"
	"slices"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/hotspare/hotspare/internal/model"
)

// watcher holds what one watch has not yet sent: at most one entry for each domain.
type watcher struct {
	pending []model.ObjectID // guarded by the driver's lock
	wake    chan struct{}    // size 1: one signal stands for all that is pending
	broken  chan struct{}    // closed when the driver is
}

// Watch implements hypervisor.Driver. It has a connection of its own, and its channel is closed when
// that one breaks.
func (d *Driver) Watch(ctx context.Context) (<-chan model.ObjectID, error) {
	s, err := d.c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	events, err := subscribe(ctx, s)
	if err != nil {
		d.c.forget(s)
		return nil, fmt.Errorf("watch: %w", err)
	}
	w := &watcher{wake: make(chan struct{}, 1), broken: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		d.c.forget(s)
		return nil, errClosed
	}
	d.watchers[w] = struct{}{}
	out := make(chan model.ObjectID)
	d.running.Add(2)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer d.running.Done()
		defer cancel()
		d.receive(ctx, events)
	}()
	go func() {
		defer d.running.Done()
		defer close(out)
		d.send(ctx, w, out)
		d.mu.Lock()
		delete(d.watchers, w)
		d.mu.Unlock()
		cancel()
		d.c.forget(s) // ends the events as well
	}()
	return out, nil
}

// subscribe asks for lifecycle events. The stream ends with its connection.
func subscribe(ctx context.Context, s *session) (<-chan golibvirt.DomainEventLifecycleMsg, error) {
	type answer struct {
		events <-chan golibvirt.DomainEventLifecycleMsg
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		// The stream takes no context: cutting the connection ends it.
		events, err := s.l.LifecycleEvents(context.WithoutCancel(ctx))
		answers <- answer{events, err}
	}()
	select {
	case a := <-answers:
		return a.events, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// receive turns events into changes of our domains until the stream ends.
func (d *Driver) receive(ctx context.Context, events <-chan golibvirt.DomainEventLifecycleMsg) {
	for e := range events {
		d.mu.Lock()
		id, known := d.names[e.Dom.Name]
		d.mu.Unlock()
		if !known {
			f, err := d.examine(ctx, e.Dom)
			if err != nil {
				continue // not ours, or gone before it was ever seen
			}
			id = f.mark.ID
		}
		d.changed(id)
	}
}

// send hands the pending changes to the receiver until the watch ends.
func (d *Driver) send(ctx context.Context, w *watcher, out chan<- model.ObjectID) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.broken:
			return
		case <-w.wake:
		}
		d.mu.Lock()
		ids := w.pending
		w.pending = nil
		d.mu.Unlock()
		for _, id := range ids {
			select {
			case <-ctx.Done():
				return
			case <-w.broken:
				return
			case out <- id:
			}
		}
	}
}

// changed tells every watch about a domain.
func (d *Driver) changed(id model.ObjectID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.watchers {
		if !slices.Contains(w.pending, id) {
			w.pending = append(w.pending, id)
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// breakWatches ends every watch.
func (d *Driver) breakWatches() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for w := range d.watchers {
		close(w.broken)
	}
	clear(d.watchers)
}
