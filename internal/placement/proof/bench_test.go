package proof_test

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/placement/admission"
	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// The size of the table in the design: 10,000 hosts in 20 classes, 100,000 workloads, 80,000 lent instances.
const (
	benchHosts     = 10_000
	benchWorkloads = 100_000
	benchInstances = 80_000
)

const gib = 1 << 30

// largeSite is a synthetic site: hosts of classes that no other dominates in all four dimensions,
// workloads of a dozen sizes in groups of two or three replicas that keep apart.
func largeSite(hosts, workloads, instances int) *guarantee.Site {
	r := rand.New(rand.NewPCG(7, 7))
	s := &guarantee.Site{Dimensions: []string{guarantee.VCPUs, guarantee.Memory, "disk/local", "device/gpu"}}
	for i := range hosts {
		c := int64(i % 20)
		s.Hosts = append(s.Hosts, guarantee.Host{
			Name: fmt.Sprintf("h%05d", i), State: guarantee.Usable, FailureDomain: fmt.Sprintf("rack%d", i/40), Networks: []string{"prod", "lent"},
			Capacity: guarantee.Vector{(96 + 8*(c%5)) * guarantee.Milli, (512 - 32*(c%7)) * gib, (8 + c%3) * 1024 * gib, c % 4},
			Lending:  guarantee.Vector{0, 0, 4 * 1024 * gib, 0}, SaveBandwidth: 2 * gib,
		})
	}
	for i := 0; i < workloads; {
		size := int64(1 + r.IntN(4))
		ratio := int64([]int{2, 4, 8}[r.IntN(3)])
		replicas := 1 + r.IntN(3)
		plan := fmt.Sprintf("p%d", i/50)
		gpu := int64(0)
		if r.IntN(40) == 0 {
			gpu = 1
		}
		for n := range replicas {
			w := guarantee.Workload{
				Name: fmt.Sprintf("%s/w%d-%d", plan, i, n), Plan: plan, Networks: []string{"prod"},
				Demand: guarantee.Vector{2 * size * guarantee.Milli, 2 * size * ratio * gib, size * 50 * gib, gpu},
			}
			if replicas > 1 {
				w.Apart = []guarantee.Apart{{Group: fmt.Sprintf("%s/w%d", plan, i)}}
			}
			s.Workloads = append(s.Workloads, w)
		}
		i += replicas
	}
	for i := range instances {
		size := int64(1 + r.IntN(4))
		s.Preemptible = append(s.Preemptible, guarantee.Instance{
			Lease: fmt.Sprintf("l%d", i/2), Object: fmt.Sprintf("instance/l%d", i), Host: s.Hosts[i%hosts].Name,
			Demand: guarantee.Vector{size * guarantee.Milli, size * 4 * gib, size * 20 * gib, 0}, Residue: guarantee.Vector{0, 0, size * 24 * gib, 0},
			Cost: uint64(r.IntN(1000)), Reclaim: guarantee.Reclaim{SaveBytes: size * 4 * gib},
		})
	}
	return s
}

// BenchmarkProve is a full proof at the size of the design, audit included.
func BenchmarkProve(b *testing.B) {
	s := largeSite(benchHosts, benchWorkloads, 0)
	for b.Loop() {
		d := proof.Prove(s)
		if d.Answer != guarantee.Fits {
			b.Fatalf("%s: %s", d.Word(), d.Reason)
		}
		b.ReportMetric(float64(len(d.Certificate.Patterns)), "patterns")
	}
}

// BenchmarkAudit is the full linear check of a certificate.
func BenchmarkAudit(b *testing.B) {
	s := largeSite(benchHosts, benchWorkloads, 0)
	d := proof.Prove(s)
	for b.Loop() {
		if err := audit.Check(s, d.Certificate); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAdmit places one preemptible instance, choice among all hosts included, and reports the 99th percentile.
func BenchmarkAdmit(b *testing.B) {
	s := largeSite(benchHosts, benchWorkloads, benchInstances)
	l := admission.NewLender(s, proof.Prove(s))
	v := guarantee.Instance{
		Lease: "new", Object: "new", Demand: guarantee.Vector{2 * guarantee.Milli, 8 * gib, 40 * gib, 0}, Residue: guarantee.Vector{0, 0, 48 * gib, 0},
		Networks: []string{"lent"}, Reclaim: guarantee.Reclaim{SaveBytes: 8 * gib},
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		h := l.Choose(&v)
		if h < 0 {
			break // Full: the figures are of what was admitted.
		}
		v.Host = s.Hosts[h].Name
		l.Place(&v)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
	b.ReportMetric(float64(len(took)), "admitted")
}

// BenchmarkVictims is the failover of everything: places and victims.
func BenchmarkVictims(b *testing.B) {
	s := largeSite(benchHosts, benchWorkloads, benchInstances)
	d := proof.Prove(s)
	for b.Loop() {
		a := proof.Assign(s, d, s.Workloads)
		if len(a.Unplaced) > 0 {
			b.Fatalf("%d found no room", len(a.Unplaced))
		}
		b.ReportMetric(float64(len(a.Victims)), "victims")
	}
}

// BenchmarkMemory reports what the site and its certificate hold in memory.
func BenchmarkMemory(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := largeSite(benchHosts, benchWorkloads, benchInstances)
	d := proof.Prove(s)
	l := admission.NewLender(s, d)
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		runtime.KeepAlive(l)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
	runtime.KeepAlive(s)
}

// openb is where the production fleet lies beside the checkout; it is not part of the project.
const openb = "../../../../shared/data/openb/"

// openbSite reads the fleet: nodes are hosts, pods of the better classes workloads while a proof might
// hold, best-effort ones lent.
func openbSite(b *testing.B, times int) *guarantee.Site {
	s := &guarantee.Site{Dimensions: []string{guarantee.VCPUs, guarantee.Memory}}
	device := map[string]int{}
	for _, n := range readOpenb(b, "nodes.csv") {
		if model := n["model"]; model != "" && n["gpu"] != "0" && device[model] == 0 {
			device[model] = len(s.Dimensions)
			s.Dimensions = append(s.Dimensions, "device/"+model)
		}
	}
	for i := range times {
		for _, n := range readOpenb(b, "nodes.csv") {
			h := guarantee.Host{Name: fmt.Sprintf("%s-%d", n["sn"], i), State: guarantee.Usable, Capacity: make(guarantee.Vector, len(s.Dimensions))}
			h.Capacity[0], h.Capacity[1] = number(n["cpu_milli"]), number(n["memory_mib"])<<20
			if d := device[n["model"]]; d > 0 {
				h.Capacity[d] = number(n["gpu"])
			}
			s.Hosts = append(s.Hosts, h)
		}
		for _, p := range readOpenb(b, "pods.csv") {
			v := guarantee.Vector{number(p["cpu_milli"]), number(p["memory_mib"]) << 20}
			name := fmt.Sprintf("%s-%d", p["name"], i)
			if p["qos"] == "BE" {
				s.Preemptible = append(s.Preemptible, guarantee.Instance{Lease: name, Object: name, Demand: v, Cost: uint64(len(s.Preemptible) % 97)})
			} else if number(p["num_gpu"]) == 0 {
				s.Workloads = append(s.Workloads, guarantee.Workload{Name: "openb/" + name, Plan: "openb", Demand: v})
			}
		}
	}
	return s
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

func readOpenb(b *testing.B, name string) (out []map[string]string) {
	f, err := os.Open(openb + name)
	if err != nil {
		b.Skipf("the fleet is not beside the checkout: %v", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		b.Fatal(err)
	}
	for _, row := range rows[1:] {
		m := map[string]string{}
		for i, head := range rows[0] {
			m[head] = row[i]
		}
		out = append(out, m)
	}
	return out
}

// BenchmarkOpenb proves the production fleet with its own pods that need no GPU, and lends what it lends.
func BenchmarkOpenb(b *testing.B) {
	for _, times := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("x%d", times), func(b *testing.B) {
			s := openbSite(b, times)
			want := s.Preemptible
			s.Preemptible = nil
			var d guarantee.Decision
			for b.Loop() {
				d = proof.Prove(s)
			}
			if d.Answer != guarantee.Fits {
				b.Logf("%s: %s", d.Word(), d.Reason)
			}
			l := admission.NewLender(s, d)
			admitted := 0
			var took []time.Duration
			for _, v := range want {
				start := time.Now()
				if h := l.Choose(&v); h >= 0 {
					v.Host = s.Hosts[h].Name
					l.Place(&v)
					admitted++
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(len(s.Workloads)), "workloads")
			b.ReportMetric(float64(d.Proven), "losses")
			b.ReportMetric(float64(admitted), "lent")
			b.ReportMetric(float64(len(want)), "asked")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
		})
	}
}
