package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/storage"
)

// errSiteDown is what every call gets while the site is dead.
var errSiteDown = errors.New("site is down")

// Site is the side whose VMs write to mirrored disks: the protected site. It is its own driver
// (storage.Source).
type Site struct {
	fault.Faults
	world *World
	disks map[diskKey]*disk
	dead  bool
	// mirrors counts the mirrors that were started.
	mirrors int
	// starts counts the disks whose VM was started by an order.
	starts int
}

var _ storage.Source = (*Site)(nil)

type diskKey struct{ domain, disk string }

// disk is one disk of a VM.
type disk struct {
	journal *journal
	// path names it to a pool that hands it over; empty: none does.
	path    string
	running bool
	mirror  *link
	// started is the newest synchronisation for which a mirror was ever started.
	started uint64
	// degraded is since when its writes go nowhere else.
	degraded time.Time
}

// Disk describes a production VM's disk.
type Disk struct {
	Domain, Disk string
	// Path is the file that the VM's definition names, for a pool that hands the disk back.
	Path string
	// Records is what it holds when it is added.
	Records uint64
	// Every is the time between two records that the running VM writes; zero: none by itself.
	Every time.Duration
}

// NewSite makes a site without VMs.
func (w *World) NewSite(name string) *Site {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &Site{world: w, disks: map[diskKey]*disk{}}
	w.sites[name] = s
	return s
}

// Site returns the site of that name, or nil.
func (w *World) Site(name string) *Site {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sites[name]
}

// AddDisk adds a running VM's disk.
func (s *Site) AddDisk(d Disk) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	now := time.Now()
	s.disks[diskKey{d.Domain, d.Disk}] = &disk{
		journal: &journal{records: d.Records, every: d.Every, since: now}, path: d.Path, running: true, degraded: now,
	}
}

// Write lets the VM write records now. It does nothing to a VM that does not run.
func (s *Site) Write(domain, name string, records uint64) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if d := s.disks[diskKey{domain, name}]; d != nil && d.running {
		d.journal.records += records
	}
}

// Records returns what the VM's disk holds.
func (s *Site) Records(domain, name string) uint64 {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if d := s.disks[diskKey{domain, name}]; d != nil {
		return d.journal.at(time.Now())
	}
	return 0
}

// BreakMirror cuts the replication of one disk. As in the real thing nobody notices before the VM
// writes again.
func (s *Site) BreakMirror(domain, name string) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	if d := s.disks[diskKey{domain, name}]; d != nil && d.mirror != nil {
		d.mirror.sever(time.Now())
	}
}

// Stop powers a VM off; its disks stay.
func (s *Site) Stop(domain string) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	for key, d := range s.disks {
		if key.domain == domain {
			s.halt(d, time.Now())
		}
	}
}

// Start powers a VM on. Its mirror is gone.
func (s *Site) Start(domain string) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	for key, d := range s.disks {
		if key.domain == domain && !s.dead {
			d.running = true
			d.journal.run(time.Now())
		}
	}
}

// KillSite ends all VMs at once and lets every call fail.
func (s *Site) KillSite() {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.dead = true
	for _, d := range s.disks {
		s.halt(d, time.Now())
	}
}

// ReviveSite lets calls succeed again; the VMs stay off until they are started.
func (s *Site) ReviveSite() {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.dead = false
}

// Mirrors returns how many mirrors were ever started.
func (s *Site) Mirrors() int {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return s.mirrors
}

func (s *Site) halt(d *disk, now time.Time) {
	if d.mirror != nil {
		d.mirror.sever(now)
	}
	if d.running && d.degraded.IsZero() {
		d.degraded = now
	}
	d.journal.stop(now)
	d.running = false
}

// convergeTime is how long a mirror needs for one GiB; a volume without a size counts as one.
const convergeTime = 10 * time.Second

func converges(sizeBytes uint64) time.Duration {
	if sizeBytes == 0 {
		return convergeTime
	}
	return time.Duration(float64(convergeTime) * float64(sizeBytes) / (1 << 30))
}

// Mirror starts the mirror of a disk, once for each number.
func (s *Site) Mirror(ctx context.Context, spec *pb.VolumeSpec) error {
	return s.call(ctx, "Mirror", spec, func(d *disk, now time.Time) error {
		switch {
		case spec.GetResync() == 0:
			return errors.New("synchronisations are numbered from 1")
		case spec.GetResync() <= d.started:
			return nil
		case !d.running:
			return errors.New("the VM is not running")
		}
		p, name, err := s.world.export(spec.GetMirrorTo())
		if err != nil {
			return err
		}
		target := p.exported(storage.SyncExport(name, spec.GetResync()))
		if target == nil {
			return fmt.Errorf("no export %s at %s", storage.SyncExport(name, spec.GetResync()), p.address)
		}
		if d.mirror != nil {
			d.mirror.sever(now)
		}
		d.started = spec.GetResync()
		d.mirror = &link{from: d.journal, sync: d.started, started: now, takes: converges(spec.GetSizeBytes())}
		target.link = d.mirror
		s.mirrors++
		return nil
	})
}

// Unmirror ends the mirror of a disk.
func (s *Site) Unmirror(ctx context.Context, spec *pb.VolumeSpec) error {
	return s.call(ctx, "Unmirror", spec, func(d *disk, now time.Time) error {
		if d.mirror != nil {
			d.mirror.sever(now)
			d.mirror = nil
			d.degraded = now
		}
		return nil
	})
}

// Run starts the VM that owns the disk.
func (s *Site) Run(ctx context.Context, spec *pb.VolumeSpec) error {
	return s.call(ctx, "Run", spec, func(_ *disk, now time.Time) error {
		for key, d := range s.disks {
			if key.domain == spec.GetDomain() && !d.running {
				d.running = true
				d.journal.run(now)
				s.starts++
			}
		}
		return nil
	})
}

// Starts returns how many disks came up because a VM was started by an order.
func (s *Site) Starts() int {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return s.starts
}

// Inspect reports how the mirror of a disk is.
func (s *Site) Inspect(ctx context.Context, spec *pb.VolumeSpec) (storage.Volume, error) {
	var out storage.Volume
	err := s.call(ctx, "Inspect", spec, func(d *disk, now time.Time) error {
		out = storage.Volume{Name: spec.GetName(), State: pb.State_STATE_PRIMARY, Status: d.status(spec, now)}
		return nil
	})
	return out, err
}

func (d *disk) status(spec *pb.VolumeSpec, now time.Time) *pb.VolumeStatus {
	st := &pb.VolumeStatus{Resync: d.started, WriterRunning: d.running, DiskPath: d.path}
	if spec.GetMirrorTo() == "" {
		return st
	}
	reason := ""
	switch m := d.mirror; {
	case !d.running:
		reason = "production VM is not running"
	case m == nil:
		reason = "not mirrored"
	case !m.cut.IsZero() && d.journal.at(now) == m.wrote:
		// Nothing was written since it broke: the job still looks well, as in QEMU.
		st.SyncPercent = 100
		st.InSync = !m.had.Torn
		st.Mirroring = true
	case !m.cut.IsZero():
		reason = fmt.Sprintf("the mirror of synchronisation %d ended", m.sync)
		if d.degraded.IsZero() || d.degraded.Before(m.started) {
			d.degraded = m.cut
		}
	default:
		st.Mirroring = true
		st.SyncPercent = m.percent(now)
		st.InSync = m.converged(now)
		if !st.InSync {
			reason = fmt.Sprintf("synchronisation %d has not converged", m.sync)
		}
	}
	if reason == "" {
		d.degraded = time.Time{}
		return st
	}
	if d.degraded.IsZero() {
		d.degraded = now
	}
	st.DegradedSince, st.DegradedReason = timestamppb.New(d.degraded), reason
	return st
}

// call runs the body of one driver call under the world's lock, with the faults that are due.
func (s *Site) call(ctx context.Context, method string, spec *pb.VolumeSpec, body func(*disk, time.Time) error) error {
	return s.Through(ctx, method, spec.GetName(), func(context.Context) error {
		s.world.mu.Lock()
		defer s.world.mu.Unlock()
		err := errSiteDown
		if !s.dead {
			d := s.disks[diskKey{spec.GetDomain(), spec.GetDisk()}]
			err = storage.ErrNotFound
			if d != nil {
				err = body(d, time.Now())
			}
		}
		if err != nil {
			return fmt.Errorf("%s disk %s of %s: %w", method, spec.GetDisk(), spec.GetDomain(), err)
		}
		return nil
	})
}
