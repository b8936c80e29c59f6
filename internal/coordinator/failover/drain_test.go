package failover_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func drain(t *testing.T, w *fixture.World, req *pb.UpdateHostRequest) *pb.Failover {
	t.Helper()
	req.Action = "drain"
	body, expects, err := failover.Drain(w.State, req, "ann")
	if err != nil {
		t.Fatal(err)
	}
	return w.State.Failover(w.Must("ann", &pb.Command{Expects: expects, Body: &pb.Command_Declare{Declare: body}}))
}

func drainError(w *fixture.World, host string) error {
	_, _, err := failover.Drain(w.State, &pb.UpdateHostRequest{Name: host}, "ann")
	return err
}

func hostAction(action, host string) *pb.Command {
	return &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: host, Action: action}}}
}

func leasePhase(t *testing.T, w *fixture.World, name string, want pb.LeasePhase) {
	t.Helper()
	if is := w.State.Lease(name).GetPhase(); is != want {
		t.Fatalf("lease %s is %v, want %v", name, is, want)
	}
}

// A drain takes whole leases back and closes the host in one entry; they return when it is opened again, and not
// before, whoever asks.
func TestDrain(t *testing.T) {
	w := fixture.New(t)
	w.Quiesce()
	two := w.Lease(2, 2, 40<<30) // On two hosts.
	other := w.Lease(1, 2, 40<<30)
	w.Quiesce()
	host, sister := w.State.Lease(two).GetInstances()[0].GetHost(), w.State.Lease(two).GetInstances()[1]
	f := drain(t, w, &pb.UpdateHostRequest{Name: host, Reason: "new memory"})
	if !w.State.Host(host).GetCordoned() || len(f.GetVictims()) != 2 || !strings.Contains(f.GetReason(), "new memory") {
		t.Fatalf("cordoned %v, victims %v, reason %q", w.State.Host(host).GetCordoned(), f.GetVictims(), f.GetReason())
	}
	if v := f.GetVictims()[1]; v.GetObject() != sister.GetObject() || v.GetReason() != model.WholeLease {
		t.Errorf("the sister goes as %v", v)
	}
	w.Quiesce()
	phases(t, w, f.GetName(), completed, nil)
	leasePhase(t, w, two, pb.LeasePhase_LEASE_PHASE_PREEMPTED)
	leasePhase(t, w, other, pb.LeasePhase_LEASE_PHASE_ACTIVE)
	for what, err := range map[string]error{
		"failback": w.Failback(f.GetName()),
		"again":    drainError(w, host),
	} {
		if model.FaultOf(err) != model.FaultPrecondition {
			t.Errorf("%s while the host is drained: %v", what, err)
		}
	}
	w.Must("ann", hostAction("uncordon", host))
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
	leasePhase(t, w, two, pb.LeasePhase_LEASE_PHASE_ACTIVE)
	nothingLeft(t, w.State, f.GetEpoch())
	w.CheckReplay()
}

// A drain with an end opens its host by itself; one that is opened in the middle goes back from there.
func TestDrainEnds(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		w := fixture.New(t)
		w.Quiesce()
		name := w.Lease(1, 2, 40<<30)
		w.Quiesce()
		i := w.State.Lease(name).GetInstances()[0]
		w.Stuck[i.GetObject()] = stuck
		f := drain(t, w, &pb.UpdateHostRequest{Name: i.GetHost(), Lasts: durationpb.New(time.Minute)})
		w.Quiesce()
		if stuck {
			phases(t, w, f.GetName(), pb.RunPhase_RUN_PHASE_RUNNING, nil)
		}
		w.Wait(2 * time.Minute)
		clear(w.Stuck)
		w.Wait(time.Minute)
		phases(t, w, f.GetName(), failedBack, nil)
		leasePhase(t, w, name, pb.LeasePhase_LEASE_PHASE_ACTIVE)
	}
}

// A failover during a drain, and a drain during a failover: a lease returns when both are over.
func TestDrainAndFailover(t *testing.T) {
	for _, drainFirst := range []bool{true, false} {
		w := fixture.New(t)
		w.Quiesce()
		var leases []string
		for range 3 {
			leases = append(leases, w.Lease(1, 20, 60<<30))
		}
		w.Quiesce()
		hostOf := func(name string) string { return w.State.Lease(name).GetInstances()[0].GetHost() }
		var f, d *pb.Failover
		if drainFirst {
			d = drain(t, w, &pb.UpdateHostRequest{Name: hostOf(leases[0])})
			w.Quiesce()
		}
		f = w.Declare("webshop")
		w.Quiesce()
		_ = w.Swear(f.GetName())
		w.Wait(time.Minute)
		used := map[string]bool{}
		for _, p := range f.GetPlacements() {
			used[p.GetHost()] = true
		}
		if !drainFirst {
			// The host that runs nothing protected, and where a lease is held down by the failover if there is one.
			free := slices.DeleteFunc(fixture.Hosts(), func(h string) bool { return used[h] })
			if len(free) == 0 {
				t.Fatal("every host runs something protected: the case cannot be made")
			}
			d = drain(t, w, &pb.UpdateHostRequest{Name: free[0]})
			w.Quiesce()
			for h := range used { // Any order: each is refused.
				if err := drainError(w, h); err == nil || !strings.Contains(err.Error(), "webshop/") {
					t.Errorf("a drain of %s, which runs protected VMs: %v", h, err)
				}
			}
		} else if used[d.GetDrainedHost()] {
			t.Errorf("the failover uses %s, which is drained", d.GetDrainedHost())
		}
		if err := w.Failback(f.GetName()); err != nil {
			t.Fatal(err)
		}
		w.Wait(time.Minute)
		phases(t, w, f.GetName(), failedBack, nil)
		for _, name := range leases {
			want := pb.LeasePhase_LEASE_PHASE_ACTIVE
			if hostOf(name) == d.GetDrainedHost() {
				want = pb.LeasePhase_LEASE_PHASE_PREEMPTED
			}
			leasePhase(t, w, name, want)
		}
		w.Must("ann", hostAction("uncordon", d.GetDrainedHost()))
		w.Wait(time.Minute)
		for _, name := range leases {
			leasePhase(t, w, name, pb.LeasePhase_LEASE_PHASE_ACTIVE)
		}
		nothingLeft(t, w.State, d.GetEpoch())
	}
}

func TestDrainRefusals(t *testing.T) {
	w := fixture.New(t)
	w.Quiesce()
	body, expects, err := lease.Create(w.State, w.View, w.Now, &pb.CreateLeaseRequest{
		Project: "web", Class: pb.LeaseClass_LEASE_CLASS_FIRM, Spec: &pb.LeaseSpec{Image: "debian-12", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30}},
	}, "carol")
	if err != nil {
		t.Fatal(err)
	}
	w.Must("carol", &pb.Command{Expects: expects, Body: &pb.Command_CreateLease{CreateLease: body}})
	for host, says := range map[string]string{"h9": "no such host", "store1": "runs no VMs", body.GetLease().GetInstances()[0].GetHost(): "firm lease web-1"} {
		if err := drainError(w, host); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", host, err, says)
		}
	}
	// A declaration that closes another host than it names, and one that names one and closes none.
	for _, d := range []*pb.Declare{
		{Failover: &pb.Failover{Name: "fo-1", Epoch: 1, Run: pb.RunKind_RUN_KIND_DRAIN, DrainedHost: "h1"}, Drain: &pb.UpdateHostRequest{Name: "h2", Action: "drain"}},
		{Failover: &pb.Failover{Name: "fo-1", Epoch: 1, Run: pb.RunKind_RUN_KIND_DRAIN, DrainedHost: "h1"}},
		{Failover: &pb.Failover{Name: "fo-1", Epoch: 1, Run: pb.RunKind_RUN_KIND_FAILOVER}, Drain: &pb.UpdateHostRequest{Name: "h1", Action: "drain"}},
	} {
		if err := w.Do("ann", &pb.Command{Body: &pb.Command_Declare{Declare: d}}).Err; model.FaultOf(err) != model.FaultInvalid {
			t.Errorf("%v: %v", d, err)
		}
	}
}

// An announced drain begins by itself at its time and ends at its end; one that may not begin is overdue, is begun as
// soon as it may, and is forgotten when its time is over.
func TestAnnouncedDrain(t *testing.T) {
	announce := func(w *fixture.World, host string, in, lasts time.Duration, tolerance bool) error {
		return w.Do("operator/ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{
			Name: host, Action: "drain", Reason: "new memory", UseTolerance: tolerance, StartAt: timestamppb.New(w.Now.Add(in)), Lasts: durationpb.New(lasts),
		}}}).Err
	}
	open := func(w *fixture.World) string {
		for f := range w.State.OpenFailovers() {
			return f.GetDrainedHost()
		}
		return ""
	}
	w := fixture.New(t)
	w.Quiesce()
	if err := announce(w, "h1", time.Hour, time.Hour, true); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"at the same time": announce(w, "h1", 90*time.Minute, time.Hour, true),
		"in the past":      announce(w, "h2", -time.Minute, time.Hour, true),
		"without an end": w.Do("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{
			Name: "h2", Action: "drain", StartAt: timestamppb.New(w.Now.Add(time.Hour)),
		}}}).Err,
		"a cordon": w.Do("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{
			Name: "h2", Action: "cordon", StartAt: timestamppb.New(w.Now.Add(time.Hour)), Lasts: durationpb.New(time.Hour),
		}}}).Err,
		"cancelled where there is none": w.Do("ann", hostAction("cancel-drain", "h2")).Err,
	} {
		if err == nil {
			t.Errorf("accepted: %s", what)
		}
	}
	w.Wait(59 * time.Minute)
	if h := open(w); h != "" {
		t.Fatalf("%s is drained early", h)
	}
	w.Wait(2 * time.Minute)
	if h := open(w); h != "h1" || len(w.State.Host("h1").GetAnnounced()) > 0 {
		t.Fatalf("drained is %q, announced still %v", h, w.State.Host("h1").GetAnnounced())
	}
	w.Wait(time.Hour)
	if h := open(w); h != "" || w.State.Host("h1").GetCordoned() {
		t.Fatalf("%s is drained after the end", h)
	}
	// Without tolerance the plans need the host.
	if err := announce(w, "h2", time.Hour, time.Hour, false); err != nil {
		t.Fatal(err)
	}
	w.Wait(61 * time.Minute)
	h := w.State.Host("h2")
	if _, err := failover.Begin(w.State, w.View, w.Now, h, h.GetAnnounced()[0]); err == nil || !strings.Contains(err.Error(), "Degraded(0)") || open(w) != "" {
		t.Errorf("it begins although the plans need it: %v, %s", err, open(w))
	}
	w.Join("h4", &pb.AgentOffer{Hypervisor: true})
	w.Quiesce()
	if open(w) != "h2" {
		t.Error("it does not begin when it may")
	}
	w.Wait(time.Hour)
	if err := announce(w, "h3", time.Hour, time.Minute, false); err != nil {
		t.Fatal(err)
	}
	w.Mute["h4"] = true
	w.View = live.New(w.Now) // Nobody is heard: nothing is proven.
	w.Wait(2 * time.Hour)
	if a := w.State.Host("h3").GetAnnounced(); len(a) > 0 || open(w) != "" {
		t.Errorf("its time is over: %v, %s", a, open(w))
	}
}

// A host that is lost while it is drained takes its leases with it; those that went for their sisters' sake do, too.
func TestDrainedHostIsLost(t *testing.T) {
	w := fixture.New(t)
	w.Quiesce()
	name := w.Lease(1, 2, 40<<30)
	w.Quiesce()
	host := w.State.Lease(name).GetInstances()[0].GetHost()
	f := drain(t, w, &pb.UpdateHostRequest{Name: host})
	w.Quiesce()
	w.Mute[host] = true
	w.Must("ann", &pb.Command{Body: &pb.Command_LoseHost{LoseHost: failover.Lose(w.State, host, "it burnt", w.Now, time.Hour)}})
	w.Quiesce()
	leasePhase(t, w, name, pb.LeasePhase_LEASE_PHASE_LOST)
	phases(t, w, f.GetName(), failedBack, nil)
}
