package reconcile

import (
	"strings"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	replica = pb.State_STATE_REPLICA
	primary = pb.State_STATE_PRIMARY
)

func vol(s pb.State, change ...func(*pb.VolumeSpec)) *pb.Spec {
	spec := &pb.VolumeSpec{Pool: "west", Name: "v"}
	for _, f := range change {
		f(spec)
	}
	return &pb.Spec{State: s, Parameters: &pb.Spec_Volume{Volume: spec}}
}

// TestNextLeadsThereOrSaysWhyNot walks from every state to every other one.
func TestNextLeadsThereOrSaysWhyNot(t *testing.T) {
	refused := map[string]bool{
		"volume REPLICA>CLONE": true, "volume PRIMARY>CLONE": true,
		"volume CLONE>REPLICA": true, "volume CLONE>PRIMARY": true,
	}
	for kind := pb.Kind_KIND_INSTANCE; kind <= pb.Kind_KIND_HOOK; kind++ {
		for _, from := range model.States(kind) {
			for _, want := range model.States(kind) {
				name := model.KindName(kind) + " " + model.StateName(from) + ">" + model.StateName(want)
				t.Run(name, func(t *testing.T) {
					if got := walk(t, kind, from, want); got != refused[name] {
						t.Errorf("refused: %v", got)
					}
				})
			}
		}
	}
}

// walk follows next, with states as a hypervisor shows them, and says whether it refuses.
func walk(t *testing.T, kind pb.Kind, at, want pb.State) bool {
	t.Helper()
	for range 5 {
		tr, done, err := next(kind, at, want)
		if err != nil {
			return true
		}
		if done {
			return false
		}
		if tr.To == absent && want != absent {
			t.Fatalf("it is deleted on the way")
		}
		if tr.To == running && want != running {
			t.Fatalf("it is started on the way")
		}
		if at == running && want == absent && tr.To == saved {
			t.Fatalf("RAM is saved that nobody wants")
		}
		at = tr.To
		if at == stopped {
			at = defined
		}
	}
	t.Fatalf("it does not arrive")
	return false
}

func TestOtherParametersAreGivenToTheDriver(t *testing.T) {
	w := newWorld(t)
	w.order(1, v, vol(replica))
	w.settle()
	w.began("v ABSENT>REPLICA")
	w.order(2, v, vol(replica))
	w.settle()
	w.began()
	w.order(3, v, vol(replica, func(s *pb.VolumeSpec) { s.Resync = 2 }))
	w.settle()
	w.began("v REPLICA>REPLICA")
	w.start()
	w.settle()
	w.began()
	w.permit(time.Minute)
	// A promotion takes them along.
	w.order(4, v, vol(primary, func(s *pb.VolumeSpec) { s.Resync = 3 }))
	w.settle()
	w.began("v REPLICA>PRIMARY")
	// After a boot exports and the like may have to be made again; that of a primary is acquiring.
	w.bootID = "boot-2"
	w.start()
	w.settle()
	w.began()
	w.is(v, primary, waiting)
	w.permit(time.Minute)
	w.settle()
	w.began("v PRIMARY>PRIMARY")
	w.is(v, primary, settled)
}

// TestParametersOfACallThatFailedAreNotKnown: a promotion that failed and happened took parameters
// along; going back to the former ones is a change.
func TestParametersOfACallThatFailedAreNotKnown(t *testing.T) {
	w := newWorld(t)
	other := func(s *pb.VolumeSpec) { s.Resync = 2 }
	w.order(1, v, vol(replica))
	w.settle()
	w.order(2, v, vol(primary, other))
	w.read()
	w.order(3, v, vol(primary))
	w.returns(v, true, errDriver)
	w.settle()
	w.is(v, primary, settled)
	w.began("v ABSENT>REPLICA", "v REPLICA>PRIMARY", "v PRIMARY>PRIMARY")
}

func TestADefinitionIsRenewedBeforeTheStart(t *testing.T) {
	w := newWorld(t)
	w.order(1, a, vm(stopped))
	w.settle()
	w.log = nil
	w.order(2, a, vm(running, func(i *pb.InstanceSpec) { i.Vcpus = 4 }))
	w.settle()
	w.began("a DEFINED>DEFINED", "a DEFINED>RUNNING")
	// A longer term changes nothing in the definition, and a running guest is left alone.
	w.order(3, a, vm(running, func(i *pb.InstanceSpec) { i.Vcpus = 8 }))
	w.settle()
	w.began()
	w.is(a, running, settled)
}

func TestAbsentWithoutParameters(t *testing.T) {
	w := newWorld(t)
	w.order(1, v, vol(replica))
	w.settle()
	w.order(2, v, &pb.Spec{State: absent})
	w.read()
	if c := w.calls[0]; c.Spec.GetVolume().GetName() != "v" {
		t.Errorf("the driver is not told what to remove: %v", c.Spec)
	}
	w.settle()
	w.is(v, absent, settled)
}

func TestOrdersThatCannotBeUnderstood(t *testing.T) {
	cases := map[string]*pb.Order{
		"state of another kind":      anOrder(5, v, &pb.Spec{State: running}),
		"no state":                   anOrder(5, v, vol(0)),
		"parameters of another kind": anOrder(5, v, vm(absent)),
		"no parameters":              anOrder(5, "volume/w", &pb.Spec{State: replica}),
		"no spec":                    anOrder(5, "volume/w", nil),
		"no name":                    {Object: "volume/", Kind: pb.Kind_KIND_VOLUME, Generation: 5, Spec: vol(replica)},
		"no kind":                    {Object: "disk/v", Generation: 5, Spec: vol(replica)},
	}
	for name, o := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.order(1, v, vol(replica))
			w.settle()
			w.log = nil
			w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{o}})
			w.settle()
			w.pass(time.Hour)
			w.began()
			st := w.reported[model.ObjectID(o.GetObject())]
			if st.GetPhase() != failed || st.GetGeneration() != 5 || !strings.Contains(st.GetMessage(), "order for") {
				t.Errorf("status %v", st)
			}
			w.start()
			w.settle()
			w.began()
		})
	}
}

func TestAFenceIsVerifiedAgain(t *testing.T) {
	const f = model.ObjectID("fence/f")
	w := newWorld(t)
	spec := func(epoch uint64) *pb.Spec {
		return &pb.Spec{State: pb.State_STATE_FENCED, Parameters: &pb.Spec_Fence{
			Fence: &pb.FenceSpec{Target: "east", Epoch: epoch},
		}}
	}
	w.order(1, f, spec(1))
	w.settle()
	w.began("f OPEN>FENCED")
	w.pass(5 * time.Second)
	if len(w.reads) != 1 {
		t.Fatal("the fence is not verified")
	}
	w.thing(f).state = pb.State_STATE_OPEN
	w.settle()
	w.began("f OPEN>FENCED")
	w.is(f, pb.State_STATE_FENCED, settled)
	// The evidence of one epoch is none for another.
	w.order(2, f, spec(2))
	w.settle()
	w.began("f FENCED>FENCED")
}

func TestABrokenNetworkIsMadeAgain(t *testing.T) {
	const n = model.ObjectID("network/n")
	w := newWorld(t)
	w.order(1, n, &pb.Spec{State: pb.State_STATE_PRESENT, Parameters: &pb.Spec_Network{Network: &pb.NetworkSpec{Name: "n"}}})
	w.settle()
	w.began("n ABSENT>PRESENT")
	w.thing(n).state = pb.State_STATE_ABSENT // As drivers say of one of which a part is missing.
	w.pass(5 * time.Second)
	w.settle()
	w.began("n ABSENT>PRESENT")
	w.is(n, pb.State_STATE_PRESENT, settled)
}

func TestHooks(t *testing.T) {
	const h = model.ObjectID("hook/h")
	spec := func(s pb.State) *pb.Spec {
		return &pb.Spec{State: s, Parameters: &pb.Spec_Hook{Hook: &pb.HookSpec{Apply: []string{"a"}, Revert: []string{"r"}}}}
	}
	const applied, reverted = pb.State_STATE_APPLIED, pb.State_STATE_REVERTED
	w := newWorld(t)
	w.order(1, h, spec(reverted))
	w.settle()
	w.began()
	w.order(2, h, spec(applied))
	w.settle()
	w.is(h, applied, settled)
	w.start()
	w.settle()
	w.is(h, applied, settled)
	w.began("h REVERTED>APPLIED")
	// A hook whose end is not known is reverted when that is wanted, and run again when not.
	w.order(3, h, spec(reverted))
	w.start()
	w.hear()
	w.settle()
	w.is(h, reverted, settled)
	w.began("h APPLIED>REVERTED", "h APPLIED>REVERTED")
	w.permit(time.Minute)
	w.order(4, h, spec(applied))
	w.returns(h, false, errDriver)
	w.is(h, 0, failed)
	if len(w.ledger) != 1 {
		t.Errorf("a hook that may have done half of its work is not in the ledger")
	}
	w.order(5, h, spec(reverted))
	w.settle()
	w.is(h, reverted, settled)
	w.began("h REVERTED>APPLIED", "h APPLIED>REVERTED")
	w.order(6, h, spec(applied))
	w.start()
	w.order(7, h, spec(reverted))
	w.settle()
	w.began("h REVERTED>APPLIED", "h APPLIED>REVERTED")
	if len(w.ledger) != 0 {
		t.Errorf("ledger %v", w.ledger)
	}
}

func TestInventoryAdoptsWithoutTouching(t *testing.T) {
	w := newWorld(t)
	w.thing(a).state = running
	w.do(w.core.Inventory([]Found{{Object: a, Owner: "web"}}, w.now))
	w.settle()
	w.live(time.Hour)
	w.began()
	if st := w.is(a, running, waiting); st.GetGeneration() != 0 {
		t.Errorf("status %v", st)
	}
	w.order(1, a, vm(running))
	w.settle()
	w.is(a, running, settled)
	w.began()
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	probed := func(i *pb.InstanceSpec) {
		i.Health = &pb.Health{Tcp: "10.0.0.1:22"}
		i.Nics = []*pb.Nic{{Network: "prod", Address: "10.0.0.1/24"}}
	}
	health := func() pb.HealthState { return w.reported[a].GetInstance().GetHealth() }
	w.order(1, a, vm(running, probed))
	if health() != pb.HealthState_HEALTH_STATE_NONE {
		t.Errorf("health %v of what does not run", health())
	}
	w.settle()
	if !w.probing[a] || health() != pb.HealthState_HEALTH_STATE_PENDING {
		t.Errorf("probing %v, health %v", w.probing[a], health())
	}
	w.do(w.core.HealthChanged(a, pb.HealthState_HEALTH_STATE_HEALTHY, "", w.now))
	if health() != pb.HealthState_HEALTH_STATE_HEALTHY {
		t.Errorf("health %v", health())
	}
	w.order(2, a, vm(stopped, probed))
	w.settle()
	if w.probing[a] || health() != pb.HealthState_HEALTH_STATE_NONE {
		t.Errorf("probing %v, health %v after the stop", w.probing[a], health())
	}
	w.do(w.core.HealthChanged(a, pb.HealthState_HEALTH_STATE_HEALTHY, "", w.now))
	if health() != pb.HealthState_HEALTH_STATE_NONE {
		t.Error("a late answer of an ended probe is believed")
	}
}

func TestStatusIsReportedOnlyWhenItChanged(t *testing.T) {
	w := runningVM(t)
	w.reported = map[model.ObjectID]*pb.Status{}
	w.live(10 * time.Minute)
	if len(w.reported) != 0 {
		t.Errorf("reported again: %v", w.reported)
	}
	if all := w.core.Statuses(); len(all) != 1 || all[0].GetObject() != string(a) {
		t.Errorf("full report %v", all)
	}
}

func TestPermanentErrorsAreRetriedSlowly(t *testing.T) {
	w := newWorld(t)
	w.order(1, v, vol(replica))
	w.read()
	w.returns(v, false, model.Errorf(model.FaultUnsupported, string(v), "this agent has no storage pool west"))
	w.read()
	w.is(v, absent, failed)
	w.log = nil
	w.pass(29 * time.Second)
	w.read()
	w.began()
}

func TestLedgerNamesWhatIsMadeOutside(t *testing.T) {
	w := newWorld(t)
	o := anOrder(1, v, vol(replica))
	o.Epoch = 7
	w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{o}})
	w.read()
	l := w.core.Ledger()
	if len(l) != 1 || l[0].Epoch != 7 || l[0].What != "volume west/v" || len(w.ledger) != 1 {
		t.Fatalf("ledger %v, journaled %v", l, w.ledger)
	}
	w.settle()
	w.order(2, v, vol(absent))
	w.settle()
	if len(w.core.Ledger())+len(w.ledger) != 0 {
		t.Errorf("ledger %v after it is gone", w.ledger)
	}
}
