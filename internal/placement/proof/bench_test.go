package proof_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

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
