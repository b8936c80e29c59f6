// Package storage is the seam between an agent and storage: the driver interface of a pool that
// receives replicas, promotes and clones them, and of the protected site's side that replicates.
// Drivers live in qcow2/ (QEMU's storage daemon and NBD), mirror/ (libvirt block copy) and sim/; the
// conformance suite lives in conformance/.
//
// A driver executes; it decides nothing. It never deletes or writes a layer that something refers
// to, and never promotes what has no consistent point unless the spec says that it was sworn to.
package storage

import (
	"context"
	"errors"
	"strconv"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// ErrNotFound is returned by calls that name a volume which does not exist.
var ErrNotFound = errors.New("volume not found")

// ErrNoPoint is returned by Promote and Clone when the replica has no consistent point yet.
var ErrNoPoint = errors.New("no consistent point")

// ErrInUse is returned when something still refers to what would be removed or written.
var ErrInUse = errors.New("volume in use")

// ErrBehind is returned by Promote when a mirror back has not caught up: it may be sealed a moment later.
var ErrBehind = errors.New("not caught up")

// ErrWouldDrop is returned by Demote when what was written since the promotion would be lost and the
// spec does not say that it may be.
var ErrWouldDrop = errors.New("writes since the promotion would be dropped")

// SyncExport names the NBD export that synchronisation n of a volume writes to: "web-root@3". The
// plain name is the export of a promoted volume or a clone. With the number in the name an old
// mirror that comes back can never write into a newer layer, a consistent point or a promoted
// volume, and a mirror that is started before its layer exists finds nothing to write to.
func SyncExport(name string, n uint64) string { return name + "@" + strconv.FormatUint(n, 10) }

// Driver keeps the volumes of one pool. Every call obeys its context within a second; when the
// context ends the outcome is unknown, not failed. Every changing call is idempotent. When a call
// returns, what it made is on disk and survives a crash of the agent and of the driver's helpers.
type Driver interface {
	// Capacity reports size and free space of the pool.
	Capacity(ctx context.Context) (Capacity, error)
	// List reports all volumes of ours in the pool.
	List(ctx context.Context) ([]Volume, error)
	// Inspect reports one volume; ErrNotFound when there is none.
	Inspect(ctx context.Context, name string) (Volume, error)
	// Receive makes the volume a replica: a target that the protected site writes to. On an existing
	// replica it makes sure that the target is exported, as SyncExport(spec.name, spec.resync). When
	// spec.resync is higher than before, writes go to a new layer and the last consistent point is
	// kept until the new one has converged, which spec.converged says. Synchronisations are numbered
	// from 1; with 0, or with a number that a promotion has used up, nothing may write. ErrInUse for
	// a promoted volume.
	Receive(ctx context.Context, spec *pb.VolumeSpec) error
	// Promote cuts the protected site off, and exports the newest consistent point writable, in a
	// layer of its own, so that the point itself stays as it was. A replica whose spec names a disk
	// hands the point over instead: afterwards the disk's path holds it, and the VM there starts from
	// it. spec.converged says once more what has converged. ErrNoPoint when nothing has and
	// spec.accept_unconverged is not set.
	//
	// With spec.mirror_to nothing is promoted: what is written to a volume that is promoted already is
	// carried back as well, into the export of synchronisation spec.resync there; the call returns when
	// the mirror was started. ErrInUse for any other volume: a call that comes late must do no harm. A
	// mirror is started at most once for one number: one that died stays dead, and Inspect says since
	// when, until the number is raised. With spec.sealed no writer may write any more, for good: the
	// export ends, and so does the mirror as soon as its target holds everything, which Inspect then
	// reports as sealed and which no crash takes back. ErrBehind while the mirror has not caught up.
	Promote(ctx context.Context, spec *pb.VolumeSpec) error
	// Demote makes a promoted volume a replica again. What was written while it was promoted is
	// dropped only when spec.drop_promoted says that it may be; else ErrWouldDrop. The replica then
	// stands on its last point and needs a higher spec.resync before anything writes to it again. A
	// disk that was handed over keeps what was written to it, and the replica has no point then.
	Demote(ctx context.Context, spec *pb.VolumeSpec) error
	// Clone exports a private writable layer above a consistent point of another volume.
	Clone(ctx context.Context, spec *pb.VolumeSpec) error
	// Remove deletes a volume and its layers; ErrInUse when a clone still stands on it or when it is
	// promoted. Removing what does not exist succeeds, because a repeat after a crash cannot tell.
	Remove(ctx context.Context, name string) error
}

// Capacity is the space of a pool.
type Capacity struct {
	SizeBytes, FreeBytes uint64
}

// Volume is one volume as the pool shows it.
type Volume struct {
	Name  string
	State pb.State
	// Status carries the consistent point, degradation, export address and layers.
	Status *pb.VolumeStatus
}

// Source is the protected site's side of replication: it mirrors the disk of a running VM.
type Source interface {
	// Mirror makes sure that the disk's writes go to spec.mirror_to, to the export of synchronisation
	// spec.resync; it returns when the mirror was started, not when it has converged. A mirror is
	// started at most once for one number, in the whole life of the disk: one that died stays dead,
	// and Inspect says since when, until the number is raised.
	Mirror(ctx context.Context, spec *pb.VolumeSpec) error
	// Unmirror ends the mirror and leaves the disk as it is.
	Unmirror(ctx context.Context, spec *pb.VolumeSpec) error
	// Run starts the VM that owns the disk, if it is off. It returns when the VM runs.
	Run(ctx context.Context, spec *pb.VolumeSpec) error
	// Inspect reports PRIMARY while the VM owns the disk, running or not, with in_sync, sync_percent
	// since when the mirror is degraded, and the disk's file; ErrNotFound when there is no such VM or
	// disk.
	Inspect(ctx context.Context, spec *pb.VolumeSpec) (Volume, error)
}
