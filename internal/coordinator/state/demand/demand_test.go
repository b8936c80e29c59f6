package demand_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

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
