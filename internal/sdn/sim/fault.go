package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrInjected is the cause of every error that a fault without an error of its own produces.
var ErrInjected = errors.New("injected fault")

// Method names a call of the seam.
type Method string

// The methods of sdn.Driver, sdn.Metadata and sdn.Endpoints.
const (
	List     Method = "List"
	Inspect  Method = "Inspect"
	Ensure   Method = "Ensure"
	Remove   Method = "Remove"
	Dial     Method = "Dial"
	Listen   Method = "ListenMetadata"
	Machine  Method = "Machine"
	Read     Method = "Read"
	Announce Method = "Announce"
	Withdraw Method = "Withdraw"
)

// Mode says how a call goes wrong.
type Mode int

// The modes. The zero value is none.
const (
	// Fail returns an error and has no effect.
	Fail Mode = iota + 1
	// Hang waits until the context ends and has no effect.
	Hang
	// Slow waits for Delay and then does what was asked.
	Slow
	// Lie reports success and has no effect.
	Lie
	// LoseReply has its effect and reports an error.
	LoseReply
	// Late waits until the context ends; the effect comes Delay after the call began.
	Late
)

// Fault makes calls go wrong.
type Fault struct {
	Method Method
	// Object is the network's name, or the DNS name of an endpoint; empty means every one.
	Object string
	Mode   Mode
	// Err is what Fail and LoseReply return; nil means ErrInjected.
	Err   error
	Delay time.Duration
	// Count is how many calls go wrong; 0 means all until Clear.
	Count int
}

// call is one method on one object.
type call struct {
	method Method
	object string
}

// Faults holds the faults to come and counts what happened. It is shared by all drivers of one
// simulated host or server, and outlives the agents that use them.
type Faults struct {
	mu sync.Mutex
	// The rest is guarded by mu.
	pending []Fault
	calls   map[call]int
	effects map[call]int
}

func newFaults() *Faults {
	return &Faults{calls: map[call]int{}, effects: map[call]int{}}
}

// Inject adds a fault. The oldest that fits a call is used.
func (f *Faults) Inject(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = append(f.pending, fault)
}

// Clear drops all faults to come.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = nil
}

// Calls counts how often a method was called on an object.
func (f *Faults) Calls(m Method, object string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call{m, object}]
}

// Effects counts how often a method changed or read the state of an object without an error.
func (f *Faults) Effects(m Method, object string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.effects[call{m, object}]
}

// take counts a call and returns the fault that it meets.
func (f *Faults) take(c call) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[c]++
	for i := range f.pending {
		p := &f.pending[i]
		if p.Method != c.method || (p.Object != "" && p.Object != c.object) {
			continue
		}
		found := *p
		if p.Count > 0 {
			if p.Count--; p.Count == 0 {
				f.pending = append(f.pending[:i], f.pending[i+1:]...)
			}
		}
		return found
	}
	return Fault{}
}

// run makes one call of the seam: effect is what the call does when nothing goes wrong.
func (f *Faults) run(ctx context.Context, m Method, object string, effect func() error) error {
	c := call{m, object}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", m, object, err)
	}
	fault := f.take(c)
	cause := fault.Err
	if cause == nil {
		cause = ErrInjected
	}
	injected := fmt.Errorf("%s %s: %w", m, object, cause)
	switch fault.Mode {
	case Fail:
		return injected
	case Lie:
		return nil
	case Hang:
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w", m, object, ctx.Err())
	case Late:
		// The error of a late effect reaches nobody, as with a reply that comes after the caller left.
		time.AfterFunc(fault.Delay, func() { _ = f.apply(c, effect) })
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w", m, object, ctx.Err())
	case Slow:
		if err := wait(ctx, fault.Delay); err != nil {
			return fmt.Errorf("%s %s: %w", m, object, err)
		}
	case LoseReply:
		return errors.Join(injected, f.apply(c, effect))
	}
	return f.apply(c, effect)
}

func (f *Faults) apply(c call, effect func() error) error {
	if err := effect(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.effects[c]++
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
