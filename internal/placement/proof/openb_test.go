package proof_test

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/placement/admission"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// openb is where the production fleet lies beside the checkout: it may be used for studies and not be
// copied into the project. HOTSPARE_OPENB names another folder.
const openb = "../../../../shared/data/openb"

// fleet is the trace in the words of the guarantee. Its pods are in the order in which they were made.
type fleet struct {
	nodes, pods []map[string]string
	// specs are the sets of GPU models that pods ask for. A host has a label for each that it is in.
	specs []string
}

func readFleet(b *testing.B) *fleet {
	f := &fleet{nodes: readOpenb(b, "nodes.csv"), pods: readOpenb(b, "pods-gpuspec33.csv")}
	slices.SortStableFunc(f.pods, func(x, y map[string]string) int {
		return cmp.Compare(number(x["creation_time"]), number(y["creation_time"]))
	})
	for _, p := range f.pods {
		if spec := p["gpu_spec"]; spec != "" && !slices.Contains(f.specs, spec) {
			f.specs = append(f.specs, spec)
		}
	}
	return f
}

// site is the fleet, so many times: nodes are hosts; pods of the better classes are workloads, and the
// best-effort ones ask to be lent. GPUs count in thousandths of all that a host has.
func (f *fleet) site(times int) (s *guarantee.Site, ask []guarantee.Instance) {
	s = &guarantee.Site{Dimensions: []string{guarantee.VCPUs, guarantee.Memory, "device/gpu"}}
	for i := range times {
		for _, n := range f.nodes {
			h := guarantee.Host{
				Name: fmt.Sprintf("%s-%d", n["sn"], i), State: guarantee.Usable,
				Capacity: guarantee.Vector{number(n["cpu_milli"]), number(n["memory_mib"]) << 20, 1000 * number(n["gpu"])},
			}
			for _, spec := range f.specs {
				if slices.Contains(strings.Split(spec, "|"), n["model"]) {
					h.Labels = append(h.Labels, "gpu="+spec)
				}
			}
			s.Hosts = append(s.Hosts, h)
		}
	}
	for _, p := range f.pods {
		for i := range times {
			v := guarantee.Vector{number(p["cpu_milli"]), number(p["memory_mib"]) << 20, number(p["num_gpu"]) * number(p["gpu_milli"])}
			name := fmt.Sprintf("%s-%d", p["name"], i)
			if p["qos"] == "BE" {
				ask = append(ask, guarantee.Instance{Lease: name, Object: name, Demand: v, Cost: uint64(len(ask) % 97)})
				continue
			}
			w := guarantee.Workload{Name: "openb/" + name, Plan: "openb", Demand: v}
			if p["gpu_spec"] != "" {
				w.Labels = []string{"gpu=" + p["gpu_spec"]}
			}
			s.Workloads = append(s.Workloads, w)
		}
	}
	return s, ask
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

func readOpenb(b *testing.B, name string) (out []map[string]string) {
	f, err := os.Open(filepath.Join(cmp.Or(os.Getenv("HOTSPARE_OPENB"), openb), name))
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

// total is what vectors need together in one dimension.
func total[T any](list []T, amount func(*T) int64) (sum int64) {
	for i := range list {
		sum += amount(&list[i])
	}
	return sum
}

// keepProven takes the workloads in their order, as many at a time as keep the site proven, and leaves
// out those with which it would not be: down to single pods of the trace, of which there are so many
// copies. It returns what was left out, with the answers.
func keepProven(s *guarantee.Site, times int) map[guarantee.Answer]int {
	all := s.Workloads
	s.Workloads = nil
	left := map[guarantee.Answer]int{}
	var add func(some []guarantee.Workload)
	add = func(some []guarantee.Workload) {
		kept := s.Workloads
		s.Workloads = slices.Concat(kept, some)
		d := proof.Prove(s)
		if d.Answer == guarantee.Fits {
			return
		}
		s.Workloads = kept
		if pods := len(some) / times; pods > 1 {
			add(some[:pods/2*times])
			add(some[pods/2*times:])
			return
		}
		left[d.Answer] += len(some)
	}
	add(all)
	return left
}

// BenchmarkOpenb proves the production fleet with its own pods and one host lost, as many of them, oldest
// first, as have a proof; then it lends what its best-effort pods ask for, and fails everything over.
func BenchmarkOpenb(b *testing.B) {
	for _, times := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("x%d", times), func(b *testing.B) {
			s, ask := readFleet(b).site(times)
			cpus := func(w *guarantee.Workload) int64 { return w.Demand[0] }
			demand := total(s.Workloads, cpus)
			left := keepProven(s, times)
			var d guarantee.Decision
			for b.Loop() {
				d = proof.Prove(s)
			}
			if d.Answer != guarantee.Fits {
				b.Fatalf("%s: %s", d.Word(), d.Reason)
			}
			b.ReportMetric(100*float64(total(s.Workloads, cpus))/float64(demand), "proven-percent")
			b.ReportMetric(float64(len(s.Workloads)), "workloads")
			b.ReportMetric(float64(left[guarantee.CannotFit]), "cannot-fit")
			b.ReportMetric(float64(left[guarantee.NotProven]), "not-proven")
			b.ReportMetric(float64(len(d.Certificate.Patterns)), "patterns")
			lendOpenb(b, s, d, ask)
			start := time.Now()
			a := proof.Assign(s, d, s.Workloads)
			b.ReportMetric(float64(time.Since(start).Milliseconds()), "failover-ms")
			b.ReportMetric(float64(len(a.Victims)), "victims")
			b.ReportMetric(float64(len(a.Unplaced)), "unplaced")
			cost := func(v *guarantee.Instance) int64 { return int64(v.Cost) + 1 }
			b.ReportMetric(float64(total(a.Victims, cost))/float64(max(exactCost(b, s, a), 1)), "victim-cost-ratio")
		})
	}
}

// lendOpenb admits what is asked for, one after the other.
func lendOpenb(b *testing.B, s *guarantee.Site, d guarantee.Decision, ask []guarantee.Instance) {
	l := admission.NewLender(s, d)
	var took []time.Duration
	for _, v := range ask {
		start := time.Now()
		h := l.Choose(&v)
		if h >= 0 {
			v.Host = s.Hosts[h].Name
			l.Place(&v)
		}
		took = append(took, time.Since(start))
		if h >= 0 {
			s.Preemptible = append(s.Preemptible, v)
		}
	}
	asked := func(v *guarantee.Instance) int64 { return v.Demand[0] }
	b.ReportMetric(100*float64(total(s.Preemptible, asked))/float64(total(ask, asked)), "lent-percent")
	b.ReportMetric(float64(total(s.Preemptible, asked))/guarantee.Milli, "lent-vcpus")
	reportTimes(b, took)
}

// exactCost is the least that victims can cost where an assignment has the workloads: of each host the cheapest leases,
// each of one VM, whose going makes room there.
func exactCost(b *testing.B, s *guarantee.Site, a proof.Assignment) (sum int64) {
	missing := make(map[string]guarantee.Vector, len(s.Hosts))
	for i := range s.Hosts {
		v := make(guarantee.Vector, len(s.Dimensions))
		for d := range v {
			v[d] = -s.Hosts[i].Capacity.At(d)
		}
		missing[s.Hosts[i].Name] = v
	}
	add := func(host string, demand guarantee.Vector) {
		for d := range missing[host] {
			missing[host][d] += demand.At(d)
		}
	}
	for i := range s.Workloads {
		add(a.Hosts[s.Workloads[i].Name], s.Workloads[i].Demand)
	}
	on := map[string][]guarantee.Instance{}
	for _, v := range s.Preemptible {
		add(v.Host, v.Demand)
		on[v.Host] = append(on[v.Host], v)
	}
	for host, leases := range on { // Any order: a sum.
		slices.SortFunc(leases, func(x, y guarantee.Instance) int { return cmp.Compare(x.Cost, y.Cost) })
		c := &cover{leases: leases, best: math.MaxInt64, looks: 10_000_000}
		if c.try(0, 0, missing[host]); c.looks < 0 {
			b.Fatalf("%s has too many leases for every set of them to be tried: %d", host, len(leases))
		}
		if c.best == math.MaxInt64 {
			b.Fatalf("%s has no room though every lease were taken", host)
		}
		sum += c.best
	}
	return sum
}

// cover looks for the cheapest leases that free what is missing on a host.
type cover struct {
	leases []guarantee.Instance
	best   int64
	looks  int
}

func (c *cover) try(from int, cost int64, missing guarantee.Vector) {
	if c.looks--; c.looks < 0 || cost >= c.best {
		return
	}
	if !slices.ContainsFunc(missing, func(n int64) bool { return n > 0 }) {
		c.best = cost
		return
	}
	for i := from; i < len(c.leases) && cost+int64(c.leases[i].Cost)+1 < c.best; i++ {
		rest := slices.Clone(missing)
		for d := range rest {
			rest[d] -= c.leases[i].Demand.At(d)
		}
		c.try(i+1, cost+int64(c.leases[i].Cost)+1, rest)
	}
}
