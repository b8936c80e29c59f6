package reconcile

import (
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Now is the time of an input on both clocks of the agent.
type Now struct {
	// Wall is the wall clock: for the terms of leases and for people.
	Wall time.Time
	// Boot is the time since the host booted (CLOCK_BOOTTIME): for permits, deadlines and retries.
	Boot time.Duration
}

// Effect is something that the caller does for the core. Effects are executed in the order given;
// those behind a Persist only after it is durable.
type Effect interface{ effect() }

// Persist writes records to the journal in one transaction.
type Persist struct {
	Put    []Record
	Delete []model.ObjectID
	// Marks is written when it is not nil.
	Marks *Marks
	// Ledger entries that are gone, and those that are new, in this order: an entry may be both.
	Drop []ArtefactKey
	Note []Artefact
}

// Observe asks the driver for the state of an object; the answer is given to Core.Observed.
type Observe struct {
	Object model.ObjectID
	Seq    uint64
	// Spec is the newest spec; nil for an object that is known only from the driver's inventory.
	Spec *pb.Spec
}

// Call makes one transition of one object; the outcome is given to Core.CallReturned. The caller
// checks the permit once more when Transition.Acquiring is set, immediately before the driver is
// called, and returns ErrNoPermit when it has lapsed.
type Call struct {
	Object     model.ObjectID
	Seq        uint64
	Transition model.Transition
	Spec       *pb.Spec
	Owner      string
	Epoch      uint64
	Era        uint64
	Generation uint64
	// Grace is how long a guest may take to shut down before it is killed (RUNNING to STOPPED).
	Grace time.Duration
	// Timeout bounds the call; the core also cancels it.
	Timeout time.Duration
}

// Cancel ends the context of a call or an observation that passed its deadline. The outcome is
// unknown, not failed: it is still reported with CallReturned or Observed.
type Cancel struct {
	Object model.ObjectID
	Seq    uint64
}

// Report sends one changed status to the coordinator.
type Report struct {
	Status *pb.Status
}

// ProbeStart begins to probe the health of a running instance, ending an earlier probe of it.
type ProbeStart struct {
	Object model.ObjectID
	Health *pb.Health
	// Network whose probe port is used.
	Network string
	// Address of the instance's first card, without the prefix length; may be empty.
	Address string
}

// ProbeStop ends the probe of an instance.
type ProbeStop struct {
	Object model.ObjectID
}

func (Persist) effect()    {}
func (Observe) effect()    {}
func (Call) effect()       {}
func (Cancel) effect()     {}
func (Report) effect()     {}
func (ProbeStart) effect() {}
func (ProbeStop) effect()  {}

// Observation is what a driver reported about one object.
type Observation struct {
	State pb.State
	// Problem says what is wrong although the state is right: "paused: I/O error on vda".
	Problem string
	// Outdated says that it is in its state with older parameters than asked for, whatever the driver
	// answered when it was given the newer ones.
	Outdated bool
	Owner    string
	// MemoryBytes of a running instance, without the hypervisor's overhead.
	MemoryBytes uint64
	// At most one of these is set, by the object's kind.
	Volume   *pb.VolumeStatus
	Network  *pb.NetworkStatus
	Endpoint *pb.EndpointStatus
	Fence    *pb.FenceStatus
}

// Found is an object that a driver's inventory shows.
type Found struct {
	Object model.ObjectID
	Owner  string
	// MemoryBytes that it uses now: 0 unless it runs.
	MemoryBytes uint64
}
