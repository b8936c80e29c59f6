package victim_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/placement/victim"
)

func draw(seed uint64) ([]victim.Lease, []victim.Need) {
	r := rand.New(rand.NewPCG(seed, 5))
	hosts := 1 + r.IntN(4)
	var leases []victim.Lease
	for i := range r.IntN(11) {
		l := victim.Lease{Name: fmt.Sprintf("l%d", i), Cost: uint64(r.IntN(30)), Held: r.IntN(8) == 0}
		for range 1 + r.IntN(3)/2 {
			l.Parts = append(l.Parts, victim.Part{Host: r.IntN(hosts), Gain: []int64{int64(r.IntN(5)), int64(r.IntN(5)), int64(r.IntN(4)) - 1}})
		}
		leases = append(leases, l)
	}
	var needs []victim.Need
	for h := range hosts {
		needs = append(needs, victim.Need{Host: h, Room: []int64{int64(r.IntN(9)) - 2, int64(r.IntN(9)) - 2, -100}})
	}
	return leases, needs
}

// enough says whether taking a set makes room on every host.
func enough(leases []victim.Lease, needs []victim.Need, taken func(i int) bool) bool {
	for _, n := range needs {
		needy := false
		for _, r := range n.Room {
			needy = needy || r > 0
		}
		for d, room := range n.Room {
			for i, l := range leases {
				for _, p := range l.Parts {
					if taken(i) && p.Host == n.Host {
						room -= p.Gain[d]
					}
				}
			}
			if needy && room > 0 {
				return false
			}
		}
	}
	return true
}

func price(leases []victim.Lease, taken func(i int) bool) (sum uint64) {
	for i, l := range leases {
		if taken(i) && !l.Held {
			sum += l.Cost
		}
	}
	return sum
}

// optimum is the least price of a set that makes room on every host; false: none does.
func optimum(leases []victim.Lease, needs []victim.Need) (best uint64, possible bool) {
	for set := range 1 << len(leases) {
		in := func(i int) bool { return set>>i&1 == 1 }
		if enough(leases, needs, in) {
			if p := price(leases, in); !possible || p < best {
				best, possible = p, true
			}
		}
	}
	return best, possible
}

// chosen is what victim.Choose takes, as a set.
func chosen(leases []victim.Lease, needs []victim.Need) func(i int) bool {
	set := 0
	for _, l := range victim.Choose(leases, needs) {
		set |= 1 << l
	}
	return func(i int) bool { return set>>i&1 == 1 }
}

// The set makes room where any set does, holds nothing superfluous, and costs little more than the best.
func TestChooseAgainstExhaustiveSearch(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("HOTSPARE_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("repeat with HOTSPARE_SEED=%d", seed)
	const cases = 3000
	ours, best := 0.0, 0.0
	for i := range uint64(cases) {
		leases, needs := draw(seed + i)
		least, possible := optimum(leases, needs)
		if !possible {
			continue
		}
		taken := chosen(leases, needs)
		if !enough(leases, needs, taken) {
			t.Fatalf("HOTSPARE_SEED=%d: %d leases could make room, and these do not", seed+i, len(leases))
		}
		for l := range leases {
			if taken(l) && enough(leases, needs, func(i int) bool { return i != l && taken(i) }) {
				t.Fatalf("HOTSPARE_SEED=%d: lease %d is taken for nothing", seed+i, l)
			}
		}
		ours, best = ours+float64(price(leases, taken)), best+float64(least)
	}
	ratio := ours / best
	t.Logf("cost against the optimum: %.4f", ratio)
	if ratio > 1.05 {
		t.Errorf("%.4f times the optimum, more than 1.05", ratio)
	}
}

// BenchmarkAgainstExact reports the price of what is chosen against the exact optimum: the mean, and the worst.
func BenchmarkAgainstExact(b *testing.B) {
	sum, n, worst := 0.0, 0, 1.0
	for i := uint64(0); b.Loop(); i++ {
		leases, needs := draw(i)
		if least, possible := optimum(leases, needs); possible && least > 0 {
			ratio := float64(price(leases, chosen(leases, needs))) / float64(least)
			sum, worst = sum+ratio, max(worst, ratio)
			n++
		}
	}
	b.ReportMetric(sum/float64(max(n, 1)), "cost-ratio")
	b.ReportMetric(worst, "worst-ratio")
}
