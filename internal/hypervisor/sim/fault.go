package sim

import (
	"context"
	"errors"
	"path"
	"time"

	"github.com/hotspare/hotspare/internal/model"
)

// ErrInjected is what a fault without an error of its own returns.
var ErrInjected = errors.New("injected fault")

// Lie says how an answer differs from the truth.
type Lie int

// The lies. The zero value tells the truth.
const (
	// LieNotApplied reports success and does nothing.
	LieNotApplied Lie = iota + 1
	// LieApplied does it and returns the error.
	LieApplied
	// LieLater returns the error at once and does it after Later: a timeout that succeeds.
	LieLater
)

// Fault is a misbehaviour on command. The parts are taken in the order Delay, Hang, Lie or Err.
type Fault struct {
	// Method is the name of the driver's method ("Start"); empty: any.
	Method string
	// Object is a path.Match pattern on the object's identifier ("instance/web-*"); empty: any,
	// also calls without an object.
	Object string
	// Delay passes before anything else happens.
	Delay time.Duration
	// Hang never answers until the caller's context ends or the fault is released; a released call
	// goes on. With LieApplied the effect comes before the hang.
	Hang bool
	// Err is returned. With Lie set and Err nil it is ErrInjected where an error is due.
	Err error
	Lie Lie
	// Later is the delay of LieLater.
	Later time.Duration
	// Count is how many calls it hits; zero: all until released.
	Count int
}

type injected struct {
	Fault
	left     int
	released chan struct{}
}

// Inject makes matching calls misbehave. Of several matching faults the oldest acts. The returned
// function takes the fault away and lets hanging calls go on; it may be called repeatedly.
func (h *Host) Inject(f Fault) (release func()) {
	in := &injected{Fault: f, left: f.Count, released: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, in)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.drop(in)
		select {
		case <-in.released:
		default:
			close(in.released)
		}
	}
}

// drop takes a fault out of the list. The caller holds the lock.
func (h *Host) drop(in *injected) {
	for i, have := range h.faults {
		if have == in {
			h.faults = append(h.faults[:i:i], h.faults[i+1:]...)
			return
		}
	}
}

// take finds the fault for a call and uses up one of its counts.
func (h *Host) take(method string, id model.ObjectID) *injected {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, in := range h.faults {
		if in.Method != "" && in.Method != method {
			continue
		}
		if in.Object != "" {
			if ok, err := path.Match(in.Object, string(id)); err != nil || !ok {
				continue
			}
		}
		if in.Count > 0 {
			in.left--
			if in.left == 0 {
				h.drop(in)
			}
		}
		return in
	}
	return nil
}

// through runs one driver call with the fault that is due for it, if any.
func (h *Host) through(ctx context.Context, method string, id model.ObjectID, call func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in := h.take(method, id)
	if in == nil {
		return call(ctx)
	}
	if err := wait(ctx, in.Delay); err != nil {
		return err
	}
	if in.Lie == LieApplied {
		if err := call(ctx); err != nil {
			return err
		}
	}
	if in.Hang {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.released:
		}
	}
	switch in.Lie {
	case LieNotApplied:
		return nil
	case LieApplied:
		return in.failure()
	case LieLater:
		// The caller's context no longer counts: the work was accepted by the host, in this boot.
		boot := h.BootID()
		time.AfterFunc(in.Later, func() {
			if h.BootID() == boot {
				_ = call(context.WithoutCancel(ctx))
			}
		})
		return in.failure()
	}
	if in.Err != nil {
		return in.Err
	}
	return call(ctx)
}

func (in *injected) failure() error {
	if in.Err != nil {
		return in.Err
	}
	return ErrInjected
}

// wait lets the duration pass or returns the context's error.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
