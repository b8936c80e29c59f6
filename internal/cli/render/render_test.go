package render_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/render"
	"github.com/hotspare/hotspare/internal/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata and checks that no line is wider than the screen.
func golden(t *testing.T, name, got string, width int) {
	t.Helper()
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
			t.Errorf("%s: a line has %d columns, more than %d: %q", name, n, width, line)
		}
		if strings.HasSuffix(line, " \n") {
			t.Errorf("%s: a line ends in blanks: %q", name, line)
		}
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got), run with -update when it should:\n%s", path, diff)
	}
}

func TestGantt(t *testing.T) {
	back := webshop()
	back.Phase = pb.RunPhase_RUN_PHASE_FAILED_BACK
	back.FailbackAt, back.EndedAt = after(100), after(109)
	for i, s := range back.Steps {
		s.Phase = pb.StepPhase_STEP_PHASE_REVERTED
		s.RevertingAt, s.RevertedAt = after(108-float64(i)), after(109-float64(i))
	}
	oath := webshop()
	oath.Steps = []*pb.Step{step("promote webshop/db root", 61, 62, "oath webshop"), step("start webshop/db", 62, 95, "promote webshop/db root")}
	for name, c := range map[string]struct {
		f *pb.Failover
		o render.GanttOptions
	}{
		"gantt-80":      {webshop(), render.GanttOptions{Width: 80, Now: zero().Add(time.Hour)}},
		"gantt-120":     {webshop(), render.GanttOptions{Width: 120, Now: zero().Add(time.Hour)}},
		"gantt-running": {halfway(), render.GanttOptions{Width: 80, Now: zero().Add(11 * time.Second)}},
		"gantt-back":    {back, render.GanttOptions{Width: 80, Now: zero().Add(time.Hour), Back: true}},
		"gantt-oath":    {oath, render.GanttOptions{Width: 80, Now: zero().Add(time.Hour)}},
		"gantt-none":    {&pb.Failover{DeclaredAt: after(0)}, render.GanttOptions{}},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, render.Gantt(c.f, c.o), max(80, c.o.Width)) })
	}
}

func TestCriticalPath(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*pb.Failover)
		want   []string
	}{
		"the memory of web-1's victim came last": {
			change: func(*pb.Failover) {},
			want:   []string{"reclaim ci-7 ci-7-0", "start webshop/web-1", "announce www.shop.example"},
		},
		"the victim was quicker than the gate": {
			change: func(f *pb.Failover) { f.Steps[2].DoneAt = after(9) },
			want: []string{
				"fence webshop power east-bmc", "promote webshop/db root", "start webshop/db",
				"start webshop/web-1", "announce www.shop.example",
			},
		},
		"an optional step that took longest does not count": {
			change: func(f *pb.Failover) {
				f.Steps[2].DoneAt = after(9)
				f.Steps[8].Optional = true
				f.Steps[8].DoneAt = after(90)
			},
			want: []string{"fence webshop power east-bmc", "promote webshop/db root", "start webshop/db", "start webshop/web-1"},
		},
		"health counts, not only the start": {
			change: func(f *pb.Failover) {
				f.Steps[2].DoneAt = after(9)
				f.Steps[6].HealthyAt = after(40)
			},
			want: []string{"fence webshop power east-bmc", "promote webshop/db root", "start webshop/db", "start webshop/web-0"},
		},
		"steps that name each other end": {
			change: func(f *pb.Failover) { f.Steps[0].OpenedBy = "announce www.shop.example"; f.Steps[2].DoneAt = after(9) },
			want: []string{
				"fence webshop power east-bmc", "promote webshop/db root", "start webshop/db",
				"start webshop/web-1", "announce www.shop.example",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := webshop()
			c.change(f)
			if diff := cmp.Diff(c.want, render.CriticalPath(f)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestViews(t *testing.T) {
	now := zero().Add(11 * time.Second)
	live := []*pb.Status{{Object: "instance/ci-7-0", State: pb.State_STATE_RUNNING, Phase: pb.Phase_PHASE_WORKING, Message: "guest asked to shut down"}}
	boots, reports := booting()
	for name, text := range map[string]string{
		"failover-booting": render.Failover(boots, reports, 80, now),
		"progress-booting": render.Progress(boots, reports, 80, now) + render.Progress(boots, nil, 80, now),
		"failover":         render.Failover(webshop(), nil, 80, now),
		"failover-running": render.Failover(halfway(), live, 80, now),
		"progress":         render.Progress(halfway(), live, 80, now),
		"failovers":        render.Failovers([]*pb.Failover{webshop(), halfway()}, 80, now),
		"failovers-none":   render.Failovers(nil, 80, now),
		"status":           render.Status(siteStatus(), 80, now),
		"status-new":       render.Status(&pb.GetStatusResponse{Guarantee: "Proven(1)", Members: []*pb.Member{{Name: "c1", Leader: true}}}, 80, now),
		"tabletop": render.Tabletop(&pb.TabletopResponse{
			Now: &pb.SiteProof{Guarantee: "Proven(1)"}, AfterLosses: &pb.SiteProof{Guarantee: "Degraded(0)", Reason: "plan webshop lacks 8GiB memory: when h1 is lost as well, h2 is all that is left"},
			AfterDeclare: &pb.SiteProof{Guarantee: "GuaranteeLost", Reason: "plan billing lacks 4 vcpus"}, LostHosts: []string{"h3"}, LostLeases: []string{"ci-9"},
			Failover: webshop(), Open: []*pb.Failover{{Name: "fo-2", Unplaced: []*pb.Unplaced{{Plan: "billing", Workload: "app", Reason: "host h3 was lost"}}}},
			Reclaim: []*pb.HostReclaim{{Host: "h1", Leases: []string{"web-3"}, SaveBytes: 8 << 30}, {Host: "h3", Leases: []string{"ci-7"}, Bound: durationpb.New(10 * time.Second)}},
		}, 80, now),
		"invariants": render.Invariants([]*pb.InvariantVerdict{
			{Number: 1, Name: "single run", Result: pb.InvariantResult_INVARIANT_RESULT_HOLDS, Details: []string{"3 VMs"}},
			{Number: 2, Name: "guarantee", Result: pb.InvariantResult_INVARIANT_RESULT_NOT_JUDGED, Details: []string{"the site has just changed and is being proven again"}},
			{Number: 3, Name: "capacity", Result: pb.InvariantResult_INVARIANT_RESULT_VIOLATED, Details: []string{"h1 is to run 40 vcpus and has 32 vcpus", "h1 is to run 80GiB memory and has 64GiB memory"}},
		}, 80),
		"seats":           render.Seats([]*pb.Seat{{Workload: "webshop/db", Host: "h1", WhenLost: "h2", ReclaimBudget: durationpb.New(85 * time.Second), ServesAfter: durationpb.New(35 * time.Second)}, {Workload: "webshop/web-0", Host: "h2"}}, 80),
		"leases":          render.Leases(leases(), 80, false, now),
		"leases-wide":     render.Leases(leases(), 0, true, now),
		"lease":           render.Lease(leases()[0], 80, now),
		"lease-queued":    render.Leases(waiting(), 80, false, now) + "\n" + render.Lease(waiting()[0], 80, now) + render.LeaseLine(waiting()[1], now),
		"lease-released":  render.Lease(released(), 80, now) + render.LeaseLine(released(), now),
		"lease-preempted": render.Lease(leases()[1], 80, now),
		"hosts":           render.Hosts(hosts(), 80, false, now),
		"host":            render.Host(hosts()[1], now),
		"objects":         render.Objects(objects(), 80, false),
		"evidence": render.Evidence([]*pb.Evidence{{
			Sequence: 12, Time: after(0), Actor: "user/operator/ann", Action: "declare", Object: "failover/fo-3",
			Reason: "the site is flooded and nobody knows for how long",
		}}, 80),
	} {
		t.Run(name, func(t *testing.T) {
			width := 80
			if strings.HasSuffix(name, "-wide") {
				width = 300
			}
			golden(t, name, text, width)
		})
	}
}

// waiting are a lease that has no room and one whose time has not come.
func waiting() []*pb.Lease {
	lease := func(name string) *pb.Lease {
		return &pb.Lease{
			Name: name, Project: "web", Owner: "carol", Phase: pb.LeasePhase_LEASE_PHASE_QUEUED, CreatedAt: after(-3600), Class: pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE,
			Spec: &pb.LeaseSpec{Count: 2, Resources: &pb.Resources{Vcpus: 4, MemoryBytes: 8 << 30}, Image: "debian-12", OnPreempt: pb.ReclaimAction_RECLAIM_ACTION_SAVE},
		}
	}
	line, later := lease("web-7"), lease("web-9")
	line.Queue = &pb.QueuePlace{Position: 1, Of: 3, Reason: "VM 1 of 2 (4 vcpus, 8GiB memory) fits on no host now (the most free on one host is 2 vcpus, 6GiB)"}
	later.StartAt, later.Queue = after(7200), &pb.QueuePlace{Reason: "starts at 2026-11-20 12:00 UTC"}
	return []*pb.Lease{line, later}
}

func siteStatus() *pb.GetStatusResponse {
	return &pb.GetStatusResponse{
		Guarantee: "Degraded(0)", GuaranteeReason: "h3 is cordoned; without it webshop does not survive the loss of another host",
		Plans: []*pb.Readiness{
			{Plan: "webshop", Ready: true},
			{Plan: "billing", Obstacles: []*pb.Obstacle{
				{Object: "volume/billing-db-root", What: "no consistent point: the replica has been converging since the link was cut", Since: after(-500)},
				{Object: "fencetarget/east-bmc", What: "its agent is silent", Since: after(-30)},
			}},
		},
		Open:           []*pb.Failover{halfway()},
		GuaranteeSince: after(-7200),
		Margins:        []*pb.Margin{{Dimension: "vcpus", Total: 96000, Obliged: 80500}, {Dimension: "memory", Total: 384 << 30, Obliged: 400 << 30}, {Dimension: "disk/ssd", Total: 4 << 40, Obliged: 1 << 40}},
		Weakest:        "plan webshop lacks 8GiB memory: no host but h1 has room for webshop/db",
		Lent:           &pb.Lent{Vcpus: 24, MemoryBytes: 96 << 30, Instances: 12, TotalVcpus: 96, TotalMemoryBytes: 384 << 30, Preempted: 2},
		Members:        []*pb.Member{{Name: "c1"}, {Name: "c2", Leader: true, Self: true}, {Name: "c3"}},
		Alarms:         []string{"the agent gateway1 has been silent for 30 s, so the old side of billing could not be fenced by power"},
		Index:          1234, Hosts: 4, HostsConnected: 3, Age: durationpb.New(3 * time.Second),
	}
}

func leases() []*pb.Lease {
	size := &pb.Resources{Vcpus: 4, MemoryBytes: 8 << 30}
	return []*pb.Lease{
		{
			Name: "web-3", Project: "web", Owner: "carol", Class: pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE, Phase: pb.LeasePhase_LEASE_PHASE_ACTIVE,
			Spec:      &pb.LeaseSpec{Count: 2, Resources: size, Image: "debian-12", OnPreempt: pb.ReclaimAction_RECLAIM_ACTION_SAVE, Grace: durationpb.New(30 * time.Second)},
			CreatedAt: after(-3600), EndsAt: after(7 * 3600),
			Instances: []*pb.LeaseInstance{
				{Object: "instance/web-3-0", Host: "h1", Address: "10.20.0.10/24", Mac: "52:54:00:11:22:33"},
				{Object: "instance/web-3-1", Host: "h2", Address: "10.20.0.11/24", Mac: "52:54:00:11:22:34"},
			},
			Live: []*pb.Status{
				{Object: "instance/web-3-0", State: pb.State_STATE_RUNNING, Phase: pb.Phase_PHASE_SETTLED},
				{Object: "instance/web-3-1", State: pb.State_STATE_DEFINED, Phase: pb.Phase_PHASE_WORKING, Message: "starting\x1b[31m\nnow"},
			},
		},
		{
			Name: "ci-7", Project: "ci", Owner: "dave", Phase: pb.LeasePhase_LEASE_PHASE_PREEMPTED, Reason: "failover fo-3 of webshop, declared by ann: the site is flooded",
			Spec: &pb.LeaseSpec{Count: 1, Resources: size, CloneOf: "webshop/db"}, PreemptedAt: after(1), EndsAt: after(3600), PreemptedBy: []uint64{3}, Preemptions: 1,
			Instances: []*pb.LeaseInstance{{Object: "instance/ci-7-0", Host: "h3", Address: "10.20.0.12/24"}},
		},
		{Name: "old-1", Project: "ci", Phase: pb.LeasePhase_LEASE_PHASE_ENDED, DeleteAfter: after(72 * 3600)},
	}
}

func hosts() []*pb.Host {
	return []*pb.Host{
		{
			Name: "h1", Capacity: &pb.Capacity{Vcpus: 32, MemoryBytes: 128 << 30}, Offer: &pb.AgentOffer{Hypervisor: true},
			Live: &pb.HostLive{Session: "connected", Since: after(-86400), LentInstances: 4, ProtectedInstances: 1},
		},
		{
			Name: "h3", Capacity: &pb.Capacity{Vcpus: 32, MemoryBytes: 128 << 30, DiskBytes: 2 << 40, ForeignVcpus: 2, ForeignMemoryBytes: 4 << 30},
			Offer: &pb.AgentOffer{Hypervisor: true, Pools: []string{"west"}}, Cordoned: true, Quarantined: true, Live: &pb.HostLive{Session: "silent", Since: after(-30)},
			JoinedAt: after(-1e6), JournalId: "0196b2f4", Policy: &pb.HostPolicySpec{FailureDomain: "rack1"},
		},
		{Name: "gateway1", Offer: &pb.AgentOffer{Zones: []string{"shop.example."}, FenceTargets: []string{"east-bmc", "east-bmc-2", "east-bmc-3"}}},
	}
}

func objects() []*pb.ObjectView {
	return []*pb.ObjectView{
		{
			Object: &pb.Object{
				Id: "instance/web-3-0", Agent: "h1", Base: &pb.Spec{State: pb.State_STATE_RUNNING}, Generation: 40,
				Overrides: []*pb.Override{{Epoch: 3, Run: pb.RunKind_RUN_KIND_FAILOVER, Spec: &pb.Spec{State: pb.State_STATE_SAVED}}},
			},
			Status: &pb.Status{State: pb.State_STATE_RUNNING, Phase: pb.Phase_PHASE_WORKING, Message: "saving its memory, 40 %"},
		},
		{Object: &pb.Object{Id: "volume/webshop-db-root", Agent: "store1", Base: &pb.Spec{State: pb.State_STATE_REPLICA}}},
	}
}

func TestResources(t *testing.T) {
	plan := &pb.Resource{Resource: &pb.Resource_Plan{Plan: &pb.Plan{
		Metadata: &pb.Metadata{Name: "webshop", Labels: map[string]string{"site": "east", "app": "shop"}, Revision: 4},
		Spec:     &pb.PlanSpec{Rank: 10, RtoTarget: durationpb.New(2 * time.Minute), Workloads: []*pb.Workload{{Name: "db"}, {Name: "web", Replicas: 2}}},
	}}}
	golden(t, "resources", render.Resources(model.ResourcePlan, []*pb.Resource{plan}, 80, false)+
		render.Resources(model.ResourcePlan, []*pb.Resource{plan}, 120, true)+render.Resources(model.ResourcePool, nil, 80, false), 120)
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 12 * time.Millisecond: "12ms", 4120 * time.Millisecond: "4.1s", 59940 * time.Millisecond: "59.9s", 59960 * time.Millisecond: "1m00s",
		62 * time.Second: "1m02s", 3599600 * time.Millisecond: "1h00m", 90 * time.Minute: "1h30m", -time.Second: "-1.0s",
	} {
		if got := render.Seconds(d); got != want {
			t.Errorf("Seconds(%s) = %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0s", 42 * time.Second: "42s", 5 * time.Minute: "5m", 3 * time.Hour: "3h", 50 * time.Hour: "2d"} {
		if got := render.Age(d); got != want {
			t.Errorf("Age(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestStepLines(t *testing.T) {
	f := webshop()
	now := zero().Add(101 * time.Second)
	if got, want := render.StepLine(f, f.Steps[5], now), "   15.2s  healthy    start webshop/db\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	f.Phase, f.FailbackAt = pb.RunPhase_RUN_PHASE_FAILING_BACK, after(100)
	if got := render.StepLine(f, f.Steps[5], now); got != "" {
		t.Errorf("what was done before the failback is shown: %q", got)
	}
	f.Steps[5].Phase, f.Steps[5].RevertingAt = pb.StepPhase_STEP_PHASE_REVERTING, after(100.5)
	if got, want := render.StepLine(f, f.Steps[5], now), "    0.5s  reverting  start webshop/db\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWayBackLines: on the way back the steps that carry data are told from their release, with how far
// they have come; that their orders end is no news. The way there does not show them.
func TestWayBackLines(t *testing.T) {
	f := &pb.Failover{Phase: pb.RunPhase_RUN_PHASE_FAILING_BACK, DeclaredAt: after(0), FailbackAt: after(100)}
	back := step("mirror back webshop-db-root", 101, -1, "")
	back.WayBack, back.Message = true, "synchronising, 50 %"
	f.Steps = []*pb.Step{step("promote webshop-db-root", 1, 2, ""), back}
	for want, change := range map[string]func(){
		"    1.0s  released   mirror back webshop-db-root: synchronising, 50 %\n": func() {},
		"    3.0s  done       mirror back webshop-db-root: synchronising, 50 %\n": func() { back.Phase, back.DoneAt = pb.StepPhase_STEP_PHASE_DONE, after(103) },
	} {
		change()
		if got := render.StepLine(f, back, zero()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		back.Phase, back.DoneAt = pb.StepPhase_STEP_PHASE_RELEASED, nil
	}
	back.Phase, back.DoneAt, back.RevertingAt = pb.StepPhase_STEP_PHASE_REVERTING, after(103), after(104)
	if got := render.StepLine(f, back, zero()); got != "" {
		t.Errorf("its end is told: %q", got)
	}
	if got := render.Gantt(f, render.GanttOptions{Now: zero(), Back: true}); !strings.Contains(got, "mirror back") {
		t.Errorf("the way back leaves it out:\n%s", got)
	}
	if got := render.Gantt(f, render.GanttOptions{Now: zero()}); strings.Contains(got, "mirror back") {
		t.Errorf("the way there shows it:\n%s", got)
	}
}

// released is a lease that its owner gave back while it was preempted, for a reason that steers terminals.
func released() *pb.Lease {
	l := proto.CloneOf(leases()[1])
	l.Phase, l.Reason = pb.LeasePhase_LEASE_PHASE_ENDED, "released\x1b]0;title\a\nfo-9: completed"
	l.Preempting = []*pb.LeasePreemption{{Failover: "fo-3", Reason: "flood", DeclaredBy: "ann", FailoverPhase: "completed", Deadline: after(9)}}
	return l
}
