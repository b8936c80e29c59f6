package admission

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// TestChooseAsAskingEveryHost lends on random sites, and compares each choice with the best of all hosts.
func TestChooseAsAskingEveryHost(t *testing.T) {
	first := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("HOTSPARE_SEED"), 10, 64); err == nil {
		first = n
	}
	placed, refused := 0, 0
	for seed := first; seed < first+300; seed++ {
		r := rand.New(rand.NewPCG(seed, 0))
		l := randomLender(r)
		for range 60 {
			v := randomInstance(r)
			h, best := l.Choose(&v), bestOfAll(l, &v)
			if (h < 0) != (best < 0) {
				t.Fatalf("HOTSPARE_SEED=%d: %+v goes to %d, the best of all is %d", seed, v, h, best)
			}
			if h < 0 {
				refused++
				continue
			}
			placed++
			if at, want := rankOf(l, h, &v), rankOf(l, best, &v); at != want || !l.hasRoom(h, &v) || !l.suits(h, &v) {
				t.Fatalf("HOTSPARE_SEED=%d: %+v goes to %d (%+v), the best of all is %d (%+v)", seed, v, h, at, best, want)
			}
			if r.IntN(8) == 0 {
				l = l.clone()
			}
			v.Host = l.s.Hosts[h].Name
			l.Place(&v)
		}
	}
	t.Logf("placed %d, refused %d", placed, refused)
	if placed < 1000 || refused < 1000 {
		t.Errorf("placed %d, refused %d: the sites are too easy or too hard", placed, refused)
	}
}

// A copy must not change the original, nor be changed by it.
func TestCloneOfLenderIsAlone(t *testing.T) {
	s := &guarantee.Site{Dimensions: []string{guarantee.VCPUs, guarantee.Memory}, Hosts: []guarantee.Host{
		{Name: "h1", State: guarantee.Usable, Capacity: guarantee.Vector{2, 2}},
	}}
	l := NewLender(s, guarantee.Decision{})
	v := guarantee.Instance{Host: "h1", Demand: guarantee.Vector{2, 2}}
	l.clone().Place(&v)
	if h := l.Choose(&v); h != 0 {
		t.Errorf("what a copy places is in the way of the original: %d", h)
	}
	c := l.clone()
	l.Place(&v)
	if h := c.Choose(&v); h != 0 {
		t.Errorf("what the original places is in the way of a copy: %d", h)
	}
}

// randomLender has up to 80 hosts, on some sites more kinds of them than an index tells apart.
func randomLender(r *rand.Rand) *Lender {
	s := &guarantee.Site{Dimensions: []string{guarantee.VCPUs, guarantee.Memory, guarantee.LocalDisk, "device/gpu"}}
	c := &guarantee.Certificate{}
	kinds := 1 + r.IntN(100)
	for h := range r.IntN(80) {
		host := guarantee.Host{
			Name: fmt.Sprintf("h%d", h), Networks: []string{fmt.Sprintf("n%d", r.IntN(kinds))}, SaveBandwidth: r.Int64N(3),
			Capacity: guarantee.Vector{r.Int64N(12), r.Int64N(12), r.Int64N(12), r.Int64N(3)}, Lending: guarantee.Vector{0, 0, r.Int64N(8), r.Int64N(3)},
		}
		if r.IntN(2) == 0 {
			host.Networks = append(host.Networks, "lent")
		}
		if r.IntN(3) == 0 {
			host.Pools = []string{"fast"}
		}
		if r.IntN(8) > 0 {
			host.State = guarantee.Usable
		}
		s.Hosts = append(s.Hosts, host)
		c.Obligations = append(c.Obligations, guarantee.Vector{r.Int64N(12), r.Int64N(12), r.Int64N(6), r.Int64N(2)})
		c.Budgets = append(c.Budgets, time.Duration(r.IntN(3))*4*time.Second)
	}
	for range r.IntN(10) {
		s.Preemptible = append(s.Preemptible, guarantee.Instance{Host: fmt.Sprintf("h%d", r.IntN(80)), Demand: guarantee.Vector{1, 1}})
	}
	return NewLender(s, guarantee.Decision{Certificate: c})
}

func randomInstance(r *rand.Rand) guarantee.Instance {
	v := guarantee.Instance{
		Demand:  guarantee.Vector{r.Int64N(4), r.Int64N(4), r.Int64N(4), max(0, r.Int64N(6)-4)},
		Residue: guarantee.Vector{0, 0, r.Int64N(4)}, Reclaim: guarantee.Reclaim{Wait: time.Duration(r.IntN(6)) * time.Second, SaveBytes: r.Int64N(3)},
	}
	switch r.IntN(4) {
	case 0:
		v.Networks = []string{"lent"}
	case 1:
		v.Networks = []string{fmt.Sprintf("n%d", r.IntN(100))}
	case 2:
		v.Pools = []string{"fast"}
	}
	return v
}

func rankOf(l *Lender, h int, v *guarantee.Instance) rank { return rank{l.quiet(h, v), l.free(h, 1)} }

// bestOfAll asks every host.
func bestOfAll(l *Lender, v *guarantee.Instance) int {
	best := -1
	for h := range l.s.Hosts {
		if l.hasRoom(h, v) && l.suits(h, v) && (best < 0 || rankOf(l, h, v).above(rankOf(l, best, v))) {
			best = h
		}
	}
	return best
}
