package upkeep_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/upkeep"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func TestDeclaredObjectsComeAndGo(t *testing.T) {
	w := fixture.New(t)
	for id, state := range map[string]pb.State{ // Any order: each object by itself.
		"network/lent@h1": pb.State_STATE_PRESENT, "fence/east-bmc": pb.State_STATE_OPEN, "volume/webshop-web-1": pb.State_STATE_REPLICA,
		"endpoint/www.shop.example.A": pb.State_STATE_WITHDRAWN,
	} {
		if got := w.State.Object(id).GetBase().GetState(); got != state {
			t.Errorf("%s is wanted %v, want %v", id, got, state)
		}
	}
	if cmds := upkeep.Advance(w.State, w.View, w.Now); len(cmds) > 0 {
		t.Errorf("a settled site needs nothing: %v", cmds)
	}
	for _, key := range []string{"trigger/east-down", "plan/webshop", "fencetarget/east-bmc"} {
		kind, name, _ := strings.Cut(key, "/")
		w.Must("ann", &pb.Command{Body: &pb.Command_DeleteResource{DeleteResource: &pb.DeleteResourceRequest{Kind: kind, Name: name}}})
	}
	w.Quiesce()
	// Endpoints and fences have no state ABSENT: they are forgotten where nothing of them is left.
	for _, id := range []string{"fence/east-bmc", "volume/webshop-web-1", "endpoint/www.shop.example.A"} {
		if o := w.State.Object(id); o != nil {
			t.Errorf("%s is left, wanted %v", id, o.GetBase().GetState())
		}
	}
}

func TestAnotherJournalIsQuarantined(t *testing.T) {
	w := fixture.New(t)
	a := w.View.Agent("h1")
	a.JournalID = "new"
	w.View = w.View.WithAgent(a)
	w.Quiesce()
	h := w.State.Host("h1")
	if !h.GetQuarantined() || h.GetJournalId() != "journal-h1" {
		t.Fatalf("host %v", h)
	}
	w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "h1", Action: "readmit"}}})
	w.Quiesce()
	if h := w.State.Host("h1"); h.GetQuarantined() || h.GetJournalId() != "new" {
		t.Errorf("after the readmission: %v", h)
	}
}

// A cordon with an end ends by itself, once the leader knows what time it is.
func TestCordonsEnd(t *testing.T) {
	w := fixture.New(t)
	cordon := func(r *pb.UpdateHostRequest) error {
		r.Name, r.Action = "h1", "cordon"
		return w.Do("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: r}}).Err
	}
	for name, r := range map[string]*pb.UpdateHostRequest{
		"no end":      {UseTolerance: true, Reason: "ram"},
		"no reason":   {UseTolerance: true, Lasts: durationpb.New(time.Hour)},
		"ended":       {Lasts: durationpb.New(-time.Hour)},
		"for ever":    {Lasts: durationpb.New(1000 * time.Hour)},
		"out of time": {Lasts: &durationpb.Duration{Seconds: 1 << 62}},
	} {
		if err := cordon(r); model.FaultOf(err) != model.FaultInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := cordon(&pb.UpdateHostRequest{UseTolerance: true, Lasts: durationpb.New(2 * time.Hour), Reason: "ram"}); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	w.View = w.View.WithClock(live.Clock{Doubt: "it was not compared yet"})
	w.Wait(2 * time.Hour)
	if h := w.State.Host("h1"); !h.GetCordoned() || !h.GetUsesTolerance() {
		t.Errorf("ended while the clock is in doubt: %v", h)
	}
	w.View = w.View.WithClock(live.Clock{})
	w.Quiesce()
	if h := w.State.Host("h1"); h.GetCordoned() || h.GetUsesTolerance() || h.GetCordonedUntil() != nil {
		t.Errorf("after its time: %v", h)
	}
}

// An agent that was started again connects before it has asked its hypervisor.
func TestCapacityIsKeptUntilItIsMeasuredAnew(t *testing.T) {
	w := fixture.New(t)
	was := w.State.Host("h1").GetCapacity()
	a := w.View.Agent("h1")
	a.Capacity = nil
	w.View = w.View.WithAgent(a)
	w.Quiesce()
	if got := w.State.Host("h1").GetCapacity(); was.GetMemoryBytes() == 0 || !proto.Equal(got, was) {
		t.Errorf("capacity %v, was %v", got, was)
	}
}

func TestPreimageIsKeptBeforeOurChangeOnly(t *testing.T) {
	w := fixture.New(t)
	const id = "endpoint/www.shop.example.A"
	seen := func(values ...string) *pb.EndpointValue { return &pb.EndpointValue{Values: values} }
	observe := func(v *pb.EndpointValue) {
		w.Report(id, func(s *pb.Status) { s.Details = &pb.Status_Endpoint{Endpoint: &pb.EndpointStatus{Observed: v}} })
		w.Controllers()
	}
	observe(seen("192.0.2.1"))
	observe(seen("192.0.2.2"))
	preimage := func() *pb.EndpointValue { return w.State.Object(id).GetBase().GetEndpoint().GetPreimage() }
	if !proto.Equal(preimage(), seen("192.0.2.2")) {
		t.Errorf("pre-image %v", preimage())
	}
	w.Stuck["fence/east-bmc"] = true
	w.Declare("webshop")
	observe(seen("203.0.113.10"))
	if !proto.Equal(preimage(), seen("192.0.2.2")) {
		t.Errorf("the pre-image changed while a run is open: %v", preimage())
	}
}

// TestUsedUpSynchronisation: the source could not begin the second one before a promotion used it up.
func TestUsedUpSynchronisation(t *testing.T) {
	w := fixture.New(t)
	w.Join("east1", &pb.AgentOffer{ProtectedSite: true})
	w.ApplyManifests(strings.Replace(fixture.Example(t, "webshop.yaml"),
		"replica: webshop-db-root}", "replica: webshop-db-root, source: {agent: east1, domain: db, disk: vda}}", 1))
	w.Quiesce()
	const replica, source = "volume/webshop-db-root", "volume/webshop-db-root@source"
	w.Report(replica, func(s *pb.Status) {
		s.Details = &pb.Status_Volume{Volume: &pb.VolumeStatus{Resync: 1, DegradedSince: timestamppb.New(w.Now.Add(-time.Minute))}}
	})
	w.Report(source, func(s *pb.Status) {
		s.Phase = pb.Phase_PHASE_FAILED
		s.Details = &pb.Status_Volume{Volume: &pb.VolumeStatus{DegradedSince: timestamppb.New(w.Now.Add(-time.Hour)), WriterRunning: true}}
	})
	w.Controllers()
	if n := w.State.Object(source).GetBase().GetVolume().GetResync(); n != 2 {
		t.Errorf("synchronisation %d is asked for, want the one after that which was used up", n)
	}
}

func TestReplicationGoesOn(t *testing.T) {
	w := fixture.New(t)
	w.Join("east1", &pb.AgentOffer{ProtectedSite: true})
	w.ApplyManifests(strings.Replace(fixture.Example(t, "webshop.yaml"),
		"replica: webshop-db-root}", "replica: webshop-db-root, source: {agent: east1, domain: db, disk: vda}}", 1))
	w.Quiesce()
	const replica, source = "volume/webshop-db-root", "volume/webshop-db-root@source"
	report := func(v *pb.VolumeStatus) {
		w.Report(replica, func(s *pb.Status) {
			s.Details = &pb.Status_Volume{Volume: &pb.VolumeStatus{Resync: w.State.Object(replica).GetBase().GetVolume().GetResync()}}
		})
		w.Report(source, func(s *pb.Status) { s.Details = &pb.Status_Volume{Volume: v} })
		w.Controllers()
		w.Report(replica, nil)
	}
	spec := func(id string) *pb.VolumeSpec { return w.State.Object(id).GetBase().GetVolume() }
	if spec(source).GetResync() != 1 || spec(replica).GetConverged() != 0 {
		t.Fatalf("source %v, replica %v", spec(source), spec(replica))
	}
	report(&pb.VolumeStatus{InSync: true, Resync: 1})
	if spec(replica).GetConverged() != 1 {
		t.Errorf("in sync, and the replica is not said to have converged: %v", spec(replica))
	}
	w.Now = w.Now.Add(6 * time.Second)
	report(&pb.VolumeStatus{InSync: true, Resync: 1})
	if at := w.State.Object(replica).GetConfirmedPoint().AsTime(); !at.Equal(w.Now) {
		t.Errorf("confirmed until %v, now is %v", at, w.Now)
	}
	lost := w.Now
	w.Now = w.Now.Add(3 * time.Second)
	report(&pb.VolumeStatus{DegradedSince: timestamppb.New(lost), Resync: 1, WriterRunning: true})
	if spec(source).GetResync() != 1 {
		t.Error("a mirror that died just now is not started over and over")
	}
	w.Now = w.Now.Add(11 * time.Second)
	report(&pb.VolumeStatus{DegradedSince: timestamppb.New(lost), Resync: 1, WriterRunning: true})
	if spec(source).GetResync() != 2 || spec(replica).GetResync() != 2 || spec(replica).GetConverged() != 1 {
		t.Errorf("source %v, replica %v: want a second synchronisation above the first", spec(source), spec(replica))
	}
	if at := w.State.Object(replica).GetConfirmedPoint().AsTime(); !at.Equal(lost) {
		t.Errorf("confirmed until %v, want %v", at, lost)
	}
}

// What agents confirm is kept in one small entry for all, now and then; an older journal is quarantined.
func TestConfirmedOrdersAreKept(t *testing.T) {
	w := fixture.New(t)
	confirm := func(agent string, generation uint64) {
		a := w.View.Agent(agent)
		a.Confirmed = model.OrderKey{Era: 1, Generation: generation}
		w.View = w.View.WithAgent(a)
	}
	confirm("h1", 7)
	confirm("h2", 8)
	cmds := upkeep.Advance(w.State, w.View, w.Now)
	if len(cmds) != 1 || len(cmds[0].GetRecordConfirmed().GetAgents()) != 2 {
		t.Fatalf("commands %v, want one for both", cmds)
	}
	w.Controllers()
	confirm("h1", 9)
	if cmds := upkeep.Advance(w.State, w.View, w.Now.Add(time.Second)); len(cmds) > 0 {
		t.Errorf("a second after the last: %v", cmds)
	}
	confirm("h2", 3) // A new leader has not seen as much.
	w.Now = w.Now.Add(5 * time.Second)
	w.Controllers()
	if h1, h2 := w.State.Host("h1"), w.State.Host("h2"); h1.GetConfirmedGeneration() != 9 || h2.GetConfirmedGeneration() != 8 {
		t.Errorf("kept %d and %d, want 9 and 8", h1.GetConfirmedGeneration(), h2.GetConfirmedGeneration())
	}
	a := w.View.Agent("h1")
	a.Older, a.Held = true, "its journal is older"
	w.View = w.View.WithAgent(a)
	w.Quiesce()
	if !w.State.Host("h1").GetQuarantined() {
		t.Fatal("an older journal is not quarantined")
	}
	w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "h1", Action: "readmit"}}})
	if h := w.State.Host("h1"); h.GetQuarantined() || h.GetConfirmedGeneration() != 0 {
		t.Errorf("after the readmission: %v", h)
	}
}
