// Package mirror is the side of replication where the VM runs: it mirrors a disk of a libvirt domain
// to an NBD export, synchronously (QEMU's write-blocking copy mode), so that a converged target is
// crash consistent at every instant. The protected site's agent uses it on production VMs. The way back
// is not its work: the recovery site's pool mirrors what it has promoted. It starts the VM again whose
// disk came back.
//
// A mirror is started at most once for one number; the number is written to a file and synced before
// libvirt is asked. libvirt's own description of the domain says which mirror runs.
//
// What it can see is what libvirt sees: a target that died shows only at the VM's next write, and
// until then the job looks well. The agent at the target must watch that end. The time since when a
// mirror is degraded is the last time at which it was seen well, which is early by at most the
// caller's polling interval, and after a restart of the agent by wellInterval.
//
// It decides nothing, never pivots a domain, and never touches the disk itself.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
	"google.golang.org/protobuf/types/known/timestamppb"
	"libvirt.org/go/libvirtxml"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

// wellInterval is how old the noted time at which a mirror was seen well may become before it is
// written again: often enough to bound the error after a restart, rarely enough to cost nothing.
const wellInterval = 30 * time.Second

// Options configure a source.
type Options struct {
	// Socket is libvirtd's Unix socket.
	Socket string
	// StateFile keeps which mirrors were started; its folder must exist.
	StateFile string
	Log       *slog.Logger
}

// Source mirrors disks of the domains of one libvirtd.
type Source struct {
	socket string
	log    *slog.Logger
	// mu guards notes, in memory and on disk.
	mu    sync.Mutex
	notes *notes
}

var _ storage.Source = (*Source)(nil)

// New reads the state file. It does not connect.
func New(o Options) (*Source, error) {
	n, err := readNotes(o.StateFile)
	if err != nil {
		return nil, fmt.Errorf("open mirrors: %w", err)
	}
	return &Source{socket: o.Socket, log: o.Log, notes: n}, nil
}

// disk is one disk of a domain, as libvirt shows it.
type disk struct {
	domain  libvirt.Domain
	target  string
	running bool
	// path is the file that the VM has as this disk; empty: it is no file.
	path string
	// mirror is the copy job that runs; nil: none.
	mirror *libvirtxml.DomainDiskMirror
}

// number is the synchronisation that the mirror writes for; 0 for a job that is not ours.
func (d *disk) number() uint64 {
	if d.mirror == nil || d.mirror.Source == nil || d.mirror.Source.Network == nil {
		return 0
	}
	_, suffix, _ := strings.Cut(d.mirror.Source.Network.Name, "@")
	n, err := strconv.ParseUint(suffix, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// foreign says whether a block job runs that somebody else started.
func (d *disk) foreign() bool { return d.mirror != nil && d.number() == 0 }

func (d *disk) ready() bool { return d.mirror != nil && d.mirror.Ready == "yes" }

// find looks a disk up. ErrNotFound when there is no such domain or disk.
func find(c *libvirt.Libvirt, spec *pb.VolumeSpec) (*disk, error) {
	domain, err := c.DomainLookupByName(spec.GetDomain())
	if libvirt.IsNotFound(err) {
		return nil, storage.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("look up domain: %w", err)
	}
	active, err := c.DomainIsActive(domain)
	if err != nil {
		return nil, fmt.Errorf("look at domain: %w", err)
	}
	text, err := c.DomainGetXMLDesc(domain, 0)
	if err != nil {
		return nil, fmt.Errorf("read domain's XML: %w", err)
	}
	var x libvirtxml.Domain
	if err := x.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("parse domain's XML: %w", err)
	}
	if x.Devices != nil {
		for _, d := range x.Devices.Disks {
			if d.Target != nil && d.Target.Dev == spec.GetDisk() {
				return &disk{domain, d.Target.Dev, active == 1, file(d), d.Mirror}, nil
			}
		}
	}
	return nil, storage.ErrNotFound
}

func file(d libvirtxml.DomainDisk) string {
	if d.Source == nil || d.Source.File == nil {
		return ""
	}
	return d.Source.File.File
}

// Run starts the VM that owns a disk. See storage.Source.
func (s *Source) Run(ctx context.Context, spec *pb.VolumeSpec) error {
	_, err := connected(ctx, s, "start the VM of", spec, func(c *libvirt.Libvirt) (struct{}, error) {
		d, err := find(c, spec)
		if err != nil || d.running {
			return struct{}{}, err
		}
		if err := c.DomainCreate(d.domain); err != nil {
			return struct{}{}, fmt.Errorf("start domain: %w", err)
		}
		s.log.Info("VM started", "domain", spec.GetDomain())
		return struct{}{}, nil
	})
	return err
}

// Mirror starts the mirror of a disk, at most once for each number. See storage.Source.
func (s *Source) Mirror(ctx context.Context, spec *pb.VolumeSpec) error {
	_, err := connected(ctx, s, "mirror", spec, func(c *libvirt.Libvirt) (struct{}, error) {
		return struct{}{}, s.mirror(c, spec)
	})
	return err
}

func (s *Source) mirror(c *libvirt.Libvirt, spec *pb.VolumeSpec) error {
	number := spec.GetResync()
	if number == 0 {
		return errors.New("synchronisations are numbered from 1")
	}
	destination, err := destinationXML(spec.GetMirrorTo(), number)
	if err != nil {
		return err
	}
	d, err := find(c, spec)
	if err != nil {
		return err
	}
	if d.number() == number || s.started(spec) >= number {
		return nil
	}
	if !d.running {
		return errors.New("the VM is not running")
	}
	if d.foreign() {
		return errors.New("a block job that is not ours runs on the disk: end it first")
	}
	if err := abort(c, d); err != nil {
		return err
	}
	before, err := s.note(spec, func(n *note) { n.Started = number })
	if err != nil {
		return err
	}
	flags := libvirt.DomainBlockCopyReuseExt | libvirt.DomainBlockCopyTransientJob | libvirt.DomainBlockCopySynchronousWrites
	if err := c.DomainBlockCopy(d.domain, d.target, destination, nil, flags); err != nil {
		return s.unstarted(c, spec, before, fmt.Errorf("start block copy: %w", err))
	}
	s.log.Info("mirror started", "domain", spec.GetDomain(), "disk", spec.GetDisk(), "target", spec.GetMirrorTo(), "resync", number)
	return nil
}

// unstarted gives a number back when libvirt refused the copy and shows none; in doubt the number
// stays used.
func (s *Source) unstarted(c *libvirt.Libvirt, spec *pb.VolumeSpec, before note, cause error) error {
	if _, refused := errors.AsType[libvirt.Error](cause); !refused {
		return cause
	}
	d, err := find(c, spec)
	if err != nil {
		return errors.Join(cause, err)
	}
	if d.mirror != nil {
		return cause
	}
	_, err = s.note(spec, func(n *note) { n.Started = before.Started })
	return errors.Join(cause, err)
}

// abort ends our copy job of a disk, if there is one, and leaves the disk as it is.
func abort(c *libvirt.Libvirt, d *disk) error {
	if d.mirror == nil || d.foreign() {
		return nil
	}
	if err := c.DomainBlockJobAbort(d.domain, d.target, 0); err != nil {
		return fmt.Errorf("end block copy: %w", err)
	}
	return nil
}

// destinationXML describes the export of a synchronisation to libvirt.
func destinationXML(mirrorTo string, number uint64) (string, error) {
	u, err := url.Parse(mirrorTo)
	if err != nil {
		return "", fmt.Errorf("mirror to %q: %w", mirrorTo, err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	if u.Scheme != "nbd" || u.Hostname() == "" || u.Port() == "" || name == "" {
		return "", fmt.Errorf("mirror to %q: want nbd://address:port/name", mirrorTo)
	}
	x := libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source: &libvirtxml.DomainDiskSource{Network: &libvirtxml.DomainDiskSourceNetwork{
			Protocol: "nbd", Name: storage.SyncExport(name, number),
			Hosts: []libvirtxml.DomainDiskSourceHost{{Name: u.Hostname(), Port: u.Port()}},
		}},
	}
	text, err := x.Marshal()
	if err != nil {
		return "", fmt.Errorf("mirror to %q: %w", mirrorTo, err)
	}
	return text, nil
}

// Unmirror ends the mirror of a disk. See storage.Source.
func (s *Source) Unmirror(ctx context.Context, spec *pb.VolumeSpec) error {
	_, err := connected(ctx, s, "end mirror of", spec, func(c *libvirt.Libvirt) (struct{}, error) {
		d, err := find(c, spec)
		if err != nil {
			return struct{}{}, err
		}
		if err := abort(c, d); err != nil {
			return struct{}{}, err
		}
		if d.number() != 0 {
			s.log.Info("mirror ended", "domain", spec.GetDomain(), "disk", spec.GetDisk(), "resync", d.number())
		}
		return struct{}{}, nil
	})
	return err
}

// Inspect reports how the mirror of a disk is. See storage.Source.
func (s *Source) Inspect(ctx context.Context, spec *pb.VolumeSpec) (storage.Volume, error) {
	return connected(ctx, s, "inspect", spec, func(c *libvirt.Libvirt) (storage.Volume, error) {
		out := storage.Volume{Name: spec.GetName(), State: pb.State_STATE_PRIMARY}
		d, err := find(c, spec)
		if err != nil {
			return out, err
		}
		out.Status, err = s.status(c, d, spec)
		return out, err
	})
}

func (s *Source) status(c *libvirt.Libvirt, d *disk, spec *pb.VolumeSpec) (*pb.VolumeStatus, error) {
	st := &pb.VolumeStatus{Resync: s.started(spec), WriterRunning: d.running, DiskPath: d.path}
	if spec.GetMirrorTo() == "" {
		return st, nil
	}
	if n := d.number(); n != 0 {
		st.Resync = n
	}
	st.Mirroring = d.mirror != nil && !d.foreign()
	switch {
	case d.ready() && st.GetMirroring():
		st.InSync, st.SyncPercent = true, 100
	case st.GetMirroring():
		found, _, _, current, end, err := c.DomainGetBlockJobInfo(d.domain, d.target, 0)
		if err != nil {
			return nil, fmt.Errorf("look at block copy: %w", err)
		}
		if found == 1 && end > 0 {
			// It has not converged before libvirt says that it is ready.
			st.SyncPercent = uint32(min(99, 100*float64(current)/float64(end)))
		}
	}
	reason := degradation(d, st, spec)
	n, err := s.observed(spec, reason, time.Now())
	if err != nil {
		return nil, err
	}
	if reason != "" {
		st.DegradedSince, st.DegradedReason = timestamppb.New(n.Since), reason
	}
	return st, nil
}

// degradation says why the disk's newest writes are not at the target; empty: they are.
func degradation(d *disk, st *pb.VolumeStatus, spec *pb.VolumeSpec) string {
	switch {
	case !d.running:
		return "production VM is not running"
	case d.foreign():
		return "a block job that is not ours runs on the disk"
	case d.mirror == nil && st.GetResync() == 0:
		return "not mirrored"
	case d.mirror == nil:
		return fmt.Sprintf("the mirror of synchronisation %d ended", st.GetResync())
	case d.number() != spec.GetResync():
		return fmt.Sprintf("synchronisation %d is mirrored, %d is asked for", d.number(), spec.GetResync())
	case !st.GetInSync():
		return fmt.Sprintf("synchronisation %d has not converged", d.number())
	}
	return ""
}

// observed notes whether a mirror is well. A degradation is noted once, with the last time at which
// the mirror was seen well.
func (s *Source) observed(spec *pb.VolumeSpec, reason string, now time.Time) (note, error) {
	had := s.read(spec)
	switch {
	case reason == "" && had.Since.IsZero() && now.Sub(had.Well) < wellInterval:
		s.seen(spec, now)
		return had, nil
	case reason != "" && !had.Since.IsZero():
		return had, nil
	}
	if reason != "" && !had.Well.IsZero() {
		s.log.Warn("mirror degraded", "domain", spec.GetDomain(), "disk", spec.GetDisk(), "reason", reason)
	}
	if _, err := s.note(spec, func(n *note) {
		if reason == "" {
			n.Well, n.Since = now, time.Time{}
			return
		}
		n.Since = now
		if !n.Well.IsZero() {
			n.Since = n.Well
		}
	}); err != nil {
		return note{}, err
	}
	return s.read(spec), nil
}
