package failover_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
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
	for host, says := range map[string]string{"h9": "no such host", body.GetLease().GetInstances()[0].GetHost(): "firm lease web-1"} {
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
