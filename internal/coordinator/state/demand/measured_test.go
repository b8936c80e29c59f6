package demand

import (
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// after is a number of seconds after the declaration.
func after(seconds float64) *timestamppb.Timestamp {
	return timestamppb.New(time.Unix(1_800_000_000, 0).Add(time.Duration(seconds * float64(time.Second))))
}

// start is a start that was released at once, had room after 5 s, ran after 6 s and served after 20 s.
func start(workload string) *pb.Step {
	return &pb.Step{
		Plan: "shop", Workload: workload, ReleasedAt: after(0), CallBegan: after(5), DoneAt: after(6), HealthyAt: after(20),
		Spec: &pb.Spec{State: pb.State_STATE_RUNNING, Parameters: &pb.Spec_Instance{Instance: &pb.InstanceSpec{Health: &pb.Health{Tcp: "10.0.0.1:1"}}}},
	}
}

func TestStartsAreMeasured(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*pb.Step)
		want   time.Duration // 0: not measured
	}{
		"served":                             {func(*pb.Step) {}, 15 * time.Second},
		"without a probe":                    {func(s *pb.Step) { s.Spec.GetInstance().Health = nil }, time.Second},
		"never healthy":                      {func(s *pb.Step) { s.HealthyAt = nil }, 0},
		"never done":                         {func(s *pb.Step) { s.DoneAt = nil }, 0},
		"never released":                     {func(s *pb.Step) { s.ReleasedAt = nil }, 0},
		"nobody knows when the call began":   {func(s *pb.Step) { s.CallBegan = nil }, 0},
		"the agent's clock is behind":        {func(s *pb.Step) { s.CallBegan = after(-100) }, 20 * time.Second},
		"the agent's clock is ahead":         {func(s *pb.Step) { s.CallBegan = after(100) }, 14 * time.Second},
		"tried again":                        {func(s *pb.Step) { s.Retried, s.ReleasedAt = true, after(15) }, 0},
		"of the way back":                    {func(s *pb.Step) { s.WayBack = true }, 0},
		"a stop":                             {func(s *pb.Step) { s.Spec.State = pb.State_STATE_DEFINED }, 0},
		"the return of a lease: no plan's":   {func(s *pb.Step) { s.Workload, s.Plan = "", "" }, 0},
		"healthy before it is seen to be up": {func(s *pb.Step) { s.HealthyAt = after(4) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			st := start("db")
			c.change(st)
			if got := measured(&pb.Failover{Steps: []*pb.Step{st}})["shop"]["db"]; got != c.want {
				t.Errorf("it took %v, want %v", got, c.want)
			}
		})
	}
}

func TestBudgets(t *testing.T) {
	sec := time.Second
	plan := func(change func(*pb.PlanSpec)) *pb.Plan {
		p := &pb.Plan{Metadata: &pb.Metadata{Name: "shop"}, Spec: &pb.PlanSpec{RtoTarget: durationpb.New(60 * sec), Workloads: []*pb.Workload{
			{Name: "db"}, {Name: "web", Replicas: 2, DependsOn: []string{"db"}}, {Name: "mail", DependsOn: []string{"shop/db", "billing/db"}}, {Name: "cron", DependsOn: []string{"web"}},
		}}}
		if change != nil {
			change(p.Spec)
		}
		return p
	}
	all := map[string]time.Duration{"db": 10 * sec, "web-0": 5 * sec, "web-1": 7 * sec, "mail": 20 * sec, "cron": 1 * sec}
	without := func(name string) map[string]time.Duration {
		out := map[string]time.Duration{}
		for k, v := range all {
			if k != name {
				out[k] = v
			}
		}
		return out
	}
	type want = map[string]time.Duration
	half := want{"db": 30 * sec, "web": 30 * sec, "mail": 30 * sec, "cron": 30 * sec}
	for name, c := range map[string]struct {
		plan *pb.Plan
		took map[string]time.Duration
		want want
	}{
		"nothing is measured":          {plan(nil), nil, half},
		"all is":                       {plan(nil), all, want{"db": 30 * sec, "web": 52 * sec, "mail": 40 * sec, "cron": 59 * sec}},
		"the last one is not measured": {plan(nil), without("cron"), want{"db": 30 * sec, "web": 30 * sec, "mail": 40 * sec, "cron": 30 * sec}},
		"one replica is not":           {plan(nil), without("web-1"), want{"db": 30 * sec, "web": 54 * sec, "mail": 40 * sec, "cron": 59 * sec}},
		"of others":                    {plan(nil), map[string]time.Duration{"other": sec, "web": sec}, half},
		"declared":                     {plan(func(s *pb.PlanSpec) { s.ReclaimBudget = durationpb.New(sec) }), all, want{"db": sec, "web": sec, "mail": sec, "cron": sec}},
		"no target":                    {plan(func(s *pb.PlanSpec) { s.RtoTarget = nil }), all, want{"db": 0, "web": 0, "mail": 0, "cron": 0}},
		"slower than the target": {
			plan(func(s *pb.PlanSpec) { s.RtoTarget = durationpb.New(20 * sec) }), all,
			want{"db": leastBudget, "web": 12 * sec, "mail": leastBudget, "cron": 19 * sec},
		},
		"a circle, which no manifest may have": {
			plan(func(s *pb.PlanSpec) { s.Workloads[0].DependsOn = []string{"cron"} }), all,
			want{"db": 30 * sec, "web": 30 * sec, "mail": 40 * sec, "cron": 30 * sec},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := budgets(c.plan, c.took); !cmp.Equal(got, c.want) {
				t.Error(cmp.Diff(c.want, got))
			}
		})
	}
}

// The slowest of the newest runs counts, and only of those that are over.
func TestTheNewestRunsCount(t *testing.T) {
	over, open := pb.RunPhase_RUN_PHASE_FAILED_BACK, pb.RunPhase_RUN_PHASE_COMPLETED
	run := func(phase pb.RunPhase, seconds float64) *pb.Failover {
		st := start("db")
		st.HealthyAt = after(5 + seconds)
		return &pb.Failover{Phase: phase, Steps: []*pb.Step{st}}
	}
	for name, c := range map[string]struct {
		runs []*pb.Failover
		want time.Duration
	}{
		"none is over":            {[]*pb.Failover{run(open, 9)}, 0},
		"the slowest":             {[]*pb.Failover{run(over, 3), run(over, 9), run(over, 4)}, 9 * time.Second},
		"one that is too old":     {[]*pb.Failover{run(over, 99), run(over, 3), run(open, 88), run(over, 9), run(over, 4)}, 9 * time.Second},
		"one in which it was not": {[]*pb.Failover{run(over, 5), {Phase: over}, {Phase: over}, {Phase: over}}, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := &reading{}
			r.readRuns(runs(c.runs), &reading{})
			if got := r.took["shop"]["db"]; got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// runs is a state of which only the runs are read.
type runs []*pb.Failover

func (r runs) Failovers() iter.Seq[*pb.Failover] { return slices.Values(r) }

// The name of a workload may look like that of another one's replica.
func TestWorkloadOfAReplica(t *testing.T) {
	p := &pb.Plan{Spec: &pb.PlanSpec{Workloads: []*pb.Workload{{Name: "web-1"}, {Name: "web"}, {Name: "db", Replicas: 2}}}}
	for replica, want := range map[string]string{"web-1": "web-1", "web": "web", "db-1": "db", "db-7": "db", "mail": ""} {
		if got := workloadOf(p, replica).GetName(); got != want {
			t.Errorf("%s is of %q, want %q", replica, got, want)
		}
	}
}
