package simulation

import (
	"context"
	"fmt"
	"net"
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
)

var (
	_ hypervisor.Driver = (*host)(nil)
	_ hypervisor.Saver  = (*host)(nil)
	_ sdn.Driver        = bridges{}
)

// Capacity implements hypervisor.Driver.
func (h *host) Capacity(context.Context) (*pb.Capacity, error) { return h.capacity, nil }

// List implements hypervisor.Driver.
func (h *host) List(context.Context) ([]hypervisor.Domain, error) {
	var out []hypervisor.Domain
	for _, id := range h.ids() {
		out = append(out, h.domains[id].show())
	}
	return out, nil
}

func (d *domain) show() hypervisor.Domain {
	return hypervisor.Domain{
		ID: d.def.ID, Owner: d.def.Owner, State: d.state(), VCPUs: d.def.Spec.GetVcpus(), MemoryBytes: d.def.Spec.GetMemoryBytes(),
	}
}

// Inspect implements hypervisor.Driver.
func (h *host) Inspect(_ context.Context, id model.ObjectID) (hypervisor.Domain, error) {
	d := h.domains[id]
	if d == nil {
		return hypervisor.Domain{}, hypervisor.ErrNotFound
	}
	return d.show(), nil
}

// Define implements hypervisor.Driver.
func (h *host) Define(_ context.Context, def hypervisor.Definition) error {
	d := h.domains[def.ID]
	switch {
	case d == nil:
		h.domains[def.ID] = &domain{def: def, disk: h.w.token(), reclaimed: map[uint64]int{}}
		h.w.s.diskMade(def.ID, h.domains[def.ID].disk)
	case d.state() == pb.State_STATE_DEFINED:
		d.def = def
	case d.def.Digest() != def.Digest():
		return hypervisor.ErrState
	}
	h.changed(def.ID)
	return nil
}

// Start implements hypervisor.Driver. It does not look whether there is memory: the checks do.
func (h *host) Start(_ context.Context, id model.ObjectID) error {
	d := h.domains[id]
	switch {
	case d == nil:
		return hypervisor.ErrNotFound
	case d.running:
		return nil
	case d.image != nil:
		return hypervisor.ErrState
	}
	d.running, d.since, d.ram = true, h.w.s.now, h.w.token()
	h.w.writes(d)
	h.changed(id)
	return nil
}

// writes: a guest that boots writes to its volumes.
func (w *world) writes(d *domain) {
	for _, disk := range d.def.Spec.GetDisks() {
		v := w.pool.volumes[model.ObjectID(disk.GetVolume()).Name()]
		if v == nil || v.state != pb.State_STATE_PRIMARY || v.of != "" {
			continue
		}
		if v.back != nil && v.back.sealed {
			w.s.fail("5 exact failback", "%s starts from a sealed volume", d.def.ID)
		}
		v.holds, v.wrote = w.token(), true
	}
}

// Stop implements hypervisor.Driver.
func (h *host) Stop(_ context.Context, id model.ObjectID, _ hypervisor.StopOptions) error {
	d := h.domains[id]
	if d == nil {
		return hypervisor.ErrNotFound
	}
	if d.running {
		d.running, d.ram = false, 0
		h.changed(id)
	}
	return nil
}

// Remove implements hypervisor.Driver.
func (h *host) Remove(_ context.Context, id model.ObjectID) error {
	d := h.domains[id]
	if d == nil {
		return nil
	}
	if d.running {
		return hypervisor.ErrState
	}
	h.w.s.checkRemoval(string(id))
	delete(h.domains, id)
	h.changed(id)
	return nil
}

// Watch implements hypervisor.Driver; the simulation sends its events itself (host.changed).
func (h *host) Watch(context.Context) (<-chan model.ObjectID, error) {
	return nil, fmt.Errorf("watch %s: %w", h.name, errDown)
}

// Save implements hypervisor.Saver.
func (h *host) Save(_ context.Context, id model.ObjectID) error {
	d := h.domains[id]
	switch {
	case d == nil:
		return hypervisor.ErrNotFound
	case !d.running && d.image != nil:
		return nil
	case !d.running:
		return hypervisor.ErrState
	}
	d.image, d.running, d.ram = &image{ram: d.ram}, false, 0
	h.changed(id)
	return nil
}

// Restore implements hypervisor.Saver.
func (h *host) Restore(_ context.Context, id model.ObjectID) error {
	d := h.domains[id]
	switch {
	case d == nil:
		return hypervisor.ErrNotFound
	case d.running:
		return nil
	case d.image == nil:
		return hypervisor.ErrState
	}
	h.load(d)
	d.running, d.since, d.ram = true, h.w.s.now, d.image.ram
	if h.w.s.o.Mutant != MutantImageStays {
		d.image = nil
	}
	h.changed(id)
	return nil
}

// load counts that a guest ran from an image.
func (h *host) load(d *domain) {
	if d.image.loads++; d.image.loads > 1 {
		h.w.s.fail("6 leases kept", "the RAM image of %s is loaded a second time", d.def.ID)
	}
}

// restoreHalf is a restore whose guest died at once: the image is used up, nothing runs.
func (h *host) restoreHalf(id model.ObjectID) {
	if d := h.domains[id]; d != nil && !d.running && d.image != nil {
		h.load(d)
		if h.w.s.o.Mutant != MutantImageStays {
			d.image = nil
		}
		h.changed(id)
	}
}

// DropSaved implements hypervisor.Saver.
func (h *host) DropSaved(_ context.Context, id model.ObjectID) error {
	d := h.domains[id]
	switch {
	case d == nil:
		return hypervisor.ErrNotFound
	case d.running:
		return hypervisor.ErrState
	}
	d.image = nil
	h.changed(id)
	return nil
}

// bridges are the networks of a host.
type bridges struct{ h *host }

// List implements sdn.Driver.
func (b bridges) List(context.Context) ([]string, error) {
	var out []string
	for name := range b.h.networks {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

// Inspect implements sdn.Driver.
func (b bridges) Inspect(_ context.Context, spec *pb.NetworkSpec) (*pb.NetworkStatus, error) {
	if b.h.networks[spec.GetName()] == nil {
		return nil, sdn.ErrNotFound
	}
	return &pb.NetworkStatus{Bridge: spec.GetBridge()}, nil
}

// Ensure implements sdn.Driver.
func (b bridges) Ensure(_ context.Context, spec *pb.NetworkSpec) error {
	b.h.networks[spec.GetName()] = spec
	b.h.w.touched = true
	return nil
}

// Remove implements sdn.Driver.
func (b bridges) Remove(_ context.Context, spec *pb.NetworkSpec) error {
	if b.h.w.s.keepsNetwork(spec) && b.h.networks[spec.GetName()] != nil {
		b.h.left = append(b.h.left, spec.GetName())
	}
	delete(b.h.networks, spec.GetName())
	return nil
}

// Dial implements sdn.Driver; health is decided by the world (agent.probe).
func (b bridges) Dial(context.Context, string, string) (net.Conn, error) { return nil, errDown }
