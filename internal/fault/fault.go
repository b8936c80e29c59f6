// Package fault lets the simulated drivers misbehave on command, as real parts were seen to do: a call
// fails, hangs, is slow, says yes and does nothing, does it and loses the answer, or does it later. It
// counts the calls and their effects.
//
// Only the sims of the driver seams use it, and tests through them. It never decides what a call does.
package fault

import (
	"context"
	"errors"
	"fmt"
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
	// Method is the name of the driver's method ("Start"); empty: any.
	Method string
	// Object is a path.Match pattern on what the call is about ("instance/web-*", a volume's name); empty:
	// any, also calls about nothing in particular.
	Object string
	// Delay passes before anything else happens.
	Delay time.Duration
	// Hang never answers until the caller's context ends or the fault is released; a released call
	// goes on. With LieApplied the effect comes before the hang, with LieLater in spite of it.
	Hang bool
	// Err is returned. With Lie set and Err nil it is ErrInjected where an error is due.
	Err error
	Lie Lie
	// Later is the delay of LieLater.
	Later time.Duration
	// Count is how many calls it hits; zero: all until released.
	Count int
}

// Ways are the ways in which any call can go wrong, by name; what comes late comes after d.
func Ways(d time.Duration) map[string]Fault {
	return map[string]Fault{
		"fails":          {Err: ErrInjected},
		"never answers":  {Hang: true},
		"is slow":        {Delay: d},
		"is not applied": {Lie: LieNotApplied},
		"loses its word": {Lie: LieApplied},
		"succeeds later": {Lie: LieLater, Later: d, Hang: true},
	}
}

// Faults holds the faults to come of one simulated part, and counts what happened there. The zero value
// is ready. It outlives the agents that use the part.
type Faults struct {
	mu sync.Mutex // guards what follows
	// list is oldest first.
	list    []*injected
	calls   map[call]int
	effects map[call]int
}

type injected struct {
	Fault
	left     int
	released chan struct{}
	release  func() // closes released, once
}

// call is one method on one object.
type call struct{ method, object string }

// Inject makes matching calls misbehave. Of several matching faults the oldest acts. The returned
// function takes the fault away and lets hanging calls go on; it may be called repeatedly.
func (f *Faults) Inject(fault Fault) (release func()) {
	in := &injected{Fault: fault, left: fault.Count, released: make(chan struct{})}
	in.release = sync.OnceFunc(func() { close(in.released) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, in)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drop(in)
		in.release()
	}
}

// Clear takes all faults away and lets hanging calls go on.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, in := range f.list {
		in.release()
	}
	f.list = nil
}

// Calls counts how often a method was called on an object.
func (f *Faults) Calls(method, object string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call{method, object}]
}

// Effects counts how often a method changed or read the state of an object without an error.
func (f *Faults) Effects(method, object string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.effects[call{method, object}]
}

// drop takes a fault out of the list. The caller holds the lock.
func (f *Faults) drop(in *injected) {
	for i, have := range f.list {
		if have == in {
			f.list = append(f.list[:i:i], f.list[i+1:]...)
			return
		}
	}
}

// take counts a call, finds the fault for it and uses up one of its counts; nil: there is none.
func (f *Faults) take(c call) *injected {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls, f.effects = map[call]int{}, map[call]int{}
	}
	f.calls[c]++
	for _, in := range f.list {
		if in.Method != "" && in.Method != c.method {
			continue
		}
		if in.Object != "" {
			if ok, err := path.Match(in.Object, c.object); err != nil || !ok {
				continue
			}
		}
		if in.Count > 0 {
			if in.left--; in.left == 0 {
				f.drop(in)
			}
		}
		return in
	}
	return nil
}

// lateKey marks the context of a call whose effect comes after its answer.
type lateKey struct{}

// Late says whether a call has its effect after its answer: nobody waits for it any more.
func Late(ctx context.Context) bool { return ctx.Value(lateKey{}) != nil }

// Through makes one driver call with the fault that is due for it, if any. do is what the call does when
// nothing goes wrong.
func (f *Faults) Through(ctx context.Context, method, object string, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", method, object, err)
	}
	c := call{method, object}
	in := f.take(c)
	if in == nil {
		return f.apply(ctx, c, do)
	}
	if err := wait(ctx, in.Delay); err != nil {
		return fmt.Errorf("%s %s: %w", method, object, err)
	}
	switch in.Lie {
	case LieApplied:
		if err := f.apply(ctx, c, do); err != nil {
			return err
		}
	case LieLater:
		// The caller's context no longer counts: the work was accepted. Nobody hears of its outcome.
		late := context.WithValue(context.WithoutCancel(ctx), lateKey{}, true)
		time.AfterFunc(in.Later, func() { _ = f.apply(late, c, do) })
	case LieNotApplied: // Its answer is below: a call that lies may hang, too.
	}
	if in.Hang {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s %s: %w", method, object, ctx.Err())
		case <-in.released:
		}
	}
	switch {
	case in.Lie == LieNotApplied:
		return nil
	case in.Lie == LieApplied, in.Lie == LieLater, in.Err != nil:
		return fmt.Errorf("%s %s: %w", method, object, in.failure())
	default:
		return f.apply(ctx, c, do)
	}
}

func (f *Faults) apply(ctx context.Context, c call, do func(context.Context) error) error {
	if err := do(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.effects[c]++
	return nil
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
