package repair

import (
	"slices"

	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// mostChanges bounds how many changes are repaired one after the other: more are packed anew sooner.
const mostChanges = 32

// lookAhead is how far the next common host or workload is looked for.
const lookAhead = mostChanges

// Follow repairs the witness for what a site has become. False: a full proof is needed, and this witness is of no
// use any more.
func (w *Witness) Follow(was, is *guarantee.Site) bool {
	alike := slices.Equal(was.Dimensions, is.Dimensions) && slices.EqualFunc(was.Asked(), is.Asked(), guarantee.Scenario.Equal) &&
		slices.EqualFunc(was.Firm, is.Firm, sameFirm)
	return alike && w.followHosts(was.Hosts, is.Hosts, is.Firm) && w.followWork(was.Workloads, is.Workloads)
}

func sameFirm(a, b guarantee.Instance) bool {
	return a.Object == b.Object && a.Host == b.Host && slices.Equal(a.Demand, b.Demand)
}

// edit is one difference of two lists: the at-th of the newer one was put in, or what is at its place is not there
// any more.
type edit struct {
	at     int
	insert bool
}

// edits lists the differences of two lists, in order, each as the lists are after those before it; false if there
// are too many.
func edits[T any](was, is []T, same func(a, b *T) bool) (out []edit, ok bool) {
	i, j := 0, 0
	for i < len(was) || j < len(is) {
		if i < len(was) && j < len(is) && same(&was[i], &is[j]) {
			i, j = i+1, j+1
			continue
		}
		if len(out) >= mostChanges {
			return nil, false
		}
		inserted := j < len(is) && (i == len(was) || slices.ContainsFunc(is[j:min(len(is), j+lookAhead)], func(x T) bool { return same(&was[i], &x) }))
		out = append(out, edit{j, inserted})
		if inserted {
			j++
		} else {
			i++
		}
	}
	return out, true
}

func (w *Witness) followHosts(was, is []guarantee.Host, firm []guarantee.Instance) bool {
	if len(was) == len(is) && w.closing(was, is) {
		return w.closed(was, is)
	}
	all, ok := edits(was, is, func(a, b *guarantee.Host) bool { return sameHost(a, b) && a.State == b.State })
	for _, e := range all {
		switch {
		case !ok:
		case e.insert && slices.ContainsFunc(firm, func(f guarantee.Instance) bool { return f.Host == is[e.at].Name }):
			return false
		case e.insert:
			ok = w.AddHost(e.at, &is[e.at])
		default:
			ok = w.RemoveHost(e.at)
		}
	}
	return ok
}

// closing says whether hosts differ in nothing but that some are usable no more.
func (w *Witness) closing(was, is []guarantee.Host) bool {
	for i := range was {
		if !sameHost(&was[i], &is[i]) || was[i].State != is[i].State && was[i].State != guarantee.Usable {
			return false
		}
	}
	return true
}

func (w *Witness) closed(was, is []guarantee.Host) bool {
	for i := range was {
		if was[i].State != is[i].State && !w.Close(i, is[i].State) {
			return false
		}
	}
	return true
}

// sameHost compares all but the state. How fast it saves is nothing to the proof.
func sameHost(a, b *guarantee.Host) bool {
	return a.Name == b.Name && a.FailureDomain == b.FailureDomain && slices.Equal(a.Capacity, b.Capacity) && slices.Equal(a.Lending, b.Lending) &&
		slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Networks, b.Networks) && slices.Equal(a.Pools, b.Pools)
}

func (w *Witness) followWork(was, is []guarantee.Workload) bool {
	all, ok := edits(was, is, sameWork)
	for _, e := range all {
		switch {
		case !ok:
		case e.insert:
			ok = w.Add(e.at, &is[e.at])
		default:
			ok = w.Remove(e.at)
		}
	}
	return ok
}

func sameWork(a, b *guarantee.Workload) bool {
	return a.Name == b.Name && a.Plan == b.Plan && a.Host == b.Host && a.Together == b.Together && a.Budget == b.Budget && a.Rank == b.Rank &&
		slices.Equal(a.Demand, b.Demand) && slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Networks, b.Networks) &&
		slices.Equal(a.Pools, b.Pools) && slices.Equal(a.Apart, b.Apart)
}
