package byhand

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Script is what the script knows. Every field is needed.
type Script struct {
	// Old is the old side: its libvirtd's socket, and the domain that must be off.
	Old Domain
	// Victim is the lent domain that is saved, on the host where the guest starts; Image is where its RAM goes.
	Victim Domain
	Image  string
	// Guest is the protected VM on that host, XML its definition without name and UUID changed.
	Guest Domain
	XML   string
	// Network is what the guest needs on its host.
	Network Network
	// Replica is what is promoted.
	Replica Replica
	// Health is the URL that answers 200 when the guest is healthy, asked from the network's probe port.
	Health string
	// Name is the DNS record that is repointed.
	Name Record
}

// Domain is a domain of one libvirtd.
type Domain struct{ Socket, Name string }

// Span is when a part of the run began and ended, counted from the beginning of the run.
type Span struct{ Began, Ended time.Duration }

// Run is what one run of the script did.
type Run struct {
	Began time.Time
	Spans map[string]Span
	// Started is when the call that starts the guest had returned, Healthy when the probe answered.
	Started, Healthy time.Time
	// Ended is when the name server had accepted the update.
	Ended time.Time
}

// run measures the parts.
type run struct {
	Run
	mu sync.Mutex // guards Spans
}

// part does one part and notes how long it took.
func (r *run) part(name string, do func() error) error {
	began := time.Since(r.Began)
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Spans[name] = Span{began, time.Since(r.Began)}
	return nil
}

// Run fails over. After an error Undo puts back what was done.
func (s *Script) Run(ctx context.Context) (Run, error) {
	r := &run{Run: Run{Began: time.Now(), Spans: map[string]Span{}}}
	err := r.together(
		func() error {
			if err := r.part("fence", func() error { return s.Old.turnOff(ctx) }); err != nil {
				return err
			}
			return r.part("promote", func() error { return s.Replica.promote(ctx) })
		},
		func() error { return r.part("save", func() error { return s.Victim.save(ctx, s.Image) }) },
		func() error { return r.part("network", s.Network.make) },
		func() error { return r.part("define", func() error { return s.Guest.define(ctx, s.XML) }) },
	)
	if err != nil {
		return r.Run, err
	}
	if err := r.part("start", func() error { return s.Guest.start(ctx) }); err != nil {
		return r.Run, err
	}
	r.Started = time.Now()
	if err := r.part("healthy", func() error { return s.Network.awaitHealthy(ctx, s.Health) }); err != nil {
		return r.Run, err
	}
	r.Healthy = time.Now()
	err = r.part("announce", func() error { return s.Name.change(s.Name.Old, s.Name.New) })
	r.Ended = time.Now()
	return r.Run, err
}

// together does several things at once and waits for all.
func (r *run) together(all ...func() error) error {
	errs := make([]error, len(all))
	var running sync.WaitGroup
	for i, do := range all {
		running.Go(func() { errs[i] = do() })
	}
	running.Wait()
	return errors.Join(errs...)
}

// Undo puts everything back as it was but for the old domain, which stays off. What was never done is no error.
func (s *Script) Undo(ctx context.Context) error {
	return errors.Join(
		s.Name.undo(),
		s.Guest.remove(ctx),
		s.Replica.demote(ctx),
		s.Network.remove(),
		s.Victim.restore(ctx, s.Image),
	)
}
