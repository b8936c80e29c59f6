package standing_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

const gib = 1 << 30

// queued are projects whose leases wait.
var queued = []string{"q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9"}

// large is a site of the size of the design's table, with everything in the state that a site of this size has there.
func large(tb testing.TB, hosts, workloads, instances int) *fixture.World {
	w := fixture.Empty(tb)
	w.ApplyManifests(fixture.Example(tb, "site.yaml"))
	apply := func(rs ...*pb.Resource) {
		w.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: rs}}})
	}
	image := ""
	for r := range w.State.Resources("image") {
		image = r.GetImage().GetMetadata().GetName()
	}
	for _, name := range append([]string{"large"}, queued...) {
		apply(&pb.Resource{Resource: &pb.Resource_Project{Project: &pb.Project{Metadata: &pb.Metadata{Name: name}, Spec: &pb.ProjectSpec{
			Quota: &pb.Quota{Vcpus: 10_000_000, MemoryBytes: 1 << 60, Instances: 1_000_000},
		}}}})
	}
	for i := range hosts {
		c := uint64(i % 20)
		name := fmt.Sprintf("h%05d", i)
		w.Join(name, &pb.AgentOffer{Hypervisor: true})
		w.Must("agent/"+name, &pb.Command{Body: &pb.Command_RecordHost{RecordHost: &pb.RecordHost{
			Host: name, Offer: &pb.AgentOffer{Hypervisor: true}, JournalId: "journal-" + name,
			Capacity: &pb.Capacity{Vcpus: uint32(96 + 8*(c%5)), MemoryBytes: (512 - 32*(c%7)) * gib, DiskBytes: (8 + c%3) * 1024 * gib, Devices: map[string]uint32{"gpu": uint32(c % 4)}, SaveBytesPerSecond: 2 * gib},
		}}})
	}
	r := rand.New(rand.NewPCG(7, 7))
	var plans []*pb.Resource
	for made := 0; made < workloads; {
		p := &pb.Plan{Metadata: &pb.Metadata{Name: fmt.Sprintf("p%05d", len(plans))}, Spec: &pb.PlanSpec{Fencing: []*pb.Fencing{{Oath: &pb.OathFencing{}}}, RtoTarget: durationpb.New(20 * time.Minute)}}
		for n := 0; n < 50 && made < workloads; {
			size, ratio, replicas := uint32(1+r.IntN(4)), []uint64{2, 4, 8}[r.IntN(3)], 1+r.IntN(3)
			wl := &pb.Workload{
				Name: fmt.Sprintf("w%d", n), Image: image, Replicas: uint32(replicas),
				Resources: &pb.Resources{Vcpus: 2 * size, MemoryBytes: 2 * uint64(size) * ratio * gib, LocalDiskBytes: uint64(size) * 50 * gib},
			}
			if replicas > 1 {
				wl.AntiAffinity = "host"
			}
			if r.IntN(40) == 0 {
				wl.Resources.Devices = map[string]uint32{"gpu": 1}
			}
			p.Spec.Workloads = append(p.Spec.Workloads, wl)
			n, made = n+replicas, made+replicas
		}
		plans = append(plans, &pb.Resource{Resource: &pb.Resource_Plan{Plan: p}})
	}
	apply(plans...)
	for i := range instances / 10 {
		name := fmt.Sprintf("large-%d", w.State.Meta().GetLeaseCounter()+1)
		l := &pb.Lease{Name: name, Project: "large", Owner: "carol", Class: pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE, Spec: &pb.LeaseSpec{
			Count: 10, Image: image, Resources: &pb.Resources{Vcpus: 2, MemoryBytes: 4 * gib}, Term: durationpb.New(8 * time.Hour), OnPreempt: pb.ReclaimAction_RECLAIM_ACTION_SAVE,
		}}
		var objects []*pb.Object
		for n := range 10 {
			host, id := fmt.Sprintf("h%05d", (10*i+n)%hosts), string(model.NewObjectID(pb.Kind_KIND_INSTANCE, fmt.Sprintf("%s-%d", name, n)))
			l.Instances = append(l.Instances, &pb.LeaseInstance{Object: id, Host: host})
			objects = append(objects, &pb.Object{Id: id, Kind: pb.Kind_KIND_INSTANCE, Agent: host, Lease: name, Base: &pb.Spec{
				State: pb.State_STATE_RUNNING, Parameters: &pb.Spec_Instance{Instance: &pb.InstanceSpec{Vcpus: 2, MemoryBytes: 4 * gib, Band: pb.Band_BAND_LENT}},
			}})
		}
		w.Must("carol", &pb.Command{Body: &pb.Command_CreateLease{CreateLease: &pb.CreateLease{Lease: l, Objects: objects}}})
	}
	for _, c := range new(standing.Keeper).Advance(w.State, w.View) {
		w.Must("controllers", c)
	}
	if word := w.State.Guarantee().GetWord(); word != "Proven(1)" {
		tb.Fatalf("the site is %s: %s", word, w.State.Guarantee().GetReason())
	}
	return w
}

// What the coordinator decides and applies at the size of the design's table, each time on a state that it has not
// seen before: one lease more than the last one.
func BenchmarkLarge(b *testing.B) {
	w := large(b, 10_000, 100_000, 80_000)
	decide := func() *pb.Command {
		body, expects, err := lease.Create(w.State, w.View, w.Now, &pb.CreateLeaseRequest{Project: "large", Spec: &pb.LeaseSpec{
			Count: 1, Image: "debian-12", Resources: &pb.Resources{Vcpus: 2, MemoryBytes: 4 * gib},
		}}, "carol")
		if err != nil {
			b.Fatal(err)
		}
		return &pb.Command{Expects: expects, Body: &pb.Command_CreateLease{CreateLease: body}}
	}
	b.Run("lease", func(b *testing.B) {
		for b.Loop() {
			c := decide()
			b.StopTimer()
			w.Must("carol", c)
			b.StartTimer()
		}
	})
	b.Run("declare", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			w.Must("carol", decide())
			b.StartTimer()
			if _, _, err := failover.Declare(w.State, w.View, &pb.DeclareRequest{Plans: []string{"p00007"}, Reason: "bench"}, "ann"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("record", func(b *testing.B) {
		silent := w.View.Agent("h00007")
		silent.Connected = false
		var kept standing.Keeper
		kept.Advance(w.State, w.View)
		commands := kept.Advance(w.State, w.View.WithAgent(silent))
		if len(commands) != 1 || commands[0].GetRecordGuarantee().GetChange() == nil {
			b.Fatal("nothing was repaired")
		}
		for b.Loop() {
			if _, res := w.State.Apply(w.State.Index()+1, 1, commands[0]); res.Err != nil {
				b.Fatal(res.Err)
			}
		}
		b.ReportMetric(float64(proto.Size(commands[0])), "entry-bytes")
		b.ReportMetric(float64(proto.Size(w.State.Guarantee())), "whole-bytes")
	})
	for i := range 1000 {
		w.Must("carol", &pb.Command{Body: &pb.Command_CreateLease{CreateLease: &pb.CreateLease{Queued: true, Lease: &pb.Lease{
			Name: fmt.Sprint("waits-", i), Project: queued[i%len(queued)], Owner: "carol", Class: pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE,
			Spec: &pb.LeaseSpec{Count: 1, Image: "debian-12", Resources: &pb.Resources{Vcpus: 2, MemoryBytes: 500 * gib}},
		}}}})
	}
	b.Run("dequeue", func(b *testing.B) {
		for b.Loop() {
			if c := lease.Dequeue(w.State, w.View, w.Now); c != nil {
				b.Fatal("one fits")
			}
		}
	})
}
