package placement

import (
	"cmp"
	"slices"
)

// Assignment is the decision of a failover: who goes where, who is preempted, who finds no room.
type Assignment struct {
	// Hosts maps each workload that fits to its host.
	Hosts map[string]string
	// Victims are lent instances to preempt, each with its host.
	Victims []VM
	// Unplaced are the workloads without room, by rank.
	Unplaced []VM
}

// Assign places the workloads of a failover by rank, and takes from each host only what is missing
// after its free capacity. It never refuses: what does not fit is returned as Unplaced. Leases are
// taken as units: the sisters of a victim go too (the caller passes instances with the lease as Name).
func Assign(s Site, proof Decision, run []VM) Assignment {
	others := slices.DeleteFunc(slices.Clone(s.Protected), func(v VM) bool {
		return slices.ContainsFunc(run, func(r VM) bool { return r.Name == v.Name })
	})
	total := rooms(s, "", s.Firm, running(others))
	out := Assignment{Hosts: map[string]string{}}
	byHost := map[string][]VM{}
	order := largestFirst(run)
	slices.SortStableFunc(order, func(a, b VM) int { return cmp.Compare(a.Rank, b.Rank) })
	free := rooms(s, "", s.Firm, s.Preemptible, running(others))
	for _, v := range order {
		i := choose(total, free, v, proof.Certificate.Witness[v.Name])
		if i < 0 {
			out.Unplaced = append(out.Unplaced, v)
			continue
		}
		total[i].add(v)
		free[i].add(v)
		out.Hosts[v.Name] = total[i].host.Name
		byHost[total[i].host.Name] = append(byHost[total[i].host.Name], v)
	}
	out.Victims = victims(s, others, byHost)
	return out
}

// choose takes a host with room for nothing preempted, then the witness's, then the emptiest.
func choose(total, free []*room, v VM, witness string) int {
	best, bestScore := -1, 0
	for i, r := range total {
		if !r.takes(v) {
			continue
		}
		score := 1
		if r.host.Name == witness {
			score = 2
		}
		if free[i].takes(v) {
			score += 2
		}
		if best < 0 || score > bestScore || score == bestScore && r.memory > total[best].memory {
			best, bestScore = i, score
		}
	}
	return best
}

// victims chooses on each host the cheapest lent instances that make room, then drops those that
// turn out not to be needed, so that the set is inclusion-minimal.
func victims(s Site, others []VM, byHost map[string][]VM) []VM {
	var out []VM
	for _, h := range s.Hosts {
		if len(byHost[h.Name]) == 0 {
			continue
		}
		on := func(vms []VM) []VM {
			return slices.DeleteFunc(slices.Clone(vms), func(v VM) bool { return v.Host != h.Name })
		}
		fixed := slices.Concat(on(s.Firm), on(others), byHost[h.Name])
		lent := slices.DeleteFunc(on(s.Preemptible), func(v VM) bool {
			return slices.ContainsFunc(out, func(o VM) bool { return o.Object == v.Object })
		})
		taken := cheapest(h, fixed, lent)
		for _, v := range taken {
			out = append(out, sisters(s.Preemptible, v)...)
		}
	}
	slices.SortFunc(out, func(a, b VM) int { return cmp.Compare(a.Object, b.Object) })
	return slices.CompactFunc(out, func(a, b VM) bool { return a.Object == b.Object })
}

func sisters(lent []VM, v VM) []VM {
	return slices.DeleteFunc(slices.Clone(lent), func(o VM) bool { return o.Name != v.Name })
}

func cheapest(h Host, fixed, lent []VM) []VM {
	slices.SortFunc(lent, func(a, b VM) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.MemoryBytes, a.MemoryBytes), cmp.Compare(a.Object, b.Object))
	})
	fits := func(without []VM) bool {
		var cpu, memory uint64
		for _, v := range slices.Concat(fixed, lent) {
			if !slices.ContainsFunc(without, func(o VM) bool { return o.Object == v.Object && v.Object != "" }) {
				cpu += v.VCPUs
				memory += v.MemoryBytes + h.OverheadBytes
			}
		}
		return cpu <= h.VCPUs && memory <= h.MemoryBytes
	}
	var taken []VM
	for _, v := range lent {
		if fits(taken) {
			break
		}
		taken = append(taken, v)
	}
	for i := len(taken) - 1; i >= 0; i-- {
		if without := slices.Delete(slices.Clone(taken), i, i+1); fits(without) {
			taken = without
		}
	}
	return taken
}
