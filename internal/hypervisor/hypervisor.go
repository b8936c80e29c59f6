// Package hypervisor is the seam between an agent and the machine that runs VMs: the driver
// interface, what a driver reports, and the promises that every driver keeps. The drivers live in
// libvirt/, vsphere/ and sim/; the conformance suite that each must pass lives in conformance/.
//
// A driver executes; it decides nothing. It never touches a domain that does not carry our metadata,
// and no other package of hotspare talks to a hypervisor.
package hypervisor

import (
	"context"
	"errors"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// ErrNotFound is returned by calls that name a domain which does not exist.
var ErrNotFound = errors.New("domain not found")

// ErrForeign is returned by calls that name a domain which exists without our metadata.
var ErrForeign = errors.New("domain does not belong to hotspare")

// ErrState is returned by calls that the domain's present state does not allow; nothing was changed.
// The caller inspects and decides again.
var ErrState = errors.New("domain is not in a state that allows it")

// Driver runs VMs on one host. Every call obeys its context within a second; when the context ends
// the outcome is unknown, not failed, and the caller inspects before it tries again. Every changing
// call is idempotent: asking for what is already so succeeds and changes nothing. A changing call
// that names a domain which does not exist returns ErrNotFound, except Define and Remove.
type Driver interface {
	// Capacity reports what the host can run, and what domains that are not ours use of it.
	Capacity(ctx context.Context) (*pb.Capacity, error)
	// List reports all domains that carry our metadata.
	List(ctx context.Context) ([]Domain, error)
	// Inspect reports one of our domains; ErrNotFound when there is none.
	Inspect(ctx context.Context, id model.ObjectID) (Domain, error)
	// Define makes the domain and its private disks without starting it. Domains are never on
	// autostart. When it returns, the definition is on disk. Defining an existing domain that is off
	// renews its definition and keeps its disks. On a domain that runs or is saved it succeeds when
	// the digest of the definition is the same, else it fails with ErrState.
	Define(ctx context.Context, d Definition) error
	// Start starts a domain that is off, from its disks. A saved domain is started with Restore
	// (Saver); Start on it drops nothing and fails with ErrState.
	Start(ctx context.Context, id model.ObjectID) error
	// Stop ends a running domain. Disks, definition and a saved image stay.
	Stop(ctx context.Context, id model.ObjectID, o StopOptions) error
	// Remove deletes a domain that is off, its saved RAM and its private disks. It succeeds when
	// nothing of it exists, and refuses a running domain with ErrState.
	Remove(ctx context.Context, id model.ObjectID) error
	// Watch sends the identifier of each domain of ours whose state may have changed. The receiver
	// inspects; events may be spurious or merged, and never lost while the channel is open. The
	// channel is closed when the context ends or the connection to the hypervisor breaks; the caller
	// then watches again and lists everything.
	Watch(ctx context.Context) (<-chan model.ObjectID, error)
}

// Saver is implemented by drivers that can keep the RAM of a domain.
type Saver interface {
	// Save writes RAM and device state to disk and ends the domain. It returns after the image was
	// synced to disk and the hypervisor process has exited, so its memory is free. On error or
	// cancel a partial image is deleted and the domain, if it still runs, goes on. A domain that is
	// off without an image: ErrState.
	Save(ctx context.Context, id model.ObjectID) error
	// Restore starts a domain from its saved image. The image is taken out of the way, durably,
	// before the guest runs its first instruction, so no guest ever runs from it twice. When the
	// domain could not be started at all the image stays and the domain is SAVED as before. A domain
	// that is off without an image: ErrState.
	Restore(ctx context.Context, id model.ObjectID) error
	// DropSaved deletes the saved image; the domain is then off with its disks. It refuses a running
	// domain with ErrState.
	DropSaved(ctx context.Context, id model.ObjectID) error
}

// Consoler is implemented by drivers that can show a domain's serial console.
type Consoler interface {
	// Console returns what the log holds behind an offset (0: all of it), at most limit bytes: the
	// newest, when there are more. A log that is shorter than the offset was begun anew and is read from
	// its beginning. A domain that is off shows what it last wrote.
	Console(ctx context.Context, id model.ObjectID, after uint64, limit int) (ConsoleText, error)
}

// ConsoleText is a part of a console's log.
type ConsoleText struct {
	Text []byte
	// End is the offset behind the last byte of Text, to go on from.
	End uint64
}

// StopOptions says how a domain is ended.
type StopOptions struct {
	// Grace is how long the guest may take to shut down by itself before it is killed; zero kills at once.
	Grace time.Duration
}

// Definition is everything that a driver needs to make a domain.
type Definition struct {
	ID model.ObjectID
	// Owner is the lease or plan, kept in the domain's metadata for people who look.
	Owner string
	Spec  *pb.InstanceSpec
}

// Domain is one of our VMs as the hypervisor shows it.
type Domain struct {
	ID    model.ObjectID
	Owner string
	// State is DEFINED (off, also after a crash), RUNNING or SAVED (off with a saved image). A domain
	// whose save is not yet durable is still RUNNING.
	State pb.State
	// Problem says what is wrong with a running domain whose guest stands still: "paused: I/O error
	// on vda". Empty for a domain that is off.
	Problem string
	VCPUs   uint32
	// MemoryBytes is what the domain is allowed, without the hypervisor's overhead.
	MemoryBytes uint64
}
