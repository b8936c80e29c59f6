package libvirt

import (
	"context"
	"errors"
	"fmt"

	"github.com/hotspare/hotspare/internal/model"
)

// work is a changing call on one domain. It outlives its caller.
type work struct {
	done chan struct{}
	// saving is true for a save: the domain counts as running until its image is durable.
	saving bool
}

// changing describes a changing call.
type changing struct {
	what   string
	saving bool
	// run does it. The context is the caller's: run may end early with it only where it leaves the
	// domain as clean as without. It must not be used for calls that have to come to an end.
	run func(ctx context.Context) error
}

// do runs a changing call on a domain after the one that is under way, and waits for it as long as
// the caller's context lasts.
func (d *Driver) do(ctx context.Context, id model.ObjectID, c changing) error {
	w, err := d.begin(ctx, id, c.saving)
	if err != nil {
		return fmt.Errorf("%s %s: %w", c.what, id, err)
	}
	result := make(chan error, 1)
	go func() {
		defer d.end(id, w)
		result <- c.run(ctx)
	}()
	select {
	case err = <-result:
		if err != nil && ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err) // most likely the reason
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", c.what, id, err)
	}
	return nil
}

// begin makes the domain busy, when it is free.
func (d *Driver) begin(ctx context.Context, id model.ObjectID, saving bool) (*work, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return nil, errClosed
		}
		busy := d.busy[id]
		if busy == nil {
			w := &work{done: make(chan struct{}), saving: saving}
			d.busy[id] = w
			d.running.Add(1)
			d.mu.Unlock()
			return w, nil
		}
		d.mu.Unlock()
		select {
		case <-busy.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// end frees the domain and tells the watchers.
func (d *Driver) end(id model.ObjectID, w *work) {
	d.mu.Lock()
	delete(d.busy, id)
	d.mu.Unlock()
	close(w.done)
	d.changed(id)
	d.running.Done()
}

// underWay returns the call that a domain is busy with, or nil.
func (d *Driver) underWay(id model.ObjectID) *work {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.busy[id]
}
