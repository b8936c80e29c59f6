package simulation

import (
	"errors"
	"maps"
	"slices"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

// world is what really is, whatever anybody reports of it. It has no opinion: its drivers do what
// they are told, as real ones do, and the checks look at the outcome.
type world struct {
	s     *sim
	hosts map[string]*host
	pool  *pool
	// home is the pool at the protected site.
	home *pool
	old  *oldSite
	// records of DNS by "name.zone type".
	records map[string]*pb.EndpointValue
	// fences holds the epochs whose fence of a target holds.
	fences map[string]map[uint64]bool
	// touched: something changed that the checks have to look at.
	touched bool
	tokens  uint64
}

// errDown is what drivers get from a machine that is off.
var errDown = errors.New("no answer")

// token returns a number that was never used: an identity of a disk or of a guest's memory.
func (w *world) token() uint64 {
	w.tokens++
	return w.tokens
}

// host is a hypervisor host with its networks.
type host struct {
	w        *world
	name     string
	capacity *pb.Capacity
	domains  map[model.ObjectID]*domain
	networks map[string]*pb.NetworkSpec
	// left is what a mutant did not take away.
	left []string
}

// domain is one VM.
type domain struct {
	def     hypervisor.Definition
	running bool
	since   time.Duration
	disk    uint64
	// ram identifies the memory of the running guest.
	ram   uint64
	image *image
	// reclaimed holds the epochs that took it back while it ran.
	reclaimed map[uint64]int
}

// image is a saved RAM.
type image struct {
	ram   uint64
	loads int
}

func (d *domain) state() pb.State {
	switch {
	case d.running:
		return pb.State_STATE_RUNNING
	case d.image != nil:
		return pb.State_STATE_SAVED
	default:
		return pb.State_STATE_DEFINED
	}
}

// ids returns the domains in order.
func (h *host) ids() []model.ObjectID { return slices.Sorted(maps.Keys(h.domains)) }

// crash is a loss of power: RAM is gone, disks and saved images are not, bridges have to be made again.
func (h *host) crash() {
	for _, d := range h.domains {
		d.running, d.ram = false, 0
	}
	h.networks = map[string]*pb.NetworkSpec{}
	h.w.touched = true
}

// changed tells the agent of a host, as the hypervisor's events do.
func (h *host) changed(id model.ObjectID) {
	h.w.touched = true
	a := h.w.s.agentOf(h.name)
	life := a.life
	h.w.s.after(h.w.s.between(time.Millisecond, 50*time.Millisecond), func() {
		if a.life == life {
			a.driverEvent(id)
		}
	})
}

// oldSite is the protected site with its production VMs.
type oldSite struct {
	alive bool
	// reach: the power switches of the site answer, also when the site is dead.
	reach bool
	vms   map[string]*oldVM
}

// oldVM is a workload's old self with its mirrored disk.
type oldVM struct {
	running bool
	target  string
	mirror  *mirror
	// started is the newest synchronisation for which a mirror was ever started.
	started  uint64
	degraded time.Duration
	// holds identifies what is on its disk: each writer makes it another.
	holds uint64
}

// names returns the old VMs in order.
func (o *oldSite) names() []string { return slices.Sorted(maps.Keys(o.vms)) }

// die is the disaster.
func (w *world) die() {
	w.old.alive = false
	w.home.crash()
	for _, vm := range w.old.vms {
		w.stopOld(vm)
	}
	w.touched = true
}

// stopOld ends an old VM; its mirror ends with it.
func (w *world) stopOld(vm *oldVM) {
	if vm.mirror != nil && vm.mirror.cut == 0 {
		vm.mirror.cut = w.s.now
	}
	if vm.running {
		vm.degraded = w.s.now
	}
	vm.running = false
}

// startOld is what people at the protected site do once nothing forbids it.
func (w *world) startOld() {
	if !w.old.alive {
		return
	}
	for _, name := range w.old.names() {
		// They know that a way back starts it by itself.
		if vm := w.old.vms[name]; !vm.running && len(w.fences[vm.target]) == 0 && !w.s.comesBack(name) {
			vm.running, vm.holds = true, w.token()
			w.s.logf("old %s runs", name)
		}
	}
	w.touched = true
}

// fenced says whether a target is held off, by any epoch.
func (w *world) fenced(target string) bool { return len(w.fences[target]) > 0 }
