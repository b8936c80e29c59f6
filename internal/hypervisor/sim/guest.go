package sim

import (
	"fmt"
	"time"

	"github.com/hotspare/hotspare/internal/model"
)

// tick is how much running time one count of a guest's counter is.
const tick = 100 * time.Millisecond

// maxConsoleBytes bounds the console log of one guest; the oldest bytes go.
const maxConsoleBytes = 64 << 10

// GuestBehaviour says how a guest reacts.
type GuestBehaviour struct {
	// IgnoresShutdown: only a kill ends it.
	IgnoresShutdown bool
	// ShutdownTakes is how long it takes to shut down when asked.
	ShutdownTakes time.Duration
	// HealthyAfter is the running time from a cold start until it answers.
	HealthyAfter time.Duration
	// NeverHealthy: it runs and never answers.
	NeverHealthy bool
}

// GuestView is a guest as seen from inside.
type GuestView struct {
	// BootID names the cold start that the guest's RAM goes back to.
	BootID string
	// Counter goes up while the guest runs and is kept through save and restore.
	Counter uint64
	Running bool
	// Healthy says whether it answers now; HealthyAt is when it did or will, zero when never or
	// when it does not run.
	Healthy   bool
	HealthyAt time.Time
}

// guest is the content of a VM's RAM.
type guest struct {
	bootID string
	ran    time.Duration // running time up to since
	since  time.Time     // zero while it does not run
}

func (g *guest) runtime() time.Duration {
	if g.since.IsZero() {
		return g.ran
	}
	return g.ran + time.Since(g.since)
}

func (g *guest) pause() {
	g.ran = g.runtime()
	g.since = time.Time{}
}

func (g *guest) resume() {
	if g.since.IsZero() {
		g.since = time.Now()
	}
}

func (g *guest) healthy(b GuestBehaviour) bool {
	return !b.NeverHealthy && !g.since.IsZero() && g.runtime() >= b.HealthyAfter
}

// SetGuest changes how one guest behaves, from now on. The domain need not exist yet.
func (h *Host) SetGuest(id model.ObjectID, b GuestBehaviour) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.behaviour[id] = b
}

// behaviourOf returns how a guest behaves. The caller holds the lock.
func (h *Host) behaviourOf(id model.ObjectID) GuestBehaviour {
	if b, ok := h.behaviour[id]; ok {
		return b
	}
	return h.guest
}

// Guest looks into a guest: the running one, or the one in the saved image. It returns false when
// there is no such domain, or it is off without an image.
func (h *Host) Guest(id model.ObjectID) (GuestView, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.domains[id]
	if d == nil || (!d.running && d.saved == nil) {
		return GuestView{}, false
	}
	g := d.guest
	if !d.running {
		g = *d.saved
	}
	b := h.behaviourOf(id)
	v := GuestView{
		BootID: g.bootID, Counter: uint64(g.runtime() / tick), Running: d.running,
		Healthy: d.running && g.healthy(b),
	}
	if !b.NeverHealthy && !g.since.IsZero() {
		v.HealthyAt = g.since.Add(b.HealthyAfter - g.ran)
	}
	return v, true
}

// boot gives the domain a fresh guest. The caller holds the lock.
func (h *Host) boot(id model.ObjectID, d *domain) {
	h.guestBoot++
	d.guest = guest{bootID: fmt.Sprintf("%s/%s/%d", h.name, id, h.guestBoot)}
	d.guest.resume()
	d.running = true
	d.print("%s: booted, boot id %s\n", d.def.Spec.GetHostname(), d.guest.bootID)
}

// print appends to the serial console's log. The caller holds the lock.
func (d *domain) print(format string, args ...any) {
	before := len(d.console)
	d.console = fmt.Appendf(d.console, format, args...)
	d.printed += uint64(len(d.console) - before)
	if n := len(d.console) - maxConsoleBytes; n > 0 {
		d.console = d.console[n:]
	}
}
