package demand

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// Memo remembers what the last site was made of, so that the next one is made anew only where it differs. What it
// gives is what would be read without it. All versions of a state share one: rows are told apart by their addresses,
// which no two versions of a row share. It is safe for concurrent use.
type Memo struct {
	mu   sync.Mutex
	last *reading
}

// Roots tells versions of the tables apart that a site is read from: an equal root is equal content.
type Roots struct{ Hosts, Resources, Failovers, Objects, Lents any }

// Lent is one version of a lease and of the objects of its VMs.
type Lent struct{ Lease *pb.Lease }

// Anew is the same state without anything remembered.
func Anew(s State) State { return anew{s, new(Memo)} }

type anew struct {
	State
	memo *Memo
}

func (a anew) Memo() *Memo { return a.memo }

func (m *Memo) read(s State) *reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil || m.last.roots != s.Roots() {
		m.last = read(s, m.last)
	}
	return m.last
}

// reading is what was read of one version of the state. It is not changed any more, but for what is priced.
type reading struct {
	roots Roots
	common
	// fixed are the devices of all but leases.
	fixed  []string
	pinned bool
	// runs are those that are over, with what was measured in each, and took what they say together.
	runs map[*pb.Failover]starts
	took starts

	hostRows []*hostRow
	planRows []*planRow
	lentRows []*lentRow

	hosts       []guarantee.Host
	hostSums    []guarantee.Sum
	workloads   []guarantee.Workload
	workloadSum guarantee.Sum
	scenarios   []guarantee.Scenario
	firm        []guarantee.Instance
	firmSum     guarantee.Sum

	mu          sync.Mutex
	pricedAt    time.Time
	preemptible []guarantee.Instance
	kept        []guarantee.Kept
}

// common is what all demands have in common: with another one, every row is another one.
type common struct {
	// more are the dimensions after those that every site has, in order.
	more                    []string
	overhead                uint64
	networks, pools, images []*pb.Resource
}

func (c *common) equal(o *common) bool {
	return slices.Equal(c.more, o.more) && c.overhead == o.overhead && slices.Equal(c.networks, o.networks) &&
		slices.Equal(c.pools, o.pools) && slices.Equal(c.images, o.images)
}

// read reads a version of the state, and takes over what is as it was before.
func read(s State, before *reading) *reading {
	out := &reading{roots: s.Roots()}
	lents := slices.Collect(s.Lents())
	if before == nil {
		before = &reading{} // Has no row.
	}
	same := before.roots.Hosts == out.roots.Hosts && before.roots.Resources == out.roots.Resources && before.roots.Failovers == out.roots.Failovers &&
		(!before.pinned || before.roots.Objects == out.roots.Objects)
	if same {
		out.common, out.fixed, out.pinned, out.runs, out.took = before.common, before.fixed, before.pinned, before.runs, before.took
	} else {
		if before.roots.Failovers == out.roots.Failovers {
			out.runs, out.took = before.runs, before.took
		} else {
			out.readRuns(s, before)
		}
		out.fixed, out.overhead = fixed(s), overhead(s)
		out.networks, out.pools, out.images = slices.Collect(s.Resources("network")), slices.Collect(s.Resources("pool")), slices.Collect(s.Resources("image"))
	}
	out.more = withLent(out.fixed, lents)
	if !out.equal(&before.common) {
		before, same = &reading{}, false
	}
	d := newReader(s, &out.common, out.took)
	if same {
		out.hostRows, out.hosts, out.hostSums = before.hostRows, before.hosts, before.hostSums
		out.planRows, out.workloads, out.workloadSum, out.scenarios = before.planRows, before.workloads, before.workloadSum, before.scenarios
	} else {
		out.readHosts(d, before.hostRows)
		out.readPlans(d, before.planRows)
		out.scenarios = scenarios(s)
	}
	out.readLents(d, lents, before.lentRows)
	return out
}

// fixed names the dimensions of all devices and local pools that somebody but a lease has, asks for or holds, in order.
func fixed(s State) []string {
	names := map[string]bool{}
	note := func(l local) { l.each(func(dimension string, _ int64) { names[dimension] = true }) }
	plan := func(p *pb.Plan) {
		for _, w := range p.GetSpec().GetWorkloads() {
			note(asked(w.GetResources()))
		}
	}
	for h := range s.Hosts() {
		note(local{h.GetCapacity().GetLocalDisksBytes(), h.GetCapacity().GetDevices()})
	}
	for p := range s.Plans() {
		plan(p)
	}
	for f := range s.OpenFailovers() {
		for _, p := range f.GetPlacements() {
			note(asked(made(s.Object(p.GetObject()).GetBase().GetInstance())))
		}
		for _, p := range f.GetWaiting() {
			plan(p)
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// withLent adds what leases have.
func withLent(names []string, lents []*Lent) []string {
	for _, l := range lents {
		asked(l.Lease.GetSpec().GetResources()).each(func(dimension string, _ int64) { // Any order: each goes to its place.
			if at, known := slices.BinarySearch(names, dimension); !known {
				names = slices.Insert(slices.Clone(names), at, dimension)
			}
		})
	}
	return names
}

// earlier finds rows by name among those of an earlier reading, of which both are in order.
type earlier[R interface{ name() string }] struct{ rows []R }

func (e *earlier[R]) find(name string) (row R, found bool) {
	for len(e.rows) > 0 && e.rows[0].name() < name {
		e.rows = e.rows[1:]
	}
	if len(e.rows) == 0 || e.rows[0].name() != name {
		return row, false
	}
	return e.rows[0], true
}

// hostRow is a host with what was read of it: as if its agent answered.
type hostRow struct {
	host   *pb.Host
	policy *pb.Resource
	is     guarantee.Host
	sum    guarantee.Sum
}

func (r *hostRow) name() string { return r.host.GetName() }

func (r *reading) readHosts(d *Reader, before []*hostRow) {
	rows := earlier[*hostRow]{before}
	for h := range d.s.Hosts() {
		if !hypervisor(h) {
			continue
		}
		policy := d.s.Resource("host/" + h.GetName())
		row, found := rows.find(h.GetName())
		if !found || row.host != h || row.policy != policy {
			row = &hostRow{host: h, policy: policy, is: d.host(h, policy.GetHost())}
			row.sum = row.is.Sum()
		}
		r.hostRows, r.hosts, r.hostSums = append(r.hostRows, row), append(r.hosts, row.is), append(r.hostSums, row.sum)
	}
}

// planRow is a plan with its workloads as they are where no run has placed them.
type planRow struct {
	plan      *pb.Resource
	took      map[string]time.Duration
	workloads []guarantee.Workload
	sums      []guarantee.Sum
}

func (r *planRow) name() string { return r.plan.GetPlan().GetMetadata().GetName() }

func (r *reading) readPlans(d *Reader, before []*planRow) {
	rows := earlier[*planRow]{before}
	runs := d.pinned()
	r.pinned = len(runs) > 0
	var sums []guarantee.Sum
	put := func(w guarantee.Workload, sum guarantee.Sum) {
		r.workloads, sums = append(r.workloads, w), append(sums, sum)
	}
	for p := range d.s.Resources("plan") {
		name := p.GetPlan().GetMetadata().GetName()
		row, found := rows.find(name)
		if !found || row.plan != p || !maps.Equal(row.took, d.took[name]) {
			row = &planRow{plan: p, took: d.took[name]}
			for _, replica := range model.Replicas(p.GetPlan()) {
				w := d.Workload(p.GetPlan(), replica)
				row.workloads, row.sums = append(row.workloads, w), append(row.sums, w.Sum())
			}
		}
		r.planRows = append(r.planRows, row)
		for i, w := range row.workloads {
			run, placed := runs[w.Name]
			if !placed {
				put(w, row.sums[i])
				continue
			}
			put(run, run.Sum())
			delete(runs, w.Name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(runs)) {
		run := runs[key]
		put(run, run.Sum()) // Its plan was edited since; it runs all the same.
	}
	r.workloadSum = guarantee.SumOf(sums)
}

// lentRow is a lease with its VMs, without their prices, and with what it left.
type lentRow struct {
	lent              *Lent
	preemptible, firm []guarantee.Instance
	firmSums          []guarantee.Sum
	kept              []guarantee.Kept
}

func (r *lentRow) name() string { return r.lent.Lease.GetName() }

func (r *reading) readLents(d *Reader, lents []*Lent, before []*lentRow) {
	rows := earlier[*lentRow]{before}
	var sums []guarantee.Sum
	r.lentRows = make([]*lentRow, 0, len(lents))
	for _, l := range lents {
		row, found := rows.find(l.Lease.GetName())
		if !found || row.lent != l {
			row = d.lease(l)
		}
		r.lentRows = append(r.lentRows, row)
		r.firm, sums = append(r.firm, row.firm...), append(sums, row.firmSums...)
	}
	r.firmSum = guarantee.SumOf(sums)
}

// lent lists what is lent with what it costs to take it back now, and what ended leases left.
func (r *reading) lent(s State) ([]guarantee.Instance, []guarantee.Kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.preemptible != nil && r.pricedAt.Equal(s.Time()) {
		return slices.Clip(r.preemptible), slices.Clip(r.kept)
	}
	n := 0
	for _, row := range r.lentRows {
		n += len(row.preemptible)
	}
	p := pricing{s: s, weights: map[string]uint64{}, saves: make(map[string]int64, len(r.hosts))}
	for i := range r.hosts {
		p.saves[r.hosts[i].Name] = r.hosts[i].SaveBandwidth
	}
	r.pricedAt, r.preemptible, r.kept = s.Time(), make([]guarantee.Instance, 0, n), nil
	for _, row := range r.lentRows {
		if len(row.preemptible) > 0 {
			from := len(r.preemptible)
			r.preemptible = append(r.preemptible, row.preemptible...)
			p.price(row.lent.Lease, r.preemptible[from:])
		}
		r.kept = append(r.kept, row.kept...)
	}
	return slices.Clip(r.preemptible), slices.Clip(r.kept)
}

// base is the site without what is lent, and its fingerprint.
func (r *reading) base(silent []string) (*guarantee.Site, []byte) {
	hosts, sums := r.hosts, r.hostSums
	copied := false
	for _, name := range silent {
		at, found := slices.BinarySearchFunc(hosts, name, func(h guarantee.Host, name string) int { return strings.Compare(h.Name, name) })
		if !found || hosts[at].State != guarantee.Usable {
			continue
		}
		if !copied {
			hosts, sums, copied = slices.Clone(hosts), slices.Clone(sums), true
		}
		hosts[at].State = guarantee.Unknown
		sums[at] = hosts[at].Sum()
	}
	out := &guarantee.Site{
		Dimensions: r.dimensions(), Hosts: slices.Clip(hosts), Workloads: slices.Clip(r.workloads), Firm: slices.Clip(r.firm), Scenarios: slices.Clip(r.scenarios),
	}
	return out, guarantee.Fingerprint(out.Dimensions, guarantee.SumOf(sums), r.workloadSum, r.firmSum, out.Asked())
}
