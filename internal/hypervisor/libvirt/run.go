package libvirt

import (
	"context"
	"errors"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	// askEvery is how often a guest is asked again to shut down: one that still boots does not hear it.
	askEvery = 2 * time.Second
	// pollEvery is how often the state is read while a guest shuts down.
	pollEvery = 100 * time.Millisecond
)

// Start implements hypervisor.Driver.
func (d *Driver) Start(ctx context.Context, id model.ObjectID) error {
	return d.do(ctx, id, changing{what: "start", run: func(ctx context.Context) error {
		ctx = context.WithoutCancel(ctx)
		f, err := d.settled(ctx, id)
		if err != nil || f.active {
			return err
		}
		if d.files(id).has(ramSaved) {
			return hypervisor.ErrState
		}
		return d.c.alone(ctx, d.c.slow, func(l *golibvirt.Libvirt) error {
			_, err := l.DomainCreateWithFlags(f.dom, 0)
			return err
		})
	}})
}

// Stop implements hypervisor.Driver. A call that is stuck on the domain, a save onto dead storage for
// example, holds it up for the grace only: then the domain is killed and that call fails.
func (d *Driver) Stop(ctx context.Context, id model.ObjectID, o hypervisor.StopOptions) error {
	killAt := time.Now().Add(o.Grace)
	stopBreaker := d.breakAt(ctx, id, killAt)
	defer stopBreaker()
	return d.do(ctx, id, changing{what: "stop", run: func(ctx context.Context) error {
		f, err := d.settled(ctx, id)
		if err != nil || !f.active {
			return err
		}
		if !f.paused { // a guest that stands still cannot shut down
			if off, err := d.ask(ctx, f.dom, killAt); off || err != nil {
				return err
			}
		}
		return d.destroy(context.WithoutCancel(ctx), f.dom)
	}})
}

// breakAt kills the domain at the given time if a call is then still under way that was there before.
// The returned function calls it off.
func (d *Driver) breakAt(ctx context.Context, id model.ObjectID, at time.Time) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	stuck := d.busy[id]
	if stuck == nil || d.closed {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	d.running.Go(func() {
		select {
		case <-stuck.done:
			return
		case <-ctx.Done():
			return
		case <-time.After(time.Until(at)):
		}
		f, err := d.look(ctx, id)
		if err == nil && f.active {
			err = d.destroy(ctx, f.dom)
		}
		if err != nil && ctx.Err() == nil {
			d.log.Warn("kill of a domain with a stuck call failed", "object", id, "error", err)
		}
	})
	return cancel
}

// ask asks the guest to shut down until it is off or the time has come.
func (d *Driver) ask(ctx context.Context, dom golibvirt.Domain, until time.Time) (off bool, err error) {
	var asked time.Time
	for time.Now().Before(until) {
		if time.Since(asked) >= askEvery {
			asked = time.Now()
			_, err := call(ctx, d.c, func(l *golibvirt.Libvirt) (struct{}, error) {
				return struct{}{}, l.DomainShutdownFlags(dom, golibvirt.DomainShutdownAcpiPowerBtn)
			})
			if err != nil && ctx.Err() != nil {
				return false, err // else it may just have gone off
			}
		}
		f, err := d.examine(ctx, dom)
		if err != nil || !f.active {
			return true, err
		}
		if err := sleep(ctx, min(pollEvery, time.Until(until))); err != nil {
			return false, err
		}
	}
	return false, ctx.Err()
}

// destroy kills the domain; libvirt sends SIGTERM, then SIGKILL, and waits for QEMU's end.
func (d *Driver) destroy(ctx context.Context, dom golibvirt.Domain) error {
	err := d.c.alone(ctx, d.c.quick, func(l *golibvirt.Libvirt) error { return l.DomainDestroyFlags(dom, 0) })
	var refused golibvirt.Error
	if errors.As(err, &refused) && refused.Code == uint32(golibvirt.ErrOperationInvalid) {
		return nil // it is off already
	}
	return err
}
