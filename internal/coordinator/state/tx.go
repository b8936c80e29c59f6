package state

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust/evidence"
)

// maxRequests bounds how many outcomes are remembered, and requestMemory for how long.
const (
	maxRequests   = 100_000
	requestMemory = 24 * time.Hour
)

// tx is the state while one entry is applied to it.
type tx struct {
	State
	index   uint64
	now     time.Time
	actor   string
	changed map[string]bool
}

func (s *State) begin(index, term uint64, c *pb.Command) *tx {
	t := &tx{State: *s, index: index, actor: c.GetActor(), changed: map[string]bool{}}
	t.meta = proto.CloneOf(s.meta)
	t.meta.Index, t.meta.Term = index, term
	if c.GetTime().AsTime().After(s.Time()) {
		t.meta.Time = c.GetTime()
	}
	t.now = t.meta.GetTime().AsTime()
	return t
}

// sortable writes n so that text order is number order.
func sortable(n uint64) string { return fmt.Sprintf("%020d", n) }

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

func (t *tx) stamp() *timestamppb.Timestamp { return timestamppb.New(t.now) }

// touchPlacement marks that a decision about room must be made anew.
func (t *tx) touchPlacement() { t.meta.PlacementVersion = t.index }

func (t *tx) putHost(h *pb.Host) {
	h.Version = t.index
	t.hosts.set(h.GetName(), h)
	t.changed["host/"+h.GetName()] = true
}

func (t *tx) putLease(l *pb.Lease) {
	l.Version = t.index
	t.leases.set(l.GetName(), l)
	t.lents.set(l.GetName(), &demand.Lent{Lease: l})
	t.changed["lease/"+l.GetName()] = true
}

func (t *tx) putFailover(f *pb.Failover) {
	f.Version = t.index
	t.failovers.set(f.GetName(), f)
	t.changed["failover/"+f.GetName()] = true
}

// putObject stores an object; its generation moves when the effective spec differs from before (R8).
func (t *tx) putObject(o *pb.Object) {
	before := t.Object(o.GetId())
	o.Version = t.index
	if before == nil || !proto.Equal(model.Effective(before), model.Effective(o)) {
		o.Generation = t.index
	}
	t.objects.set(o.GetId(), o)
	t.byAgent.set(o.GetAgent()+"\x00"+o.GetId(), o)
	t.touchLease(o)
	t.changed["object/"+o.GetId()] = true
}

// touchLease gives the lease of an object that changes another address.
func (t *tx) touchLease(o *pb.Object) {
	if l := t.Lease(o.GetLease()); l != nil {
		t.lents.set(l.GetName(), &demand.Lent{Lease: l})
	}
}

// editObject stores a changed copy of an object that exists; otherwise it does nothing.
func (t *tx) editObject(id string, edit func(*pb.Object)) {
	if o := t.Object(id); o != nil {
		c := proto.CloneOf(o)
		edit(c)
		t.putObject(c)
	}
}

// reissue gives an object a new generation without changing its spec: the agent tries again at once.
func (t *tx) reissue(id string) {
	t.editObject(id, func(*pb.Object) {})
	if o := t.Object(id); o != nil {
		o.Generation = t.index // Safe: editObject stored a private copy just now.
	}
}

func (t *tx) dropObject(o *pb.Object) {
	t.objects.del(o.GetId())
	t.byAgent.del(o.GetAgent() + "\x00" + o.GetId())
	t.touchLease(o)
	t.changed["object/"+o.GetId()] = true
}

// record appends to the hash-chained log of decisions.
func (t *tx) record(e *pb.Evidence) {
	e.Sequence = t.meta.GetEvidenceSequence() + 1
	e.Time, e.Actor = t.stamp(), t.actor
	e.PreviousHash = t.meta.GetEvidenceHash()
	e.Hash = evidence.ChainHash(e.GetPreviousHash(), e)
	t.meta.EvidenceSequence, t.meta.EvidenceHash = e.GetSequence(), e.GetHash()
	t.evidence.set(sortable(e.GetSequence()), e)
}

// remember keeps the outcome of a request and forgets the oldest beyond the bounds.
func (t *tx) remember(id string, digest []byte, result string) {
	r := &pb.RememberedRequest{RequestId: id, Digest: digest, Result: result, Time: t.stamp(), Index: t.index}
	t.requests.set(id, r)
	t.requestAge.set(sortable(t.index), r)
	for {
		key, oldest, ok := t.requestAge.tree.Root().Minimum()
		if !ok || t.requests.len() <= maxRequests && t.now.Sub(oldest.GetTime().AsTime()) <= requestMemory {
			return
		}
		t.requestAge.del(string(key))
		t.requests.del(oldest.GetRequestId())
	}
}

func (t *tx) changedKeys() []string { return slices.Sorted(maps.Keys(t.changed)) }
