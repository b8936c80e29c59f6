package runbook_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/runbook"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

var update = flag.Bool("update", false, "write the golden files anew")

func condition(c *pb.Condition) string {
	switch v := c.GetCondition().(type) {
	case *pb.Condition_StepDone:
		return "done(" + v.StepDone + ")"
	case *pb.Condition_StepFailed:
		return "failed(" + v.StepFailed + ")"
	case *pb.Condition_StepHealthy:
		return "healthy(" + v.StepHealthy + ")"
	case *pb.Condition_Oath:
		return "oath(" + v.Oath + ")"
	default:
		return "workload healthy(" + c.GetWorkloadHealthy() + ")"
	}
}

// render writes a graph as text, one step a paragraph.
func render(g runbook.Graph) string {
	var b strings.Builder
	for _, s := range g.Steps {
		fmt.Fprintf(&b, "%s: %s -> %s on %s within %s\n", s.GetId(), s.GetObject(), model.StateName(s.GetSpec().GetState()),
			s.GetAgent(), s.GetTimeout().AsDuration())
		for _, gate := range s.GetGates() {
			var any []string
			for _, c := range gate.GetAnyOf() {
				any = append(any, condition(c))
			}
			fmt.Fprintf(&b, "  gate %s\n", strings.Join(any, " or "))
		}
		for _, l := range s.GetSpec().GetAfter() {
			var states []string
			for _, st := range l.GetStates() {
				states = append(states, model.StateName(st))
			}
			fmt.Fprintf(&b, "  local %s is %s\n", l.GetObject(), strings.Join(states, " or "))
		}
		for _, a := range s.GetAfter() {
			fmt.Fprintf(&b, "  after %s\n", a)
		}
	}
	for _, o := range g.Objects {
		fmt.Fprintf(&b, "creates %s on %s, base %s\n", o.GetId(), o.GetAgent(), model.StateName(o.GetBase().GetState()))
	}
	fmt.Fprintf(&b, "released at once: %s\n", strings.Join(g.Release, ", "))
	return b.String()
}

// input compiles the example plan with a placement and victims of a settled site.
func input(w *fixture.World, plans []*pb.Plan, placed []*pb.Placement, victims []*pb.Victim) runbook.Input {
	return runbook.Input{
		Epoch: 1, Run: pb.RunKind_RUN_KIND_FAILOVER, Plans: plans, Placements: placed, Victims: victims,
		Resource: w.State.Resource, Object: w.State.Object, HostNames: fixture.Hosts(),
	}
}

func place(plan, workload, host string) *pb.Placement {
	return &pb.Placement{Plan: plan, Workload: workload, Host: host, Object: fmt.Sprintf("instance/%s-%s-e1", plan, workload)}
}

func TestGolden(t *testing.T) {
	w := fixture.New(t)
	lease := w.State.Lease(w.Lease(1, 2, 4<<30))
	victim := &pb.Victim{Lease: lease.GetName(), Object: lease.GetInstances()[0].GetObject(), Host: lease.GetInstances()[0].GetHost()}
	on := victim.GetHost()
	others := slices.DeleteFunc(fixture.Hosts(), func(h string) bool { return h == on })
	placed := []*pb.Placement{place("webshop", "db", on), place("webshop", "web-0", others[0]), place("webshop", "web-1", others[1])}
	g, err := runbook.Compile(input(w, []*pb.Plan{w.State.Plan("webshop")}, placed, []*pb.Victim{victim}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "webshop.txt", render(g))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("-want +got (if this is intended: go test ./internal/runbook -update)\n%s", d)
	}
}

func TestMissingThings(t *testing.T) {
	w := fixture.New(t)
	plan := w.State.Plan("webshop")
	placed := []*pb.Placement{place("webshop", "db", "h1")}
	for _, missing := range []string{"network/prod-10", "volume/webshop-db-root", "fence/east-bmc", "endpoint/www.shop.example.A"} {
		in := input(w, []*pb.Plan{plan}, placed, nil)
		in.Resource = func(key string) *pb.Resource {
			if key == missing {
				return nil
			}
			return w.State.Resource(key)
		}
		in.Object = func(id string) *pb.Object {
			if id == missing {
				return nil
			}
			return w.State.Object(id)
		}
		_, err := runbook.Compile(in)
		_, name, _ := strings.Cut(missing, "/")
		if model.FaultOf(err) != model.FaultNotFound || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}

// An endpoint that waits for nobody still waits for the fence: two announcers must never be.
func TestEndpointAlwaysWaits(t *testing.T) {
	w := fixture.New(t)
	plan := proto.CloneOf(w.State.Plan("webshop"))
	plan.Spec.Workloads[1].Optional = true
	g, err := runbook.Compile(input(w, []*pb.Plan{plan}, []*pb.Placement{place("webshop", "db", "h1")}, nil))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(g.Steps, func(s *pb.Step) bool { return s.GetKind() == pb.Kind_KIND_ENDPOINT })
	if gates := g.Steps[i].GetGates(); len(gates) != 1 || condition(gates[0].GetAnyOf()[0]) != "done(fence east-bmc)" {
		t.Errorf("optional workloads without room: the endpoint waits for %v", gates)
	}
	plan.Spec.Workloads[1].Optional = false
	g, err = runbook.Compile(input(w, []*pb.Plan{plan}, []*pb.Placement{place("webshop", "db", "h1")}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if gates := g.Steps[i].GetGates(); len(gates) != 2 || condition(gates[0].GetAnyOf()[0]) != "healthy(start webshop/web-0)" {
		t.Errorf("workloads without room: the endpoint waits for %v", gates)
	}
}

// TestAnyGraph checks what holds for every graph: no cycle, no gate on a step that is not there but for
// workloads without room, nothing released that has a gate, starts behind promotions, promotions behind
// the fence, and the input as it was.
func TestAnyGraph(t *testing.T) {
	w := fixture.New(t)
	var lent []*pb.Victim
	for range 4 {
		l := w.State.Lease(w.Lease(1, 1, 1<<30))
		lent = append(lent, &pb.Victim{Lease: l.GetName(), Object: l.GetInstances()[0].GetObject(), Host: l.GetInstances()[0].GetHost()})
	}
	rapid.Check(t, func(t *rapid.T) {
		plan := proto.CloneOf(w.State.Plan("webshop"))
		var placed []*pb.Placement
		unplaced := map[string]bool{}
		for _, wl := range plan.GetSpec().GetWorkloads() {
			wl.Replicas = uint32(rapid.IntRange(1, 2).Draw(t, "replicas"))
			wl.Optional = rapid.Bool().Draw(t, "optional")
			if rapid.Bool().Draw(t, "without health") {
				wl.Healthy = nil
			}
			if wl.GetName() == "db" || rapid.Bool().Draw(t, "without volume") {
				wl.Replicas = min(wl.GetReplicas(), 1)
				if wl.GetName() != "db" {
					wl.Volumes = nil
				}
			}
		}
		for _, r := range model.Replicas(plan) {
			if h := rapid.SampledFrom(append(fixture.Hosts(), "")).Draw(t, "host"); h != "" {
				placed = append(placed, place("webshop", r.Name, h))
			} else {
				unplaced["start webshop/"+r.Name] = true
			}
		}
		// Web replicas draw their volume by ordinal; a single one is called web and uses ordinal 0.
		in := input(w, []*pb.Plan{plan}, placed, lent[:rapid.IntRange(0, len(lent)).Draw(t, "victims")])
		before := proto.CloneOf(plan)
		g, err := runbook.Compile(in)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(before, plan) {
			t.Fatal("the plan was changed")
		}
		check(t, g, unplaced)
	})
}

func check(t *rapid.T, g runbook.Graph, unplaced map[string]bool) {
	steps := map[string]*pb.Step{}
	for _, s := range g.Steps {
		if steps[s.GetId()] != nil {
			t.Fatalf("two steps %q", s.GetId())
		}
		steps[s.GetId()] = s
	}
	for _, s := range g.Steps {
		if slices.Contains(g.Release, s.GetId()) != (len(s.GetGates()) == 0) {
			t.Fatalf("%q is released at once with gates %v", s.GetId(), s.GetGates())
		}
		for _, id := range below(s) {
			if steps[id] == nil && !unplaced[id] {
				t.Fatalf("%q waits for %q, which is not there", s.GetId(), id)
			}
		}
		if lasts := reach(t, steps, s.GetId(), nil); !strings.HasPrefix(s.GetId(), "reclaim") && !strings.HasPrefix(s.GetId(), "network") &&
			s.GetKind() != pb.Kind_KIND_FENCE && !lasts["fence east-bmc"] && !waitsForUnplaced(lasts, unplaced) {
			t.Fatalf("%q does not stand on the fence:\n%s", s.GetId(), render(g))
		}
	}
}

func waitsForUnplaced(reached, unplaced map[string]bool) bool {
	for id := range reached { // Any order: only whether one is there counts.
		if unplaced[id] {
			return true
		}
	}
	return false
}

func below(s *pb.Step) []string {
	out := slices.Clone(s.GetAfter())
	for _, g := range s.GetGates() {
		for _, c := range g.GetAnyOf() {
			if id := c.GetStepDone() + c.GetStepHealthy() + c.GetStepFailed(); id != "" {
				out = append(out, id)
			}
		}
	}
	return out
}

// reach lists everything that a step stands on; a cycle fails the test.
func reach(t *rapid.T, steps map[string]*pb.Step, id string, path []string) map[string]bool {
	if slices.Contains(path, id) {
		t.Fatalf("a cycle: %q", append(path, id))
	}
	out := map[string]bool{}
	if steps[id] == nil {
		return out
	}
	for _, b := range below(steps[id]) {
		out[b] = true
		for deeper := range reach(t, steps, b, append(slices.Clone(path), id)) { // Any order: a set.
			out[deeper] = true
		}
	}
	return out
}

// TestProbeAddressesGoToTheNetworksHosts deals a network's probe addresses out over the hosts that reach it.
func TestProbeAddressesGoToTheNetworksHosts(t *testing.T) {
	n := &pb.Network{Metadata: &pb.Metadata{Name: "lent"}, Spec: &pb.NetworkDecl{
		Hosts: []string{"h2", "h3"}, ProbeAddresses: []string{"10.20.0.202/24", "10.20.0.203/24"},
	}}
	for host, want := range map[string]string{"h1": "", "h2": "10.20.0.202/24", "h3": "10.20.0.203/24"} {
		o := runbook.NetworkObject(n, host, []string{"h1", "h2", "h3"})
		if got := o.GetBase().GetNetwork().GetProbeAddress(); got != want {
			t.Errorf("the probe address on %s is %q, want %q", host, got, want)
		}
	}
}
