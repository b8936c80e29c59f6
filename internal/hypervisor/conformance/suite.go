package conformance

import (
	"context"
	"errors"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

// Harness is what the suite needs to know about a driver.
type Harness struct {
	// Driver is the driver's word in the result lines: "libvirt".
	Driver string
	// New makes a fixture whose host has no domain of ours. It is called once for each case.
	New func(t *testing.T) *Fixture
}

// Fixture is a driver on a host, with hooks that look at the host without the driver. Hooks fail the
// test when they cannot do their work; an optional hook is nil where it cannot be offered.
type Fixture struct {
	Driver hypervisor.Driver
	// Patience bounds everything that is expected to happen.
	Patience time.Duration
	// Define returns a valid definition for an object "instance/NAME"; its guest shuts down when
	// asked, once it is Ready.
	Define func(name string) hypervisor.Definition
	// Stubborn, optional, returns a definition whose guest ignores the request to shut down.
	Stubborn func(name string) hypervisor.Definition
	// Ready, optional, waits until a started guest hears a request to shut down.
	Ready func(t *testing.T, id model.ObjectID)
	// Guest, optional, reads a guest that is Ready.
	Guest func(t *testing.T, id model.ObjectID) Guest
	// Starts, optional, is how often a guest of the domain was set in motion, cold or from saved RAM,
	// counted by somebody else than the driver.
	Starts func(t *testing.T, id model.ObjectID) int
	// Foreign, optional, runs a domain that is not ours until the test ends.
	Foreign func(t *testing.T) Foreign
	// Kill, optional, ends a guest behind the driver's back.
	Kill func(t *testing.T, id model.ObjectID)
	// Inventory, optional, lists everything on the host that a driver could leave behind: domains,
	// files, processes.
	Inventory func(t *testing.T) []string
	// Disks, optional, identifies the domain's private disks, so that a disk that was made anew differs.
	Disks func(t *testing.T, id model.ObjectID) []string
	// Reopen, optional, closes the driver and makes another for the same host, as a restarted agent
	// does. The new one must live until the test's clean-up has ended.
	Reopen func(t *testing.T) hypervisor.Driver
	// CancelSaveAfter is a time after which a save is under way and not yet done.
	CancelSaveAfter time.Duration
}

// Guest is what a guest says about itself.
type Guest struct {
	// BootID differs for each cold start.
	BootID string
	// Counter goes up while the guest runs.
	Counter uint64
}

// Foreign is a running domain without our metadata.
type Foreign struct {
	// ID is the object whose domain would have the foreign domain's name.
	ID          model.ObjectID
	VCPUs       uint32
	MemoryBytes uint64
	Running     func() bool
}

type namedCase struct {
	name string
	run  func(t *testing.T, f *Fixture)
}

// cases returns the suite in the order in which it runs.
func cases() []namedCase {
	return []namedCase{
		{"define-inspect-list-remove", defineInspectListRemove},
		{"define-idempotent", defineIdempotent},
		{"define-renews-and-keeps-disks", defineRenews},
		{"define-refuses-change-while-running", defineWhileRunning},
		{"start", start},
		{"start-idempotent", startIdempotent},
		{"start-concurrently-once", startConcurrently},
		{"start-after-stop-is-a-new-boot", startAfterStop},
		{"stop-graceful", stopGraceful},
		{"stop-kills-after-grace", stopKillsAfterGrace},
		{"stop-idempotent", stopIdempotent},
		{"save-restore-keeps-ram", saveRestoreKeepsRAM},
		{"save-idempotent", saveIdempotent},
		{"save-refuses-off", saveRefusesOff},
		{"save-cancelled", saveCancelled},
		{"restore-uses-image-once", restoreUsesImageOnce},
		{"restore-without-image", restoreWithoutImage},
		{"start-refuses-saved", startRefusesSaved},
		{"drop-saved", dropSaved},
		{"remove-saved", removeSaved},
		{"remove-refuses-running", removeRefusesRunning},
		{"remove-idempotent", removeIdempotent},
		{"remove-leaves-nothing", removeLeavesNothing},
		{"unknown-domain", unknownDomain},
		{"foreign-domain", foreignDomain},
		{"capacity", capacity},
		{"cancelled-context", cancelledContext},
		{"watch-change-by-somebody-else", watchOutside},
		{"watch-own-change", watchOwn},
		{"watch-ends-with-context", watchEnds},
		{"reopen-adopts-running", reopenRunning},
		{"reopen-keeps-saved", reopenSaved},
		{"console", console},
	}
}

// Cases returns the names of all cases, in order.
func Cases() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// Run runs every case against the harness's driver.
func Run(t *testing.T, h Harness) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			// Registered first, so it runs last: after the fixture's own clean-up had its say.
			t.Cleanup(func() {
				word := "pass"
				switch {
				case t.Failed():
					word = "fail"
				case t.Skipped():
					word = "skip"
				}
				t.Logf("conformance %s %s %s", h.Driver, c.name, word)
			})
			c.run(t, h.New(t))
		})
	}
}

// pollEvery is how often a condition is looked at again.
const pollEvery = 20 * time.Millisecond

// eventually waits until the condition holds, at most for the fixture's patience.
func (f *Fixture) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(f.Patience)
	defer deadline.Stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for !holds() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, f.Patience)
		}
	}
}

func (f *Fixture) context(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), f.Patience)
	t.Cleanup(cancel)
	return ctx
}

// must fails the test unless the call succeeded.
func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// defined defines a domain that is stopped and removed when the test ends.
func (f *Fixture) defined(t *testing.T, d hypervisor.Definition) model.ObjectID {
	t.Helper()
	f.removeLater(t, d.ID)
	must(t, "define", f.Driver.Define(f.context(t), d))
	return d.ID
}

func (f *Fixture) removeLater(t *testing.T, id model.ObjectID) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), f.Patience)
		defer cancel()
		if _, err := f.Driver.Inspect(ctx, id); errors.Is(err, hypervisor.ErrNotFound) {
			return
		}
		if err := f.Driver.Stop(ctx, id, hypervisor.StopOptions{}); err != nil {
			t.Errorf("clean up: stop: %v", err)
		}
		if err := f.Driver.Remove(ctx, id); err != nil {
			t.Errorf("clean up: remove: %v", err)
		}
	})
}

// started defines and starts a domain.
func (f *Fixture) started(t *testing.T, d hypervisor.Definition) model.ObjectID {
	t.Helper()
	id := f.defined(t, d)
	must(t, "start", f.Driver.Start(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_RUNNING)
	return id
}

func (f *Fixture) ready(t *testing.T, id model.ObjectID) {
	t.Helper()
	if f.Ready != nil {
		f.Ready(t, id)
	}
}

func (f *Fixture) wantState(t *testing.T, id model.ObjectID, want pb.State) hypervisor.Domain {
	t.Helper()
	d, err := f.Driver.Inspect(f.context(t), id)
	must(t, "inspect", err)
	if d.State != want || d.ID != id || d.Problem != "" {
		t.Fatalf("inspect: state %v of %q with problem %q, want %v of %q", d.State, d.ID, d.Problem, want, id)
	}
	return d
}

func (f *Fixture) wantStarts(t *testing.T, id model.ObjectID, want int) {
	t.Helper()
	if f.Starts == nil {
		return
	}
	if got := f.Starts(t, id); got != want {
		t.Fatalf("somebody else counted %d starts, want %d", got, want)
	}
}

// saver returns the driver's Saver or skips the case.
func (f *Fixture) saver(t *testing.T) hypervisor.Saver {
	t.Helper()
	s, ok := f.Driver.(hypervisor.Saver)
	if !ok {
		t.Skip("the driver keeps no RAM")
	}
	return s
}
