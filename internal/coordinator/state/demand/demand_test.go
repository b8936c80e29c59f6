package demand_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func apply(w *fixture.World, rs ...*pb.Resource) {
	w.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: rs}}})
}

// What manifests say of scenarios, labels and groups reaches the proof.
func TestSite(t *testing.T) {
	w := fixture.New(t)
	plan := w.State.Plan("webshop")
	host := fixture.Hosts()[0]
	apply(w,
		&pb.Resource{Resource: &pb.Resource_Host{Host: &pb.HostPolicy{
			Metadata: &pb.Metadata{Name: host, Labels: map[string]string{"gpu": "a100"}}, Spec: &pb.HostPolicySpec{FailureDomain: "rack1"},
		}}},
		&pb.Resource{Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{
			Metadata: &pb.Metadata{Name: "by-name"}, Spec: &pb.ScenarioSpec{Plans: []string{"webshop"}, Tolerate: &pb.Tolerate{Hosts: 1, FailureDomains: 1}},
		}}},
		&pb.Resource{Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{
			Metadata: &pb.Metadata{Name: "by-label"}, Spec: &pb.ScenarioSpec{Selector: map[string]string{"no": "such"}},
		}}},
		&pb.Resource{Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{
			Metadata: &pb.Metadata{Name: "everything"}, Spec: &pb.ScenarioSpec{Tolerate: &pb.Tolerate{Hosts: 2}},
		}}})
	plan.Spec.Workloads[0].Requires = map[string]string{"gpu": "a100"}
	plan.Spec.Workloads[0].AntiAffinity, plan.Spec.Workloads[0].Replicas = "failureDomain", 2
	plan.Spec.Workloads[0].Apart, plan.Spec.Workloads[0].Together = []string{"noisy"}, ""
	apply(w, &pb.Resource{Resource: &pb.Resource_Plan{Plan: plan}})
	s := demand.Site(w.State, w.View.Reachable)
	if want := []guarantee.Scenario{
		{Name: "by-label", Plans: []string{}},
		{Name: "by-name", Plans: []string{"webshop"}, Hosts: 1, FailureDomains: 1},
		{Name: "everything", Hosts: 2},
	}; !cmp.Equal(s.Scenarios, want) {
		t.Error(cmp.Diff(want, s.Scenarios))
	}
	if h := s.Hosts[0]; h.Name != host || h.FailureDomain != "rack1" || !cmp.Equal(h.Labels, []string{"gpu=a100"}) {
		t.Errorf("%+v", h)
	}
	first := s.Workloads[0]
	groups := []guarantee.Apart{{Group: "webshop/" + plan.GetSpec().GetWorkloads()[0].GetName(), Domain: true}, {Group: "noisy"}}
	if !cmp.Equal(first.Labels, []string{"gpu=a100"}) || !cmp.Equal(first.Apart, groups) || first.Demand[0]%guarantee.Milli != 0 {
		t.Errorf("%+v, want groups %v", first, groups)
	}
}

// The price of a victim counts from its last preemption: what was done before is saved, or lost already.
func TestPrice(t *testing.T) {
	w := fixture.New(t)
	name := w.Lease(3, 2, 60<<30)
	w.Quiesce()
	price := func() uint64 { return demand.Site(w.State, w.View.Reachable).Preemptible[0].Cost }
	w.Wait(2 * time.Hour)
	w.Must("ann", &pb.Command{Body: &pb.Command_StoreToken{StoreToken: &pb.StoreToken{TokenHash: []byte("t"), Host: "h1", ExpiresAt: timestamppb.New(w.Now)}}})
	if p := price(); p != 120 {
		t.Errorf("after two hours it costs %d minutes", p)
	}
	heavy := proto.CloneOf(w.State.Resource("project/web").GetProject())
	heavy.Spec.Weight = 3
	apply(w, &pb.Resource{Resource: &pb.Resource_Project{Project: heavy}})
	if p := price(); p != 360 {
		t.Errorf("of a project that weighs three times as much it costs %d minutes", p)
	}
	heavy.Spec.Weight = 0
	apply(w, &pb.Resource{Resource: &pb.Resource_Project{Project: heavy}})
	f := w.Declare("webshop")
	if len(f.GetVictims()) == 0 || f.GetVictims()[0].GetCost() != 120 {
		t.Fatalf("victims %v", f.GetVictims())
	}
	w.Quiesce()
	if err := w.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	if l := w.State.Lease(name); l.GetPreemptions() != 1 || price() > 61 {
		t.Errorf("back from %d preemptions it costs %d minutes", l.GetPreemptions(), price())
	}
}
