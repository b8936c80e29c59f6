package demand

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// mostMeasured is how many of the newest runs count: of them the slowest start, as one alone may have been lucky.
const mostMeasured = 3

// leastBudget is what is left where starts alone take all of the time: nothing that takes any may be lent there.
const leastBudget = time.Millisecond

// starts is how long it took from when a workload's host had the room until the workload served, by plan and replica.
type starts map[string]map[string]time.Duration

// measured reads the time lines of a run that is over. What had not served is not measured, nor is what was tried again: its VM
// may have been on its way before.
func measured(f *pb.Failover) starts {
	out := starts{}
	for _, st := range f.GetSteps() {
		took, served := startTook(st)
		if st.GetWorkload() == "" || st.GetWayBack() || st.GetRetried() || st.GetSpec().GetState() != pb.State_STATE_RUNNING || !served {
			continue
		}
		if out[st.GetPlan()] == nil {
			out[st.GetPlan()] = map[string]time.Duration{}
		}
		out[st.GetPlan()][st.GetWorkload()] = took
	}
	return out
}

// startTook is the time from the driver's call, before which the step waited for room, until the VM served. The call is timed by the
// agent's clock, which counts only within what the coordinator saw.
func startTook(st *pb.Step) (time.Duration, bool) {
	if st.GetReleasedAt() == nil || st.GetDoneAt() == nil || st.GetCallBegan() == nil {
		return 0, false
	}
	end := st.GetDoneAt().AsTime()
	if st.GetSpec().GetInstance().GetHealth() != nil {
		if st.GetHealthyAt() == nil {
			return 0, false
		}
		end = st.GetHealthyAt().AsTime()
	}
	released, began := st.GetReleasedAt().AsTime(), st.GetCallBegan().AsTime()
	if began.Before(released) {
		began = released
	}
	if done := st.GetDoneAt().AsTime(); began.After(done) {
		began = done
	}
	return max(end.Sub(began), 0), true
}

// readRuns reads the runs that are over, and what the newest say together.
func (r *reading) readRuns(s interface{ Failovers() iter.Seq[*pb.Failover] }, before *reading) {
	r.runs = map[*pb.Failover]starts{}
	var all []starts
	for f := range s.Failovers() {
		if model.Open(f.GetPhase()) {
			continue
		}
		m, known := before.runs[f]
		if !known {
			m = measured(f)
		}
		r.runs[f] = m
		all = append(all, m)
	}
	if before.took != nil && maps.EqualFunc(r.runs, before.runs, func(starts, starts) bool { return true }) {
		r.took = before.took
		return
	}
	r.took = starts{}
	seen := map[string]map[string]int{}
	for _, run := range slices.Backward(all) {
		for plan, list := range run { // Any order: each workload counts for itself.
			if r.took[plan] == nil {
				r.took[plan], seen[plan] = map[string]time.Duration{}, map[string]int{}
			}
			for replica, took := range list { // Any order: as above.
				if seen[plan][replica]++; seen[plan][replica] <= mostMeasured {
					r.took[plan][replica] = max(r.took[plan][replica], took)
				}
			}
		}
	}
}

// budgets says how long taking lent VMs back may hold up each workload of a plan. Where the plan does not say so itself, it is what
// its RTO target leaves after the start of the workload and of all that waits for it, as they were measured.
func budgets(p *pb.Plan, took map[string]time.Duration) map[string]time.Duration {
	out := make(map[string]time.Duration, len(p.GetSpec().GetWorkloads()))
	target := p.GetSpec().GetRtoTarget().AsDuration()
	predicts := target > 0 && p.GetSpec().GetReclaimBudget() == nil
	line := newTimeLine(p, took)
	for _, w := range p.GetSpec().GetWorkloads() {
		out[w.GetName()] = unpredicted(p)
		if t := line.served(w.GetName()); predicts && t != unmeasured {
			out[w.GetName()] = max(target-t, leastBudget)
		}
	}
	return out
}

// ServesAfter predicts for each workload of a plan how long it and all of the plan that waits for it take to serve, once there is
// room for it. What was not measured is left out.
func ServesAfter(s State, p *pb.Plan) map[string]time.Duration {
	line := newTimeLine(p, s.Memo().read(s).took[p.GetMetadata().GetName()])
	out := map[string]time.Duration{}
	for _, w := range p.GetSpec().GetWorkloads() {
		if t := line.served(w.GetName()); t != unmeasured {
			out[w.GetName()] = t
		}
	}
	return out
}

// unpredicted is what a plan says of its budget, or half of its RTO target; zero: it has none.
func unpredicted(p *pb.Plan) time.Duration {
	if b := p.GetSpec().GetReclaimBudget(); b != nil {
		return b.AsDuration()
	}
	return p.GetSpec().GetRtoTarget().AsDuration() / 2
}

// unmeasured is no time.
const unmeasured = time.Duration(-1)

// timeLine predicts how long a plan's workloads take to serve.
type timeLine struct {
	// took is the slowest replica of each workload.
	took map[string]time.Duration
	// waiting are the workloads of the plan that wait for each.
	waiting map[string][]string
	total   map[string]time.Duration
}

func newTimeLine(p *pb.Plan, took map[string]time.Duration) *timeLine {
	l := &timeLine{map[string]time.Duration{}, map[string][]string{}, map[string]time.Duration{}}
	if len(took) == 0 {
		return l
	}
	for _, r := range model.Replicas(p) {
		if t, known := took[r.Name]; known {
			l.took[r.Workload.GetName()] = max(l.took[r.Workload.GetName()], t)
		}
	}
	for _, w := range p.GetSpec().GetWorkloads() {
		for _, dep := range w.GetDependsOn() { // "db" or "webshop/db".
			name := strings.TrimPrefix(dep, p.GetMetadata().GetName()+"/")
			l.waiting[name] = append(l.waiting[name], w.GetName())
		}
	}
	return l
}

// served is how long it takes from room for a workload until it and all of its plan that waits for it serve.
func (l *timeLine) served(workload string) time.Duration {
	if t, known := l.total[workload]; known {
		return t
	}
	l.total[workload] = unmeasured // Whoever waits for itself is not predicted; manifests with such a circle are refused.
	own, known := l.took[workload]
	if !known {
		return unmeasured
	}
	var after time.Duration
	for _, w := range l.waiting[workload] {
		t := l.served(w)
		if t == unmeasured {
			return unmeasured
		}
		after = max(after, t)
	}
	l.total[workload] = own + after
	return own + after
}
