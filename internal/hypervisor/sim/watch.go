package sim

import (
	"context"
	"slices"

	"github.com/hotspare/hotspare/internal/model"
)

// watcher holds the identifiers that one watch has not yet sent: at most one entry for each domain.
type watcher struct {
	pending []model.ObjectID // guarded by the host's lock
	wake    chan struct{}    // size 1: one signal stands for all pending
	broken  chan struct{}
}

// Watch implements hypervisor.Driver.
func (h *Host) Watch(ctx context.Context) (<-chan model.ObjectID, error) {
	w := &watcher{wake: make(chan struct{}, 1), broken: make(chan struct{})}
	err := h.through(ctx, "Watch", "", func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.watchers[w] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make(chan model.ObjectID)
	go func() {
		defer close(out)
		h.send(ctx, w, out)
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, w)
	}()
	return out, nil
}

func (h *Host) send(ctx context.Context, w *watcher, out chan<- model.ObjectID) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.broken:
			return
		case <-w.wake:
		}
		h.mu.Lock()
		ids := w.pending
		w.pending = nil
		h.mu.Unlock()
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

// changed tells every watch about a domain. The caller holds the lock.
func (h *Host) changed(id model.ObjectID) {
	for w := range h.watchers {
		if !slices.Contains(w.pending, id) {
			w.pending = append(w.pending, id)
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// closeWatches breaks every watch. The caller holds the lock.
func (h *Host) closeWatches() {
	for w := range h.watchers {
		close(w.broken)
	}
	clear(h.watchers)
}
