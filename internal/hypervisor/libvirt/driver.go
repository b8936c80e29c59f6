package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	golibvirt "github.com/digitalocean/go-libvirt"
	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirtxml"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

var (
	_ hypervisor.Driver   = (*Driver)(nil)
	_ hypervisor.Saver    = (*Driver)(nil)
	_ hypervisor.Consoler = (*Driver)(nil)
)

// Options describes a driver.
type Options struct {
	// Socket is libvirtd's unix socket.
	Socket string
	// StateDir holds private disks and saved RAM. QEMU's user must be able to reach it.
	StateDir string
	// LocalPools are directories for empty disks in other local pools of the host, by name; each must be there, on a file
	// system that is neither the root's nor that of another one.
	LocalPools map[string]string
	// DomainType is "kvm" or "qemu" (emulation); empty: kvm where the host has it.
	DomainType string
	Log        *slog.Logger
}

// Driver drives one libvirtd. It is safe for concurrent use. It has many methods because it implements
// three interfaces and each of their calls has one or two steps of its own.
type Driver struct {
	c     *client
	state string
	pools map[string]string
	log   *slog.Logger

	running sync.WaitGroup // changing calls and watches

	mu         sync.Mutex // guards all below
	closed     bool
	domainType string           // empty until it was probed
	caps       *libvirtxml.Caps // nil until read; they stay while this process lives
	rate       uint64           // of saves, in bytes per second; 0 until measured
	busy       map[model.ObjectID]*work
	names      map[string]model.ObjectID // domains of ours that were seen, for events about removed ones
	watchers   map[*watcher]struct{}
}

// New makes a driver. It does not connect: that is done, and done again, when something is asked.
func New(o Options) (*Driver, error) {
	if o.Socket == "" || !filepath.IsAbs(o.StateDir) || o.Log == nil {
		return nil, fmt.Errorf("libvirt driver: the socket, an absolute state directory or the log is missing")
	}
	if !slices.Contains([]string{"", "kvm", "qemu"}, o.DomainType) {
		return nil, fmt.Errorf("libvirt driver: domain type %q is none of kvm and qemu", o.DomainType)
	}
	// Others than root pass through to their own files, QEMU's user among them, and see no list.
	if err := os.MkdirAll(o.StateDir, 0o711); err != nil {
		return nil, fmt.Errorf("libvirt driver: make the state directory: %w", err)
	}
	if err := checkPools(o); err != nil {
		return nil, err
	}
	return &Driver{
		c: newClient(o.Socket), state: o.StateDir, pools: maps.Clone(o.LocalPools), log: o.Log, domainType: o.DomainType,
		busy:     map[model.ObjectID]*work{},
		names:    map[string]model.ObjectID{},
		watchers: map[*watcher]struct{}{},
	}, nil
}

// checkPools refuses local pools that are not there or whose file system is not mounted, and two that would count the
// space of one file system twice.
func checkPools(o Options) error {
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return fmt.Errorf("libvirt driver: look at /: %w", err)
	}
	seen := map[uint64]string{}
	add := func(what, dir string) error {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return fmt.Errorf("libvirt driver: %s %s: %w", what, dir, err)
		}
		if other, twice := seen[st.Dev]; twice {
			return fmt.Errorf("libvirt driver: %s %s is on the file system of %s: its space would count twice", what, dir, other)
		}
		if st.Dev == root.Dev && dir != o.StateDir {
			return fmt.Errorf("libvirt driver: %s %s is on the root file system: is its own not mounted?", what, dir)
		}
		seen[st.Dev] = what
		return nil
	}
	err := add("the state directory", o.StateDir)
	for _, pool := range slices.Sorted(maps.Keys(o.LocalPools)) {
		err = errors.Join(err, add("local pool "+pool, o.LocalPools[pool]))
	}
	return err
}

// Close cuts all connections and waits for what is under way. Domains go on, and so does what libvirtd
// was asked for; the next driver settles it.
func (d *Driver) Close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.c.close()
	d.breakWatches()
	d.running.Wait()
}

// found is a domain of ours together with what libvirt says of it.
type found struct {
	dom    golibvirt.Domain
	mark   mark
	active bool
	paused bool
	reason golibvirt.DomainPausedReason // why it is paused
	vcpus  uint32
	memory uint64 // bytes
}

// look finds the domain of an object, or returns ErrNotFound or ErrForeign.
func (d *Driver) look(ctx context.Context, id model.ObjectID) (found, error) {
	dom, err := call(ctx, d.c, func(l *golibvirt.Libvirt) (golibvirt.Domain, error) {
		return l.DomainLookupByName(domainName(id))
	})
	if golibvirt.IsNotFound(err) {
		return found{}, hypervisor.ErrNotFound
	}
	if err != nil {
		return found{}, err
	}
	f, err := d.examine(ctx, dom)
	if err == nil && f.mark.ID != id {
		return found{}, hypervisor.ErrForeign
	}
	return f, err
}

// examine reads mark and state of a domain. ErrForeign: it has no mark; ErrNotFound: it is gone.
func (d *Driver) examine(ctx context.Context, dom golibvirt.Domain) (found, error) {
	f, err := call(ctx, d.c, func(l *golibvirt.Libvirt) (found, error) { return read(l, dom) })
	if golibvirt.IsNotFound(err) {
		return found{}, hypervisor.ErrNotFound
	}
	if err != nil {
		return found{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[dom.Name] = f.mark.ID
	return f, nil
}

// read asks libvirt about a domain.
func read(l *golibvirt.Libvirt, dom golibvirt.Domain) (found, error) {
	text, err := l.DomainGetMetadata(dom, int32(golibvirt.DomainMetadataElement), golibvirt.OptString{markNamespace}, golibvirt.DomainAffectCurrent)
	var refused golibvirt.Error
	if errors.As(err, &refused) && refused.Code == uint32(golibvirt.ErrNoDomainMetadata) {
		return found{}, hypervisor.ErrForeign
	}
	if err != nil {
		return found{}, err
	}
	f := found{dom: dom}
	if f.mark, err = parseMark(text); err != nil {
		return found{}, fmt.Errorf("read the metadata of domain %s: %w", dom.Name, err)
	}
	state, reason, err := l.DomainGetState(dom, 0)
	if err != nil {
		return found{}, err
	}
	f.active = golibvirt.DomainState(state) != golibvirt.DomainShutoff
	switch golibvirt.DomainState(state) {
	case golibvirt.DomainPaused:
		f.paused, f.reason = true, golibvirt.DomainPausedReason(reason)
	case golibvirt.DomainCrashed:
		f.paused, f.reason = true, golibvirt.DomainPausedCrashed
	default:
		// Of the other states it only matters whether the domain is active.
	}
	_, maxKiB, _, vcpus, _, err := l.DomainGetInfo(dom)
	f.vcpus, f.memory = uint32(vcpus), maxKiB<<10
	return f, err
}

// Inspect implements hypervisor.Driver. It first settles what a broken call left, if there is any.
func (d *Driver) Inspect(ctx context.Context, id model.ObjectID) (hypervisor.Domain, error) {
	f, err := d.look(ctx, id)
	if err == nil {
		var v hypervisor.Domain
		if v, err = d.view(ctx, f); err == nil {
			return v, nil
		}
	}
	return hypervisor.Domain{}, fmt.Errorf("inspect %s: %w", id, err)
}

// List implements hypervisor.Driver. The domains are sorted by identifier.
func (d *Driver) List(ctx context.Context) ([]hypervisor.Domain, error) {
	all, err := d.all(ctx, golibvirt.ConnectListDomainsActive|golibvirt.ConnectListDomainsInactive)
	if err != nil {
		return nil, fmt.Errorf("list domains: %w", err)
	}
	var out []hypervisor.Domain
	for _, dom := range all {
		f, err := d.examine(ctx, dom)
		if err == nil {
			var v hypervisor.Domain
			if v, err = d.view(ctx, f); err == nil {
				out = append(out, v)
				continue
			}
		}
		if errors.Is(err, hypervisor.ErrForeign) || errors.Is(err, hypervisor.ErrNotFound) {
			continue // not ours, or removed since the list was taken
		}
		return nil, fmt.Errorf("list domains: %s: %w", dom.Name, err)
	}
	slices.SortFunc(out, func(a, b hypervisor.Domain) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out, nil
}

func (d *Driver) all(ctx context.Context, which golibvirt.ConnectListAllDomainsFlags) ([]golibvirt.Domain, error) {
	return call(ctx, d.c, func(l *golibvirt.Libvirt) ([]golibvirt.Domain, error) {
		doms, _, err := l.ConnectListAllDomains(1, which)
		return doms, err
	})
}

// view turns what was found into what the interface shows.
func (d *Driver) view(ctx context.Context, f found) (hypervisor.Domain, error) {
	busy := d.underWay(f.mark.ID)
	if busy == nil && d.unsettled(f) {
		var err error
		if f, err = d.settleFor(ctx, f.mark.ID); err != nil {
			return hypervisor.Domain{}, err
		}
	}
	v := hypervisor.Domain{ID: f.mark.ID, Owner: f.mark.Owner, State: pb.State_STATE_DEFINED, VCPUs: f.vcpus, MemoryBytes: f.memory}
	switch {
	case f.active || busy != nil && busy.saving:
		v.State = pb.State_STATE_RUNNING
		if busy == nil {
			v.Problem = problem(f)
		}
	case d.files(f.mark.ID).has(ramSaved):
		v.State = pb.State_STATE_SAVED
	}
	return v, nil
}

// problem says why a guest stands still, when that is not part of its normal life.
func problem(f found) string {
	if !f.paused {
		return ""
	}
	switch f.reason {
	case golibvirt.DomainPausedSave, golibvirt.DomainPausedMigration, golibvirt.DomainPausedStartingUp, golibvirt.DomainPausedShuttingDown:
		return ""
	case golibvirt.DomainPausedIoerror:
		return "paused: I/O error on a disk"
	case golibvirt.DomainPausedCrashed:
		return "paused: the guest crashed"
	case golibvirt.DomainPausedUser:
		return "paused: by somebody's command"
	default:
		return fmt.Sprintf("paused: libvirt's reason %d", f.reason)
	}
}

// Console implements hypervisor.Consoler.
func (d *Driver) Console(ctx context.Context, id model.ObjectID, after uint64, limit int) (hypervisor.ConsoleText, error) {
	if _, err := d.look(ctx, id); err != nil {
		return hypervisor.ConsoleText{}, fmt.Errorf("console of %s: %w", id, err)
	}
	out, err := tail(d.files(id).path(consoleLog), after, int64(max(0, limit)))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return hypervisor.ConsoleText{}, fmt.Errorf("console of %s: %w", id, err)
	}
	return out, nil
}

// tail returns the last bytes of a file, of those behind an offset.
func tail(path string, after uint64, limit int64) (hypervisor.ConsoleText, error) {
	var out hypervisor.ConsoleText
	f, err := os.Open(path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return out, err
	}
	size := info.Size()
	from := int64(after)
	if after > uint64(size) {
		from = 0 // virtlogd has begun a new file.
	}
	from = max(from, size-limit)
	out.Text, err = io.ReadAll(io.NewSectionReader(f, from, size-from))
	out.End = uint64(from) + uint64(len(out.Text))
	return out, err
}
