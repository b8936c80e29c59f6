package reconcile

import (
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Record is what the journal holds of one object. It is comparable: two equal records need no
// write. The order it points to is never changed after it was received.
type Record struct {
	Object model.ObjectID
	// Era of the newest order; its generation stands in the order.
	Era   uint64
	Order *pb.Order
	// Unnamed is set while a full list of orders left the object out: it is reported, never touched.
	Unnamed bool
	// Intent is the call that was begun last and whose outcome was not read back yet.
	Intent Intent
	// Reclaim is how far taking a running instance back has come.
	Reclaim Reclaim
	// Attempts counts calls that did not bring what they should, since the last stable time.
	Attempts uint32
	Note     string
	// Applied is the digest of the parameters that were applied last.
	Applied string
	// Hook is the state of a hook, which nothing outside can be asked for; HookInDoubt after a call
	// whose end is not known.
	Hook        pb.State
	HookInDoubt bool
	// RestoreBegun is set before a saved image is given to the hypervisor and cleared when the
	// outcome was observed: off afterwards means that the image is gone and the boot is cold.
	RestoreBegun bool
	// ImageLost is set when an instance should have been saved but only its disk was kept.
	ImageLost bool
	ColdBoot  bool
	// LocalEnd is set when the agent itself ended the instance because its term had passed (R12).
	LocalEnd bool
	// Listens is set when the guest has asked whether it is preempted, in this boot of it.
	Listens bool
}

// Key returns what identifies the order held; the zero generation when there is none.
func (r *Record) Key() model.OrderKey {
	return model.OrderKey{Object: r.Object, Era: r.Era, Generation: r.Order.GetGeneration()}
}

// Intent is a call that was about to begin when it was written.
type Intent struct {
	From, To        pb.State
	Era, Generation uint64
}

// Stage is a way of taking an instance back. Save, stop and kill follow each other in this order; the notice comes
// before all of them.
type Stage int

// The stages. The zero value means that nothing was begun.
const (
	// StageSave keeps RAM and disk.
	StageSave Stage = iota + 1
	// StageStop lets the guest shut down.
	StageStop
	// StageKill ends it at once; the disk is kept.
	StageKill
	// StageNotice lets a guest that listens use its grace.
	StageNotice
)

// Reclaim is how far taking back a running instance has come.
type Reclaim struct {
	Stage Stage
	// Began is when the notice, or behind it the first stage, was begun, on the boot-time clock.
	Began time.Duration
	// Save is set when the RAM should have been kept.
	Save bool
	// Why says what failed so far, for the owner: "save passed its deadline of 30s".
	Why string
	// Until is the end of the grace in Unix milliseconds, for people; 0: there was none. Ready: the guest said so.
	Until int64
	Ready bool
}

// Marks are the highest numbers that the agent has seen, and the boot in which it wrote them.
type Marks struct {
	Era, Generation, Term uint64
	BootID                string
	// Held is set while the newest leader heard gives no orders: everything is read, nothing is touched.
	Held bool `json:",omitempty"`
}

// ArtefactKey names an entry of the ledger.
type ArtefactKey struct {
	Object model.ObjectID
	Epoch  uint64
}

// Artefact is an entry of the ledger: what a call may have made outside of the agent (R13). It is
// written before the call and dropped when the object is observed back in its first state.
type Artefact struct {
	ArtefactKey
	// What names the thing for people: "domain web-3-0", "volume west/webshop-db-root".
	What string
}

// Content is everything that a journal holds.
type Content struct {
	Marks   Marks
	Records []Record
	Ledger  []Artefact
}
