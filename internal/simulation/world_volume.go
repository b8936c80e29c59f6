package simulation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

var (
	_ storage.Driver = (*pool)(nil)
	_ storage.Source = (*oldDisks)(nil)
)

// pool receives replicas. Only what the promises of storage.Driver are about is modelled: which
// synchronisation may write, what has converged, and what stands on what.
type pool struct {
	w       *world
	volumes map[string]*volume
	// site: it is at the protected site, and dies with it.
	site bool
}

type volume struct {
	state pb.State
	// sync is the newest synchronisation that was ever allowed to write; into is where it writes.
	sync uint64
	into *layer
	// point is the newest layer that the source called converged.
	point *layer
	of    string
	// lost: the server of the export died, and the mirror with it.
	lost bool
	// holds identifies what a promoted volume holds, wrote: a guest wrote to it; back is its way back.
	holds uint64
	wrote bool
	back  *wayBack
	// domain is the old VM whose disk the volume is handed over to; given: it was.
	domain string
	given  bool
}

// layer is what one synchronisation wrote. complete is the truth about it.
type layer struct {
	sync     uint64
	mirror   *mirror
	complete bool
	// holds identifies what a sealed volume left here; 0: nothing that is known to be whole.
	holds uint64
}

// mirror copies an old VM's disk; cut is when it ended, 0 while it runs.
type mirror struct {
	sync              uint64
	began, takes, cut time.Duration
}

func (m *mirror) converged(now time.Duration) bool {
	end := now
	if m.cut > 0 {
		end = m.cut
	}
	return end >= m.began+m.takes
}

// A synchronisation takes from this to that: longer than the pause after which a dead one is begun anew.
const (
	shortestSync = 5 * time.Second
	longestSync  = 40 * time.Second
)

// Capacity implements storage.Driver.
func (p *pool) Capacity(context.Context) (storage.Capacity, error) {
	return storage.Capacity{SizeBytes: 1 << 40, FreeBytes: 1 << 39}, nil
}

// names returns the volumes in order.
func (p *pool) names() []string { return slices.Sorted(maps.Keys(p.volumes)) }

// List implements storage.Driver.
func (p *pool) List(ctx context.Context) ([]storage.Volume, error) {
	var out []storage.Volume
	for _, name := range p.names() {
		v, err := p.Inspect(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// Inspect implements storage.Driver.
func (p *pool) Inspect(_ context.Context, name string) (storage.Volume, error) {
	v := p.volumes[name]
	if p.down() {
		return storage.Volume{}, errDown
	}
	if v == nil {
		return storage.Volume{}, storage.ErrNotFound
	}
	st := &pb.VolumeStatus{Resync: v.sync, Export: name}
	if v.point != nil {
		st.Point = &pb.ConsistentPoint{Time: timestamppb.New(epochStart()), Layer: fmt.Sprint(v.point.sync)}
	}
	if v.state == pb.State_STATE_REPLICA && (v.lost || v.into == nil) {
		st.DegradedSince, st.DegradedReason = timestamppb.New(epochStart()), "waits for a new synchronisation"
	}
	if v.back != nil {
		p.showBack(v, st)
	}
	return storage.Volume{Name: name, State: v.state, Status: st}, nil
}

// down says whether the machines of the pool are off.
func (p *pool) down() bool { return p.site && !p.w.old.alive }

// crash ends every mirror; what was written is kept.
func (p *pool) crash() {
	for _, name := range p.names() {
		v := p.volumes[name]
		p.cut(v)
		v.lost = v.into != nil && v.into.mirror != nil
		if v.back.runs() {
			v.back.end(p.w.s.now)
		}
	}
}

// Receive implements storage.Driver.
func (p *pool) Receive(_ context.Context, spec *pb.VolumeSpec) error {
	if p.down() {
		return errDown
	}
	v := p.volumes[spec.GetName()]
	if v == nil {
		v = &volume{state: pb.State_STATE_REPLICA, domain: strings.TrimPrefix(spec.GetDisk(), images)}
		p.volumes[spec.GetName()] = v
	}
	if v.state != pb.State_STATE_REPLICA {
		return storage.ErrInUse
	}
	p.receive(v, spec)
	return nil
}

// mark takes the source's word that a synchronisation has converged.
func (p *pool) mark(v *volume, converged uint64) {
	if v.into != nil && v.into.sync == converged {
		m := v.into.mirror
		v.into.complete = v.into.complete || m != nil && m.converged(p.w.s.now)
		v.point = v.into
	}
}

func (p *pool) receive(v *volume, spec *pb.VolumeSpec) {
	p.mark(v, spec.GetConverged())
	if spec.GetResync() > v.sync {
		p.cut(v)
		v.sync, v.lost = spec.GetResync(), false
		v.into = &layer{sync: v.sync}
	}
}

// cut ends the mirror that writes into a volume.
func (p *pool) cut(v *volume) {
	if v.into != nil && v.into.mirror != nil && v.into.mirror.cut == 0 {
		v.into.mirror.cut = p.w.s.now
	}
}

// Promote implements storage.Driver.
func (p *pool) Promote(_ context.Context, spec *pb.VolumeSpec) error {
	v := p.volumes[spec.GetName()]
	switch {
	case p.down():
		return errDown
	case v == nil:
		return storage.ErrNotFound
	case v.state == pb.State_STATE_PRIMARY:
		return p.carryBack(v, spec)
	case v.state != pb.State_STATE_REPLICA || spec.GetMirrorTo() != "":
		return storage.ErrInUse
	}
	p.mark(v, spec.GetConverged())
	if v.point == nil {
		return storage.ErrNoPoint
	}
	if v.domain != "" {
		p.handOver(v)
		return nil
	}
	p.w.s.checkPromotion(spec.GetName(), v)
	p.cut(v)
	v.state, v.into, v.holds, v.wrote = pb.State_STATE_PRIMARY, nil, p.w.token(), false
	return nil
}

// Demote implements storage.Driver.
func (p *pool) Demote(_ context.Context, spec *pb.VolumeSpec) error {
	v := p.volumes[spec.GetName()]
	switch {
	case p.down():
		return errDown
	case v == nil:
		return storage.ErrNotFound
	case v.state == pb.State_STATE_REPLICA:
		return nil
	case v.state != pb.State_STATE_PRIMARY:
		return storage.ErrInUse
	case !v.given && !spec.GetDropPromoted():
		return storage.ErrWouldDrop
	}
	if !v.given {
		p.w.s.checkDropped(spec.GetName(), v)
	}
	if v.back.runs() {
		v.back.end(p.w.s.now)
	}
	v.state, v.back, v.given, v.point = pb.State_STATE_REPLICA, nil, false, v.pointAfter()
	p.receive(v, &pb.VolumeSpec{Resync: spec.GetResync()})
	return nil
}

// Clone implements storage.Driver.
func (p *pool) Clone(_ context.Context, spec *pb.VolumeSpec) error {
	if v := p.volumes[spec.GetName()]; v != nil {
		if v.of != spec.GetCloneOf() {
			return storage.ErrInUse
		}
		return nil
	}
	of := p.volumes[spec.GetCloneOf()]
	switch {
	case of == nil:
		return storage.ErrNotFound
	case of.point == nil:
		return storage.ErrNoPoint
	}
	p.volumes[spec.GetName()] = &volume{state: pb.State_STATE_CLONE, of: spec.GetCloneOf(), point: of.point}
	p.w.s.diskMade(volumeID(spec.GetName()), p.w.token())
	return nil
}

// Remove implements storage.Driver.
func (p *pool) Remove(_ context.Context, name string) error {
	v := p.volumes[name]
	if p.down() {
		return errDown
	}
	if v == nil {
		return nil
	}
	if v.state == pb.State_STATE_PRIMARY {
		return storage.ErrInUse
	}
	for _, o := range p.volumes {
		if o.of == name {
			return storage.ErrInUse
		}
	}
	if !p.site {
		p.w.s.checkRemoval(string(volumeID(name)))
	}
	p.cut(v)
	delete(p.volumes, name)
	return nil
}

// oldDisks is the protected site's side of replication.
type oldDisks struct{ w *world }

func (o *oldDisks) vm(spec *pb.VolumeSpec) (*oldVM, error) {
	if !o.w.old.alive {
		return nil, errDown
	}
	vm := o.w.old.vms[spec.GetDomain()]
	if vm == nil {
		return nil, storage.ErrNotFound
	}
	return vm, nil
}

// Mirror implements storage.Source.
func (o *oldDisks) Mirror(_ context.Context, spec *pb.VolumeSpec) error {
	vm, err := o.vm(spec)
	switch {
	case err != nil:
		return err
	case spec.GetResync() <= vm.started:
		return nil
	case !vm.running:
		return fmt.Errorf("mirror %s: the VM does not run", spec.GetDomain())
	}
	target := o.w.pool.volumes[spec.GetName()]
	if target == nil || target.into == nil || target.into.sync != spec.GetResync() || target.state != pb.State_STATE_REPLICA {
		return fmt.Errorf("mirror %s: no export %s", spec.GetDomain(), storage.SyncExport(spec.GetName(), spec.GetResync()))
	}
	if vm.mirror != nil && vm.mirror.cut == 0 {
		vm.mirror.cut = o.w.s.now
	}
	vm.started = spec.GetResync()
	vm.mirror = &mirror{sync: vm.started, began: o.w.s.now, takes: o.w.s.between(shortestSync, longestSync)}
	target.into.mirror = vm.mirror
	return nil
}

// Unmirror implements storage.Source.
func (o *oldDisks) Unmirror(_ context.Context, spec *pb.VolumeSpec) error {
	vm, err := o.vm(spec)
	if err != nil {
		return err
	}
	if vm.mirror != nil && vm.mirror.cut == 0 {
		vm.mirror.cut, vm.degraded = o.w.s.now, o.w.s.now
	}
	return nil
}

// Run implements storage.Source.
func (o *oldDisks) Run(_ context.Context, spec *pb.VolumeSpec) error {
	vm, err := o.vm(spec)
	if err != nil {
		return err
	}
	if o.w.fenced(vm.target) {
		return errDown // The machine is off.
	}
	if !vm.running {
		vm.running, o.w.touched = true, true
	}
	return nil
}

// Inspect implements storage.Source.
func (o *oldDisks) Inspect(_ context.Context, spec *pb.VolumeSpec) (storage.Volume, error) {
	vm, err := o.vm(spec)
	if err != nil {
		return storage.Volume{}, err
	}
	st := &pb.VolumeStatus{Resync: vm.started, WriterRunning: vm.running, DiskPath: images + spec.GetDomain()}
	if m := vm.mirror; vm.running && m != nil && m.cut == 0 {
		st.InSync = m.converged(o.w.s.now)
		st.Mirroring = true
		st.SyncPercent = uint32(min(100, 1+99*(o.w.s.now-m.began)/m.takes))
	}
	if !st.GetInSync() {
		// As the real driver does: since it was last well, also while a new synchronisation goes on.
		st.DegradedSince, st.DegradedReason = timestamppb.New(epochStart().Add(vm.degraded)), "not in sync"
	}
	return storage.Volume{Name: spec.GetName(), State: pb.State_STATE_PRIMARY, Status: st}, nil
}
