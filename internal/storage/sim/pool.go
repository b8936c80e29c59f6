package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/storage"
)

// maxLayers bounds the layers of one volume, as the real driver's bound on a chain does.
const maxLayers = 32

// Pool is a storage pool in memory. It is its own driver: an agent that is restarted gets the same
// Pool again.
type Pool struct {
	fault.Faults
	world   *World
	address string
	size    uint64
	// next numbers the layers of all volumes.
	next       uint64
	volumes    map[string]*volume
	promotions []Promotion
}

var _ storage.Driver = (*Pool)(nil)

// Promotion is one promotion that took effect, counted where it happened.
type Promotion struct {
	Volume string
	Time   time.Time
	// Layer is the point that was promoted, and Content what it held.
	Layer   string
	Content Content
}

// NewPool makes an empty pool that answers at "ip:port".
func (w *World) NewPool(address string, sizeBytes uint64) *Pool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &Pool{world: w, address: address, size: sizeBytes, volumes: map[string]*volume{}}
	w.pools[address] = p
	return p
}

// Promotions returns every promotion that took effect, oldest first.
func (p *Pool) Promotions() []Promotion {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	return slices.Clone(p.promotions)
}

// Names returns what is in the pool, for a test's own inventory.
func (p *Pool) Names() []string {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	return p.names()
}

func (p *Pool) names() []string {
	out := make([]string, 0, len(p.volumes))
	for name := range p.volumes {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Point returns the content of a volume's newest consistent point, and false when it has none.
func (p *Pool) Point(name string) (Content, bool) {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	v := p.volumes[name]
	if v == nil || v.point() == nil {
		return Content{}, false
	}
	return v.point().content(time.Now()), true
}

// KillDaemon ends what serves the exports; it is back at once. Every mirror into the pool is gone, and
// the pool knows, while the VMs' side sees it at the next write.
func (p *Pool) KillDaemon() {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	now := time.Now()
	for _, v := range p.volumes {
		if v.state == pb.State_STATE_REPLICA && v.top != nil && v.lost.IsZero() {
			v.cut(now)
			v.lost = now
		}
		if v.back.runs() {
			v.back.end(now, "the storage daemon died")
		}
	}
}

// Capacity reports the pool's size and what the volumes leave free of it.
func (p *Pool) Capacity(ctx context.Context) (storage.Capacity, error) {
	var c storage.Capacity
	err := p.call(ctx, "Capacity", "", func(time.Time) error {
		c = storage.Capacity{SizeBytes: p.size, FreeBytes: p.size}
		for _, v := range p.volumes {
			c.FreeBytes -= min(c.FreeBytes, v.status(p.address).UsedBytes)
		}
		return nil
	})
	return c, err
}

// List reports all volumes, in the order of their names.
func (p *Pool) List(ctx context.Context) ([]storage.Volume, error) {
	var out []storage.Volume
	err := p.call(ctx, "List", "", func(time.Time) error {
		for _, name := range p.names() {
			out = append(out, p.show(p.volumes[name]))
		}
		return nil
	})
	return out, err
}

// Inspect reports one volume.
func (p *Pool) Inspect(ctx context.Context, name string) (storage.Volume, error) {
	var out storage.Volume
	err := p.call(ctx, "Inspect", name, func(time.Time) error {
		v, err := p.volume("inspect", name)
		if err != nil {
			return err
		}
		out = p.show(v)
		return nil
	})
	return out, err
}

// Receive makes the volume a replica.
func (p *Pool) Receive(ctx context.Context, spec *pb.VolumeSpec) error {
	name := spec.GetName()
	return p.call(ctx, "Receive", name, func(now time.Time) error {
		v := p.volumes[name]
		if v == nil {
			v = &volume{name: name, size: spec.GetSizeBytes(), state: pb.State_STATE_REPLICA, disk: spec.GetDisk()}
			p.volumes[name] = v
		}
		if v.state != pb.State_STATE_REPLICA {
			return fmt.Errorf("receive volume %s: it is %v: %w", name, v.state, storage.ErrInUse)
		}
		p.receive(v, spec, now)
		return nil
	})
}

// receive marks what has converged and begins a new synchronisation when one is asked for.
func (p *Pool) receive(v *volume, spec *pb.VolumeSpec, now time.Time) {
	v.mark(spec.GetConverged(), now)
	if spec.GetResync() > v.sync {
		v.cut(now)
		v.sync = spec.GetResync()
		v.add(p.number(), nil).sync = v.sync
		v.idle, v.lost = time.Time{}, time.Time{}
		// A number that is already known to have converged was used elsewhere and says nothing here.
	}
	v.drop(p.clonesOf(v.name))
}

// Promote puts a writable layer above the newest consistent point and exports it.
func (p *Pool) Promote(ctx context.Context, spec *pb.VolumeSpec) error {
	name := spec.GetName()
	return p.call(ctx, "Promote", name, func(now time.Time) error {
		v, err := p.volume("promote", name)
		if err != nil {
			return err
		}
		switch v.state {
		case pb.State_STATE_PRIMARY:
			return p.carryBack(v, spec, now)
		case pb.State_STATE_REPLICA:
		default:
			return fmt.Errorf("promote volume %s: it is %v: %w", name, v.state, storage.ErrInUse)
		}
		if spec.GetMirrorTo() != "" {
			return fmt.Errorf("promote volume %s: it is %v: %w", name, v.state, storage.ErrInUse)
		}
		v.mark(spec.GetConverged(), now)
		point := v.point()
		if point == nil && spec.GetAcceptUnconverged() {
			point = v.top
		}
		if point == nil {
			return fmt.Errorf("promote volume %s: %w", name, storage.ErrNoPoint)
		}
		v.cut(now)
		v.state = pb.State_STATE_PRIMARY
		v.idle, v.lost = time.Time{}, time.Time{}
		if v.disk != "" {
			v.top, v.layers, v.given = nil, nil, point
			p.world.handOver(v.disk, point.content(now))
		} else {
			v.add(p.number(), point)
		}
		v.drop(p.clonesOf(name))
		p.promotions = append(p.promotions, Promotion{
			Volume: name, Time: now, Layer: point.name(), Content: point.content(now),
		})
		return nil
	})
}

// Demote drops the promoted layer and leaves a replica that stands on its last point.
func (p *Pool) Demote(ctx context.Context, spec *pb.VolumeSpec) error {
	name := spec.GetName()
	return p.call(ctx, "Demote", name, func(now time.Time) error {
		v, err := p.volume("demote", name)
		if err != nil {
			return err
		}
		switch v.state {
		case pb.State_STATE_REPLICA:
			return nil
		case pb.State_STATE_PRIMARY:
		default:
			return fmt.Errorf("demote volume %s: it is %v: %w", name, v.state, storage.ErrInUse)
		}
		if v.given == nil {
			if !spec.GetDropPromoted() {
				return fmt.Errorf("demote volume %s: %w", name, storage.ErrWouldDrop)
			}
		}
		if v.back.runs() {
			v.back.end(now, "the volume was demoted")
		}
		v.state, v.top, v.given, v.back, v.idle = pb.State_STATE_REPLICA, nil, nil, nil, now
		p.receive(v, &pb.VolumeSpec{Resync: spec.GetResync()}, now)
		return nil
	})
}

// Clone makes a private writable layer above a consistent point of another volume.
func (p *Pool) Clone(ctx context.Context, spec *pb.VolumeSpec) error {
	name, of := spec.GetName(), spec.GetCloneOf()
	return p.call(ctx, "Clone", name, func(now time.Time) error {
		if v := p.volumes[name]; v != nil {
			if v.state != pb.State_STATE_CLONE || v.of != of {
				return fmt.Errorf("clone volume %s of %s: the name is taken: %w", name, of, storage.ErrInUse)
			}
			return nil
		}
		source, err := p.volume("clone", of)
		if err != nil {
			return err
		}
		point := source.find(spec.GetPoint())
		if point == nil || source.state == pb.State_STATE_CLONE || source.disk != "" {
			return fmt.Errorf("clone volume %s: point %q: %w", of, spec.GetPoint(), storage.ErrNoPoint)
		}
		if point == source.top {
			if len(source.layers) >= maxLayers {
				return fmt.Errorf("clone volume %s: it has %d layers, no more are allowed", of, maxLayers)
			}
			point = source.freeze(p.number(), now)
		}
		v := &volume{name: name, size: source.size, state: pb.State_STATE_CLONE, of: of, origin: point}
		p.volumes[name] = v
		v.add(p.number(), nil).disk.records = point.content(now).Records
		return nil
	})
}

// find returns the consistent layer of that name; empty: the newest.
func (v *volume) find(point string) *layer {
	if point == "" {
		return v.point()
	}
	for _, l := range v.layers {
		if l.name() == point && l.converged {
			return l
		}
	}
	return nil
}

// Remove deletes a volume.
func (p *Pool) Remove(ctx context.Context, name string) error {
	return p.call(ctx, "Remove", name, func(now time.Time) error {
		v := p.volumes[name]
		if v == nil {
			return nil
		}
		if v.state == pb.State_STATE_PRIMARY {
			return fmt.Errorf("remove volume %s: it is promoted: %w", name, storage.ErrInUse)
		}
		if n := len(p.clonesOf(name)); n > 0 {
			return fmt.Errorf("remove volume %s: %d clones stand on it: %w", name, n, storage.ErrInUse)
		}
		v.cut(now)
		delete(p.volumes, name)
		if source := p.volumes[v.of]; source != nil {
			source.drop(p.clonesOf(v.of))
		}
		return nil
	})
}

// call runs the body of one driver call under the world's lock, with the faults that are due.
func (p *Pool) call(ctx context.Context, method, volume string, body func(now time.Time) error) error {
	return p.Through(ctx, method, volume, func(context.Context) error {
		p.world.mu.Lock()
		defer p.world.mu.Unlock()
		return body(time.Now())
	})
}

func (p *Pool) volume(verb, name string) (*volume, error) {
	if v := p.volumes[name]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("%s volume %s: %w", verb, name, storage.ErrNotFound)
}

func (p *Pool) show(v *volume) storage.Volume {
	return storage.Volume{Name: v.name, State: v.state, Status: v.status(p.address)}
}

func (p *Pool) number() uint64 {
	p.next++
	return p.next
}

// clonesOf returns the layers of a volume that clones stand on.
func (p *Pool) clonesOf(name string) []*layer {
	var out []*layer
	for _, v := range p.volumes {
		if v.of == name && v.origin != nil {
			out = append(out, v.origin)
		}
	}
	return out
}

// exported returns the layer behind an export's name, or nil.
func (p *Pool) exported(name string) *layer {
	plain, _, _ := strings.Cut(name, "@")
	v := p.volumes[plain]
	if v == nil || !v.exports() || v.exportName() != name {
		return nil
	}
	return v.top
}
