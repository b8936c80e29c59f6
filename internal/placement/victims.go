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
	others := running(slices.DeleteFunc(slices.Clone(s.Protected), func(v VM) bool {
		return slices.ContainsFunc(run, func(r VM) bool { return r.Name == v.Name })
	}))
	out, byHost := spread(s, proof, run, others, false)
	if len(out.Unplaced) > 0 {
		// Saving victims cost a place: the proof's own placement has one for all that it covers.
		out, byHost = spread(s, proof, run, others, true)
	}
	out.Victims = victims(s, others, byHost)
	return out
}

// spread places the workloads one by one; strictly: where the witness has them.
func spread(s Site, proof Decision, run, others []VM, strictly bool) (Assignment, map[string][]VM) {
	total := rooms(s, "", s.Firm, others)
	out := Assignment{Hosts: map[string]string{}}
	byHost := map[string][]VM{}
	order := largestFirst(run)
	slices.SortStableFunc(order, func(a, b VM) int { return cmp.Compare(a.Rank, b.Rank) })
	present := slices.DeleteFunc(slices.Clone(s.Preemptible), func(v VM) bool { return v.Held })
	free := rooms(s, "", s.Firm, present, others)
	for _, v := range order {
		witness := proof.Certificate.Witness[v.Name]
		i := choose(total, free, v, witness)
		if w := slices.IndexFunc(total, func(r *room) bool { return r.host.Name == witness }); strictly && w >= 0 && total[w].takes(v) {
			i = w
		}
		if i < 0 {
			out.Unplaced = append(out.Unplaced, v)
			continue
		}
		total[i].add(v)
		free[i].add(v)
		out.Hosts[v.Name] = total[i].host.Name
		byHost[total[i].host.Name] = append(byHost[total[i].host.Name], v)
	}
	return out, byHost
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

// victims chooses on each host the cheapest lent instances that make room, then drops the leases that
// turn out not to be needed, so that the set is inclusion-minimal. Instances that are held already are
// among them where their return would not fit: whoever frees them first must not bring them back.
func victims(s Site, others []VM, byHost map[string][]VM) []VM {
	var out []VM
	fixed := map[string][]VM{}
	for _, h := range s.Hosts {
		if len(byHost[h.Name]) == 0 {
			continue
		}
		on := func(vms []VM) []VM {
			return slices.DeleteFunc(slices.Clone(vms), func(v VM) bool { return v.Host != h.Name })
		}
		fixed[h.Name] = slices.Concat(on(s.Firm), on(others), byHost[h.Name])
		lent := slices.DeleteFunc(on(s.Preemptible), func(v VM) bool {
			return slices.ContainsFunc(out, func(o VM) bool { return o.Object == v.Object })
		})
		taken := cheapest(h, fixed[h.Name], lent)
		for _, v := range taken {
			out = append(out, sisters(s.Preemptible, v)...)
		}
	}
	out = needed(s, fixed, out)
	slices.SortFunc(out, func(a, b VM) int { return cmp.Compare(a.Object, b.Object) })
	return out
}

// needed drops whole leases, dearest first, that a sister taken for another host made superfluous.
func needed(s Site, fixed map[string][]VM, taken []VM) []VM {
	order := slices.Clone(taken)
	slices.SortFunc(order, func(a, b VM) int {
		return cmp.Or(compareHeld(b, a), cmp.Compare(b.Cost, a.Cost), cmp.Compare(a.Object, b.Object))
	})
	for _, v := range order {
		without := slices.DeleteFunc(slices.Clone(taken), func(o VM) bool { return o.Name == v.Name })
		enough := !slices.ContainsFunc(s.Hosts, func(h Host) bool {
			if len(fixed[h.Name]) == 0 {
				return false
			}
			stay := slices.DeleteFunc(slices.Clone(s.Preemptible), func(o VM) bool {
				return o.Host != h.Name || slices.ContainsFunc(without, func(w VM) bool { return w.Object == o.Object })
			})
			return !holds(h, fixed[h.Name], stay)
		})
		if enough {
			taken = without
		}
	}
	return taken
}

// holds says whether a host has room for all of them.
func holds(h Host, lists ...[]VM) bool {
	r := &room{host: h, cpu: h.VCPUs, memory: h.MemoryBytes}
	for _, v := range slices.Concat(lists...) {
		r.add(v)
	}
	return !r.overfull
}

func sisters(lent []VM, v VM) []VM {
	return slices.DeleteFunc(slices.Clone(lent), func(o VM) bool { return o.Name != v.Name })
}

// compareHeld puts what is preempted already first: holding it longer costs least.
func compareHeld(a, b VM) int {
	switch {
	case a.Held == b.Held:
		return 0
	case a.Held:
		return -1
	default:
		return 1
	}
}

func cheapest(h Host, fixed, lent []VM) []VM {
	slices.SortFunc(lent, func(a, b VM) int {
		return cmp.Or(compareHeld(a, b), cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.MemoryBytes, a.MemoryBytes), cmp.Compare(a.Object, b.Object))
	})
	fits := func(without []VM) bool {
		return holds(h, fixed, slices.DeleteFunc(slices.Clone(lent), func(v VM) bool {
			return slices.ContainsFunc(without, func(o VM) bool { return o.Object == v.Object })
		}))
	}
	var taken []VM
	for _, v := range lent {
		if fits(taken) {
			break
		}
		taken = append(taken, v)
	}
	for i := range slices.Backward(taken) {
		if without := slices.Delete(slices.Clone(taken), i, i+1); fits(without) {
			taken = without
		}
	}
	return taken
}
