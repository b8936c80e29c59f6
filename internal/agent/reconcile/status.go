package reconcile

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// status describes one object to the coordinator.
func (c *Core) status(o *object) *pb.Status {
	st := &pb.Status{
		Object: string(o.rec.Object), Era: o.rec.Era, Generation: o.rec.Order.GetGeneration(), BootId: c.bootID,
		State: o.obs.State, Phase: o.phase, Message: o.message, Attempts: o.rec.Attempts, Note: o.rec.Note,
		CallBegan: stamp(o.began), CallReturned: stamp(o.returned),
	}
	if o.rec.HookInDoubt {
		st.State = pb.State_STATE_UNSPECIFIED
	}
	switch o.rec.Object.Kind() {
	case pb.Kind_KIND_INSTANCE:
		inst := &pb.InstanceStatus{
			Health: o.health, HealthMessage: o.healthMessage, ColdBoot: o.rec.ColdBoot, Ready: o.rec.Reclaim.Ready,
		}
		if ms := o.rec.Reclaim.Until; ms != 0 {
			inst.GraceUntil = timestamppb.New(time.UnixMilli(ms))
		}
		st.Details = &pb.Status_Instance{Instance: inst}
	case pb.Kind_KIND_VOLUME:
		if o.obs.Volume != nil {
			st.Details = &pb.Status_Volume{Volume: o.obs.Volume}
		}
	case pb.Kind_KIND_NETWORK:
		if o.obs.Network != nil {
			st.Details = &pb.Status_Network{Network: o.obs.Network}
		}
	case pb.Kind_KIND_ENDPOINT:
		if o.obs.Endpoint != nil {
			st.Details = &pb.Status_Endpoint{Endpoint: o.obs.Endpoint}
		}
	case pb.Kind_KIND_FENCE:
		if o.obs.Fence != nil {
			st.Details = &pb.Status_Fence{Fence: o.obs.Fence}
		}
	default:
		// A hook has no details: its state says everything.
	}
	return st
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// Statuses returns the status of every object, in the order of their names: the full report that a
// session begins with.
func (c *Core) Statuses() []*pb.Status {
	out := make([]*pb.Status, 0, len(c.objects))
	for _, o := range c.sorted() {
		st := c.status(o)
		o.reported = st
		out = append(out, st)
	}
	return out
}

// Marks returns the highest numbers seen.
func (c *Core) Marks() Marks { return c.marks }

// Held returns the orders held, for the digest in Hello.
func (c *Core) Held() []model.OrderKey {
	out := make([]model.OrderKey, 0, len(c.objects))
	for _, o := range c.sorted() {
		if o.rec.Order != nil && !o.rec.Unnamed {
			out = append(out, o.rec.Key())
		}
	}
	return out
}

// Ledger returns what calls may have made outside of the agent and what was not yet seen gone.
func (c *Core) Ledger() []Artefact {
	out := make([]Artefact, 0, len(c.ledger))
	for _, id := range slices.Sorted(maps.Keys(c.objects)) {
		out = append(out, c.ledgerOf(id)...)
	}
	return out
}

// ledgerOf returns the entries of one object, oldest epoch first.
func (c *Core) ledgerOf(id model.ObjectID) []Artefact {
	var out []Artefact
	for k, a := range c.ledger {
		if k.Object == id {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Artefact) int { return int(int64(a.Epoch) - int64(b.Epoch)) })
	return out
}
