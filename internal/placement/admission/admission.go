// Package admission admits leases under a certificate of the guarantee: preemptible ones by looking at
// each host's room, residue and reclaim time alone, firm ones only where the site is still proven.
// It is pure, and never takes anything from anybody. The lease controller calls it.
package admission

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// firmTrials bounds how many hosts are tried for a firm instance: each is a proof.
const firmTrials = 32

// Lender admits preemptible instances under a certificate. For each host it looks at the room now, the
// residue and the reclaim time, and at nothing else: whether the plans fit does not depend on them.
type Lender struct {
	s    *guarantee.Site
	dims int
	// by host and dimension: capacity, what runs and what is held for those that come back, what leases
	// leave behind when they are preempted, and what the host may have to carry.
	capacity, used, lent, residue, obliged []int64
	// firm is what firm instances have.
	firm   []int64
	wait   []time.Duration
	save   []int64
	budget []time.Duration
	hosts  map[string]int
	index  *index
}

// NewLender counts what is on the hosts. The decision must be of this site.
func NewLender(s *guarantee.Site, d guarantee.Decision) *Lender {
	n, dims := len(s.Hosts), len(s.Dimensions)
	l := &Lender{
		s: s, dims: dims, capacity: make([]int64, n*dims), used: make([]int64, n*dims), lent: make([]int64, n*dims),
		residue: make([]int64, n*dims), obliged: make([]int64, n*dims), firm: make([]int64, n*dims), wait: make([]time.Duration, n), save: make([]int64, n),
		budget: make([]time.Duration, n), hosts: make(map[string]int, n),
	}
	for h := range s.Hosts {
		l.hosts[s.Hosts[h].Name] = h
		for i := range dims {
			l.capacity[h*dims+i] = s.Hosts[h].Capacity.At(i)
		}
		if d.Certificate != nil {
			copy(l.obliged[h*dims:(h+1)*dims], d.Certificate.Obligations[h])
			l.budget[h] = d.Certificate.Budgets[h]
		}
	}
	for i := range s.Workloads {
		l.add(l.used, s.Workloads[i].Host, s.Workloads[i].Demand)
	}
	for i := range s.Firm {
		l.add(l.used, s.Firm[i].Host, s.Firm[i].Demand)
		l.add(l.lent, s.Firm[i].Host, s.Firm[i].Demand)
		l.add(l.firm, s.Firm[i].Host, s.Firm[i].Demand)
	}
	for i := range s.Preemptible {
		l.place(&s.Preemptible[i])
	}
	for _, k := range s.Kept {
		l.add(l.used, k.Host, k.Disks)
		l.add(l.residue, k.Host, k.Disks)
	}
	l.index = newIndex(l)
	return l
}

// clone is the same, and changes alone.
func (l *Lender) clone() *Lender {
	out := *l
	out.used, out.lent, out.residue = slices.Clone(l.used), slices.Clone(l.lent), slices.Clone(l.residue)
	out.wait, out.save, out.index = slices.Clone(l.wait), slices.Clone(l.save), l.index.clone()
	return &out
}

func (l *Lender) add(to []int64, host string, v guarantee.Vector) {
	if h, ok := l.hosts[host]; ok {
		for d := range l.dims {
			to[h*l.dims+d] = guarantee.Add(to[h*l.dims+d], v.At(d))
		}
	}
}

// Place counts an instance on its host.
func (l *Lender) Place(v *guarantee.Instance) {
	if h := l.place(v); h >= 0 {
		l.index.update(l, h)
	}
}

// place is Place without the index, and returns the host: -1 if there is no such.
func (l *Lender) place(v *guarantee.Instance) int {
	h, ok := l.hosts[v.Host]
	if !ok {
		return -1
	}
	at := h * l.dims
	for d := range l.dims {
		want := v.Demand.At(d)
		l.used[at+d], l.lent[at+d] = guarantee.Add(l.used[at+d], want), guarantee.Add(l.lent[at+d], want)
		l.residue[at+d] = guarantee.Add(l.residue[at+d], v.Residue.At(d))
	}
	l.wait[h] = max(l.wait[h], v.Reclaim.Wait)
	l.save[h] = guarantee.Add(l.save[h], v.Reclaim.SaveBytes)
	return h
}

// Choose returns the host for an instance: one where it stays out of every witness's way before others,
// then the one with the most memory. It returns -1 if none takes it: see Refusal.
func (l *Lender) Choose(v *guarantee.Instance) int {
	s := newSearch(l, v)
	if _, any := s.promise(1); any {
		s.visit(1)
	}
	return s.best
}

// rank is how good a host is for an instance.
type rank struct {
	quiet bool
	free  int64
}

// above says whether a host is better than another one.
func (r rank) above(o rank) bool {
	return r.quiet && !o.quiet || r.quiet == o.quiet && r.free > o.free
}

// free is what a host has beside all that runs, and all that comes back.
func (l *Lender) free(h, d int) int64 {
	at := h*l.dims + d
	return l.capacity[at] - l.used[at]
}

// calm is what no witness needs of a host, beside all that is lent.
func (l *Lender) calm(h, d int) int64 {
	at := h*l.dims + d
	return l.capacity[at] - l.lent[at] - l.obliged[at]
}

// hasRoom says whether an instance fits beside all that runs, and all that comes back.
func (l *Lender) hasRoom(h int, v *guarantee.Instance) bool {
	for d, want := range v.Demand {
		if want > 0 && want > l.free(h, d) {
			return false
		}
	}
	return true
}

// leavesShare says whether firm instances leave the lending share alone: it is promised to what leases leave behind,
// and no plan needs to ask for any of it for that to hold.
func (l *Lender) leavesShare(h int, v *guarantee.Instance) bool {
	at := h * l.dims
	for d, want := range v.Demand {
		if want > 0 && want > l.capacity[at+d]-l.s.Hosts[h].Lending.At(d)-l.firm[at+d] {
			return false
		}
	}
	return true
}

// suits checks what does not change with the load: networks, residue, time to reclaim.
func (l *Lender) suits(h int, v *guarantee.Instance) bool {
	return l.s.Hosts[h].State == guarantee.Usable && reaches(v, &l.s.Hosts[h]) && l.leaves(h, v) && l.reclaims(h, v)
}

// reaches says whether a host has the networks and pools that an instance needs.
func reaches(v *guarantee.Instance, h *guarantee.Host) bool {
	missing := func(have []string) func(string) bool {
		return func(n string) bool { return !slices.Contains(have, n) }
	}
	return !slices.ContainsFunc(v.Networks, missing(h.Networks)) && !slices.ContainsFunc(v.Pools, missing(h.Pools))
}

// leaves says whether what a preemption would not give back is within the host's lending share, and
// beside what the host may have to carry.
func (l *Lender) leaves(h int, v *guarantee.Instance) bool {
	for d, want := range v.Residue {
		if want > 0 && want > l.left(h, d) {
			return false
		}
	}
	return true
}

// bound is the time to reclaim a host with one more instance.
func (l *Lender) bound(h int, r guarantee.Reclaim) time.Duration {
	return guarantee.Bound(l.s.Hosts[h].SaveBandwidth, guarantee.Reclaim{Wait: l.wait[h], SaveBytes: l.save[h]}, r)
}

func (l *Lender) reclaims(h int, v *guarantee.Instance) bool {
	return l.budget[h] == 0 || l.bound(h, v.Reclaim) <= l.budget[h]
}

// quiet says whether an instance never has to go: it fits beside the obligation.
func (l *Lender) quiet(h int, v *guarantee.Instance) bool {
	for d, want := range v.Demand {
		if want > 0 && want > l.calm(h, d) {
			return false
		}
	}
	return true
}

// Refusal says what is in the way of an instance, and what would be accepted.
func (l *Lender) Refusal(v *guarantee.Instance) *model.Error {
	o := obstacle{most: -1, least: math.MaxInt64}
	for h := range l.s.Hosts {
		if l.s.Hosts[h].State == guarantee.Usable && reaches(v, &l.s.Hosts[h]) {
			o.look(l, h, v)
		}
	}
	e := model.Errorf(model.FaultNoFit, "", "fits on no host now")
	switch {
	case !o.reached:
		return e.WithRemedy("no usable host reaches %v", slices.Concat(v.Networks, v.Pools))
	case !o.room && (o.most <= 0 || o.cpu <= 0):
		return e.WithRemedy("no host has room; try again later")
	case !o.room && o.short(l, v) != "":
		return e.WithRemedy("the most free on one host is %s", o.short(l, v))
	case !o.room:
		return e.WithRemedy("the most free on one host is %d vcpus, %s", o.cpu/guarantee.Milli, model.Bytes(uint64(o.most)))
	case !o.residue:
		return e.WithRemedy("%s", o.unlent(l, v))
	}
	if o.unmeasured {
		e = model.Errorf(model.FaultNoFit, "", "cannot be promised back in time: how fast hosts with room save RAM is not measured")
	} else {
		e = model.Errorf(model.FaultNoFit, "", "could be taken back in %v on the best host with room, and the recovery plans leave %v", o.least, o.budget)
	}
	if o.shutdown {
		return e.WithRemedy("with --on-preempt=shutdown it fits")
	}
	return e.WithRemedy("ask for a shorter grace, or for less memory")
}

// obstacle is how far an instance comes on the best host.
type obstacle struct {
	reached, room, residue bool
	// most memory that is free on one host, with the processors there.
	most, cpu int64
	// free is the most of each dimension on one host, lent what is left of it for leases on one with room.
	free, lent []int64
	// least time to reclaim a host with room, and the budget there.
	least, budget time.Duration
	// shutdown instead of save would be in time; unmeasured: on no such host is there a bound at all.
	shutdown, unmeasured bool
}

// short names the most that one host has of a disk or device of which none has enough; empty: there is none.
func (o *obstacle) short(l *Lender, v *guarantee.Instance) string {
	for d := 2; d < l.dims; d++ {
		if v.Demand.At(d) > o.free[d] {
			return guarantee.Quantity(l.s.Dimensions[d], max(o.free[d], 0))
		}
	}
	return ""
}

// unlent says what hosts with room do not have left for leases.
func (o *obstacle) unlent(l *Lender, v *guarantee.Instance) string {
	for d := range l.dims {
		if v.Residue.At(d) > o.lent[d] {
			text := fmt.Sprintf("the most that a host with room has left for leases is %s, it needs %s", guarantee.Quantity(l.s.Dimensions[d], max(o.lent[d], 0)),
				guarantee.Quantity(l.s.Dimensions[d], v.Residue.At(d)))
			if v.Reclaim.SaveBytes > 0 && l.s.Dimensions[d] == guarantee.LocalDisk {
				text += "; with --on-preempt=shutdown it keeps no RAM"
			}
			return text
		}
	}
	return "no host with room has both disk and devices left for leases"
}

// left is what a host has left for what preempted leases keep.
func (l *Lender) left(h, d int) int64 {
	at := h*l.dims + d
	return min(l.s.Hosts[h].Lending.At(d)-l.residue[at], l.capacity[at]-l.obliged[at]-l.residue[at])
}

func (o *obstacle) look(l *Lender, h int, v *guarantee.Instance) {
	o.reached = true
	if o.free == nil {
		o.free = slices.Repeat([]int64{math.MinInt64}, l.dims)
	}
	for d := range o.free {
		o.free[d] = max(o.free[d], l.free(h, d))
	}
	if free := l.free(h, 1); free > o.most {
		o.most, o.cpu = free, l.free(h, 0)
	}
	if !l.hasRoom(h, v) {
		return
	}
	o.room = true
	if o.lent == nil {
		o.lent = slices.Repeat([]int64{math.MinInt64}, l.dims)
	}
	for d := range o.lent {
		o.lent[d] = max(o.lent[d], l.left(h, d))
	}
	if !l.leaves(h, v) {
		return
	}
	o.residue = true
	if b := l.bound(h, v.Reclaim); b < o.least {
		o.least, o.budget = b, l.budget[h]
	}
	o.unmeasured = o.least == math.MaxInt64
	quick := *v
	quick.Reclaim.SaveBytes = 0
	o.shutdown = o.shutdown || l.reclaims(h, &quick)
}

// Risk is a host whose lent instances could not all be taken back in time: what they were admitted under has
// changed since. Nothing is preempted for it; it gets nothing more.
type Risk struct {
	Host string
	// Bound is how long taking them back may take, Budget what the recovery plans leave.
	Bound, Budget time.Duration
}

// String says it in words.
func (r Risk) String() string {
	if r.Bound == math.MaxInt64 {
		return fmt.Sprintf("how fast it saves RAM is not measured, the recovery plans leave %v for taking its leases back", r.Budget)
	}
	return fmt.Sprintf("taking its leases back may take %v, the recovery plans leave %v", r.Bound, r.Budget)
}

// Risks lists the hosts at risk, in the order of the site.
func Risks(s *guarantee.Site, d guarantee.Decision) (out []Risk) {
	l := NewLender(s, d)
	for h := range s.Hosts {
		if b := l.bound(h, guarantee.Reclaim{}); l.budget[h] > 0 && b > l.budget[h] {
			out = append(out, Risk{s.Hosts[h].Name, b, l.budget[h]})
		}
	}
	return out
}

// Overlent lists the hosts on which leases leave more behind than their lending share, with how much of what it is.
// Plans may be given the rest of the host, so that it could overflow.
func Overlent(s *guarantee.Site) map[string]string {
	out := map[string]string{}
	l := NewLender(s, guarantee.Decision{})
	for h := range s.Hosts {
		for d, name := range s.Dimensions {
			if kept, share := l.residue[h*l.dims+d], s.Hosts[h].Lending.At(d); kept > share {
				out[s.Hosts[h].Name] = fmt.Sprintf("leases keep %s there, and %s are lent", guarantee.Quantity(name, kept), guarantee.Quantity(name, share))
			}
		}
	}
	return out
}

// Desk admits under one proof of one site, each time as if nobody else had been admitted.
type Desk struct {
	site   *guarantee.Site
	proof  guarantee.Decision
	lender *Lender
}

// NewDesk opens a desk. The decision must be of this site.
func NewDesk(s *guarantee.Site, d guarantee.Decision) *Desk { return &Desk{site: s, proof: d} }

// Preemptible places lent instances where there is room now, first where no witness needs it.
// They change nothing in the proof: they can all be taken back. The error says what would be accepted.
func (k *Desk) Preemptible(want []guarantee.Instance) ([]string, error) {
	if k.proof.Lost() {
		return nil, model.Errorf(model.FaultNoFit, "", "the recovery plans do not fit: %s", k.proof.Reason).
			WithRemedy("the site lends nothing until they do")
	}
	if k.lender == nil {
		k.lender = NewLender(k.site, k.proof)
	}
	l := k.lender
	var out []string
	for i, v := range want {
		h := l.Choose(&v)
		if h < 0 {
			refusal := l.Refusal(&v)
			refusal.What = fmt.Sprintf("VM %d of %d (%s) %s", i+1, len(want), size(k.site, v.Demand), refusal.What)
			return nil, refusal
		}
		v.Host = k.site.Hosts[h].Name
		out = append(out, v.Host)
		if i+1 == len(want) {
			break // Nobody looks at what is left.
		}
		if i == 0 {
			l = l.clone()
		}
		l.Place(&v)
	}
	return out, nil
}

// size names the processors and the memory of an instance.
func size(s *guarantee.Site, v guarantee.Vector) string {
	return guarantee.Quantity(s.Dimensions[0], v.At(0)) + ", " + guarantee.Quantity(s.Dimensions[1], v.At(1))
}

// Firm places instances that survive every scenario: only where the proof holds with them.
func (k *Desk) Firm(want []guarantee.Instance) ([]string, error) {
	s, d := k.site, k.proof
	if d.Answer != guarantee.Fits {
		return nil, model.Errorf(model.FaultNoFit, "", "the site is %s: %s", d.Word(), d.Reason).
			WithRemedy("a preemptible lease may be admitted")
	}
	trial := *s
	trial.Firm = slices.Clone(s.Firm)
	var out []string
	for i, v := range want {
		host, next := firm(&trial, d, v)
		if host == "" {
			return nil, model.Errorf(model.FaultNoFit, "", "VM %d of %d: no host can hold it for good beside the recovery plans", i+1, len(want)).
				WithRemedy("a preemptible lease may be admitted")
		}
		d = next
		out = append(out, host)
	}
	return out, nil
}

// firm adds one instance to the site where it is still proven: first on the hosts that have most
// room beside what they may have to carry.
func firm(s *guarantee.Site, d guarantee.Decision, v guarantee.Instance) (string, guarantee.Decision) {
	l := NewLender(s, d)
	type candidate struct {
		host int
		room int64
	}
	var order []candidate
	for h := range s.Hosts {
		if s.Hosts[h].State != guarantee.Usable || !reaches(&v, &s.Hosts[h]) || !l.hasRoom(h, &v) || !l.leavesShare(h, &v) {
			continue
		}
		room := l.calm(h, 1)
		if l.quiet(h, &v) {
			room = guarantee.Add(room, math.MaxInt64/2)
		}
		order = append(order, candidate{h, room})
	}
	slices.SortStableFunc(order, func(a, b candidate) int {
		switch {
		case a.room > b.room:
			return -1
		case a.room < b.room:
			return 1
		default:
			return 0
		}
	})
	for _, c := range order[:min(len(order), firmTrials)] {
		v.Host = s.Hosts[c.host].Name
		s.Firm = append(s.Firm, v)
		if next := proof.Prove(s); next.Answer == guarantee.Fits {
			return v.Host, next
		}
		s.Firm = s.Firm[:len(s.Firm)-1]
	}
	return "", d
}
