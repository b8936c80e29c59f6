package qcow2

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

// Receive makes the volume a replica. See storage.Driver.
func (d *Driver) Receive(ctx context.Context, spec *pb.VolumeSpec) error {
	return d.change(ctx, call{"receive", spec.GetName(), true}, func(q *qmp) error {
		v, ok := d.volumes[spec.GetName()]
		if !ok {
			made, err := d.newReplica(spec)
			if err != nil {
				return err
			}
			v = made
		}
		if v.State != isReplica {
			return fmt.Errorf("it is a %s: %w", v.State, storage.ErrInUse)
		}
		return d.receive(ctx, q, v, spec)
	})
}

// newReplica makes the folder of a replica that nothing writes to yet.
func (d *Driver) newReplica(spec *pb.VolumeSpec) (volume, error) {
	if spec.GetSizeBytes() == 0 {
		return volume{}, errors.New("a new replica needs a size")
	}
	v := volume{Version: metadataVersion, Name: spec.GetName(), State: isReplica, Next: 1, Disk: spec.GetDisk()}
	if v.Disk != "" {
		if _, err := d.checkDisk(v.Disk); err != nil {
			return volume{}, err
		}
	}
	if err := d.makeFolder(v.Name); err != nil {
		return volume{}, err
	}
	return v, d.save(v)
}

// receive marks what has converged and begins a new synchronisation when one is asked for.
func (d *Driver) receive(ctx context.Context, q *qmp, v volume, spec *pb.VolumeSpec) error {
	if err := d.tidy(ctx, q, &v); err != nil {
		return err
	}
	next := v.copy()
	next.mark(spec.GetConverged(), now())
	if p := next.point(); p != nil && v.point() == nil {
		d.log.Info("volume has a consistent point", "volume", v.Name, "layer", p.Number, "resync", p.Sync)
	}
	raw := false
	if v.Disk != "" && spec.GetResync() > v.Sync {
		var err error
		if raw, err = d.checkDisk(v.Disk); err != nil {
			return err
		}
	}
	if l := next.resync(spec.GetResync(), d.sizeOf(v, spec), raw); l != nil {
		if err := d.makeLayer(ctx, &next, *l, ""); err != nil {
			return err
		}
		if err := d.step(ctx, "layer made"); err != nil {
			return err
		}
		d.log.Info("synchronisation begins", "volume", v.Name, "resync", l.Sync, "layer", l.Number)
	}
	if err := d.replace(&v, next); err != nil {
		return err
	}
	if err := d.step(ctx, "saved"); err != nil {
		return err
	}
	return d.tidy(ctx, q, &v)
}

// sizeOf is the size of a new synchronisation: the spec's, else what the volume had.
func (d *Driver) sizeOf(v volume, spec *pb.VolumeSpec) uint64 {
	if n := len(v.Layers); spec.GetSizeBytes() == 0 && n > 0 {
		return v.Layers[n-1].SizeBytes
	}
	return spec.GetSizeBytes()
}

// Promote exports the newest consistent point, writable in a layer of its own. See storage.Driver.
func (d *Driver) Promote(ctx context.Context, spec *pb.VolumeSpec) error {
	return d.change(ctx, call{verb: "promote", name: spec.GetName()}, func(q *qmp) error {
		v, err := d.existing(ctx, q, spec.GetName())
		if err != nil {
			return err
		}
		if v.State == isPrimary {
			return d.carryBack(ctx, q, v, spec)
		}
		if v.State != isReplica || spec.GetMirrorTo() != "" {
			return fmt.Errorf("it is a %s: %w", v.State, storage.ErrInUse)
		}
		v = v.copy()
		v.mark(spec.GetConverged(), now())
		point := v.point()
		if point == nil && spec.GetAcceptUnconverged() {
			point = v.layer(v.Top)
		}
		if point == nil {
			return storage.ErrNoPoint
		}
		return d.promote(ctx, q, v, *point)
	})
}

func (d *Driver) promote(ctx context.Context, q *qmp, v volume, point layer) error {
	if v.Disk != "" && point.Base != 0 {
		return fmt.Errorf("layer %d of disk %s stands on another: %w", point.Number, v.Disk, storage.ErrInUse)
	}
	if err := d.cut(ctx, q, &v); err != nil {
		return err
	}
	if err := d.step(ctx, "mirror cut"); err != nil {
		return err
	}
	next := v.copy()
	if v.Disk != "" {
		next.State, next.Top, next.Layers, next.Given = isPrimary, 0, nil, &point
		next.Idle, next.Lost = time.Time{}, time.Time{}
	} else {
		l := next.promote(point)
		if err := d.makeLayer(ctx, &next, l, point.file()); err != nil {
			return err
		}
		if err := d.step(ctx, "layer made"); err != nil {
			return err
		}
	}
	if err := d.replace(&v, next); err != nil {
		return err
	}
	if err := d.step(ctx, "saved"); err != nil {
		return err
	}
	if err := d.tidy(ctx, q, &v); err != nil {
		return err
	}
	d.log.Info("volume promoted", "volume", v.Name, "layer", point.Number, "resync", point.Sync, "converged", point.Converged)
	return d.step(ctx, "served")
}

// Demote drops the promoted layer. See storage.Driver.
func (d *Driver) Demote(ctx context.Context, spec *pb.VolumeSpec) error {
	return d.change(ctx, call{verb: "demote", name: spec.GetName()}, func(q *qmp) error {
		v, err := d.existing(ctx, q, spec.GetName())
		if err != nil || v.State == isReplica {
			return err
		}
		if v.State != isPrimary {
			return fmt.Errorf("it is a %s: %w", v.State, storage.ErrInUse)
		}
		// A disk that was handed over keeps what was written to it.
		if v.Given == nil && !spec.GetDropPromoted() {
			return storage.ErrWouldDrop
		}
		next := v.copy()
		next.demote(now())
		if err := d.replace(&v, next); err != nil {
			return err
		}
		if err := d.step(ctx, "saved"); err != nil {
			return err
		}
		d.log.Info("volume demoted", "volume", v.Name)
		return d.receive(ctx, q, v, &pb.VolumeSpec{Resync: spec.GetResync(), SizeBytes: spec.GetSizeBytes()})
	})
}

// Clone makes a private writable layer above a consistent point. See storage.Driver.
func (d *Driver) Clone(ctx context.Context, spec *pb.VolumeSpec) error {
	return d.change(ctx, call{verb: "clone", name: spec.GetName()}, func(q *qmp) error {
		if v, ok := d.volumes[spec.GetName()]; ok {
			if v.State != isClone || v.Of != spec.GetCloneOf() {
				return fmt.Errorf("the name is taken by a %s: %w", v.State, storage.ErrInUse)
			}
			return d.tidy(ctx, q, &v)
		}
		source, err := d.existing(ctx, q, spec.GetCloneOf())
		if err != nil {
			return fmt.Errorf("source %q: %w", spec.GetCloneOf(), err)
		}
		if source.State == isClone || source.Disk != "" {
			return fmt.Errorf("source %s can have no clones: %w", source.Name, storage.ErrNoPoint)
		}
		point := source.find(spec.GetPoint())
		if point == nil {
			return fmt.Errorf("source %s, point %q: %w", source.Name, spec.GetPoint(), storage.ErrNoPoint)
		}
		if point.Number == source.Top {
			if n := len(source.chain(source.Top)); n >= maxDepth {
				return fmt.Errorf("source %s has %d layers, no more are allowed: clone an older point or resynchronise it", source.Name, n)
			}
		}
		return d.clone(ctx, q, spec.GetName(), source, *point)
	})
}

// clone saves the clone first: from then on its origin is not forgotten, and tidy does the rest.
func (d *Driver) clone(ctx context.Context, q *qmp, name string, source volume, origin layer) error {
	v := volume{
		Version: metadataVersion, Name: name, State: isClone, Next: 1,
		Of: source.Name, Origin: origin.Number, OriginAt: origin.At,
	}
	l := v.add(layer{SizeBytes: origin.SizeBytes})
	if err := d.makeFolder(name); err != nil {
		return err
	}
	if err := d.makeLayer(ctx, &v, l, "../"+source.Name+"/"+origin.file()); err != nil {
		return err
	}
	if err := d.step(ctx, "layer made"); err != nil {
		return err
	}
	if err := d.save(v); err != nil {
		return err
	}
	if err := d.step(ctx, "saved"); err != nil {
		return err
	}
	if err := d.tidy(ctx, q, &v); err != nil {
		return err
	}
	d.log.Info("volume cloned", "volume", name, "source", source.Name, "layer", origin.Number)
	return nil
}

// freezeOrigin makes sure that nothing writes to the layer that a clone stands on any more.
func (d *Driver) freezeOrigin(ctx context.Context, q *qmp, v *volume) error {
	source, ok := d.volumes[v.Of]
	if !ok {
		return fmt.Errorf("source %s of clone %s: %w", v.Of, v.Name, storage.ErrNotFound)
	}
	if source.Top != v.Origin {
		if top := source.layer(source.Top); top == nil || top.Base != v.Origin {
			return nil
		}
		// The daemon may not have followed yet. It must before the clone opens the origin.
		return d.follow(ctx, q, &source)
	}
	next := source.copy()
	l := next.freeze()
	if err := d.makeLayer(ctx, &next, l, source.layer(v.Origin).file()); err != nil {
		return err
	}
	if err := d.step(ctx, "source's layer made"); err != nil {
		return err
	}
	if err := d.replace(&source, next); err != nil {
		return err
	}
	if err := d.step(ctx, "source saved"); err != nil {
		return err
	}
	return d.follow(ctx, q, &source)
}
