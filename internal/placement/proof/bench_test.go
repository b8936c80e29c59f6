package proof_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
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

// BenchmarkScan reads every demand and every capacity of the same site once, from where they lie: no
// proof from scratch can read less.
func BenchmarkScan(b *testing.B) {
	s := largeSite(benchHosts, benchWorkloads, 0)
	var sum int64
	for b.Loop() {
		for i := range s.Hosts {
			for _, n := range s.Hosts[i].Capacity {
				sum += n
			}
		}
		for i := range s.Workloads {
			for _, n := range s.Workloads[i].Demand {
				sum -= n
			}
		}
	}
	if sum == 0 {
		b.Fatal("nothing was read")
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
	d := proof.Prove(s)
	l := admission.NewLender(s, d)
	v := guarantee.Instance{
		Lease: "new", Object: "new", Demand: guarantee.Vector{2 * guarantee.Milli, 8 * gib, 40 * gib, 0}, Residue: guarantee.Vector{0, 0, 48 * gib, 0},
		Networks: []string{"lent"}, Reclaim: guarantee.Reclaim{SaveBytes: 8 * gib},
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		h := l.Choose(&v)
		if h < 0 { // Full: the figures are of what is admitted.
			b.StopTimer()
			l = admission.NewLender(s, d)
			b.StartTimer()
			continue
		}
		v.Host = s.Hosts[h].Name
		l.Place(&v)
		took = append(took, time.Since(start))
	}
	b.ReportMetric(float64(len(took)), "admitted")
	reportTimes(b, took)
}

// reportTimes reports the distribution of single decisions.
func reportTimes(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
	b.ReportMetric(float64(took[len(took)-1].Nanoseconds()), "max-ns")
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
