package sim

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

// wayBack is the mirror of a promoted volume to another pool.
type wayBack struct {
	sync uint64
	link *link
	// sealed: no writer may write any more; done: the target holds everything.
	sealed, done bool
	// ended is since when the mirror is known to have ended before that, and why.
	ended time.Time
	why   string
}

func (b *wayBack) runs() bool { return b != nil && !b.done && b.ended.IsZero() }

func (b *wayBack) end(now time.Time, why string) {
	b.link.sever(now)
	b.ended, b.why = now, fmt.Sprintf("the mirror of synchronisation %d ended: %s", b.sync, why)
}

// look notices a mirror that broke: at the next write, as in the real thing.
func (b *wayBack) look(now time.Time) {
	if b.runs() && !b.link.cut.IsZero() && b.link.from.at(now) != b.link.wrote {
		b.end(b.link.cut, "its target is gone")
	}
}

// carryBack mirrors a promoted volume to where the spec says, and seals it.
func (p *Pool) carryBack(v *volume, spec *pb.VolumeSpec, now time.Time) error {
	b := v.back
	if b != nil {
		b.look(now)
	}
	if spec.GetMirrorTo() == "" {
		return v.leaveBack(now)
	}
	switch {
	case v.given != nil:
		return fmt.Errorf("promote volume %s: its disk was handed over: %w", v.name, storage.ErrInUse)
	case spec.GetResync() == 0:
		return errors.New("synchronisations are numbered from 1")
	case b == nil && spec.GetSealed():
		return fmt.Errorf("promote volume %s: nothing of it was mirrored yet: %w", v.name, storage.ErrInUse)
	case b == nil || spec.GetResync() > b.sync:
		return p.beginBack(v, spec, now)
	case spec.GetResync() == b.sync && spec.GetSealed() && !b.sealed:
		return v.seal(now)
	default:
		return nil
	}
}

// leaveBack ends a way back that is not wanted any more, unless the volume is sealed.
func (v *volume) leaveBack(now time.Time) error {
	if v.back != nil && v.back.sealed {
		return fmt.Errorf("promote volume %s: it is sealed: %w", v.name, storage.ErrInUse)
	}
	if v.back.runs() {
		v.back.end(now, "it was not wanted any more")
	}
	v.back = nil
	return nil
}

func (v *volume) seal(now time.Time) error {
	if v.back.runs() && !v.back.link.converged(now) {
		return fmt.Errorf("promote volume %s: the mirror of synchronisation %d has %w", v.name, v.back.sync, storage.ErrBehind)
	}
	v.back.sealed = true
	v.top.disk.stop(now)
	v.back.finish(now)
	return nil
}

func (p *Pool) beginBack(v *volume, spec *pb.VolumeSpec, now time.Time) error {
	other, name, err := p.world.export(spec.GetMirrorTo())
	if err != nil {
		return err
	}
	target := other.exported(storage.SyncExport(name, spec.GetResync()))
	if target == nil {
		return fmt.Errorf("no export %s at %s", storage.SyncExport(name, spec.GetResync()), other.address)
	}
	sealed := spec.GetSealed()
	if v.back != nil {
		sealed = sealed || v.back.sealed
		v.back.link.sever(now)
	}
	v.back = &wayBack{sync: spec.GetResync(), sealed: sealed, link: &link{
		from: &v.top.disk, sync: spec.GetResync(), started: now, takes: converges(v.size),
	}}
	target.link = v.back.link
	return nil
}

// finish ends the mirror of a sealed volume. The end flushes the target: a mirror that broke unseen is
// found out now.
func (b *wayBack) finish(now time.Time) {
	switch {
	case !b.runs() || !b.sealed:
	case !b.link.cut.IsZero():
		b.end(b.link.cut, "its target is gone")
	case b.link.converged(now):
		b.link.sever(now)
		b.done = true
	}
}

func (b *wayBack) report(s *pb.VolumeStatus, now time.Time) {
	b.look(now)
	b.finish(now)
	s.Resync = b.sync
	switch {
	case b.done:
		s.InSync, s.Sealed, s.SyncPercent = true, true, 100
	case !b.ended.IsZero():
		s.DegradedSince, s.DegradedReason = timestamppb.New(b.ended), b.why
	default:
		s.Mirroring, s.InSync, s.SyncPercent = true, b.link.converged(now), b.link.percent(now)
	}
}
