package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

var (
	_ hypervisor.Driver   = (*Host)(nil)
	_ hypervisor.Saver    = (*Host)(nil)
	_ hypervisor.Consoler = (*Host)(nil)
)

// Capacity implements hypervisor.Driver.
func (h *Host) Capacity(ctx context.Context) (*pb.Capacity, error) {
	var c *pb.Capacity
	err := h.through(ctx, "Capacity", "", func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		c = proto.CloneOf(h.capacity)
		c.ForeignVcpus, c.ForeignMemoryBytes = 0, 0
		c.SaveBytesPerSecond = cmp.Or(h.costs.SaveBytesPerSecond, instantSave)
		for _, f := range h.foreign {
			c.ForeignVcpus += f.GetVcpus()
			c.ForeignMemoryBytes += f.GetMemoryBytes()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sim: capacity of %s: %w", h.name, err)
	}
	return c, nil
}

// List implements hypervisor.Driver. The domains are sorted by identifier.
func (h *Host) List(ctx context.Context) ([]hypervisor.Domain, error) {
	var out []hypervisor.Domain
	err := h.through(ctx, "List", "", func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, d := range h.domains {
			out = append(out, d.view())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sim: list domains of %s: %w", h.name, err)
	}
	slices.SortFunc(out, func(a, b hypervisor.Domain) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Inspect implements hypervisor.Driver.
func (h *Host) Inspect(ctx context.Context, id model.ObjectID) (hypervisor.Domain, error) {
	var v hypervisor.Domain
	err := h.through(ctx, "Inspect", id, func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		d, err := h.find(id)
		if err != nil {
			return err
		}
		v = d.view()
		return nil
	})
	if err != nil {
		return hypervisor.Domain{}, fmt.Errorf("sim: inspect %s: %w", id, err)
	}
	return v, nil
}

// Define implements hypervisor.Driver.
func (h *Host) Define(ctx context.Context, def hypervisor.Definition) error {
	def.Spec = proto.CloneOf(def.Spec)
	return h.change(ctx, "Define", def.ID, func() (*work, error) {
		if def.ID == "" || def.Spec.GetVcpus() == 0 || def.Spec.GetMemoryBytes() == 0 {
			return nil, fmt.Errorf("the definition lacks an identifier, CPUs or memory")
		}
		if d := h.domains[def.ID]; d != nil {
			same := d.def.Digest() == def.Digest()
			if d.running || d.saved != nil {
				if !same {
					return nil, hypervisor.ErrState
				}
				return nil, nil
			}
		}
		return &work{takes: h.costs.Define, finish: func() error {
			d := h.domains[def.ID]
			if d == nil {
				d = &domain{}
				h.domains[def.ID] = d
			}
			d.def = def
			h.count(def.ID, func(c *Counts) { c.Defines++ })
			return nil
		}}, nil
	})
}

// Start implements hypervisor.Driver.
func (h *Host) Start(ctx context.Context, id model.ObjectID) error {
	return h.change(ctx, "Start", id, func() (*work, error) {
		d, err := h.find(id)
		if err != nil || d.running {
			return nil, err
		}
		if d.saved != nil {
			return nil, hypervisor.ErrState
		}
		if err := h.reserve(d); err != nil {
			return nil, err
		}
		return &work{takes: h.costs.Start, finish: func() error {
			h.boot(id, d)
			h.count(id, func(c *Counts) { c.Starts++ })
			return nil
		}}, nil
	})
}

// Stop implements hypervisor.Driver. When the caller goes away during the grace, the guest is not
// killed and is taken to go on.
func (h *Host) Stop(ctx context.Context, id model.ObjectID, o hypervisor.StopOptions) error {
	return h.change(ctx, "Stop", id, func() (*work, error) {
		d, err := h.find(id)
		if err != nil || !d.running {
			return nil, err
		}
		b := h.behaviourOf(id)
		if o.Grace > 0 && !b.IgnoresShutdown && d.problem == "" && b.ShutdownTakes <= o.Grace {
			return &work{takes: b.ShutdownTakes, finish: func() error {
				d.off()
				h.count(id, func(c *Counts) { c.Stops++ })
				return nil
			}}, nil
		}
		takes := o.Grace + h.costs.Kill
		if d.problem != "" { // a guest that stands still cannot shut down
			takes = h.costs.Kill
		}
		return &work{takes: takes, abort: func() {}, finish: func() error {
			d.off()
			h.count(id, func(c *Counts) { c.Kills++ })
			return nil
		}}, nil
	})
}

// Remove implements hypervisor.Driver.
func (h *Host) Remove(ctx context.Context, id model.ObjectID) error {
	return h.change(ctx, "Remove", id, func() (*work, error) {
		d := h.domains[id]
		if d == nil {
			return nil, nil
		}
		if d.running {
			return nil, hypervisor.ErrState
		}
		return &work{takes: h.costs.Remove, finish: func() error {
			delete(h.domains, id)
			h.count(id, func(c *Counts) { c.Removes++ })
			return nil
		}}, nil
	})
}

// Save implements hypervisor.Saver. The guest stands still while its RAM is written.
func (h *Host) Save(ctx context.Context, id model.ObjectID) error {
	return h.change(ctx, "Save", id, func() (*work, error) {
		d, err := h.find(id)
		switch {
		case err != nil:
			return nil, err
		case !d.running && d.saved != nil:
			return nil, nil
		case !d.running:
			return nil, hypervisor.ErrState
		}
		bytes := d.def.Spec.GetMemoryBytes()
		if limit := h.capacity.GetDiskBytes(); limit > 0 && h.savedBytes()+bytes > limit {
			return nil, ErrNoSpace
		}
		d.guest.pause()
		return &work{
			takes: h.costs.saveTime(bytes),
			abort: func() {
				if d.running && d.problem == "" {
					d.guest.resume()
				}
			},
			finish: func() error {
				if !d.running { // killed from outside meanwhile: no image
					return fmt.Errorf("the guest ended while it was saved")
				}
				image := d.guest
				d.off()
				d.saved = &image
				h.count(id, func(c *Counts) { c.Saves++ })
				return nil
			},
		}, nil
	})
}

func (c Costs) saveTime(bytes uint64) time.Duration {
	if c.SaveBytesPerSecond == 0 {
		return c.Save
	}
	return c.Save + time.Duration(float64(bytes)/float64(c.SaveBytesPerSecond)*float64(time.Second))
}

// Restore implements hypervisor.Saver.
func (h *Host) Restore(ctx context.Context, id model.ObjectID) error {
	return h.change(ctx, "Restore", id, func() (*work, error) {
		d, err := h.find(id)
		if err != nil || d.running {
			return nil, err
		}
		if d.saved == nil {
			return nil, hypervisor.ErrState
		}
		if err := h.reserve(d); err != nil {
			return nil, err
		}
		return &work{takes: h.costs.Restore, finish: func() error {
			d.guest, d.saved = *d.saved, nil
			d.guest.resume()
			d.running = true
			d.print("%s: restored, boot id %s\n", d.def.Spec.GetHostname(), d.guest.bootID)
			h.count(id, func(c *Counts) { c.Restores++ })
			return nil
		}}, nil
	})
}

// DropSaved implements hypervisor.Saver.
func (h *Host) DropSaved(ctx context.Context, id model.ObjectID) error {
	return h.change(ctx, "DropSaved", id, func() (*work, error) {
		d, err := h.find(id)
		if err != nil {
			return nil, err
		}
		if d.running {
			return nil, hypervisor.ErrState
		}
		if d.saved == nil {
			return nil, nil
		}
		return &work{finish: func() error {
			d.saved = nil
			return nil
		}}, nil
	})
}

// Console implements hypervisor.Consoler.
func (h *Host) Console(ctx context.Context, id model.ObjectID, after uint64, limit int) (hypervisor.ConsoleText, error) {
	var out hypervisor.ConsoleText
	err := h.through(ctx, "Console", id, func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		d, err := h.find(id)
		if err != nil {
			return err
		}
		if after > d.printed {
			after = 0
		}
		fresh := min(d.printed-after, uint64(max(0, limit)), uint64(len(d.console)))
		out = hypervisor.ConsoleText{Text: slices.Clone(d.console[uint64(len(d.console))-fresh:]), End: d.printed}
		return nil
	})
	if err != nil {
		return hypervisor.ConsoleText{}, fmt.Errorf("sim: console of %s: %w", id, err)
	}
	return out, nil
}

// find returns one of our domains. The caller holds the lock.
func (h *Host) find(id model.ObjectID) (*domain, error) {
	if h.foreign[id] != nil {
		return nil, hypervisor.ErrForeign
	}
	d := h.domains[id]
	if d == nil {
		return nil, hypervisor.ErrNotFound
	}
	return d, nil
}

// reserve takes the memory for a guest, or fails as QEMU would. The caller holds the lock.
func (h *Host) reserve(d *domain) error {
	need := d.def.Spec.GetMemoryBytes() + h.capacity.GetOverheadBytes()
	if h.memoryUsed()+need > h.capacity.GetMemoryBytes() {
		return ErrNoMemory
	}
	for name, n := range d.def.Spec.GetDevices() { // Any order: all must be free.
		if h.devicesUsed(name)+n > h.capacity.GetDevices()[name] {
			return fmt.Errorf("%w: %s", ErrNoDevice, name)
		}
	}
	d.reserved = true
	return nil
}

// view is the domain as the interface shows it. The caller holds the lock.
func (d *domain) view() hypervisor.Domain {
	state := pb.State_STATE_DEFINED
	switch {
	case d.running:
		state = pb.State_STATE_RUNNING
	case d.saved != nil:
		state = pb.State_STATE_SAVED
	}
	return hypervisor.Domain{
		ID: d.def.ID, Owner: d.def.Owner, State: state, Problem: d.problem,
		VCPUs: d.def.Spec.GetVcpus(), MemoryBytes: d.def.Spec.GetMemoryBytes(),
	}
}
