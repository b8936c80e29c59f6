package proof_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hotspare/hotspare/internal/placement/admission"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// act changes a site, or is refused. What may happen against our will is not refused.
type act struct {
	name      string
	voluntary bool
	do        func(h *history) bool
}

// history is a site to which things happen.
type history struct {
	r *drawer
	s guarantee.Site
	d guarantee.Decision
	n int
}

// unlessWorse is what every voluntary change but a lease does: it is made if the proof is not worse.
func (h *history) unlessWorse(next guarantee.Site) bool {
	if proof.Renew(&next, proof.Earlier{Site: &h.s, Decision: h.d}).Worse(h.d) {
		return false
	}
	h.s = next
	return true
}

// setHost changes the state of a random host.
func (h *history) setHost(from, to guarantee.State) (next guarantee.Site, ok bool) {
	next = h.s
	next.Hosts = slices.Clone(next.Hosts)
	at := &next.Hosts[h.r.IntN(len(next.Hosts))]
	ok = at.State == from
	at.State = to
	return next, ok
}

func (h *history) instance() guarantee.Instance {
	h.n++
	name := fmt.Sprint("l", h.n)
	return guarantee.Instance{Lease: name, Object: "instance/" + name, Demand: h.r.vector(&h.s, 2)}
}

func acts() []act {
	return []act{
		{"a firm lease", true, func(h *history) bool {
			v := h.instance()
			hosts, err := admission.NewDesk(&h.s, h.d).Firm([]guarantee.Instance{v})
			if err != nil {
				return false
			}
			v.Host = hosts[0]
			h.s.Firm = append(slices.Clip(h.s.Firm), v)
			return true
		}},
		{"a preemptible lease", true, func(h *history) bool {
			v := h.instance()
			hosts, err := admission.NewDesk(&h.s, h.d).Preemptible([]guarantee.Instance{v})
			if err != nil {
				return false
			}
			v.Host = hosts[0]
			h.s.Preemptible = append(slices.Clip(h.s.Preemptible), v)
			return true
		}},
		{"a firm lease ends", true, func(h *history) bool {
			h.s.Firm = h.s.Firm[:max(len(h.s.Firm)-1, 0)]
			return true
		}},
		{"a drain", true, func(h *history) bool {
			next, ok := h.setHost(guarantee.Usable, guarantee.Closed)
			return ok && h.unlessWorse(next)
		}},
		{"a workload more", true, func(h *history) bool {
			h.n++
			next := h.s
			next.Workloads = append(slices.Clip(next.Workloads), h.r.workload(&next, 100+h.n, false, true))
			return len(next.Workloads) <= 7 && h.unlessWorse(next)
		}},
		{"a workload less", true, func(h *history) bool {
			next := h.s
			next.Workloads = next.Workloads[:max(len(next.Workloads)-1, 0)]
			return h.unlessWorse(next)
		}},
		{"a host comes back", false, func(h *history) bool {
			next, ok := h.setHost(guarantee.State(2+h.r.IntN(3)), guarantee.Usable)
			if ok {
				h.s = next
			}
			return ok
		}},
		{"a host is lost", false, func(h *history) bool {
			h.s, _ = h.setHost(guarantee.Usable, guarantee.Lost)
			return true
		}},
		{"a host is silent", false, func(h *history) bool {
			h.s, _ = h.setHost(guarantee.Usable, guarantee.Unknown)
			return true
		}},
	}
}

// Whatever happens to a site, it is proven, or says how much less is and why, and no voluntary act was
// the cause (invariant 2).
func TestHistoriesKeepTheGuarantee(t *testing.T) {
	first := firstSeed(t)
	done, answers := map[string]int{}, map[string]int{}
	for i := range *cases / 40 {
		seed := first + uint64(i)
		h := &history{r: &drawer{rand.New(rand.NewPCG(seed, 9))}, s: *drawSite(seed)}
		h.d = proof.Prove(&h.s)
		for range 15 {
			before, was := h.d, h.s
			a := acts()[h.r.IntN(len(acts()))]
			if !a.do(h) {
				continue
			}
			done[a.name]++
			h.d = proof.Renew(&h.s, proof.Earlier{Site: &was, Decision: before})
			if fault := compare(&h.s, answers); fault != "" {
				t.Fatalf("HOTSPARE_SEED=%d: after %s: %s", seed, a.name, fault)
			}
			if a.voluntary && h.d.Worse(before) {
				t.Fatalf("HOTSPARE_SEED=%d: %s made %s of %s: %s", seed, a.name, h.d.Word(), before.Word(), h.d.Reason)
			}
			if a.voluntary && before.Answer == guarantee.Fits && !oracleFits(&h.s, h.s.Asked()) {
				t.Fatalf("HOTSPARE_SEED=%d: after %s the plans do not fit any more", seed, a.name)
			}
		}
	}
	t.Log(done, answers)
	for _, a := range acts() {
		if *cases > 1000 && done[a.name] == 0 {
			t.Errorf("never happened: %s", a.name)
		}
	}
}
