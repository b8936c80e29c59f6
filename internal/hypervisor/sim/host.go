package sim

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

// ErrPowerLoss is returned by calls that were under way when the host crashed.
var ErrPowerLoss = errors.New("connection to the hypervisor lost: the host went down")

// ErrNoMemory is returned when a guest is started beyond the host's memory, as QEMU would fail.
var ErrNoMemory = errors.New("cannot set up guest memory 'pc.ram': Cannot allocate memory")

// ErrNoDevice is returned when a guest is started whose device another one has, or that the host has not.
var ErrNoDevice = errors.New("no such device is free")

// instantSave is the bandwidth of a save that takes no time: 1 TiB a second.
const instantSave = 1 << 40

// ErrNoSpace is returned by a save that does not fit on the host's disk.
var ErrNoSpace = errors.New("no space left on device")

// Costs says how long operations take. A zero cost is no time at all.
type Costs struct {
	Define, Start, Kill, Restore, Remove time.Duration
	// Save is the fixed part of a save.
	Save time.Duration
	// SaveBytesPerSecond is the bandwidth at which RAM is written; zero: infinite.
	SaveBytesPerSecond uint64
}

// RealisticCosts returns what was measured with 128 MiB guests under libvirt and QEMU.
func RealisticCosts() Costs {
	return Costs{
		Define: 20 * time.Millisecond, Start: 1100 * time.Millisecond, Kill: 300 * time.Millisecond,
		Restore: 2300 * time.Millisecond, Remove: 20 * time.Millisecond,
		Save: time.Second, SaveBytesPerSecond: 128 << 20,
	}
}

// Options describes a host.
type Options struct {
	// Name is the beginning of the host's boot ids.
	Name string
	// Capacity is what the host has; the foreign parts are counted by the host itself. Disk space
	// of zero means no limit.
	Capacity *pb.Capacity
	Costs    Costs
	// Guest is how guests behave for which SetGuest said nothing.
	Guest GuestBehaviour
}

// Counts is what the host itself counted for one domain: successful effects, not calls.
type Counts struct {
	Defines, Starts, Saves, Restores, Stops, Kills, Removes int
}

// Host is one simulated hypervisor host. It implements Driver, Saver and Consoler, and is safe for
// concurrent use. It has many methods because it is two things at once: the driver that the agent
// calls, and the machine, the operator and the bad luck that tests need.
type Host struct {
	name     string
	capacity *pb.Capacity
	costs    Costs
	guest    GuestBehaviour

	mu        sync.Mutex // guards all below
	boots     int
	guestBoot int
	domains   map[model.ObjectID]*domain
	behaviour map[model.ObjectID]GuestBehaviour
	foreign   map[model.ObjectID]*pb.Capacity
	history   map[model.ObjectID]Counts
	jobs      map[model.ObjectID]*job
	faults    fault.Faults
	watchers  map[*watcher]struct{}
}

// domain is one VM of ours.
type domain struct {
	def     hypervisor.Definition
	running bool
	// reserved is true while memory is taken: from the beginning of a start to the end of QEMU.
	reserved bool
	problem  string
	// saved holds the guest as it was when its RAM was written; nil: no image.
	saved   *guest
	guest   guest
	console []byte
	// printed counts all bytes that the console has ever had.
	printed uint64
}

// NewHost makes a host that has just booted and runs nothing.
func NewHost(o Options) *Host {
	h := &Host{
		name: o.Name, capacity: proto.CloneOf(o.Capacity), costs: o.Costs, guest: o.Guest, boots: 1,
		domains:   map[model.ObjectID]*domain{},
		behaviour: map[model.ObjectID]GuestBehaviour{},
		foreign:   map[model.ObjectID]*pb.Capacity{},
		history:   map[model.ObjectID]Counts{},
		jobs:      map[model.ObjectID]*job{},
		watchers:  map[*watcher]struct{}{},
	}
	if h.capacity == nil {
		h.capacity = &pb.Capacity{Vcpus: 16, MemoryBytes: 64 << 30, CpuClass: "sim"}
	}
	return h
}

// BootID names the host's present boot; it changes with every Crash.
func (h *Host) BootID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprintf("%s-boot-%d", h.name, h.boots)
}

// Crash is a loss of power and the boot after it: all guests are gone, calls under way fail, a
// half-written image is lost. Definitions, disks and complete saved images stay.
func (h *Host) Crash() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boots++
	for id, j := range h.jobs {
		h.end(id, j, ErrPowerLoss)
	}
	for _, d := range h.domains {
		d.off()
	}
	clear(h.foreign)
	h.closeWatches()
}

// Disconnect breaks the connection to the hypervisor: open watches end, guests go on.
func (h *Host) Disconnect() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closeWatches()
}

// Kill ends a running guest from outside, as an operator or the kernel's OOM killer would.
func (h *Host) Kill(id model.ObjectID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.domains[id]; d != nil && d.running {
		d.off()
		h.changed(id)
	}
}

// SetProblem marks a running domain as paused by the hypervisor ("paused: I/O error on vda"), and
// with an empty text lets it go on. The guest's counter stands still while it is paused.
func (h *Host) SetProblem(id model.ObjectID, problem string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.domains[id]
	if d == nil || !d.running {
		return
	}
	if problem == "" {
		d.guest.resume()
	} else {
		d.guest.pause()
	}
	d.problem = problem
	h.changed(id)
}

// AddForeign runs a domain that is not ours under the name that the object would have.
func (h *Host) AddForeign(id model.ObjectID, vcpus uint32, memoryBytes uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign[id] = &pb.Capacity{Vcpus: vcpus, MemoryBytes: memoryBytes}
}

// RemoveForeign ends a domain that is not ours.
func (h *Host) RemoveForeign(id model.ObjectID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.foreign, id)
}

// Foreign says whether the foreign domain still runs.
func (h *Host) Foreign(id model.ObjectID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.foreign[id] != nil
}

// History returns what the host counted for every domain that it ever had.
func (h *Host) History() map[model.ObjectID]Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.history)
}

// Answers says whether a running guest with this address has booted and is healthy. The address may
// carry a prefix length.
func (h *Host) Answers(address string) bool {
	want, ok := plainAddress(address)
	if !ok {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, d := range h.domains {
		if !d.running || !d.guest.healthy(h.behaviourOf(id)) {
			continue
		}
		for _, n := range d.def.Spec.GetNics() {
			if a, ok := plainAddress(n.GetAddress()); ok && a == want {
				return true
			}
		}
	}
	return false
}

func plainAddress(s string) (netip.Addr, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr(), true
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil
}

// count changes the domain's history. The caller holds the lock.
func (h *Host) count(id model.ObjectID, f func(*Counts)) {
	c := h.history[id]
	f(&c)
	h.history[id] = c
}

// memoryUsed is what running and starting guests take, with the overhead. The caller holds the lock.
func (h *Host) memoryUsed() uint64 {
	var used uint64
	for _, d := range h.domains {
		if d.reserved {
			used += d.def.Spec.GetMemoryBytes() + h.capacity.GetOverheadBytes()
		}
	}
	for _, f := range h.foreign {
		used += f.GetMemoryBytes()
	}
	return used
}

// devicesUsed is how many of a device running and starting guests have. The caller holds the lock.
func (h *Host) devicesUsed(name string) (used uint32) {
	for _, d := range h.domains {
		if d.reserved {
			used += d.def.Spec.GetDevices()[name]
		}
	}
	return used
}

// savedBytes is what saved images take. The caller holds the lock.
func (h *Host) savedBytes() uint64 {
	var used uint64
	for _, d := range h.domains {
		if d.saved != nil {
			used += d.def.Spec.GetMemoryBytes()
		}
	}
	return used
}

// off ends the guest; the caller holds the lock.
func (d *domain) off() {
	d.running, d.reserved, d.problem = false, false, ""
	d.guest = guest{}
}
