package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

// job is work of the host on one domain. It ends by its own timer, by an abort or by a crash, not by
// the caller's context: like libvirtd, the host finishes what it accepted.
type job struct {
	done  chan struct{} // closed after err is set
	err   error
	timer *time.Timer
	abort func()
}

// work says what a job does.
type work struct {
	takes time.Duration
	// finish makes the effect, under the lock.
	finish func() error
	// abort, if set, undoes what begin did when the caller goes away, under the lock.
	abort func()
}

// change runs one changing call: it waits until the domain is not busy, asks begin under the lock
// what is to do (nil: nothing, it is already so), and waits for that work.
func (h *Host) change(ctx context.Context, method string, id model.ObjectID, begin func() (*work, error)) error {
	err := h.through(ctx, method, id, func(ctx context.Context) error {
		j, err := h.start(ctx, id, begin)
		if j == nil || err != nil {
			return err
		}
		return h.await(ctx, id, j)
	})
	if err != nil {
		return fmt.Errorf("sim: %s %s: %w", method, id, err)
	}
	return nil
}

// start begins a job, after the one that the domain is busy with. A nil job means nothing to wait for.
func (h *Host) start(ctx context.Context, id model.ObjectID, begin func() (*work, error)) (*job, error) {
	for {
		h.mu.Lock()
		busy := h.jobs[id]
		if busy == nil {
			break
		}
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-busy.done:
		}
	}
	defer h.mu.Unlock()
	if h.foreign[id] != nil {
		return nil, hypervisor.ErrForeign
	}
	w, err := begin()
	if w == nil || err != nil {
		return nil, err
	}
	if w.takes <= 0 {
		h.changed(id)
		return nil, w.finish()
	}
	j := &job{done: make(chan struct{}), abort: w.abort}
	h.jobs[id] = j
	j.timer = time.AfterFunc(w.takes, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.jobs[id] != j {
			return
		}
		h.end(id, j, w.finish())
		h.changed(id)
	})
	return j, nil
}

// await waits for a job and aborts it, where it can be, when the caller goes away.
func (h *Host) await(ctx context.Context, id model.ObjectID, j *job) error {
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.jobs[id] == j && j.abort != nil {
		j.abort()
		h.end(id, j, ctx.Err())
		h.changed(id)
	}
	return ctx.Err()
}

// end closes a job. The caller holds the lock.
func (h *Host) end(id model.ObjectID, j *job, err error) {
	j.timer.Stop()
	j.err = err
	delete(h.jobs, id)
	close(j.done)
}
