package proof

import (
	"cmp"
	"math"
	"slices"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/victim"
)

// Assignment is the decision of a failover: who goes where, who is preempted, who finds no room.
type Assignment struct {
	// Hosts maps each workload that fits to its host.
	Hosts map[string]string
	// Victims are lent instances to preempt, each with its host.
	Victims []guarantee.Instance
	// Unplaced are the workloads without room, by rank.
	Unplaced []guarantee.Workload
}

// quietWork bounds the runs for which hosts are looked for that spare the leases, in workloads times
// hosts; larger ones go where the witness has them.
const quietWork = 200_000

// Assign places the workloads of a failover by rank, and takes from each host only what is missing
// after its free capacity. It never refuses: what does not fit is returned as Unplaced. It leaves the
// witness to spare leases only if the other plans are proven as well as they would be with it. The run's
// workloads count as they are given: the site may have them from a newer revision of their plan.
func Assign(s *guarantee.Site, d guarantee.Decision, run []guarantee.Workload) Assignment {
	a := newAssigner(s, d, run)
	strict := a.place(true)
	if len(a.run)*len(s.Hosts) <= quietWork {
		quiet := a.place(false)
		if len(quiet.Unplaced) < len(strict.Unplaced) || len(quiet.Unplaced) == len(strict.Unplaced) &&
			cost(quiet) < cost(strict) && !Prove(a.after(quiet)).Worse(Prove(a.after(strict))) {
			return quiet
		}
	}
	return strict
}

func cost(a Assignment) (sum uint64) {
	for _, v := range a.Victims {
		if !v.Held {
			sum += v.Cost + 1
		}
	}
	return sum
}

type assigner struct {
	s  *guarantee.Site
	ix *index
	// now has the run's workloads, so many as there are in witness, and behind them what runs.
	now *guarantee.Site
	// witness has the host of each of them in the certificate; nowhere: none.
	witness []int32
	// given are the workloads to place; stranded are those of them that keep together with one that runs where
	// they cannot be.
	given, stranded []guarantee.Workload
	// run are the items to place, by rank; lent is what leases occupy now, by host and dimension.
	run  []int32
	lent []int64
}

func newAssigner(s *guarantee.Site, d guarantee.Decision, run []guarantee.Workload) *assigner {
	a := &assigner{s: s, given: slices.Clone(run), witness: slices.Repeat([]int32{nowhere}, len(run)), lent: make([]int64, len(s.Hosts)*len(s.Dimensions))}
	at := make(map[string]int, len(run))
	for i := range a.given {
		at[a.given[i].Name] = i
		a.given[i].Host = ""
	}
	now := *s
	now.Workloads = append(make([]guarantee.Workload, 0, len(s.Workloads)), a.given...)
	alive := map[string]bool{}
	for h := range s.Hosts {
		alive[s.Hosts[h].Name] = s.Hosts[h].State != guarantee.Lost
	}
	for i := range s.Workloads {
		w := &s.Workloads[i]
		switch n, wanted := at[w.Name]; {
		case wanted && d.Certificate != nil:
			a.witness[n] = d.Certificate.Witness[i]
		case !wanted && alive[w.Host]: // On a lost host nothing runs.
			now.Workloads = append(now.Workloads, *w)
		}
	}
	a.now = &now
	a.ix = newIndex(&now, []guarantee.Scenario{{Name: "run"}})
	for a.strand() {
		a.ix = newIndex(&now, a.ix.scenarios)
	}
	for it := range a.ix.items {
		if slices.ContainsFunc(a.ix.items[it].members, a.wanted) {
			a.run = append(a.run, int32(it))
		}
	}
	rank := func(it int32) uint32 { return now.Workloads[a.ix.items[it].members[0]].Rank }
	newBoard(a.ix).largestFirst(a.run)
	slices.SortStableFunc(a.run, func(x, y int32) int { return cmp.Compare(rank(x), rank(y)) })
	a.lend()
	return a
}

// wanted says whether a workload is of the run.
func (a *assigner) wanted(member int32) bool { return int(member) < len(a.witness) }

// witnessed is the host of an item in the certificate; nowhere: none.
func (a *assigner) witnessed(it int32) int32 {
	if m := a.ix.items[it].members[0]; a.wanted(m) {
		return a.witness[m]
	}
	return nowhere
}

// lend counts what leases occupy now.
func (a *assigner) lend() {
	s := a.s
	hosts := map[string]int{}
	for h := range s.Hosts {
		hosts[s.Hosts[h].Name] = h
	}
	for i := range s.Preemptible {
		if h, ok := hosts[s.Preemptible[i].Host]; ok && !s.Preemptible[i].Held {
			for d := range s.Dimensions {
				a.lent[h*a.ix.dims+d] += s.Preemptible[i].Demand.At(d)
			}
		}
	}
}

// strand takes out what cannot join the one that it keeps together with, so that what runs of them counts
// where it runs. It says whether there was any.
func (a *assigner) strand() bool {
	b := newBoard(a.ix)
	if b.home() {
		return false
	}
	gone := make([]bool, len(a.witness))
	for it := range a.ix.items {
		if a.ix.items[it].home < 0 || b.at[it] != nowhere {
			continue
		}
		for _, m := range a.ix.items[it].members {
			if a.wanted(m) {
				gone[m] = true
				a.stranded = append(a.stranded, a.now.Workloads[m])
			}
		}
	}
	var kept []guarantee.Workload
	var witness []int32
	for m, w := range a.now.Workloads {
		if a.wanted(int32(m)) {
			if gone[m] {
				continue
			}
			witness = append(witness, a.witness[m])
		}
		kept = append(kept, w)
	}
	a.now.Workloads, a.witness = kept, witness
	return slices.Contains(gone, true)
}

// place decides; strictly: where the witness has them.
func (a *assigner) place(strictly bool) Assignment {
	b := newBoard(a.ix)
	b.home()
	out := Assignment{Hosts: make(map[string]string, len(a.run))}
	for _, it := range a.run {
		members := a.ix.items[it].members
		h := b.at[it] // It keeps together with something that runs.
		if h >= 0 {
			continue
		}
		if at := a.witnessed(it); at >= 0 && strictly && b.takes(it, at) {
			h = at
		} else {
			h = a.choose(b, it)
		}
		if h >= 0 {
			b.put(it, h)
		} else if len(a.run)*len(a.s.Hosts) > quietWork || !b.eject(it, b.steps+ejectSteps) {
			out.Unplaced = append(out.Unplaced, a.unplaced(members)...)
		}
	}
	out.Unplaced = append(out.Unplaced, a.stranded...)
	slices.SortStableFunc(out.Unplaced, func(x, y guarantee.Workload) int { return cmp.Compare(x.Rank, y.Rank) })
	asked := a.seat(b, out.Hosts)
	out.Victims = a.victims(b, asked)
	return out
}

// seat notes on which host each workload of the run is, and returns what the run asks of each host; nil where it has
// nothing.
func (a *assigner) seat(b *board, on map[string]string) [][]int64 {
	asked := make([][]int64, len(a.s.Hosts))
	for _, it := range a.run {
		h := b.at[it]
		if h < 0 {
			continue
		}
		if asked[h] == nil {
			asked[h] = make([]int64, a.ix.dims)
		}
		for _, m := range a.ix.items[it].members {
			if w := &a.now.Workloads[m]; a.wanted(m) {
				on[w.Name] = a.s.Hosts[h].Name
				for d := range asked[h] {
					asked[h][d] = guarantee.Add(asked[h][d], w.Demand.At(d))
				}
			}
		}
	}
	return asked
}

// unplaced are the members that the run was to place: others run already.
func (a *assigner) unplaced(members []int32) (out []guarantee.Workload) {
	for _, m := range members {
		if a.wanted(m) {
			out = append(out, a.now.Workloads[m])
		}
	}
	return out
}

// choose takes a host with room for nothing preempted, then the witness's, then the emptiest.
func (a *assigner) choose(b *board, it int32) int32 {
	best, bestScore, bestFree := int32(nowhere), 0, int64(0)
	witness := a.witnessed(it)
	for h := range int32(len(a.s.Hosts)) {
		if !b.takes(it, h) {
			continue
		}
		score := 1
		if h == witness {
			score++
		}
		if a.quiet(b, it, h) {
			score += 2
		}
		free := b.slack(it, h)
		if best < 0 || score > bestScore || score == bestScore && free > bestFree {
			best, bestScore, bestFree = h, score, free
		}
	}
	return best
}

// quiet says whether an item fits beside the leases of a host.
func (a *assigner) quiet(b *board, it, h int32) bool {
	demand := a.ix.flavours[a.ix.items[it].flavour].demand
	for d, want := range demand {
		if want > 0 && want > a.ix.roomOf(h)[d]-b.load[int(h)*b.ix.width+d]-a.lent[int(h)*a.ix.dims+d] {
			return false
		}
	}
	return true
}

// victims chooses who goes from the hosts that the run uses, for what it asks of each. Instances that are held already are
// among them where their return would not fit: whoever frees them first must not bring them back.
func (a *assigner) victims(b *board, asked [][]int64) []guarantee.Instance {
	hosts := make(map[string]int, len(a.s.Hosts))
	for h := range a.s.Hosts {
		hosts[a.s.Hosts[h].Name] = h
	}
	var leases []victim.Lease
	number := make(map[string]int, len(a.s.Preemptible))
	numbers := make([]int, len(a.s.Preemptible))
	missing := make([][]int64, len(a.s.Hosts))
	gains := make([]int64, len(a.s.Preemptible)*a.ix.dims)
	for i := range a.s.Preemptible {
		v := &a.s.Preemptible[i]
		n, known := number[v.Lease]
		if !known {
			n = len(leases)
			number[v.Lease] = n
			leases = append(leases, victim.Lease{Name: v.Lease, Held: true})
		}
		numbers[i] = n
		leases[n].Held = leases[n].Held && v.Held
		if !v.Held {
			leases[n].Cost += v.Cost + 1 // Of two sets that cost nothing the smaller one goes.
		}
		h, there := hosts[v.Host]
		if !there || asked[h] == nil {
			continue
		}
		gain := gains[i*a.ix.dims : (i+1)*a.ix.dims : (i+1)*a.ix.dims]
		if missing[h] == nil {
			missing[h] = a.full(b, h, asked[h])
		}
		for d := range gain {
			gain[d] = v.Demand.At(d) - v.Residue.At(d)
			missing[h][d] = guarantee.Add(missing[h][d], v.Demand.At(d))
		}
		leases[n].Parts = append(leases[n].Parts, victim.Part{Host: h, Gain: gain})
	}
	var needs []victim.Need
	for h := range a.s.Hosts {
		if missing[h] != nil {
			needs = append(needs, victim.Need{Host: h, Room: missing[h]})
		}
	}
	taken := make([]bool, len(leases))
	for _, l := range victim.Choose(leases, needs) {
		taken[l] = true
	}
	return a.instances(func(i int) bool { return taken[numbers[i]] })
}

// instances returns some of the lent instances by their objects' names.
func (a *assigner) instances(some func(int) bool) []guarantee.Instance {
	var gone []int
	for i := range a.s.Preemptible {
		if some(i) {
			gone = append(gone, i)
		}
	}
	slices.SortFunc(gone, func(x, y int) int { return cmp.Compare(a.s.Preemptible[x].Object, a.s.Preemptible[y].Object) })
	out := make([]guarantee.Instance, 0, len(gone))
	for _, i := range gone {
		out = append(out, a.s.Preemptible[i])
	}
	return out
}

// plenty is what is free of what a run does not ask for: if less than nothing is, nobody goes for it.
const plenty = math.MaxInt64 / 2

// full is what a host carries without leases, beyond its capacity: negative while there is room.
func (a *assigner) full(b *board, h int, asked []int64) []int64 {
	out := make([]int64, a.ix.dims)
	for d := range out {
		if asked[d] <= 0 {
			out[d] = -plenty
			continue
		}
		out[d] = b.load[h*b.ix.width+d] - a.ix.room[h*a.ix.dims+d] - a.s.Hosts[h].Lending.At(d)
	}
	return out
}

// after is the site once the run is there, without its victims.
func (a *assigner) after(as Assignment) *guarantee.Site {
	out := *a.s
	wanted := make(map[string]bool, len(a.given))
	for i := range a.given {
		wanted[a.given[i].Name] = true
	}
	out.Workloads = slices.DeleteFunc(slices.Clone(a.s.Workloads), func(w guarantee.Workload) bool { return wanted[w.Name] })
	for _, w := range a.given {
		w.Host = as.Hosts[w.Name]
		out.Workloads = append(out.Workloads, w)
	}
	return &out
}
