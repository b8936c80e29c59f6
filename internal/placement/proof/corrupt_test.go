package proof_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// broken is a certificate and its site with one fault put in on purpose.
type broken struct {
	r *rand.Rand
	s guarantee.Site
	c guarantee.Certificate
}

func copyOf(s *guarantee.Site, c *guarantee.Certificate, seed uint64) *broken {
	b := &broken{r: rand.New(rand.NewPCG(seed, 3)), s: *s, c: *c}
	b.s.Hosts, b.s.Workloads, b.s.Firm = slices.Clone(s.Hosts), slices.Clone(s.Workloads), slices.Clone(s.Firm)
	b.c.Witness, b.c.Patterns, b.c.Obligations = slices.Clone(c.Witness), slices.Clone(c.Patterns), slices.Clone(c.Obligations)
	b.c.Budgets, b.c.Scenarios = slices.Clone(c.Budgets), slices.Clone(c.Scenarios)
	for i := range b.c.Patterns {
		b.c.Patterns[i].Moves = slices.Clone(b.c.Patterns[i].Moves)
	}
	return b
}

// free is a workload that is placed and does not run yet; -1 if there is none.
func (b *broken) free(fits func(w *guarantee.Workload) bool) int {
	start := b.r.IntN(len(b.s.Workloads) + 1)
	for i := range b.s.Workloads {
		n := (start + i) % len(b.s.Workloads)
		w := &b.s.Workloads[n]
		if b.c.Witness[n] >= 0 && w.Host == "" && fits(w) {
			return n
		}
	}
	return -1
}

func anyone(*guarantee.Workload) bool { return true }

// faults are what an audit must find. Each says whether it could be put into this certificate.
func faults() map[string]func(b *broken) bool {
	return map[string]func(b *broken) bool{
		"too small an obligation": func(b *broken) bool {
			h, d := b.r.IntN(len(b.s.Hosts)), b.r.IntN(len(b.s.Dimensions))
			b.c.Obligations[h] = slices.Clone(b.c.Obligations[h])
			b.c.Obligations[h][d]--
			return b.c.Obligations[h][d] >= 0
		},
		"nowhere": func(b *broken) bool {
			w := b.free(anyone)
			if w >= 0 {
				b.c.Witness[w] = guarantee.Nowhere
			}
			return w >= 0
		},
		"on a closed host": func(b *broken) bool {
			w := b.free(anyone)
			if w >= 0 {
				b.s.Hosts[b.c.Witness[w]].State = guarantee.Closed
			}
			return w >= 0
		},
		"without its label": func(b *broken) bool {
			w := b.free(anyone)
			if w >= 0 {
				b.s.Workloads[w].Labels = []string{"nowhere=here"}
			}
			return w >= 0
		},
		"without its network": func(b *broken) bool {
			w := b.free(func(w *guarantee.Workload) bool { return len(w.Networks) > 0 })
			if w >= 0 {
				b.s.Hosts[b.c.Witness[w]].Networks = nil
			}
			return w >= 0
		},
		"without its pool": func(b *broken) bool {
			w := b.free(func(w *guarantee.Workload) bool { return len(w.Pools) > 0 })
			if w >= 0 {
				b.s.Hosts[b.c.Witness[w]].Pools = nil
			}
			return w >= 0
		},
		"no room": func(b *broken) bool {
			w, d := b.free(anyone), b.r.IntN(len(b.s.Dimensions))
			if w < 0 || b.s.Workloads[w].Demand[d] == 0 {
				return false
			}
			h := &b.s.Hosts[b.c.Witness[w]]
			h.Capacity = slices.Clone(h.Capacity)
			h.Capacity[d] = b.s.Workloads[w].Demand[d] - 1
			return true
		},
		"no room beside a firm lease": func(b *broken) bool {
			w := b.free(func(w *guarantee.Workload) bool { return w.Demand[0] > 0 })
			if w >= 0 {
				h := b.s.Hosts[b.c.Witness[w]]
				b.s.Firm = append(b.s.Firm, guarantee.Instance{Host: h.Name, Demand: h.Capacity})
			}
			return w >= 0
		},
		"no room beside the lending share": func(b *broken) bool {
			w := b.free(func(w *guarantee.Workload) bool { return w.Demand[0] > 0 })
			if w >= 0 {
				h := &b.s.Hosts[b.c.Witness[w]]
				h.Lending = h.Capacity
			}
			return w >= 0
		},
		"what runs is moved": func(b *broken) bool {
			for i := range b.s.Workloads {
				other := b.s.Hosts[b.r.IntN(len(b.s.Hosts))]
				if b.s.Workloads[i].Host == "" && b.c.Witness[i] >= 0 && other.State == guarantee.Usable && other.Name != b.s.Hosts[b.c.Witness[i]].Name {
					b.s.Workloads[i].Host = other.Name
					return true
				}
			}
			return false
		},
		"two that keep apart": func(b *broken) bool { return b.pair(guarantee.Apart{Group: "new"}, false) },
		"two that keep apart by domain": func(b *broken) bool {
			return b.pair(guarantee.Apart{Group: "new", Domain: true}, true)
		},
		"two that keep together": func(b *broken) bool { return b.split() },
		"a pattern is missing": func(b *broken) bool {
			if len(b.c.Patterns) == 0 {
				return false
			}
			i := b.r.IntN(len(b.c.Patterns))
			b.c.Patterns = slices.Delete(b.c.Patterns, i, i+1)
			return true
		},
		"a move is missing": func(b *broken) bool {
			for i := range b.c.Patterns {
				p := &b.c.Patterns[i]
				for n, m := range p.Moves {
					spare := slices.ContainsFunc(p.Spares, func(hosts []int32) bool { return slices.Contains(hosts, b.c.Witness[m.Workload]) })
					if spare && b.runsIn(m.Workload, p) {
						p.Moves = slices.Delete(p.Moves, n, n+1)
						return true
					}
				}
			}
			return false
		},
		"a move to a lost host": func(b *broken) bool {
			for i := range b.c.Patterns {
				p := &b.c.Patterns[i]
				for n, m := range p.Moves {
					if b.runsIn(m.Workload, p) {
						p.Moves[n].Host = p.Spares[0][0]
						return true
					}
				}
			}
			return false
		},
		"a move beside what it keeps apart from": func(b *broken) bool { return b.movedBeside() },
		"more losses than proven": func(b *broken) bool {
			most := guarantee.Tolerance(b.c.Scenarios) + 1
			for i := range b.c.Scenarios {
				if b.r.IntN(2) == 0 {
					b.c.Scenarios[i].Hosts = most
				} else {
					b.c.Scenarios[i].FailureDomains = most
				}
			}
			return slices.ContainsFunc(b.c.Witness, func(h int32) bool { return h >= 0 })
		},
		"too large a budget": func(b *broken) bool {
			w := b.free(anyone)
			if w >= 0 {
				b.s.Workloads[w].Budget = time.Millisecond
			}
			return w >= 0
		},
	}
}

// runsIn says whether a scenario that loses as much as a pattern runs the workload.
func (b *broken) runsIn(w int32, p *guarantee.Pattern) bool {
	return slices.ContainsFunc(b.c.Scenarios, func(s guarantee.Scenario) bool {
		losses := s.Hosts
		if p.Unit == guarantee.UnitDomain {
			losses = s.FailureDomains
		}
		return losses == len(p.Spares) && s.Covers(b.s.Workloads[w].Plan)
	})
}

// pair has two workloads on one host, or in one domain, keep apart.
func (b *broken) pair(g guarantee.Apart, domain bool) bool {
	for i := range b.s.Workloads {
		for j := range i {
			if b.c.Witness[i] < 0 || b.c.Witness[j] < 0 || b.s.Workloads[i].Host != "" {
				continue
			}
			x, y := b.s.Hosts[b.c.Witness[i]], b.s.Hosts[b.c.Witness[j]]
			if x.Name == y.Name && !domain || domain && x.Name != y.Name && x.FailureDomain != "" && x.FailureDomain == y.FailureDomain {
				for _, n := range []int{i, j} {
					b.s.Workloads[n].Apart = append(slices.Clone(b.s.Workloads[n].Apart), g)
				}
				return true
			}
		}
	}
	return false
}

// movedBeside has a workload that a pattern moves keep apart from one that is on that host already. The
// witness has them apart.
func (b *broken) movedBeside() bool {
	for _, p := range b.c.Patterns {
		for _, m := range p.Moves {
			for o, h := range b.c.Witness {
				moves := slices.ContainsFunc(p.Moves, func(n guarantee.Move) bool { return int(n.Workload) == o })
				if moves || h != m.Host || b.c.Witness[m.Workload] == h || !b.runsIn(m.Workload, &p) || !b.runsIn(int32(o), &p) {
					continue
				}
				for _, n := range []int{o, int(m.Workload)} {
					b.s.Workloads[n].Apart = append(slices.Clone(b.s.Workloads[n].Apart), guarantee.Apart{Group: "new"})
				}
				return true
			}
		}
	}
	return false
}

// split has two workloads on two hosts keep together.
func (b *broken) split() bool {
	for i := range b.s.Workloads {
		for j := range i {
			if b.c.Witness[i] >= 0 && b.c.Witness[j] >= 0 && b.c.Witness[i] != b.c.Witness[j] && b.s.Workloads[i].Host == "" && b.s.Workloads[j].Host == "" {
				b.s.Workloads[i].Together, b.s.Workloads[j].Together = "new", "new"
				return true
			}
		}
	}
	return false
}

// The audit finds every fault that is put into a certificate.
func TestAuditFindsFaults(t *testing.T) {
	first := firstSeed(t)
	found := map[string]int{}
	for i := range *cases / 5 {
		seed := first + uint64(i)
		s := drawSite(seed)
		d := proof.Prove(s)
		if d.Lost() || len(s.Workloads) == 0 {
			continue
		}
		for name, put := range faults() { // Any order: each by itself.
			b := copyOf(s, d.Certificate, seed)
			if !put(b) {
				continue
			}
			if audit.Check(&b.s, &b.c) == nil {
				t.Fatalf("HOTSPARE_SEED=%d -cases=5: the audit accepts: %s\n%+v\n%+v", seed, name, b.c, b.s)
			}
			found[name]++
		}
	}
	for name := range faults() {
		if *cases > 1000 && found[name] == 0 {
			t.Errorf("never put in: %s", name)
		}
	}
	t.Log(found)
}
