package model_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

func planResource(change func(*pb.PlanSpec)) *pb.Resource {
	spec := &pb.PlanSpec{
		RtoTarget: durationpb.New(time.Minute),
		Fencing:   []*pb.Fencing{{Power: &pb.PowerFencing{Target: "east-bmc"}, Timeout: durationpb.New(time.Second)}, {Oath: &pb.OathFencing{}}},
		Workloads: []*pb.Workload{
			{
				Name: "db", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30},
				Volumes: []*pb.WorkloadVolume{{Name: "root", Pool: "west", Replica: "db-root", Source: &pb.ReplicationSource{Agent: "e1", Domain: "db", Disk: "vda"}}},
				Nics:    []*pb.WorkloadNic{{Network: "prod", Mac: "52:54:00:aa:00:01", Address: "10.0.0.2/24", Gateway: "10.0.0.1"}},
				Healthy: &pb.WorkloadHealth{Tcp: "10.0.0.2:5432", Within: durationpb.New(time.Minute)},
			},
			{
				Name: "web", Replicas: 2, Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30}, AntiAffinity: "host", DependsOn: []string{"db", "billing/db"},
				Volumes: []*pb.WorkloadVolume{{Name: "root", Pool: "west", Replica: "web-{ordinal}"}},
				Nics:    []*pb.WorkloadNic{{Network: "prod", Addresses: []string{"10.0.0.3/24", "10.0.0.4/24"}}},
				Healthy: &pb.WorkloadHealth{Http: "http://{address}:8080/health"},
			},
		},
		Endpoints: []*pb.PlanEndpoint{{Dns: &pb.PlanDns{Zone: "shop.example.", Name: "www", Type: "A", Values: []string{"192.0.2.1"}, Ttl: durationpb.New(time.Minute), After: []string{"web"}}}},
	}
	change(spec)
	return &pb.Resource{Resource: &pb.Resource_Plan{Plan: &pb.Plan{Metadata: &pb.Metadata{Name: "shop"}, Spec: spec}}}
}

// TestPlanFaults breaks one thing of a good plan at a time.
func TestPlanFaults(t *testing.T) {
	if faults := model.ValidateResource(planResource(func(*pb.PlanSpec) {})); len(faults) > 0 {
		t.Fatalf("a good plan has faults: %v", faults)
	}
	for want, change := range map[string]func(*pb.PlanSpec){
		"spec.rtoTarget: must be longer than zero":                                            func(s *pb.PlanSpec) { s.RtoTarget = durationpb.New(0) },
		"spec.rpoTarget: must be longer than zero":                                            func(s *pb.PlanSpec) { s.RpoTarget = durationpb.New(-1) },
		"spec.fencing: a plan needs at least one way":                                         func(s *pb.PlanSpec) { s.Fencing = nil },
		"spec.fencing[0]: an oath waits for a person":                                         func(s *pb.PlanSpec) { slices.Reverse(s.Fencing) },
		"spec.fencing[1]: names no way":                                                       func(s *pb.PlanSpec) { s.Fencing[1].Oath = nil },
		"spec.fencing[1]: power and oath are two ways":                                        func(s *pb.PlanSpec) { s.Fencing[1].Power = &pb.PowerFencing{Target: "x"} },
		"spec.fencing[0].power.target: the fence target is missing":                           func(s *pb.PlanSpec) { s.Fencing[0].Power.Target = "" },
		"spec.workloads: a plan needs at least one workload":                                  func(s *pb.PlanSpec) { s.Workloads, s.Endpoints = nil, nil },
		"spec.workloads: 201 workloads, at most 200":                                          func(s *pb.PlanSpec) { s.Workloads = make([]*pb.Workload, 201) },
		"spec.workloads[1].name: workload \"db\" is declared twice":                           func(s *pb.PlanSpec) { s.Workloads[1].Name, s.Workloads[1].DependsOn, s.Endpoints = "db", nil, nil },
		"spec.workloads[0].name: \"web-1\" is also the name of a replica of workload \"web\"": func(s *pb.PlanSpec) { s.Workloads[0].Name = "web-1" },
		"spec.workloads[0].resources: is missing":                                             func(s *pb.PlanSpec) { s.Workloads[0].Resources = nil },
		"spec.workloads[0].resources.vcpus: is 289":                                           func(s *pb.PlanSpec) { s.Workloads[0].Resources.Vcpus = 289 },
		"spec.workloads[0].resources.localDisks.ssd: is 0B, want 1MiB to 64TiB": func(s *pb.PlanSpec) {
			s.Workloads[0].Resources.LocalDisksBytes = map[string]uint64{"ssd": 0}
		},
		"spec.workloads[0].resources.localDisks.local: is the host's own disk: write spec.workloads[0].resources.localDisk": func(s *pb.PlanSpec) {
			s.Workloads[0].Resources.LocalDisksBytes = map[string]uint64{"local": 1 << 30}
		},
		"spec.workloads[0].resources.localDisks.S: local pool \"S\" is not": func(s *pb.PlanSpec) {
			s.Workloads[0].Resources.LocalDisksBytes = map[string]uint64{"S": 1 << 30}
		},
		"spec.workloads[0].volumes[0].name: \"local-ssd\" is the name of the disk that resources.localDisks.ssd gives": func(s *pb.PlanSpec) {
			s.Workloads[0].Resources.LocalDisksBytes = map[string]uint64{"ssd": 1 << 30}
			s.Workloads[0].Volumes[0].Name = "local-ssd"
		},
		"spec.workloads[0].resources.memory: is 0B":             func(s *pb.PlanSpec) { s.Workloads[0].Resources.MemoryBytes = 0 },
		"spec.workloads[1].replicas: 101 replicas, at most 100": func(s *pb.PlanSpec) { s.Workloads[1].Replicas = 101 },
		"spec.workloads[0]: has neither a volume nor an image":  func(s *pb.PlanSpec) { s.Workloads[0].Volumes = nil },
		"spec.workloads[0].volumes[1].name: volume \"root\" is declared": func(s *pb.PlanSpec) {
			v := s.Workloads[0]
			v.Volumes = append(v.Volumes, &pb.WorkloadVolume{Name: "root", Pool: "p", Replica: "x"})
		},
		"spec.workloads[1].volumes[0].replica: replica web-{ordinal} is used":                    func(s *pb.PlanSpec) { s.Workloads[0].Volumes[0].Replica = "web-{ordinal}" },
		"spec.workloads[1].volumes[0].replica: 2 replicas would share":                           func(s *pb.PlanSpec) { s.Workloads[1].Volumes[0].Replica = "web" },
		"spec.workloads[0].volumes[0].replica: replica \"../x\" is not":                          func(s *pb.PlanSpec) { s.Workloads[0].Volumes[0].Replica = "../x" },
		"spec.workloads[0].volumes[0].source.agent: the agent is missing":                        func(s *pb.PlanSpec) { s.Workloads[0].Volumes[0].Source.Agent = "" },
		"spec.workloads[0].volumes[0].source.pool: pool \"East!\" is not a name":                 func(s *pb.PlanSpec) { s.Workloads[0].Volumes[0].Source.Pool = "East!" },
		"spec.workloads[1].nics[0].mac: 2 replicas cannot share":                                 func(s *pb.PlanSpec) { s.Workloads[1].Nics[0].Mac = "52:54:00:aa:00:02" },
		"spec.workloads[0].nics[0].mac: \"525400aa0001\" is not a MAC":                           func(s *pb.PlanSpec) { s.Workloads[0].Nics[0].Mac = "525400aa0001" },
		"spec.workloads[0].nics[0].mac: \"5:254:00:aa:00:01\" is not":                            func(s *pb.PlanSpec) { s.Workloads[0].Nics[0].Mac = "5:254:00:aa:00:01" },
		"spec.workloads[0].nics[0].address: \"10.0.0.2\" is not":                                 func(s *pb.PlanSpec) { s.Workloads[0].Nics[0].Address = "10.0.0.2" },
		"spec.workloads[0].nics[0].address: give address or addresses":                           func(s *pb.PlanSpec) { s.Workloads[0].Nics[0].Addresses = []string{"10.0.0.9/24"} },
		"spec.workloads[0].nics[0].gateway: 10.1.0.1 is not in 10.0.0.0/24":                      func(s *pb.PlanSpec) { s.Workloads[0].Nics[0].Gateway = "10.1.0.1" },
		"spec.workloads[1].nics[0].addresses: 1 addresses for 2":                                 func(s *pb.PlanSpec) { n := s.Workloads[1].Nics[0]; n.Addresses = n.Addresses[:1] },
		"spec.workloads[1].nics[0].addresses[1]: address 10.0.0.2/16 is":                         func(s *pb.PlanSpec) { s.Workloads[1].Nics[0].Addresses[1] = "10.0.0.2/16" },
		"spec.workloads[1].antiAffinity: is \"rack\", want host":                                 func(s *pb.PlanSpec) { s.Workloads[1].AntiAffinity = "rack" },
		"spec.workloads[0].healthy: needs http or tcp":                                           func(s *pb.PlanSpec) { s.Workloads[0].Healthy.Http = "http://x/" },
		"spec.workloads[0].healthy.tcp: \"10.0.0.2\" is not host:port":                           func(s *pb.PlanSpec) { s.Workloads[0].Healthy.Tcp = "10.0.0.2" },
		"spec.workloads[0].healthy.tcp: \"::1:5\" is not host:port":                              func(s *pb.PlanSpec) { s.Workloads[0].Healthy.Tcp = "::1:5" },
		"spec.workloads[1].healthy.http: \"ftp://{address}/\" is not":                            func(s *pb.PlanSpec) { s.Workloads[1].Healthy.Http = "ftp://{address}/" },
		"spec.workloads[1].healthy: 2 replicas need {address}":                                   func(s *pb.PlanSpec) { s.Workloads[1].Healthy.Http = "http://x/" },
		"spec.workloads[0].healthy: uses {address}, but":                                         func(s *pb.PlanSpec) { w := s.Workloads[0]; w.Healthy.Tcp, w.Nics[0].Address = "{address}:1", "" },
		"spec.workloads[0].healthy: cannot be probed without":                                    func(s *pb.PlanSpec) { s.Workloads[0].Nics = nil },
		"spec.workloads[1].dependsOn[0]: no workload \"dbb\" in this plan, did you mean \"db\"?": func(s *pb.PlanSpec) { s.Workloads[1].DependsOn[0] = "dbb" },
		"spec.workloads[1].dependsOn[1]: no workload \"x\" in this plan":                         func(s *pb.PlanSpec) { s.Workloads[1].DependsOn[1] = "shop/x" },
		"spec.workloads[1].dependsOn[1]: \"a/b/c\" is not a workload":                            func(s *pb.PlanSpec) { s.Workloads[1].DependsOn[1] = "a/b/c" },
		"spec.workloads[1].dependsOn[1]: \"db\" is listed twice":                                 func(s *pb.PlanSpec) { s.Workloads[1].DependsOn[1] = "db" },
		"spec.workloads[0].dependsOn: workloads wait for each other: db -> web -> db":            func(s *pb.PlanSpec) { s.Workloads[0].DependsOn = []string{"web"} },
		"spec.workloads[0].dependsOn: workloads wait for each other: db -> db":                   func(s *pb.PlanSpec) { s.Workloads[0].DependsOn = []string{"shop/db"} },
		"spec.endpoints[0]: names no endpoint":                                                   func(s *pb.PlanSpec) { s.Endpoints[0].Dns = nil },
		"spec.endpoints[1].dns: A www in shop.example. is declared twice":                        func(s *pb.PlanSpec) { s.Endpoints = append(s.Endpoints, s.Endpoints[0]) },
		"spec.endpoints[0].dns.after[0]: no workload \"wbe\"":                                    func(s *pb.PlanSpec) { s.Endpoints[0].Dns.After[0] = "wbe" },
		"spec.endpoints[0].dns.type: is \"MX\"":                                                  func(s *pb.PlanSpec) { s.Endpoints[0].Dns.Type = "MX" },
		"spec.endpoints[0].dns.values: needs at least one":                                       func(s *pb.PlanSpec) { s.Endpoints[0].Dns.Values = nil },
		"spec.endpoints[0].dns.values[0]: \"192.0.2.1\" is not an IPv6":                          func(s *pb.PlanSpec) { s.Endpoints[0].Dns.Type = "AAAA" },
		"spec.endpoints[0].dns.values[0]: a CNAME has one value":                                 func(s *pb.PlanSpec) { s.Endpoints[0].Dns.Type = "CNAME" },
		"spec.endpoints[0].dns.zone: \"shop.example\" is not a zone":                             func(s *pb.PlanSpec) { s.Endpoints[0].Dns.Zone = "shop.example" },
		"spec.endpoints[0].dns.name: \"w w\" is not a name":                                      func(s *pb.PlanSpec) { s.Endpoints[0].Dns.Name = "w w" },
		"spec.endpoints[0].dns.ttl: must be longer than zero":                                    func(s *pb.PlanSpec) { s.Endpoints[0].Dns.Ttl = durationpb.New(0) },
	} {
		t.Run(want, func(t *testing.T) { checkFault(t, planResource(change), want) })
	}
}

func checkFault(t *testing.T, r *pb.Resource, want string) {
	t.Helper()
	var got []string
	for _, f := range model.ValidateResource(r) {
		got = append(got, f.Path+": "+f.Message)
	}
	if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
		t.Errorf("no %q among %q", want, got)
	}
}

func TestSiteFaults(t *testing.T) {
	meta := &pb.Metadata{Name: "x"}
	project := func(s *pb.ProjectSpec) *pb.Resource {
		return &pb.Resource{Resource: &pb.Resource_Project{Project: &pb.Project{Metadata: meta, Spec: s}}}
	}
	network := func(s *pb.NetworkDecl) *pb.Resource {
		return &pb.Resource{Resource: &pb.Resource_Network{Network: &pb.Network{Metadata: meta, Spec: s}}}
	}
	trigger := func(s *pb.TriggerSpec) *pb.Resource {
		return &pb.Resource{Resource: &pb.Resource_Trigger{Trigger: &pb.Trigger{Metadata: meta, Spec: s}}}
	}
	image := func(s *pb.ImageSpec) *pb.Resource {
		return &pb.Resource{Resource: &pb.Resource_Image{Image: &pb.Image{Metadata: meta, Spec: s}}}
	}
	for want, r := range map[string]*pb.Resource{
		": the resource is empty":            {},
		"metadata.name: the name is missing": {Resource: &pb.Resource_Pool{Pool: &pb.Pool{}}},
		"spec.exportAddress: is missing":     {Resource: &pb.Resource_Pool{Pool: &pb.Pool{Metadata: meta}}},
		"spec.agent: the agent is missing":   {Resource: &pb.Resource_FenceTarget{FenceTarget: &pb.FenceTarget{Metadata: meta}}},
		"spec.reserveLocalDisks.local: is the host's own disk: write spec.reserveLocalDisk": {Resource: &pb.Resource_Host{Host: &pb.HostPolicy{
			Metadata: meta, Spec: &pb.HostPolicySpec{ReserveLocalDisksBytes: map[string]uint64{"local": 1}},
		}}},
		"spec.lending.localDisks: 9 names, at most 8": {Resource: &pb.Resource_Host{Host: &pb.HostPolicy{
			Metadata: meta, Spec: &pb.HostPolicySpec{Lending: &pb.Lending{LocalDisksBytes: map[string]uint64{
				"a": 0, "b": 0, "c": 0, "d": 0, "e": 0, "f": 0, "g": 0, "h": 0, "i": 0,
			}}},
		}}},
		"spec.overcommit: is 0.5":                       {Resource: &pb.Resource_Host{Host: &pb.HostPolicy{Metadata: meta, Spec: &pb.HostPolicySpec{Overcommit: 0.5}}}},
		"spec.tolerate.hosts: is 9, at most 8":          {Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{Metadata: meta, Spec: &pb.ScenarioSpec{Tolerate: &pb.Tolerate{Hosts: 9}}}}},
		"spec.tolerate.failureDomains: is 9, at most 8": {Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{Metadata: meta, Spec: &pb.ScenarioSpec{Tolerate: &pb.Tolerate{FailureDomains: 9}}}}},
		"spec.plans[1]: plan \"a\" is listed twice":     {Resource: &pb.Resource_Scenario{Scenario: &pb.Scenario{Metadata: meta, Spec: &pb.ScenarioSpec{Plans: []string{"a", "a"}}}}},
		"spec.role: is \"king\", want developer":        {Resource: &pb.Resource_RoleBinding{RoleBinding: &pb.RoleBinding{Metadata: meta, Spec: &pb.RoleBindingSpec{Role: "king"}}}},
		"spec.network: the network of the lent VMs":     project(&pb.ProjectSpec{}),
		"spec.members[1]: user \"ann\" is listed twice": project(&pb.ProjectSpec{Members: []string{"ann", "ann"}}),
		"spec.weight: is 1001, at most 1000":            project(&pb.ProjectSpec{Weight: 1001}),
		"spec.hosts[1]: ": {Resource: &pb.Resource_Pool{Pool: &pb.Pool{Metadata: meta, Spec: &pb.PoolSpec{
			Agent: "a", ExportAddress: "10.0.0.1:10809", Hosts: []string{"h1", "h1"},
		}}}},
		"spec.longestTerm: is 8784h, at most 8760h":       project(&pb.ProjectSpec{LongestTerm: durationpb.New(366 * 24 * time.Hour)}),
		"spec.longestGrace: is 11m, at most 10m":          project(&pb.ProjectSpec{LongestGrace: durationpb.New(11 * time.Minute)}),
		"spec.actions[0]: is \"kill\"":                    project(&pb.ProjectSpec{Actions: []string{"kill"}}),
		"spec.clones[0]: \"webshop\" is not plan/work":    project(&pb.ProjectSpec{Clones: []string{"webshop"}}),
		"spec.role: is missing":                           network(&pb.NetworkDecl{}),
		"spec.bridge: \"a-very-long-name\" is not":        network(&pb.NetworkDecl{Bridge: "a-very-long-name"}),
		"spec.uplink: a bubble has no uplink":             network(&pb.NetworkDecl{Role: pb.NetworkRole_NETWORK_ROLE_BUBBLE, Bridge: "b", Uplink: "eth0"}),
		"spec.subnet: is missing":                         network(&pb.NetworkDecl{Role: pb.NetworkRole_NETWORK_ROLE_LENT, Bridge: "b"}),
		"spec.subnet: \"10.0.0.1/24\" has bits":           network(&pb.NetworkDecl{Bridge: "b", Subnet: "10.0.0.1/24"}),
		"spec.gateway: 10.1.0.1 is not in 10.0.0.0/24":    network(&pb.NetworkDecl{Bridge: "b", Subnet: "10.0.0.0/24", Gateway: "10.1.0.1"}),
		"spec.probeAddresses[1]: address \"10.0.0.9/24\"": network(&pb.NetworkDecl{Bridge: "b", ProbeAddresses: []string{"10.0.0.9/24", "10.0.0.9/24"}}),
		"spec.plans: needs at least one plan":             trigger(&pb.TriggerSpec{}),
		"spec.tokenSha256: is not a SHA-256":              trigger(&pb.TriggerSpec{TokenSha256: "secret"}),
		"spec.holdDown: must not be negative":             trigger(&pb.TriggerSpec{HoldDown: durationpb.New(-1)}),
		"spec: an image has a kernel, a disk or both":     image(&pb.ImageSpec{}),
		"spec.kernel: is missing":                         image(&pb.ImageSpec{Disk: "/d", Cmdline: "quiet"}),
		"spec.disk: \"d\" is not an absolute path":        image(&pb.ImageSpec{Disk: "d"}),
	} {
		t.Run(want, func(t *testing.T) { checkFault(t, r, want) })
	}
}

func TestPlanCycleAcrossPlans(t *testing.T) {
	plan := func(name string, deps ...string) *pb.Plan {
		return &pb.Plan{Metadata: &pb.Metadata{Name: name}, Spec: &pb.PlanSpec{Workloads: []*pb.Workload{{Name: "w", DependsOn: deps}}}}
	}
	got := model.PlanCycle([]*pb.Plan{plan("c", "a/w"), plan("a", "b/w"), plan("b", "c/w"), plan("d", "a/w")})
	if strings.Join(got, " -> ") != "a/w -> b/w -> c/w -> a/w" {
		t.Errorf("got %v", got)
	}
	if got := model.PlanCycle([]*pb.Plan{plan("a", "b/w"), plan("b")}); got != nil {
		t.Errorf("got %v", got)
	}
}

// TestFindCycleFindsExactlyCycles compares with removing nodes that wait for nothing until none is left.
func TestFindCycleFindsExactlyCycles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		edges := map[string][]string{}
		for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
			edges[fmt.Sprint(i)] = rapid.SliceOfN(rapid.StringMatching("[0-9]"), 0, 3).Draw(t, "edges")
		}
		cycle := model.FindCycle(edges)
		if acyclic(edges) != (cycle == nil) {
			t.Fatalf("edges %v: got %v", edges, cycle)
		}
		for i := 1; i < len(cycle); i++ {
			if !slices.Contains(edges[cycle[i-1]], cycle[i]) {
				t.Fatalf("no edge from %s to %s in %v", cycle[i-1], cycle[i], edges)
			}
		}
		if cycle != nil && cycle[0] != cycle[len(cycle)-1] {
			t.Fatalf("%v does not end where it begins", cycle)
		}
	})
}

func acyclic(edges map[string][]string) bool {
	left := map[string][]string{}
	maps.Copy(left, edges)
	for removed := true; removed; {
		removed = false
		for n, to := range left {
			if !slices.ContainsFunc(to, func(x string) bool { return left[x] != nil || hasKey(left, x) }) {
				delete(left, n)
				removed = true
			}
		}
	}
	return len(left) == 0
}

func hasKey(m map[string][]string, k string) bool { _, ok := m[k]; return ok }

func TestQuantities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64().Draw(t, "bytes")
		if got, err := model.ParseBytes(model.FormatBytes(n)); err != nil || got != n {
			t.Fatalf("%d bytes became %s and %d, %v", n, model.FormatBytes(n), got, err)
		}
		d := time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "duration"))
		if got, err := model.ParseDuration(model.FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%d became %s and %d, %v", d, model.FormatDuration(d), got, err)
		}
	})
}

func TestQuantitiesAsTyped(t *testing.T) {
	for text, want := range map[string]uint64{"32GiB": 32 << 30, "0B": 0, "1KiB": 1 << 10, "16777215TiB": 16777215 << 40} {
		if got, err := model.ParseBytes(text); err != nil || got != want {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "32", "32GB", "GiB", "-1GiB", "1.5GiB", "16777216TiB", " 1GiB", "1 GiB"} {
		if got, err := model.ParseBytes(text); err == nil {
			t.Errorf("%q became %d", text, got)
		}
	}
	for text, want := range map[string]time.Duration{"3d": 72 * time.Hour, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, "0s": 0} {
		if got, err := model.ParseDuration(text); err != nil || got != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "3", "d", "-1d", "1d-2h", "1dd", "1.5d", "99999d", "65535d2562047h"} {
		if got, err := model.ParseDuration(text); err == nil {
			t.Errorf("%q became %v", text, got)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 96 << 30: "96 GiB", 1 << 63: "8388608 TiB"} {
		if got := model.ApproxBytes(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range model.Faults() {
		if f.Reason() == "" || seen[f.Reason()] || model.FaultOfReason(f.Reason()) != f {
			t.Errorf("fault %d has reason %q", f, f.Reason())
		}
		seen[f.Reason()] = true
	}
	if model.FaultOfReason("") != 0 || model.FaultOfReason("NONE") != 0 || model.Fault(0).Reason() != "" {
		t.Error("no reason is a fault")
	}
}

func TestResourceKinds(t *testing.T) {
	for word, want := range map[string]model.ResourceKind{"plans": "plan", "FenceTarget": "fencetarget", "HOSTS": "host"} {
		if got, ok := model.ParseResourceKind(word); !ok || got != want {
			t.Errorf("%s is %q, %v", word, got, ok)
		}
	}
	for _, word := range []string{"", "s", "lease"} {
		if got, ok := model.ParseResourceKind(word); ok {
			t.Errorf("%q is %q", word, got)
		}
	}
}
