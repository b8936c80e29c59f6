package failover_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

const (
	vaultDB     = "volume/vault-db"
	returnDB    = "volume/vault-db@return-e1"
	sourceDB    = "volume/vault-db@source"
	receiveBack = "receive back vault-db"
	mirrorBack  = "mirror back vault-db"
	seal        = "seal vault-db"
	handOver    = "hand over vault-db"
	startOld    = "start prod-db at east1"
	startVault  = "start vault/db"
	promoteDB   = "promote vault-db"

	reverting   = pb.StepPhase_STEP_PHASE_REVERTING
	reverted    = pb.StepPhase_STEP_PHASE_REVERTED
	failingBack = pb.RunPhase_RUN_PHASE_FAILING_BACK
)

// vault is a plan whose volume comes from a VM at the protected site, and the pool that takes it back.
const vault = `
apiVersion: hotspare/v1
kind: Pool
metadata: {name: east}
spec: {agent: east1, exportAddress: "10.88.0.9:10809"}
---
apiVersion: hotspare/v1
kind: Plan
metadata: {name: vault}
spec:
  rank: 30
  fencing: [{power: {target: east-bmc}}]
  workloads:
  - name: db
    resources: {vcpus: 2, memory: 2GiB}
    volumes: [{name: root, pool: west, replica: vault-db, size: 1GiB, source: {agent: east1, domain: prod-db, disk: vda, pool: east}}]
    nics: [{network: prod-10, address: 10.10.0.41/24}]
    healthy: {tcp: "10.10.0.41:5432", within: 60s}
  endpoints:
  - dns: {zone: shop.example., name: vault, type: A, values: [203.0.113.41], ttl: 30s, after: [db]}
`

// failedOver is a site on which plan vault was failed over, with what its test changes in the manifest.
func failedOver(t *testing.T, replace ...string) (*fixture.World, *pb.Failover) {
	t.Helper()
	w := fixture.New(t)
	w.Replicates = true
	w.Join("east1", &pb.AgentOffer{ProtectedSite: true, Pools: []string{"east"}})
	w.ApplyManifests(strings.NewReplacer(replace...).Replace(vault))
	w.Quiesce()
	f := w.Declare("vault")
	w.Quiesce()
	w.Off[sourceDB] = true // Its fence is power.
	w.Wait(time.Minute)
	phases(t, w, f.GetName(), completed, map[string]pb.StepPhase{promoteDB: done, startVault: done})
	return w, f
}

func effective(w *fixture.World, id string) *pb.VolumeSpec {
	return model.Effective(w.State.Object(id)).GetVolume()
}

func carryBack(t *testing.T, w *fixture.World, f *pb.Failover) {
	t.Helper()
	if err := w.CarryBack(f.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Controllers()
}

// reports lets one object report, and the controllers work.
func reports(w *fixture.World, id string) {
	w.Report(id, nil)
	w.Controllers()
}

// TestWayBackInOrder follows the way back object by object.
func TestWayBackInOrder(t *testing.T) {
	w, f := failedOver(t)
	w.Stuck[returnDB], w.Stuck[vaultDB] = true, true
	carryBack(t, w, f)
	w.Quiesce()
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{
		receiveBack: released, mirrorBack: pending, seal: pending, handOver: pending, startOld: pending, startVault: done, promoteDB: done,
		"announce vault.shop.example.A": done,
	})
	if v := effective(w, returnDB); v.GetDisk() != "/images/prod-db" || v.GetName() != "vault-db-e1" || v.GetPool() != "east" || v.GetResync() != 1 {
		t.Fatalf("receives %v", v)
	}
	reports(w, returnDB)
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{receiveBack: done, mirrorBack: released, seal: pending, startVault: done})
	if v := effective(w, vaultDB); v.GetMirrorTo() != "nbd://10.88.0.9:10809/vault-db-e1" || v.GetResync() != 1 || v.GetSealed() {
		t.Fatalf("mirrors %v", v)
	}
	w.Report(vaultDB, func(s *pb.Status) {
		s.GetVolume().InSync, s.GetVolume().SyncPercent = false, 57
	})
	w.Quiesce()
	if m := w.Step(f.GetName(), mirrorBack).GetMessage(); m != "synchronising, 50 %" {
		t.Errorf("progress is %q", m)
	}
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{mirrorBack: released, startVault: done})
	reports(w, vaultDB)
	w.Quiesce()
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{
		mirrorBack: done, startVault: reverted, seal: released, handOver: pending, promoteDB: done, fence: done,
	})
	reports(w, vaultDB)
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{seal: done, handOver: released, promoteDB: done, fence: done, startOld: pending})
	if v := effective(w, returnDB); v.GetConverged() != 1 {
		t.Fatalf("hands over %v", v)
	}
	reports(w, returnDB)
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{
		handOver: done, promoteDB: reverting, mirrorBack: reverting, seal: reverting, receiveBack: done, startOld: pending, fence: done,
	})
	if v := effective(w, vaultDB); !v.GetDropPromoted() {
		t.Error("what is at the protected site may be dropped here")
	}
	clear(w.Stuck)
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
	nothingLeft(t, w.State, f.GetEpoch())
	if w.Off[sourceDB] {
		t.Error("the VM at the old side was not started")
	}
	w.Wait(time.Minute)
	if v := w.State.Object(sourceDB).GetBase().GetVolume(); v.GetRunWriter() || v.GetMirrorTo() == "" {
		t.Errorf("afterwards the source is %v", v)
	}
	w.CheckReplay()
}

// TestWayBackRefused lists what a failback cannot do without, and what it says then.
func TestWayBackRefused(t *testing.T) {
	for name, c := range map[string]struct{ replace, what string }{
		"no source":  {", source: {agent: east1, domain: prod-db, disk: vda, pool: east}", "names no source"},
		"no pool":    {", pool: east}", "names no pool"},
		"wrong pool": {"pool: east}", "kept by agent store1"},
	} {
		t.Run(name, func(t *testing.T) {
			with := map[string]string{", pool: east}": "}", "pool: east}": "pool: west}"}[c.replace]
			w, f := failedOver(t, c.replace, with)
			err := w.CarryBack(f.GetName())
			if model.FaultOf(err) != model.FaultPrecondition || !strings.Contains(err.Error(), c.what) {
				t.Fatalf("got %v", err)
			}
			phases(t, w, f.GetName(), completed, nil)
			if err := w.Failback(f.GetName()); err != nil {
				t.Fatal(err)
			}
			w.Quiesce()
			phases(t, w, f.GetName(), failedBack, nil)
			nothingLeft(t, w.State, f.GetEpoch())
		})
	}
}

// TestMirrorBackDies: a mirror that died is begun anew with the next number at both ends, before and
// after the seal.
func TestMirrorBackDies(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		w, f := failedOver(t)
		carryBack(t, w, f)
		w.Stuck[vaultDB] = true
		w.Quiesce()
		if sealed {
			reports(w, vaultDB)
			w.Quiesce()
		}
		w.Dead[vaultDB] = 1
		delete(w.Stuck, vaultDB)
		w.Report(vaultDB, nil)
		w.Stuck[vaultDB] = true
		w.Quiesce()
		if here, there := effective(w, vaultDB), effective(w, returnDB); here.GetResync() != 2 || there.GetResync() != 2 || here.GetSealed() != sealed {
			t.Fatalf("sealed %v: here %v, there %v", sealed, here, there)
		}
		clear(w.Stuck)
		w.Quiesce()
		phases(t, w, f.GetName(), failedBack, nil)
		nothingLeft(t, w.State, f.GetEpoch())
		w.CheckReplay()
	}
}

// TestMirrorBackDiesAtTheSwitch: what runs here runs on when its mirror is found dead at the moment in
// which it would be stopped.
func TestMirrorBackDiesAtTheSwitch(t *testing.T) {
	w, f := failedOver(t)
	const name = "endpoint/vault.shop.example.A"
	w.Stuck[name] = true
	carryBack(t, w, f)
	w.Quiesce()
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{mirrorBack: done, "announce vault.shop.example.A": reverting, startVault: done})
	w.Dead[vaultDB] = 1
	w.Stuck[returnDB] = true
	w.Report(vaultDB, nil)
	reports(w, name)
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{
		receiveBack: released, mirrorBack: released, "announce vault.shop.example.A": reverted, startVault: done,
	})
	clear(w.Stuck)
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
}

// TestWayBackWaitsForTheOldVM: a disk is not handed over under a VM that runs.
func TestWayBackWaitsForTheOldVM(t *testing.T) {
	w, f := failedOver(t)
	delete(w.Off, sourceDB)
	carryBack(t, w, f)
	w.Quiesce()
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{seal: done, handOver: pending})
	if m := w.Step(f.GetName(), handOver).GetMessage(); !strings.Contains(m, "prod-db") {
		t.Errorf("it waits and says %q", m)
	}
	w.Off[sourceDB] = true
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
}

// TestChangeOver: a way back that waits for the protected site can be changed over to discarding, until
// the volume was handed over.
func TestChangeOver(t *testing.T) {
	for _, at := range []string{receiveBack, mirrorBack, seal, handOver} {
		w, f := failedOver(t)
		held := map[string]string{receiveBack: returnDB, mirrorBack: vaultDB, seal: vaultDB, handOver: returnDB}[at]
		carryBack(t, w, f)
		for w.Step(f.GetName(), at).GetPhase() != released {
			w.Stuck[held] = true
			w.Quiesce()
			delete(w.Stuck, held)
			if w.Step(f.GetName(), at).GetPhase() != released {
				reports(w, held)
			}
		}
		w.Mute["east1"] = true
		w.View = w.View.WithAgent(live.Agent{Name: "east1", BootID: "boot-1", Since: w.Now})
		w.Stuck[vaultDB] = true
		w.Quiesce()
		if err := w.CarryBack(f.GetName()); model.FaultOf(err) != model.FaultPrecondition {
			t.Errorf("%s: a second failback: %v", at, err)
		}
		err := w.Failback(f.GetName())
		if at == handOver {
			if model.FaultOf(err) != model.FaultPrecondition {
				t.Errorf("what was handed over is discarded: %v", err)
			}
		} else if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		w.Quiesce()
		clear(w.Stuck)
		clear(w.Mute)
		w.Reconnect("boot-1")
		w.Quiesce()
		phases(t, w, f.GetName(), failedBack, nil)
		nothingLeft(t, w.State, f.GetEpoch())
		if started := !w.Off[sourceDB]; started != (at == handOver) {
			t.Errorf("%s: the old VM was started: %v", at, started)
		}
		w.CheckReplay()
	}
}

// TestWaitsForTheProtectedSite says what a failback waits for while the protected site is away.
func TestWaitsForTheProtectedSite(t *testing.T) {
	w, f := failedOver(t)
	w.Mute["east1"] = true
	w.View = w.View.WithAgent(live.Agent{Name: "east1", BootID: "boot-1", Since: w.Now})
	carryBack(t, w, f)
	w.Quiesce()
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{receiveBack: released, startVault: done})
	if m := w.Step(f.GetName(), receiveBack).GetMessage(); m != "agent east1 is not connected" {
		t.Errorf("it waits and says %q", m)
	}
}

// TestNothingIsDroppedUncarried: apply itself refuses to take a promotion back before its volume was
// handed over, whatever a controller asks.
func TestNothingIsDroppedUncarried(t *testing.T) {
	w, f := failedOver(t)
	carryBack(t, w, f)
	for _, step := range []string{promoteDB, startVault, seal, receiveBack} {
		err := w.Do("controllers", &pb.Command{Body: &pb.Command_AdvanceRun{AdvanceRun: &pb.AdvanceRun{
			Failover: f.GetName(), Changes: []*pb.StepChange{{Step: step, Phase: reverting}},
		}}}).Err
		if err == nil {
			t.Errorf("step %q went back", step)
		}
	}
	err := w.Do("ann", &pb.Command{Body: &pb.Command_Failback{Failback: &pb.Failback{Failover: f.GetName()}}}).Err
	if model.FaultOf(err) != model.FaultPrecondition {
		t.Errorf("a second failback: %v", err)
	}
}

// TestWayBackIsEvidence: every step that carried data back is in the log of decisions.
func TestWayBackIsEvidence(t *testing.T) {
	w, f := failedOver(t)
	carryBack(t, w, f)
	w.Quiesce()
	var said []string
	for e := range w.State.Evidence(0) {
		if e.GetAction() == "way back" {
			said = append(said, e.GetReason())
		}
	}
	if want := []string{receiveBack, mirrorBack, seal, handOver, startOld}; !slices.Equal(said, want) {
		t.Errorf("got %v, want %v", said, want)
	}
}

// TestSharedFence: as long as another run holds the fence of the old side, its VM could not start there,
// and what runs here runs on.
func TestSharedFence(t *testing.T) {
	w, f := failedOver(t)
	other := w.Declare("webshop")
	w.Quiesce()
	carryBack(t, w, f)
	w.Quiesce()
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{mirrorBack: done, startVault: done, seal: pending})
	if m := w.Step(f.GetName(), seal).GetMessage(); !strings.Contains(m, other.GetName()) {
		t.Errorf("it waits and says %q", m)
	}
	if err := w.Failback(other.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
	phases(t, w, other.GetName(), failedBack, nil)
	nothingLeft(t, w.State, f.GetEpoch())
}

// TestReplicationNeedsANumber: that the old side cannot mirror under the number that the promotion used up
// does not keep the run open; when it has ended the number is raised.
func TestReplicationNeedsANumber(t *testing.T) {
	w, f := failedOver(t)
	carryBack(t, w, f)
	w.Stuck[sourceDB] = true
	w.Quiesce()
	reports(w, sourceDB)
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{startOld: reverting})
	w.Report(sourceDB, func(s *pb.Status) { s.Phase = pb.Phase_PHASE_FAILED })
	w.Quiesce()
	phases(t, w, f.GetName(), failedBack, nil)
}

// TestServesOnTheWayBack: what still runs here is seen to become healthy, so that others can start.
func TestServesOnTheWayBack(t *testing.T) {
	w := fixture.New(t)
	w.Replicates = true
	w.Join("east1", &pb.AgentOffer{ProtectedSite: true, Pools: []string{"east"}})
	w.ApplyManifests(vault, strings.NewReplacer("webshop/db", "vault/db").Replace(second))
	w.Quiesce()
	f := w.Declare("vault")
	w.Sick[w.Step(f.GetName(), startVault).GetObject()] = true
	w.Quiesce()
	w.Stuck[returnDB] = true
	carryBack(t, w, f)
	other := w.Declare("billing")
	if err := w.Swear(other.GetName()); err != nil {
		t.Fatal(err)
	}
	w.Quiesce()
	phases(t, w, other.GetName(), running, map[string]pb.StepPhase{"start billing/app": pending})
	clear(w.Sick)
	w.Quiesce()
	phases(t, w, other.GetName(), completed, nil)
	phases(t, w, f.GetName(), failingBack, map[string]pb.StepPhase{startVault: done})
}
