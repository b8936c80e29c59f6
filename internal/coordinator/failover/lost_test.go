package failover_test

import (
	"strings"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func lose(w *fixture.World, host, reason string) error {
	return w.Do("ann", &pb.Command{Body: &pb.Command_LoseHost{LoseHost: failover.Lose(w.State, host, reason, w.Now, lease.Retention)}}).Err
}

// silent makes an agent one that is not heard of any more.
func silent(w *fixture.World, host string) {
	w.Mute[host] = true
	a := w.View.Agent(host)
	a.Connected, a.Full = false, false
	w.View = w.View.WithAgent(a)
}

// A host that only is silent has nothing placed anew; the word that it is lost places its workload elsewhere,
// in a second decision, and what was not there is left alone.
func TestLostHostIsReplaced(t *testing.T) {
	w := fixture.New(t)
	w.Strict = true
	f := w.Declare("webshop").GetName()
	w.Quiesce()
	host, old := hostOf(w, f, "db"), w.Step(f, startDB).GetObject()
	silent(w, host)
	w.Wait(time.Hour)
	w.Quiesce()
	if hostOf(w, f, "db") != host {
		t.Fatal("placed anew by itself")
	}
	if err := lose(w, host, "the rack burnt"); err != nil {
		t.Fatal(err)
	}
	phases(t, w, f, incomplete, nil)
	w.Quiesce()
	phases(t, w, f, completed, map[string]pb.StepPhase{startDB: done, startWeb: done, announce: done})
	if now := hostOf(w, f, "db"); now == host || now == "" {
		t.Errorf("db is on %q", now)
	}
	if now := w.Step(f, startDB).GetObject(); now == old {
		t.Errorf("%s belongs to two agents in its life", now)
	}
	for o := range w.State.ObjectsOf(host) {
		t.Errorf("%s is still kept for the lost host", o.GetId())
	}
	if err := lose(w, host, "again"); model.FaultOf(err) != model.FaultPrecondition {
		t.Errorf("lost twice: %v", err)
	}
	if err := w.Failback(f); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f, failedBack, nil)
	nothingLeft(t, w.State, 1)
	w.CheckReplay()
}

// A lease with a VM on the host is lost and says so; what it has elsewhere is stopped and kept for a while.
// Other leases return.
func TestLostHostTakesItsLeases(t *testing.T) {
	w := fixture.New(t)
	split, other := w.Lease(3, 12, 30<<30), w.Lease(1, 2, 4<<30)
	l := w.State.Lease(split)
	host := l.GetInstances()[0].GetHost()
	for _, i := range l.GetInstances() {
		if i.GetHost() != w.State.Lease(other).GetInstances()[0].GetHost() {
			host = i.GetHost()
		}
	}
	w.Quiesce()
	f := w.Declare("webshop").GetName()
	w.Quiesce()
	silent(w, host)
	if err := lose(w, host, "the rack burnt"); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f, completed, nil)
	if l := w.State.Lease(split); l.GetPhase() != pb.LeasePhase_LEASE_PHASE_LOST || !strings.Contains(l.GetReason(), host) || !strings.Contains(l.GetReason(), "burnt") {
		t.Errorf("the lease is %v: %s", l.GetPhase(), l.GetReason())
	}
	roomOK(t, w)
	if err := w.Failback(f); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	nothingLeft(t, w.State, 1)
	if p := w.State.Lease(other).GetPhase(); p != pb.LeasePhase_LEASE_PHASE_ACTIVE {
		t.Errorf("the other lease is %v", p)
	}
	for _, i := range w.State.Lease(split).GetInstances() {
		if o := w.State.Object(i.GetObject()); i.GetHost() != host && o.GetBase().GetState() == pb.State_STATE_RUNNING {
			t.Errorf("%s runs on without its sisters", i.GetObject())
		}
	}
	w.Wait(lease.Retention + time.Hour)
	w.Quiesce()
	if l := w.State.Lease(split); l != nil {
		t.Errorf("the lost lease is still there: %v", l.GetPhase())
	}
	w.CheckReplay()
}

// What a run had there is gone when the host is lost on the way back, before anything started, or while the
// run is paused.
func TestHostLostAtAnyTime(t *testing.T) {
	for name, prepare := range map[string]func(w *fixture.World, f string){
		"before the fence": func(w *fixture.World, _ string) { w.Stuck[fenceObj] = true },
		"paused": func(w *fixture.World, f string) {
			if err := w.Control(f, pb.ControlAction_CONTROL_ACTION_PAUSE, ""); err != nil {
				t.Fatal(err)
			}
		},
		"on the way back": func(w *fixture.World, f string) {
			w.Quiesce()
			silent(w, hostOf(w, f, "db"))
			if err := w.Failback(f); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := fixture.New(t)
			w.Lease(2, 12, 40<<30)
			w.Quiesce()
			f := w.Declare("webshop").GetName()
			prepare(w, f)
			w.Quiesce()
			host := hostOf(w, f, "db")
			silent(w, host)
			if err := lose(w, host, "the rack burnt"); err != nil {
				t.Fatal(err)
			}
			w.Quiesce()
			clear(w.Stuck)
			switch w.Phase(f) {
			case pb.RunPhase_RUN_PHASE_PAUSED:
				if err := w.Control(f, pb.ControlAction_CONTROL_ACTION_RESUME, ""); err != nil {
					t.Fatal(err)
				}
			default:
			}
			w.Quiesce()
			if name != "on the way back" {
				phases(t, w, f, completed, nil)
				if err := w.Failback(f); err != nil {
					t.Fatal(err)
				}
				w.Quiesce()
			}
			phases(t, w, f, failedBack, nil)
			nothingLeft(t, w.State, 1)
		})
	}
}

// A host that keeps volumes or fences is not lost by a word about VMs, and the word needs a reason.
func TestHostsThatCannotBeLost(t *testing.T) {
	w := fixture.New(t)
	for host, reason := range map[string]string{"store1": "burnt", "gateway1": "burnt", "h1": "", "h77": "burnt"} {
		before := w.State.Index()
		if err := lose(w, host, reason); err == nil || w.State.Index() != before+1 {
			t.Errorf("%s: %v", host, err)
		}
	}
}
