package state_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
	"github.com/hotspare/hotspare/internal/trust/evidence"
)

// TestCommandNumbersArePinned keeps old logs readable.
func TestCommandNumbersArePinned(t *testing.T) {
	pinned := map[string]int32{
		"place_run": 40, "record_client": 41, "lose_host": 42, "record_guarantee": 43, "start_lease": 44,
		"join_host": 10, "record_host": 11, "update_host": 12, "apply_resources": 13, "delete_resource": 14, "create_lease": 15,
		"extend_lease": 16, "end_lease": 17, "undelete_lease": 18, "delete_lease": 19, "declare": 20, "advance_run": 21, "swear": 22,
		"control": 23, "failback": 24, "arm": 25, "store_token": 26, "forget_objects": 27, "record_preimage": 28, "raise_level": 29,
		"set_authority": 30, "return_lease": 31, "record_points": 32, "record_confirmed": 33,
	}
	const rule = "the log of every site holds these numbers: never change or reuse one. A new command gets the next free number " +
		"here, a level above the present SupportedLevel, and is proposed only once RaiseLevel was applied (R6)"
	fields := (&pb.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if want := pinned[string(f.Name())]; int32(f.Number()) != want {
			t.Errorf("command %s has number %d, pinned is %d: %s", f.Name(), f.Number(), want, rule)
		}
		delete(pinned, string(f.Name()))
	}
	for name := range pinned { // Any order: each is an error of its own.
		t.Errorf("command %s is gone: %s", name, rule)
	}
}

func arm(trigger string, disarm bool) *pb.Command {
	return &pb.Command{Body: &pb.Command_Arm{Arm: &pb.ArmRequest{Trigger: trigger, Disarm: disarm}}}
}

// refused applies a command that must be refused and checks that only the index moved.
func refused(t *testing.T, w *fixture.World, c *pb.Command, want model.Fault) {
	t.Helper()
	before := w.State
	if err := w.Do("ann", c).Err; model.FaultOf(err) != want {
		t.Fatalf("%v: %v, want fault %s", c.GetBody(), err, want.Reason())
	}
	plain, _ := before.Apply(w.State.Index(), 1, &pb.Command{Level: state.SupportedLevel}) // No body: refused for certain.
	if !bytes.Equal(fixture.Bytes(t, w.State), fixture.Bytes(t, plain)) {
		t.Error("a refused command changed more than the index")
	}
}

func TestRefusedCommandChangesOnlyTheIndex(t *testing.T) {
	w := fixture.New(t)
	w.Strict = true
	lease := w.Lease(1, 1, 1<<30)
	w.Quiesce()
	w.Now = w.Now.Add(time.Hour) // A refused command must not move the time either.
	for name, c := range map[string]struct {
		cmd  *pb.Command
		want model.Fault
	}{
		"no body":      {&pb.Command{}, model.FaultUnsupported},
		"stale":        {&pb.Command{Expects: []*pb.Expect{{Key: "lease/" + lease, Version: 1}}, Body: arm("east-down", true).GetBody()}, model.FaultStale},
		"unknown":      {arm("nobody", true), model.FaultNotFound},
		"used plan":    {del("plan", "webshop"), model.FaultPrecondition},
		"used project": {del("project", "web"), model.FaultPrecondition},
		"used pool":    {del("pool", "west"), model.FaultPrecondition},
		"host in use":  {&pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "store1", Action: "remove"}}}, model.FaultPrecondition},
		"half of it bad": {&pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{
			Resources: []*pb.Resource{{Resource: &pb.Resource_Pool{Pool: &pb.Pool{Metadata: &pb.Metadata{Name: "new"}}}}},
			Objects:   []*pb.Object{{Id: "fence/east-bmc", Agent: "another"}},
		}}}, model.FaultPrecondition},
		"bad resource": {&pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: []*pb.Resource{{}}}}}, model.FaultInvalid},
		"wanted again": {&pb.Command{Body: &pb.Command_ForgetObjects{ForgetObjects: &pb.ForgetObjects{Objects: []*pb.ObjectVersion{
			{Object: "volume/webshop-db-root", Generation: w.State.Object("volume/webshop-db-root").GetGeneration()},
		}}}}, model.FaultStale},
	} {
		t.Run(name, func(t *testing.T) { refused(t, w, c.cmd, c.want) })
	}
}

func del(kind, name string) *pb.Command {
	return &pb.Command{Body: &pb.Command_DeleteResource{DeleteResource: &pb.DeleteResourceRequest{Kind: kind, Name: name}}}
}

func TestLevel(t *testing.T) {
	_, r := state.New().Apply(1, 1, &pb.Command{Level: 2, Body: &pb.Command_SetAuthority{SetAuthority: &pb.SetAuthority{Key: []byte("k")}}})
	if model.FaultOf(r.Err) != model.FaultUnsupported {
		t.Errorf("a command above the site's level: %v", r.Err)
	}
}

func TestRequestIDs(t *testing.T) {
	w := fixture.New(t)
	c := arm("east-down", true)
	c.RequestId = "r1"
	first := w.Do("ann", c)
	if first.Err != nil || len(first.Changed) == 0 {
		t.Fatalf("first try: %+v", first)
	}
	sequence := w.State.Meta().GetEvidenceSequence()
	again := w.Do("ann", c)
	if again.Err != nil || again.Name != first.Name || len(again.Changed) > 0 || w.State.Meta().GetEvidenceSequence() != sequence {
		t.Errorf("second try: %+v, want %q and no change", again, first.Name)
	}
	if r := w.Do("bob", c); model.FaultOf(r.Err) != model.FaultInvalid {
		t.Errorf("the id of somebody else's request: %v", r.Err)
	}
	other := del("trigger", "east-down")
	other.RequestId = "r1"
	if r := w.Do("ann", other); model.FaultOf(r.Err) != model.FaultInvalid {
		t.Errorf("the id of another kind of request: %v", r.Err)
	}
	bad := arm("nobody", true)
	bad.RequestId = "r2"
	if r := w.Do("ann", bad); r.Err == nil || w.State.Request("r2") != nil {
		t.Error("a refused request must not be remembered: its retry may succeed")
	}
	w.Now = w.Now.Add(25 * time.Hour)
	c = arm("east-down", false)
	c.RequestId = "r3"
	w.Must("ann", c)
	if w.State.Request("r1") != nil || w.State.Request("r3") == nil {
		t.Error("after a day the old request is forgotten and the new one kept")
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	w := fixture.New(t)
	at := w.State.Time()
	w.Now = w.Now.Add(-time.Hour)
	w.Must("ann", arm("east-down", true))
	if !w.State.Time().Equal(at) {
		t.Errorf("time went from %v to %v", at, w.State.Time())
	}
}

func TestGenerationFollowsTheEffectiveSpec(t *testing.T) {
	w := fixture.New(t)
	name := w.Lease(1, 1, 50<<30)
	w.Quiesce()
	f := w.Declare("webshop")
	if len(f.GetVictims()) != 0 {
		t.Fatalf("the free hosts should be taken first: %v", f.GetVictims())
	}
	id := w.State.Lease(name).GetInstances()[0].GetObject()
	preempted := proto.CloneOf(w.State.Object(id))
	generation := func(change string, moves bool, do func()) {
		t.Helper()
		before := w.State.Object(id).GetGeneration()
		do()
		if o := w.State.Object(id); (o.GetGeneration() != before) != moves {
			t.Errorf("%s: generation went from %d to %d", change, before, o.GetGeneration())
		} else if moves && o.GetGeneration() != w.State.Index() {
			t.Errorf("%s: generation %d is not the index %d", change, o.GetGeneration(), w.State.Index())
		}
	}
	extend := func() {
		w.Must("carol", &pb.Command{Body: &pb.Command_ExtendLease{ExtendLease: &pb.ExtendLeaseRequest{Name: name, By: durationpb.New(time.Hour)}}})
	}
	base := func(id string) *pb.Command {
		return &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Objects: []*pb.Object{
			{Id: id, Agent: preempted.GetAgent(), Base: w.State.Object(id).GetBase()},
		}}}}
	}
	generation("longer term", true, extend)
	generation("the same base again", false, func() { w.Must("ann", base(id)) })
	hold := &pb.Failover{
		Name: "fo-2", Epoch: 2, Run: pb.RunKind_RUN_KIND_FAILOVER, Victims: []*pb.Victim{{Lease: name, Object: id}},
		Steps: []*pb.Step{{Id: "reclaim", Object: id, Kind: pb.Kind_KIND_INSTANCE, Lease: name, Spec: &pb.Spec{State: pb.State_STATE_SAVED}}},
	}
	declare := func(f *pb.Failover) func() {
		return func() {
			w.Must("ann", &pb.Command{Body: &pb.Command_Declare{Declare: &pb.Declare{Failover: f, Release: []string{"reclaim"}}}})
		}
	}
	generation("override", true, declare(hold))
	generation("longer term under an override", false, extend)
	second := proto.CloneOf(hold)
	second.Name, second.Epoch = "fo-3", 3
	generation("a second equal override", false, declare(second))
	if by := w.State.Lease(name); by.GetPreemptions() != 1 || !slices.Equal(by.GetPreemptedBy(), []uint64{2, 3}) {
		t.Errorf("preempted %d times by %v", by.GetPreemptions(), by.GetPreemptedBy())
	}
	ends, since := w.State.Lease(name).GetEndsAt().AsTime(), w.State.Lease(name).GetPreemptedAt().AsTime()
	back := func(run string) func() {
		return func() {
			w.Must("ann", &pb.Command{Body: &pb.Command_Failback{Failback: &pb.Failback{Failover: run}}})
			w.Must("ann", &pb.Command{Body: &pb.Command_AdvanceRun{AdvanceRun: &pb.AdvanceRun{Failover: run, Changes: []*pb.StepChange{
				{Step: "reclaim", Phase: pb.StepPhase_STEP_PHASE_REVERTING},
			}}}})
		}
	}
	w.Now = w.Now.Add(3 * time.Hour)
	generation("the first override goes, the second stays", false, back("fo-2"))
	w.Now = w.Now.Add(2 * time.Hour)
	generation("the last override goes", true, back("fo-3"))
	l := w.State.Lease(name)
	if stood := w.Now.Sub(since); !l.GetEndsAt().AsTime().Equal(ends.Add(stood)) || l.GetPhase() != pb.LeasePhase_LEASE_PHASE_RETURNING {
		t.Errorf("lease is %v and ends at %v, want %v later than %v", l.GetPhase(), l.GetEndsAt().AsTime(), stood, ends)
	}
}

func TestTokens(t *testing.T) {
	w := fixture.Empty(t)
	store := func(hash string, valid time.Duration) {
		w.Must("ann", &pb.Command{Body: &pb.Command_StoreToken{StoreToken: &pb.StoreToken{
			TokenHash: []byte(hash), Host: "h1", ExpiresAt: timestamppb.New(w.Now.Add(valid)),
		}}})
	}
	join := func(host, hash string) error {
		return w.Do("x", &pb.Command{Body: &pb.Command_JoinHost{JoinHost: &pb.JoinHost{Host: host, TokenHash: []byte(hash)}}}).Err
	}
	store("a", time.Hour)
	store("b", time.Hour)
	for _, c := range []struct {
		why, host, hash string
		wait            time.Duration
		want            model.Fault
	}{
		{"unknown", "h1", "nothing", 0, model.FaultUnauthenticated},
		{"another host's", "h2", "a", 0, model.FaultDenied},
		{"good", "h1", "a", 0, 0},
		{"used", "h1", "a", 0, model.FaultUnauthenticated},
		{"expired", "h1", "b", 2 * time.Hour, model.FaultUnauthenticated},
	} {
		w.Now = w.Now.Add(c.wait)
		if err := join(c.host, c.hash); model.FaultOf(err) != c.want {
			t.Errorf("%s token: %v", c.why, err)
		}
	}
}

func TestReferrers(t *testing.T) {
	other := `
apiVersion: hotspare/v1
kind: Plan
metadata: {name: billing}
spec:
  fencing: [{oath: {}}]
  workloads:
  - {name: app, resources: {vcpus: 2, memory: 2GiB}, image: debian-12, dependsOn: [webshop/db]}
`
	w := fixture.New(t, other)
	w.Must("ann", del("trigger", "east-down"))
	wantRefusal := func(name string) {
		t.Helper()
		err := w.Do("ann", del("plan", "webshop")).Err
		if model.FaultOf(err) != model.FaultPrecondition || !strings.Contains(err.Error(), name) {
			t.Errorf("delete: %v, want a refusal that names %s", err, name)
		}
	}
	wantRefusal("plan/billing")
	w.Must("ann", del("plan", "billing"))
	l := &pb.Lease{Name: "web-9", Project: "web", Spec: &pb.LeaseSpec{CloneOf: "webshop/db"}}
	w.Must("ann", &pb.Command{Body: &pb.Command_CreateLease{CreateLease: &pb.CreateLease{Lease: l}}})
	wantRefusal("lease/web-9")
}

func TestEvidenceChainVerifies(t *testing.T) {
	w := fixture.New(t)
	f := w.Declare("webshop")
	w.Quiesce()
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	all := slices.Collect(w.State.Evidence(0))
	last, err := evidence.VerifyChain(all)
	if err != nil || !bytes.Equal(last, w.State.Meta().GetEvidenceHash()) || uint64(len(all)) != w.State.Meta().GetEvidenceSequence() {
		t.Errorf("chain of %d: %v", len(all), err)
	}
	for _, action := range []string{"join", "apply", "declare", "failback"} {
		if !slices.ContainsFunc(all, func(e *pb.Evidence) bool { return e.GetAction() == action }) {
			t.Errorf("no evidence of %q", action)
		}
	}
}

func TestSnapshotRefusesWhatItCannotTrust(t *testing.T) {
	w := fixture.New(t)
	w.Lease(2, 1, 1<<30)
	good := fixture.Bytes(t, w.State)
	if s, err := state.ReadSnapshot(bytes.NewReader(good)); err != nil || !bytes.Equal(good, fixture.Bytes(t, s)) {
		t.Fatalf("read back: %v", err)
	}
	for n := 0; n < len(good); n += max(1, len(good)/400) {
		if _, err := state.ReadSnapshot(bytes.NewReader(good[:n])); err == nil {
			t.Fatalf("truncated to %d of %d bytes and accepted", n, len(good))
		}
		bad := bytes.Clone(good)
		bad[n] ^= 0x10
		if _, err := state.ReadSnapshot(bytes.NewReader(bad)); err == nil {
			t.Fatalf("byte %d changed and accepted", n)
		}
	}
	if _, err := state.ReadSnapshot(bytes.NewReader(slices.Concat(good, good))); err == nil {
		t.Error("two snapshots in one file were accepted")
	}
	var future bytes.Buffer
	if _, err := protodelim.MarshalTo(&future, &pb.SnapshotHeader{Format: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := state.ReadSnapshot(&future); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("a snapshot of the future: %v", err)
	}
}

// What decodes may be refused but must not panic: that would stop every member at the same entry.
func TestObjectsWithoutTheirParameters(t *testing.T) {
	w := fixture.New(t)
	bare := func(id string, kind pb.Kind) *pb.Object { return &pb.Object{Id: id, Kind: kind, Agent: "h1"} }
	w.Must("ann", &pb.Command{Body: &pb.Command_CreateLease{CreateLease: &pb.CreateLease{
		Lease:   &pb.Lease{Name: "web-9", Project: "web", Instances: []*pb.LeaseInstance{{Object: "instance/bare", Host: "h1"}}},
		Objects: []*pb.Object{bare("instance/bare", pb.Kind_KIND_INSTANCE), bare("volume/bare", pb.Kind_KIND_VOLUME), bare("endpoint/bare", pb.Kind_KIND_ENDPOINT)},
	}}})
	w.Must("ann", &pb.Command{Body: &pb.Command_EndLease{EndLease: &pb.EndLease{Lease: "web-9"}}})
	refused(t, w, &pb.Command{Body: &pb.Command_RecordPreimage{RecordPreimage: &pb.RecordPreimage{
		Object: "endpoint/bare", Value: &pb.EndpointValue{Values: []string{"192.0.2.1"}},
	}}}, model.FaultNotFound)
	w.Must("ann", &pb.Command{Body: &pb.Command_Declare{Declare: &pb.Declare{Release: []string{"promote"}, Failover: &pb.Failover{
		Name: "fo-1", Epoch: 1, Steps: []*pb.Step{{Id: "promote", Object: "volume/bare", Kind: pb.Kind_KIND_VOLUME}},
	}}}})
	if err := w.Failback("fo-1"); err != nil {
		t.Fatal(err)
	}
	w.Must("ann", &pb.Command{Body: &pb.Command_AdvanceRun{AdvanceRun: &pb.AdvanceRun{Failover: "fo-1", Changes: []*pb.StepChange{
		{Step: "promote", Phase: pb.StepPhase_STEP_PHASE_REVERTING},
	}}}})
}
