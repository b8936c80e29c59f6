// Package upkeep keeps the replicated state in step with what is declared and what agents report:
// hosts' resources, the base objects that plans and networks need, replication, and objects that are
// gone for good. Pure: state, live view and time in, commands out (R2). The coordinator's loop calls it.
//
// It never changes an override, and never touches an object of an open run.
package upkeep

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/runbook"
)

// Advance returns what is to be committed now.
func Advance(s *state.State, v live.View, now time.Time) []*pb.Command {
	var out []*pb.Command
	out = append(out, hosts(s, v)...)
	out = append(out, cordons(s, v, now)...)
	out = append(out, objects(s)...)
	out = append(out, forget(s, v)...)
	out = append(out, preimages(s, v)...)
	out = append(out, confirmed(s, v, now)...)
	return append(out, points(s, v, now)...)
}

// hosts records what agents report of themselves when it differs from what is known.
func hosts(s *state.State, v live.View) []*pb.Command {
	var out []*pb.Command
	for a := range v.Agents() {
		h := s.Host(a.Name)
		if h == nil || !a.Connected {
			continue
		}
		capacity := a.Capacity
		if capacity == nil {
			capacity = h.GetCapacity() // An agent that has just started has not measured yet.
		}
		rec := &pb.RecordHost{Host: a.Name, Capacity: capacity, Offer: a.Offer, JournalId: a.JournalID}
		switch {
		case h.GetQuarantined(), h.GetLostAt() != nil:
			continue
		case h.GetJournalId() != "" && h.GetJournalId() != a.JournalID:
			rec = &pb.RecordHost{Host: a.Name, Quarantine: true, Reason: "the agent showed another journal than the one known"}
		case a.Older:
			rec = &pb.RecordHost{Host: a.Name, Quarantine: true, Reason: "the agent's journal is older than what it confirmed before"}
		case h.GetJournalId() == a.JournalID && proto.Equal(h.GetCapacity(), capacity) && proto.Equal(h.GetOffer(), a.Offer):
			continue
		}
		out = append(out, &pb.Command{
			Body:    &pb.Command_RecordHost{RecordHost: rec},
			Expects: []*pb.Expect{{Key: "host-state/" + a.Name, Version: h.GetVersion()}},
		})
	}
	return out
}

// cordons ends those whose time is over.
func cordons(s *state.State, v live.View, now time.Time) []*pb.Command {
	var out []*pb.Command
	for h := range s.Hosts() {
		if until := h.GetCordonedUntil(); until != nil && v.Clock.Doubt == "" && !now.Before(until.AsTime()) {
			out = append(out, &pb.Command{
				Body:    &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: h.GetName(), Action: "uncordon", Reason: "its time is over"}},
				Expects: []*pb.Expect{{Key: "host-state/" + h.GetName(), Version: h.GetVersion()}},
			})
		}
	}
	return out
}

// confirmInterval is the shortest time between two entries that keep what agents confirmed: one small
// entry for all of them, whatever happens. Statuses are not replicated, so that a coordinator which begins
// to lead within this time of a confirmation does not know of it.
const confirmInterval = 5 * time.Second

// confirmed keeps what agents are known to have written down, so that an older journal is noticed after a
// change of the leader, too (R13).
func confirmed(s *state.State, v live.View, now time.Time) []*pb.Command {
	if now.Sub(s.Meta().GetConfirmedAt().AsTime()) < confirmInterval {
		return nil
	}
	rec := &pb.RecordConfirmed{}
	for a := range v.Agents() {
		h := s.Host(a.Name)
		kept := model.OrderKey{Era: h.GetConfirmedEra(), Generation: h.GetConfirmedGeneration()}
		if a.Held == "" && h.GetJournalId() != "" && h.GetJournalId() == a.JournalID && a.Confirmed.Compare(kept) > 0 {
			rec.Agents = append(rec.Agents, &pb.ConfirmedOrder{
				Host: a.Name, JournalId: a.JournalID, Era: a.Confirmed.Era, Generation: a.Confirmed.Generation,
			})
		}
	}
	if len(rec.GetAgents()) == 0 {
		return nil
	}
	return []*pb.Command{{Body: &pb.Command_RecordConfirmed{RecordConfirmed: rec}}}
}

// objects makes the base objects that are declared and do not exist yet, or exist with another base,
// and drops those whose declaration is gone.
func objects(s *state.State) []*pb.Command {
	want, busy := wanted(s), busy(s)
	cmd := &pb.ApplyResources{}
	for _, o := range want {
		old := s.Object(o.GetId())
		if old == nil || !busy[o.GetId()] && len(old.GetOverrides()) == 0 && old.GetAgent() == o.GetAgent() && !sameBase(old, o) {
			cmd.Objects = append(cmd.Objects, o)
		}
	}
	for o := range s.Objects() {
		ordinary := o.GetLease() == "" && o.GetMadeBy() == 0 && o.GetBase().GetState() != model.Rest(o.GetKind())
		if ordinary && !busy[o.GetId()] && len(o.GetOverrides()) == 0 && !has(want, o.GetId()) {
			cmd.Drop = append(cmd.Drop, o.GetId())
		}
	}
	if len(cmd.GetObjects())+len(cmd.GetDrop()) == 0 {
		return nil
	}
	return []*pb.Command{{
		Body:    &pb.Command_ApplyResources{ApplyResources: cmd},
		Expects: []*pb.Expect{{Key: "placement", Version: s.Meta().GetPlacementVersion()}},
	}}
}

func has(objects []*pb.Object, id string) bool {
	return slices.ContainsFunc(objects, func(o *pb.Object) bool { return o.GetId() == id })
}

// busy lists the objects of open runs: also those whose steps have not been released yet, so that an
// edit of the plan takes effect after the failback and not before the promotion.
func busy(s *state.State) map[string]bool {
	out := map[string]bool{}
	for f := range s.OpenFailovers() {
		for _, st := range f.GetSteps() {
			out[st.GetObject()] = true
		}
		for _, p := range f.GetWaiting() { // What has no step yet gets one when there is room.
			for _, r := range model.Replicas(p) {
				for _, vol := range r.Workload.GetVolumes() {
					out[string(model.NewObjectID(pb.Kind_KIND_VOLUME, r.VolumeName(vol)))] = true
				}
			}
		}
	}
	return out
}

// sameBase compares what is declared; what upkeep itself keeps in the base (the pre-image, the
// progress of replication) was carried over by wanted.
func sameBase(old, want *pb.Object) bool { return proto.Equal(old.GetBase(), want.GetBase()) }

// wanted lists the base objects that follow from the declared resources, in a fixed order.
func wanted(s *state.State) []*pb.Object {
	var out []*pb.Object
	add := func(o *pb.Object) {
		if o != nil && o.GetAgent() != "" && s.Host(o.GetAgent()) != nil &&
			!slices.ContainsFunc(out, func(x *pb.Object) bool { return x.GetId() == o.GetId() }) {
			out = append(out, o)
		}
	}
	// The same hosts as a failover's, so that both deal the same probe address to a host.
	var hostNames []string
	for h := range s.Hosts() {
		if h.GetOffer().GetHypervisor() && !h.GetOffer().GetProtectedSite() {
			hostNames = append(hostNames, h.GetName())
		}
	}
	for r := range s.Resources("network") {
		for _, o := range lentNetworks(s, r.GetNetwork(), hostNames) {
			add(o)
		}
	}
	for r := range s.Resources("fencetarget") {
		add(fence(r.GetFenceTarget()))
	}
	for p := range s.Plans() {
		for _, o := range volumes(s, p) {
			add(o)
		}
		for _, e := range p.GetSpec().GetEndpoints() {
			add(endpoint(s, p, e.GetDns()))
		}
	}
	return out
}

func lentNetworks(s *state.State, n *pb.Network, hostNames []string) []*pb.Object {
	if n.GetSpec().GetRole() != pb.NetworkRole_NETWORK_ROLE_LENT {
		return nil // Production networks are made by a failover.
	}
	var out []*pb.Object
	for h := range s.Hosts() {
		only := n.GetSpec().GetHosts()
		if !h.GetOffer().GetHypervisor() || h.GetOffer().GetProtectedSite() || h.GetLostAt() != nil || len(only) > 0 && !slices.Contains(only, h.GetName()) {
			continue
		}
		o := runbook.NetworkObject(n, h.GetName(), hostNames)
		o.Base.State = pb.State_STATE_PRESENT
		out = append(out, o)
	}
	return out
}

func fence(t *pb.FenceTarget) *pb.Object {
	return &pb.Object{
		Id: string(model.NewObjectID(pb.Kind_KIND_FENCE, t.GetMetadata().GetName())), Kind: pb.Kind_KIND_FENCE, Agent: t.GetSpec().GetAgent(),
		Base: &pb.Spec{State: pb.State_STATE_OPEN, Parameters: &pb.Spec_Fence{Fence: &pb.FenceSpec{
			Target: t.GetMetadata().GetName(), Method: pb.FenceMethod_FENCE_METHOD_POWER,
		}}},
	}
}

func endpoint(s *state.State, p *pb.Plan, d *pb.PlanDns) *pb.Object {
	if d == nil {
		return nil
	}
	id := string(runbook.EndpointObjectID(d))
	spec := runbook.EndpointSpec(d)
	spec.Preimage = s.Object(id).GetBase().GetEndpoint().GetPreimage()
	return &pb.Object{
		Id: id, Kind: pb.Kind_KIND_ENDPOINT, Agent: zoneAgent(s, d.GetZone()), Plan: p.GetMetadata().GetName(),
		Base: &pb.Spec{State: pb.State_STATE_WITHDRAWN, Parameters: &pb.Spec_Endpoint{Endpoint: spec}},
	}
}

// zoneAgent returns the first agent by name that offers a DNS zone.
func zoneAgent(s *state.State, zone string) string {
	for h := range s.Hosts() {
		if slices.Contains(h.GetOffer().GetZones(), zone) {
			return h.GetName()
		}
	}
	return ""
}

func volumes(s *state.State, p *pb.Plan) []*pb.Object {
	var out []*pb.Object
	for _, r := range model.Replicas(p) {
		for _, v := range r.Workload.GetVolumes() {
			pool := s.Resource("pool/" + v.GetPool()).GetPool().GetSpec()
			name := r.VolumeName(v)
			replica := volumeObject(s, name, pool.GetAgent(), pb.State_STATE_REPLICA, &pb.VolumeSpec{
				Pool: v.GetPool(), Name: name, SizeBytes: v.GetSizeBytes(),
			}, r)
			out = append(out, replica)
			if src := v.GetSource(); src != nil {
				out = append(out, volumeObject(s, runbook.SourceName(name), src.GetAgent(), pb.State_STATE_PRIMARY, &pb.VolumeSpec{
					Pool: v.GetPool(), Name: name, SizeBytes: v.GetSizeBytes(), Domain: src.GetDomain(), Disk: src.GetDisk(),
					MirrorTo: "nbd://" + pool.GetExportAddress() + "/" + name,
				}, r))
			}
		}
	}
	return out
}

// volumeObject carries the progress of replication over from the object that exists.
func volumeObject(s *state.State, name, agent string, st pb.State, spec *pb.VolumeSpec, r model.Replica) *pb.Object {
	id := string(model.NewObjectID(pb.Kind_KIND_VOLUME, name))
	old := s.Object(id).GetBase().GetVolume()
	spec.Resync, spec.Converged, spec.DropPromoted = max(old.GetResync(), 1), old.GetConverged(), old.GetDropPromoted()
	return &pb.Object{
		Id: id, Kind: pb.Kind_KIND_VOLUME, Agent: agent, Plan: r.Plan, Workload: r.Name,
		Base: &pb.Spec{State: st, Parameters: &pb.Spec_Volume{Volume: spec}},
	}
}

// maxForget bounds one command; the rest follows at once.
const maxForget = 500

// forget removes objects of which nothing is wanted any more, and nothing was seen to be left in their
// newest generation.
func forget(s *state.State, v live.View) []*pb.Command {
	cmd, want, busy := &pb.ForgetObjects{}, wanted(s), busy(s)
	for o := range s.Objects() {
		gone := len(o.GetOverrides()) == 0 && o.GetBase().GetState() == model.Rest(o.GetKind()) && v.Settled(o)
		if o.GetMadeBy() == 0 {
			gone = gone && !busy[o.GetId()] && !has(want, o.GetId())
		}
		if gone && !awaited(s, o) && len(cmd.GetObjects()) < maxForget {
			cmd.Objects = append(cmd.Objects, &pb.ObjectVersion{Object: o.GetId(), Generation: o.GetGeneration()})
		}
	}
	if len(cmd.GetObjects()) == 0 {
		return nil
	}
	return []*pb.Command{{
		Body:    &pb.Command_ForgetObjects{ForgetObjects: cmd},
		Expects: []*pb.Expect{{Key: "placement", Version: s.Meta().GetPlacementVersion()}},
	}}
}

// awaited says whether a run that made the object may still order it to be.
func awaited(s *state.State, o *pb.Object) bool {
	if o.GetMadeBy() == 0 {
		return false
	}
	f := s.Failover(state.FailoverName(o.GetMadeBy()))
	return f != nil && model.Open(f.GetPhase()) && !model.Reverting(f.GetPhase())
}

// preimages records what endpoints were before our first change.
func preimages(s *state.State, v live.View) []*pb.Command {
	var out []*pb.Command
	busy := busy(s)
	for o := range s.Objects() {
		if o.GetKind() != pb.Kind_KIND_ENDPOINT || busy[o.GetId()] || len(o.GetOverrides()) > 0 {
			continue
		}
		seen := v.Current(o).GetEndpoint().GetObserved()
		if seen == nil || !v.Settled(o) || proto.Equal(seen, o.GetBase().GetEndpoint().GetPreimage()) {
			continue
		}
		out = append(out, &pb.Command{
			Body:    &pb.Command_RecordPreimage{RecordPreimage: &pb.RecordPreimage{Object: o.GetId(), Value: seen}},
			Expects: []*pb.Expect{{Key: "object/" + o.GetId(), Version: o.GetVersion()}},
		})
	}
	return out
}

const (
	// pointInterval is how often the confirmed time of a volume is committed: the loss that a
	// declaration states is never more than this above what it really is.
	pointInterval = 5 * time.Second
	// resyncPause keeps a mirror that dies at once from being started over and over.
	resyncPause = 5 * time.Second
)

// points carries on replication, and keeps which file a source is: a source that says "in sync" makes its replica's layer consistent
// and moves its confirmed time; a source whose mirror died gets a new synchronisation.
func points(s *state.State, v live.View, now time.Time) []*pb.Command {
	var out []*pb.Command
	rec, busy := &pb.RecordPoints{}, busy(s)
	for o := range s.Objects() {
		if path := v.Current(o).GetVolume().GetDiskPath(); path != "" && path != o.GetDiskPath() {
			rec.Points = append(rec.Points, &pb.ObjectPoint{Object: o.GetId(), DiskPath: path})
		}
		replica := replicaOf(s, o)
		if replica == nil || busy[replica.GetId()] || !v.Agent(o.GetAgent()).Connected {
			continue
		}
		cmd, confirmed := replicate(v, o, replica, now)
		if cmd != nil {
			out = append(out, cmd)
		}
		if confirmed && v.Clock.Doubt == "" { // What a promotion would lose must not be told by a wrong clock.
			rec.Points = append(rec.Points, &pb.ObjectPoint{Object: replica.GetId(), Time: timestamppb.New(now)})
		}
	}
	if len(rec.GetPoints()) > 0 {
		out = append(out, &pb.Command{Body: &pb.Command_RecordPoints{RecordPoints: rec}})
	}
	return out
}

// replicaOf returns the volume that o replicates to, or nil when o is no source of a replication or
// a run overrides one of the two.
func replicaOf(s *state.State, o *pb.Object) *pb.Object {
	spec := o.GetBase().GetVolume()
	if spec.GetMirrorTo() == "" || len(o.GetOverrides()) > 0 {
		return nil
	}
	replica := s.Object(string(model.NewObjectID(pb.Kind_KIND_VOLUME, spec.GetName())))
	if len(replica.GetOverrides()) > 0 {
		return nil
	}
	return replica
}

// replicate returns what changes the synchronisation of one replication, or else whether its
// confirmed time is due to be moved to now.
func replicate(v live.View, o, replica *pb.Object, now time.Time) (cmd *pb.Command, confirmed bool) {
	spec, status, received := o.GetBase().GetVolume(), v.Current(o).GetVolume(), v.Current(replica).GetVolume()
	if status == nil {
		return nil, false
	}
	switch {
	case received.GetResync() != spec.GetResync() || !v.Settled(replica):
		return nil, false // The replica has not followed yet.
	case status.GetWriterRunning() && (broken(received, now) || broken(status, now) && status.GetResync() == spec.GetResync()):
		// A number that a promotion used up before its mirror began is never written under: the source
		// cannot follow it, and only the replica knows.
		return step(o, replica, spec.GetResync()+1, replica.GetBase().GetVolume().GetConverged()), false
	case status.GetResync() != spec.GetResync() || !status.GetInSync() || received.GetDegradedSince() != nil:
		return nil, false
	case replica.GetBase().GetVolume().GetConverged() < spec.GetResync():
		return step(o, replica, spec.GetResync(), spec.GetResync()), false
	default:
		return nil, now.Sub(replica.GetConfirmedPoint().AsTime()) > pointInterval
	}
}

// broken says that a side's mirror has ended for long enough to begin anew.
func broken(v *pb.VolumeStatus, now time.Time) bool {
	return v.GetDegradedSince() != nil && !v.GetMirroring() && now.Sub(v.GetDegradedSince().AsTime()) > resyncPause
}

// step changes the synchronisation of both sides in one entry.
func step(source, replica *pb.Object, resync, converged uint64) *pb.Command {
	cmd := &pb.ApplyResources{}
	for _, o := range []*pb.Object{source, replica} {
		c := proto.CloneOf(o)
		c.GetBase().GetVolume().Resync = resync
		c.GetBase().GetVolume().Converged = converged
		cmd.Objects = append(cmd.Objects, c)
	}
	return &pb.Command{
		Body: &pb.Command_ApplyResources{ApplyResources: cmd},
		Expects: []*pb.Expect{
			{Key: "object/" + source.GetId(), Version: source.GetVersion()}, {Key: "object/" + replica.GetId(), Version: replica.GetVersion()},
		},
	}
}

// Describe says in one line what a volume's replication does, for status and readiness.
func Describe(v *pb.VolumeStatus) string {
	switch {
	case v.GetDegradedSince() != nil && !v.GetMirroring():
		return fmt.Sprintf("replication degraded since %s: %s", v.GetDegradedSince().AsTime().Format(time.TimeOnly), v.GetDegradedReason())
	case v.GetInSync():
		return "in sync"
	default:
		return fmt.Sprintf("synchronising, %d %%", v.GetSyncPercent())
	}
}
