// Package conformance is the proof that every fence driver, the simulated one included, keeps the
// promises of package fence. A driver's own tests call Run with a harness that sees the target
// without the driver's help and can start it again behind the driver's back.
//
// The named cases are exported, so that CI can print a matrix driver × case in which a missing cell
// shows. Only tests import this package.
package conformance

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fence"
)

// callLimit bounds each driver call: far above what any takes on a loaded machine.
const callLimit = 60 * time.Second

// shortLimit is the deadline given to calls that cannot succeed; they must return soon after it.
const shortLimit = 500 * time.Millisecond

// Harness is one protected site with a target that is alive, fresh for each case.
type Harness struct {
	Driver fence.Driver
	Target string
	// Alive reports whether anything of the target runs, seen without the driver.
	Alive func(t *testing.T) bool
	// Start starts the target again behind the driver's back.
	Start func(t *testing.T)
	// Stop ends the target behind the driver's back.
	Stop func(t *testing.T)
	// Away makes the target's management unreachable while the target runs on.
	Away func(t *testing.T)
	// Restart makes a driver as a new agent process would, from what the old one left on disk.
	Restart func(t *testing.T) fence.Driver
}

type conformanceCase struct {
	name string
	run  func(t *testing.T, h Harness)
}

func cases() []conformanceCase {
	return []conformanceCase{
		{"the target is listed", listed},
		{"a living target is open", openAtFirst},
		{"fence turns the target off and shows evidence", fenceShows},
		{"fence twice keeps the evidence", fenceTwice},
		{"off without a fence is open", offIsNoFence},
		{"evidence is valid for one epoch only", oneEpoch},
		{"a target that runs again is open", runsAgain},
		{"fence again turns off what runs again", fencesAgain},
		{"lift opens and starts nothing", liftStartsNothing},
		{"lift of one epoch keeps the other's fence", liftKeepsOther},
		{"lift twice, and of nothing, succeeds", liftTwice},
		{"without an epoch all fences are meant", allEpochs},
		{"a new agent process sees the fence", restart},
		{"an unreachable target is an error, never fenced", away},
		{"an unknown target is an error", unknown},
		{"a cancelled context is obeyed", cancelled},
	}
}

// Cases lists the names of all cases of Run, in order.
func Cases() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// Run runs every case as a subtest against a site of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func (h Harness) spec(epoch uint64) *pb.FenceSpec {
	return &pb.FenceSpec{Target: h.Target, Method: pb.FenceMethod_FENCE_METHOD_POWER, Epoch: epoch}
}

func listed(t *testing.T, h Harness) {
	if !slices.Contains(h.Driver.Targets(), h.Target) {
		t.Errorf("targets %q lack %q", h.Driver.Targets(), h.Target)
	}
}

func openAtFirst(t *testing.T, h Harness) {
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_OPEN)
	if !h.Alive(t) {
		t.Error("inspect turned the target off")
	}
}

func fenceShows(t *testing.T, h Harness) {
	doFence(t, h, 7)
	if h.Alive(t) {
		t.Error("fence returned and the target runs")
	}
	status := wantState(t, h.Driver, h.spec(7), pb.State_STATE_FENCED)
	if status.GetEpoch() != 7 || status.GetEvidence() == "" || status.GetObservedAt() == nil {
		t.Errorf("evidence is incomplete: %v", status)
	}
}

func fenceTwice(t *testing.T, h Harness) {
	doFence(t, h, 7)
	before := wantState(t, h.Driver, h.spec(7), pb.State_STATE_FENCED)
	doFence(t, h, 7)
	after := wantState(t, h.Driver, h.spec(7), pb.State_STATE_FENCED)
	if after.GetEpoch() != before.GetEpoch() || after.GetObservedAt() == nil {
		t.Errorf("evidence %v after the second fence, before %v", after, before)
	}
}

func offIsNoFence(t *testing.T, h Harness) {
	h.Stop(t)
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_OPEN)
	doFence(t, h, 7)
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_FENCED)
}

func oneEpoch(t *testing.T, h Harness) {
	doFence(t, h, 7)
	wantState(t, h.Driver, h.spec(8), pb.State_STATE_OPEN)
	doFence(t, h, 8)
	wantState(t, h.Driver, h.spec(8), pb.State_STATE_FENCED)
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_FENCED)
}

func runsAgain(t *testing.T, h Harness) {
	doFence(t, h, 7)
	h.Start(t)
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_OPEN)
}

func fencesAgain(t *testing.T, h Harness) {
	doFence(t, h, 7)
	h.Start(t)
	doFence(t, h, 7)
	if h.Alive(t) {
		t.Error("the second fence returned and the target runs")
	}
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_FENCED)
}

func liftStartsNothing(t *testing.T, h Harness) {
	doFence(t, h, 7)
	lift(t, h, 7)
	if h.Alive(t) {
		t.Error("lift started the target")
	}
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_OPEN)
	h.Start(t)
	if !h.Alive(t) {
		t.Error("the target cannot be started after lift")
	}
}

func liftKeepsOther(t *testing.T, h Harness) {
	doFence(t, h, 7)
	doFence(t, h, 8)
	lift(t, h, 7)
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_OPEN)
	wantState(t, h.Driver, h.spec(8), pb.State_STATE_FENCED)
}

func liftTwice(t *testing.T, h Harness) {
	lift(t, h, 7)
	if !h.Alive(t) {
		t.Error("lift of nothing turned the target off")
	}
	doFence(t, h, 7)
	lift(t, h, 7)
	lift(t, h, 7)
	wantState(t, h.Driver, h.spec(7), pb.State_STATE_OPEN)
}

func allEpochs(t *testing.T, h Harness) {
	wantState(t, h.Driver, h.spec(0), pb.State_STATE_OPEN)
	if err := h.Driver.Fence(limit(t, callLimit), h.spec(0)); err == nil || !h.Alive(t) {
		t.Errorf("fence without an epoch: %v", err)
	}
	doFence(t, h, 7)
	doFence(t, h, 8)
	wantState(t, h.Driver, h.spec(0), pb.State_STATE_FENCED)
	h.Start(t) // What runs again is still to be lifted.
	wantState(t, h.Driver, h.spec(0), pb.State_STATE_FENCED)
	lift(t, h, 0)
	for _, epoch := range []uint64{0, 7, 8} {
		wantState(t, h.Driver, h.spec(epoch), pb.State_STATE_OPEN)
	}
}

func restart(t *testing.T, h Harness) {
	doFence(t, h, 7)
	again := h.Restart(t)
	wantState(t, again, h.spec(7), pb.State_STATE_FENCED)
	wantState(t, again, h.spec(8), pb.State_STATE_OPEN)
	if err := again.Lift(limit(t, callLimit), h.spec(7)); err != nil {
		t.Errorf("lift by the new process: %v", err)
	}
	wantState(t, again, h.spec(7), pb.State_STATE_OPEN)
}

func away(t *testing.T, h Harness) {
	h.Away(t)
	began := time.Now()
	if err := h.Driver.Fence(limit(t, shortLimit), h.spec(7)); err == nil {
		t.Error("fence of an unreachable target succeeded")
	}
	state, status, err := h.Driver.Inspect(limit(t, shortLimit), h.spec(7))
	if state == pb.State_STATE_FENCED {
		t.Errorf("an unreachable target is FENCED: %v, %v", status, err)
	}
	if took := time.Since(began); took > callLimit {
		t.Errorf("two calls to an unreachable target took %v with deadlines of %v", took, shortLimit)
	}
}

func unknown(t *testing.T, h Harness) {
	spec := &pb.FenceSpec{Target: "nobody", Method: pb.FenceMethod_FENCE_METHOD_POWER, Epoch: 7}
	if err := h.Driver.Fence(limit(t, callLimit), spec); err == nil {
		t.Error("fence of an unknown target succeeded")
	}
	if state, _, err := h.Driver.Inspect(limit(t, callLimit), spec); err == nil {
		t.Errorf("inspect of an unknown target: %v without an error", state)
	}
}

func cancelled(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Driver.Fence(ctx, h.spec(7)); !errors.Is(err, context.Canceled) {
		t.Errorf("fence with a cancelled context: %v", err)
	}
	if state, _, err := h.Driver.Inspect(ctx, h.spec(7)); !errors.Is(err, context.Canceled) {
		t.Errorf("inspect with a cancelled context: %v, %v", state, err)
	}
	if err := h.Driver.Lift(ctx, h.spec(7)); !errors.Is(err, context.Canceled) {
		t.Errorf("lift with a cancelled context: %v", err)
	}
	if !h.Alive(t) {
		t.Error("a fence that was cancelled before it began turned the target off")
	}
}

func doFence(t *testing.T, h Harness, epoch uint64) {
	t.Helper()
	if err := h.Driver.Fence(limit(t, callLimit), h.spec(epoch)); err != nil {
		t.Fatalf("fence for epoch %d: %v", epoch, err)
	}
}

func lift(t *testing.T, h Harness, epoch uint64) {
	t.Helper()
	if err := h.Driver.Lift(limit(t, callLimit), h.spec(epoch)); err != nil {
		t.Fatalf("lift for epoch %d: %v", epoch, err)
	}
}

func wantState(t *testing.T, d fence.Driver, spec *pb.FenceSpec, want pb.State) *pb.FenceStatus {
	t.Helper()
	got, status, err := d.Inspect(limit(t, callLimit), spec)
	if err != nil {
		t.Fatalf("inspect for epoch %d: %v", spec.GetEpoch(), err)
	}
	if got != want {
		t.Errorf("epoch %d is %v, want %v", spec.GetEpoch(), got, want)
	}
	return status
}

// limit makes a context that ends with the test, or after d.
func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
