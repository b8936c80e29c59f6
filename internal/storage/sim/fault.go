package sim

import (
	"context"
	"errors"
	"path"
	"sync"
	"time"
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
	// Method is the name of the driver's method ("Promote"); empty: any.
	Method string
	// Volume is a path.Match pattern on the volume's name ("web-*"); empty: any, also calls without
	// a volume.
	Volume string
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

// faults is the list of misbehaviours of one pool or site.
type faults struct {
	mu   sync.Mutex
	list []*injected
}

// Inject makes matching calls misbehave. Of several matching faults the oldest acts. The returned
// function takes the fault away and lets hanging calls go on; it may be called repeatedly.
func (f *faults) Inject(fault Fault) (release func()) {
	in := &injected{Fault: fault, left: fault.Count, released: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, in)
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drop(in)
		close(in.released)
	})
}

// drop takes a fault out of the list. The caller holds the lock.
func (f *faults) drop(in *injected) {
	for i, have := range f.list {
		if have == in {
			f.list = append(f.list[:i:i], f.list[i+1:]...)
			return
		}
	}
}

// take finds the fault for a call and uses up one of its counts.
func (f *faults) take(method, volume string) *injected {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, in := range f.list {
		if in.Method != "" && in.Method != method {
			continue
		}
		if in.Volume != "" {
			if ok, err := path.Match(in.Volume, volume); err != nil || !ok {
				continue
			}
		}
		if in.Count > 0 {
			in.left--
			if in.left == 0 {
				f.drop(in)
			}
		}
		return in
	}
	return nil
}

// through runs one driver call with the fault that is due for it, if any. The call itself takes no
// time and so needs no context.
func (f *faults) through(ctx context.Context, method, volume string, call func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in := f.take(method, volume)
	if in == nil {
		return call()
	}
	if err := wait(ctx, in.Delay); err != nil {
		return err
	}
	if in.Lie == LieApplied {
		if err := call(); err != nil {
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
		time.AfterFunc(in.Later, func() {
			// Nobody waits for the outcome any more: a late refusal is what the caller assumes anyway.
			_ = call()
		})
		return in.failure()
	}
	if in.Err != nil {
		return in.Err
	}
	return call()
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
