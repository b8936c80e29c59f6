package failover_test

import (
	"slices"
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func cordon(w *fixture.World, cordoned bool, hosts ...string) {
	action := "uncordon"
	if cordoned {
		action = "cordon"
	}
	for _, h := range hosts {
		w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: h, Action: action}}})
	}
}

// hostOf returns where a workload of a run was placed; empty: nowhere.
func hostOf(w *fixture.World, run, workload string) string {
	for _, p := range w.State.Failover(run).GetPlacements() {
		if p.GetWorkload() == workload {
			return p.GetHost()
		}
	}
	return ""
}

func TestPlacedWhenRoomAppears(t *testing.T) {
	w := fixture.New(t)
	w.Strict = true
	cordon(w, true, "h2", "h3")
	f := w.Declare("webshop").GetName()
	w.Quiesce()
	phases(t, w, f, incomplete, map[string]pb.StepPhase{startDB: done, startWeb: done, announce: pending})
	if left := w.State.Failover(f).GetUnplaced(); len(left) != 1 || left[0].GetWorkload() != "web-1" {
		t.Fatalf("unplaced: %v", left)
	}
	db := w.Step(f, startDB)
	cordon(w, false, "h3")
	w.Quiesce()
	phases(t, w, f, completed, map[string]pb.StepPhase{"start webshop/web-1": done, announce: done})
	if h := hostOf(w, f, "web-1"); h != "h3" {
		t.Errorf("web-1 is on %q", h)
	}
	if now := w.Step(f, startDB); now.GetGeneration() != db.GetGeneration() {
		t.Error("what ran already was touched")
	}
	run := w.State.Failover(f)
	if len(run.GetUnplaced())+len(run.GetWaiting()) > 0 {
		t.Errorf("left over: %v %v", run.GetUnplaced(), run.GetWaiting())
	}
	if !slices.ContainsFunc(slices.Collect(w.State.Evidence(0)), func(e *pb.Evidence) bool {
		return e.GetAction() == "place" && e.GetReason() == "webshop/web-1 on h3"
	}) {
		t.Error("the log of evidence does not say it")
	}
	if err := w.Failback(f); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f, failedBack, nil)
	nothingLeft(t, w.State, 1)
	w.CheckReplay()
}

// What is placed later may preempt leases that were let alone before, and only those.
func TestPlacedLaterWithMoreVictims(t *testing.T) {
	w := fixture.New(t)
	w.Lease(3, 12, 40<<30)
	cordon(w, true, "h1", "h2", "h3")
	f := w.Declare("webshop").GetName()
	w.Quiesce()
	if n := len(w.State.Failover(f).GetUnplaced()); n != 3 || len(w.State.Failover(f).GetVictims()) > 0 {
		t.Fatalf("%d unplaced", n)
	}
	cordon(w, false, "h1")
	w.Quiesce()
	cordon(w, false, "h2", "h3")
	w.Quiesce()
	phases(t, w, f, completed, nil)
	seen := map[string]bool{}
	for _, v := range w.State.Failover(f).GetVictims() {
		if seen[v.GetObject()] {
			t.Errorf("%s is preempted twice", v.GetObject())
		}
		seen[v.GetObject()] = true
	}
	if len(seen) != 3 {
		t.Errorf("victims: %v, want the whole lease", w.State.Failover(f).GetVictims())
	}
	roomOK(t, w)
	if err := w.Failback(f); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	nothingLeft(t, w.State, 1)
	if p := w.State.Lease("web-1").GetPhase(); p != pb.LeasePhase_LEASE_PHASE_ACTIVE {
		t.Errorf("the lease is %v after the failback", p)
	}
}

// What the plan said when it was declared counts, also for what is placed later.
func TestPlacedAsDeclared(t *testing.T) {
	w := fixture.New(t)
	cordon(w, true, "h1", "h2", "h3")
	f := w.Declare("webshop").GetName()
	w.ApplyManifests(strings.NewReplacer(
		"replica: webshop-db-root", "replica: webshop-db-new", "memory: 32GiB", "memory: 1GiB",
	).Replace(fixture.Example(t, "webshop.yaml")))
	w.Quiesce()
	cordon(w, false, "h1", "h2")
	w.Quiesce()
	phases(t, w, f, completed, map[string]pb.StepPhase{promote: done})
	if m := w.Step(f, startDB).GetSpec().GetInstance().GetMemoryBytes(); m != 32<<30 {
		t.Errorf("db was started with %d MiB", m>>20)
	}
}

// An endpoint whose zone no agent kept, and a fence that none reached, when the agent joins after all.
func TestPlacedWhenItsAgentJoins(t *testing.T) {
	w := fixture.Empty(t)
	for _, h := range fixture.Hosts() {
		w.Join(h, &pb.AgentOffer{Hypervisor: true})
	}
	w.Join("store1", &pb.AgentOffer{})
	w.ApplyManifests(fixture.Example(t, "site.yaml"), fixture.Example(t, "project.yaml"), fixture.Example(t, "webshop.yaml"))
	w.Quiesce()
	f := w.Declare("webshop").GetName()
	if err := w.Swear(f); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f, incomplete, map[string]pb.StepPhase{startDB: done, startWeb: done})
	w.Join("gateway1", &pb.AgentOffer{Zones: []string{"shop.example."}})
	w.Quiesce()
	phases(t, w, f, completed, map[string]pb.StepPhase{announce: done})
}

// A person who stopped the run, or sent it back, does not get more of it.
func TestNothingIsPlacedWhilePausedOrGoingBack(t *testing.T) {
	w := fixture.New(t)
	w.Stuck[fenceObj] = true
	cordon(w, true, "h2", "h3")
	f := w.Declare("webshop").GetName()
	cordon(w, false, "h2", "h3")
	late := failover.Place(w.State, w.View)
	if len(late) != 1 {
		t.Fatalf("%d decisions, want one to race with", len(late))
	}
	if err := w.Control(f, pb.ControlAction_CONTROL_ACTION_PAUSE, ""); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	if h := hostOf(w, f, "web-1"); h != "" {
		t.Errorf("placed on %s while paused", h)
	}
	if err := w.Control(f, pb.ControlAction_CONTROL_ACTION_ABORT, ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range late {
		c.Expects = nil // Even if nobody had noticed that the run changed.
		if err := w.Do("controllers", c).Err; model.FaultOf(err) != model.FaultStale {
			t.Errorf("placed while aborting: %v", err)
		}
	}
	clear(w.Stuck)
	w.Quiesce()
	nothingLeft(t, w.State, 1)
}
