package repair

import (
	"cmp"
	"slices"
	"time"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// mostTries bounds for how many workloads Spare looks for another host: at 10,000 hosts that takes a third of a second.
const mostTries = 2500

// Spare moves workloads of the witness from hosts on which leases would have to go for them to hosts on which none
// would, and leaves everything that hosts may have to carry as large as it was, in all. It returns what victims are
// expected to cost before and after: of each scenario as a whole, or of one plan, each as likely as the other.
func (w *Witness) Spare(lent []guarantee.Instance) (before, after float64) {
	if len(lent) == 0 {
		return 0, 0
	}
	s := w.newSparing(lent)
	prices := make([]float64, len(w.hosts))
	var order []int32
	for i := range w.hosts {
		prices[i] = s.price(int32(i), nil)
		if prices[i] > 0 {
			order = append(order, int32(i))
		}
		before += prices[i]
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(prices[b], prices[a]) })
	after = before
	tries := 0
	for _, h := range order {
		for _, id := range slices.Clone(w.hosts[h].on) {
			v := &w.work[id]
			if v.Host != "" || v.Together != "" || !w.sole(v) {
				continue
			}
			saved := prices[h] - s.price(h, v)
			if saved <= 0 {
				continue
			}
			if tries++; tries > mostTries {
				return before, after
			}
			to := s.calmest(id, h)
			if to == nowhere {
				continue
			}
			w.relieve(h, v)
			w.put(id, to)
			w.oblige(to, id)
			s.carry(h, v, -1)
			s.carry(to, v, 1)
			prices[h] -= saved
			after -= saved
		}
	}
	return before, after
}

// sparing is what leases hold on each host, beside what the witness has there.
type sparing struct {
	w     *Witness
	plans float64
	// by host and dimension: what is free beside leases, less what the witness has there in the largest scenario; and what
	// taking all leases back would free.
	calm, gain []int64
	// cost of taking all of them back.
	cost []float64
}

func (w *Witness) newSparing(lent []guarantee.Instance) *sparing {
	s := &sparing{w: w, calm: make([]int64, len(w.hosts)*w.dims), gain: make([]int64, len(w.hosts)*w.dims), cost: make([]float64, len(w.hosts))}
	number := make(map[string]int, len(w.hosts))
	for i := range w.hosts {
		h := &w.hosts[i]
		if h.gone {
			continue
		}
		number[h.Name] = i
		for d := range w.dims {
			s.calm[i*w.dims+d] = guarantee.Add(h.room[d], h.Lending.At(d))
		}
	}
	for i := range lent {
		v := &lent[i]
		h, there := number[v.Host]
		if !there || v.Held {
			continue
		}
		for d := range w.dims {
			s.calm[h*w.dims+d] = guarantee.Add(s.calm[h*w.dims+d], -v.Demand.At(d))
			s.gain[h*w.dims+d] = guarantee.Add(s.gain[h*w.dims+d], v.Demand.At(d)-v.Residue.At(d))
		}
		s.cost[h] += float64(v.Cost) + 1
	}
	plans := map[string]bool{}
	for i := range w.work {
		if v := &w.work[i]; !v.gone && v.at != nowhere {
			plans[v.Plan] = true
			s.carry(v.at, v, 1)
		}
	}
	s.plans = float64(max(len(plans), 1))
	return s
}

// carry adds a workload to what the witness has on a host, or takes it off. What no scenario runs together with others
// counts all the same: then a host seems to have less room than it has.
func (s *sparing) carry(h int32, v *work, sign int64) {
	for d := range s.w.dims {
		at := int(h)*s.w.dims + d
		s.calm[at] = guarantee.Add(s.calm[at], -sign*v.Demand.At(d))
	}
}

// price is what victims on a host are expected to cost, without one of the workloads there.
func (s *sparing) price(h int32, without *work) (price float64) {
	if s.cost[h] == 0 {
		return 0
	}
	w, dims := s.w, s.w.dims
	free := slices.Clone(s.calm[int(h)*dims : (int(h)+1)*dims])
	on := w.hosts[h].on
	for _, id := range on {
		for d := range free { // Beside leases alone.
			free[d] = guarantee.Add(free[d], w.work[id].Demand.At(d))
		}
	}
	// What runs is there in any case.
	taken := func(runs func(v *work) bool) float64 {
		part := 0.0
		for d := range free {
			missing := -free[d]
			for _, id := range on {
				if v := &w.work[id]; v != without && (v.Host != "" || runs(v)) {
					missing = guarantee.Add(missing, v.Demand.At(d))
				}
			}
			if gain := s.gain[int(h)*dims+d]; missing > 0 {
				part = max(part, min(1, float64(missing)/max(float64(gain), 1)))
			}
		}
		return part * s.cost[h]
	}
	for n := range w.scenarios {
		price += taken(func(v *work) bool { return v.runs>>n&1 == 1 }) / float64(2*len(w.scenarios))
	}
	here := 0.0
	for i, id := range on {
		plan := w.work[id].Plan
		if slices.ContainsFunc(on[:i], func(o int32) bool { return w.work[o].Plan == plan }) {
			continue // Its plan was looked at.
		}
		here++
		price += taken(func(v *work) bool { return v.Plan == plan }) / (2 * s.plans)
	}
	return price + taken(func(*work) bool { return false })*(s.plans-here)/(2*s.plans)
}

// calmest is the host that a workload fills most of those where it is in nobody's way, leases included, and where it
// asks for nothing that was not asked for; nowhere if there is none.
func (s *sparing) calmest(id, from int32) int32 {
	w, v := s.w, &s.w.work[id]
	best, least := int32(nowhere), int64(0)
	for i := range int32(len(w.hosts)) {
		calm := s.calm[int(i)*w.dims : (int(i)+1)*w.dims]
		if best != nowhere && calm[1] >= least || i == from || !fits(v.Demand, calm) || !w.spaceFor(v, nil, w.freeOf(i)) {
			continue
		}
		h := &w.hosts[i]
		if h.spares > 0 || s.hastens(i, v.Budget) || !w.may(v, h) || w.clash(id, i) || s.raises(i, v) {
			continue
		}
		best, least = i, calm[1]
	}
	return best
}

// hastens says whether leases on a host would have to be taken back sooner than they were promised to be, for a budget.
func (s *sparing) hastens(h int32, by time.Duration) bool {
	budget := s.w.hosts[h].budget
	return by > 0 && s.cost[h] > 0 && (budget == 0 || budget > by)
}

// raises says whether a spare would have to carry more, or sooner, if a host took a workload.
func (s *sparing) raises(h int32, v *work) bool {
	obliged := s.w.obliged(h)
	for d := range obliged {
		obliged[d] = guarantee.Add(obliged[d], v.Demand.At(d))
	}
	budget := s.w.hosts[h].budget
	if v.Budget > 0 && (budget == 0 || v.Budget < budget) {
		budget = v.Budget
	}
	for o := range s.w.standIns(h) {
		if !fits(obliged, s.w.obliged(o)) || s.hastens(o, budget) {
			return true
		}
	}
	return false
}
