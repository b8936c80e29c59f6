package model

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func kinds() []pb.Kind {
	return []pb.Kind{
		pb.Kind_KIND_INSTANCE, pb.Kind_KIND_VOLUME, pb.Kind_KIND_NETWORK, pb.Kind_KIND_ENDPOINT, pb.Kind_KIND_FENCE, pb.Kind_KIND_HOOK,
	}
}

// TestEveryStateBelongsToAKind compares the table with the enumerations of the proto.
func TestEveryStateBelongsToAKind(t *testing.T) {
	if len(kinds()) != len(pb.Kind_name)-1 {
		t.Errorf("%d kinds are tested, the proto has %d", len(kinds()), len(pb.Kind_name)-1)
	}
	for n := range pb.State_name { // Any order: each state by itself.
		s := pb.State(n)
		known := slices.ContainsFunc(kinds(), func(k pb.Kind) bool { return HasState(k, s) })
		if known != (s != pb.State_STATE_UNSPECIFIED) {
			t.Errorf("%v belongs to a kind: %v", s, known)
		}
	}
	seen := map[Transition]bool{}
	for _, tr := range Transitions() {
		bare := tr
		bare.Acquiring = false
		if seen[bare] || tr.From == tr.To {
			t.Errorf("%v twice, or to itself", tr)
		}
		seen[bare] = true
	}
}

// TestNextReachesEveryState follows Next from every state to every other, with the first hop of a
// shortest way each time.
func TestNextReachesEveryState(t *testing.T) {
	for _, kind := range kinds() {
		for _, from := range States(kind) {
			for _, to := range States(kind) {
				at, hops := from, 0
				for at != to {
					tr, ok := Next(kind, at, to)
					if !ok {
						t.Errorf("a %s has no way from %v to %v", KindName(kind), from, to)
						break
					}
					if tr.Kind != kind || tr.From != at {
						t.Fatalf("%v is no step from %v of a %v", tr, at, kind)
					}
					if at, hops = tr.To, hops+1; hops > len(States(kind)) {
						t.Fatalf("%v from %v to %v goes in a circle", kind, from, to)
					}
				}
			}
		}
		if _, ok := Next(kind, States(kind)[0], pb.State_STATE_UNSPECIFIED); ok {
			t.Errorf("%v: a way to nowhere", kind)
		}
		if !HasState(kind, Rest(kind)) {
			t.Errorf("%v rests in %v, which it does not have", kind, Rest(kind))
		}
	}
}

func TestSatisfies(t *testing.T) {
	good := map[string]bool{
		"SAVED STOPPED": true, "SAVED DEFINED": true, "STOPPED DEFINED": true, "DEFINED STOPPED": true,
	}
	for _, kind := range kinds() {
		for _, desired := range States(kind) {
			for _, observed := range States(kind) {
				want := desired == observed || kind == pb.Kind_KIND_INSTANCE && good[StateName(desired)+" "+StateName(observed)]
				if got := Satisfies(kind, observed, desired); got != want {
					t.Errorf("%v: %v as good as %v: %v", kind, observed, desired, got)
				}
			}
		}
	}
	for _, s := range MemoryFree() {
		if s == pb.State_STATE_RUNNING {
			t.Error("a running instance holds memory")
		}
	}
	if n := len(States(pb.Kind_KIND_INSTANCE)); len(MemoryFree()) != n-1 {
		t.Errorf("%d of %d states hold no memory", len(MemoryFree()), n)
	}
}

// TestAcquiring: what puts something into the world needs a permit, what takes it away does not (R10).
func TestAcquiring(t *testing.T) {
	want := map[pb.State]bool{
		pb.State_STATE_RUNNING: true, pb.State_STATE_PRIMARY: true, pb.State_STATE_PRESENT: true, pb.State_STATE_ANNOUNCED: true,
		pb.State_STATE_FENCED: true, pb.State_STATE_OPEN: true, pb.State_STATE_APPLIED: true,
	}
	for _, tr := range Transitions() {
		if tr.Acquiring != want[tr.To] {
			t.Errorf("%v: acquiring is %v", tr, tr.Acquiring)
		}
	}
}

func TestEffective(t *testing.T) {
	const failover, drill = pb.RunKind_RUN_KIND_FAILOVER, pb.RunKind_RUN_KIND_DRILL
	override := func(epoch uint64, run pb.RunKind) *pb.Override {
		return &pb.Override{Epoch: epoch, Run: run, Spec: &pb.Spec{State: pb.State(epoch)}}
	}
	for _, c := range []struct {
		name      string
		overrides []*pb.Override
		want      pb.State
	}{
		{"base", nil, 9},
		{"one", []*pb.Override{override(2, failover)}, 2},
		{"failover beats drill", []*pb.Override{override(1, drill), override(2, failover)}, 2},
		{"in either order", []*pb.Override{override(2, failover), override(1, drill)}, 2},
		{"lowest epoch", []*pb.Override{override(3, failover), override(2, failover)}, 2},
		{"lowest drill", []*pb.Override{override(3, drill), override(2, drill)}, 2},
	} {
		o := &pb.Object{Base: &pb.Spec{State: 9}, Overrides: c.overrides}
		if got := Effective(o).GetState(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestRunTableIsItsComment compares the table of a run's phases with the comment above it.
func TestRunTableIsItsComment(t *testing.T) {
	src, err := os.ReadFile("run.go")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^//\t([A-Z_]+) +-> (.+)$`).FindAllStringSubmatch(string(src), -1) {
		said[m[1]] = strings.Split(m[2], ", ")
	}
	if len(said) == 0 {
		t.Fatal("the comment was not found")
	}
	for n, name := range pb.RunPhase_name { // Any order: each phase by itself.
		p := pb.RunPhase(n)
		if p == pb.RunPhase_RUN_PHASE_UNSPECIFIED {
			continue
		}
		row, ok := runPhases[p]
		if !ok {
			t.Errorf("%s is not in the table", name)
		}
		var got []string
		for _, to := range row.next {
			got = append(got, strings.TrimPrefix(to.String(), "RUN_PHASE_"))
		}
		if want := said[strings.TrimPrefix(name, "RUN_PHASE_")]; !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%s leads to %v, the comment says %v", name, got, want)
		}
		if Open(p) != (len(row.next) > 0) {
			t.Errorf("%s: open is %v", name, Open(p))
		}
		if len(row.next) > 0 && len(row.actions) == 0 {
			t.Errorf("%s is a dead end: an operator can do nothing", name)
		}
	}
}

// TestActionsLeadSomewhere: what an operator may do in a phase is a transition of the table.
func TestActionsLeadSomewhere(t *testing.T) {
	const (
		running     = pb.RunPhase_RUN_PHASE_RUNNING
		aborting    = pb.RunPhase_RUN_PHASE_ABORTING
		failingBack = pb.RunPhase_RUN_PHASE_FAILING_BACK
	)
	leads := map[string][]pb.RunPhase{
		"approve": {running}, "reject": {pb.RunPhase_RUN_PHASE_REJECTED}, "pause": {pb.RunPhase_RUN_PHASE_PAUSED}, "resume": {running},
		"abort": {aborting}, "failback": {failingBack}, "retry": {running, aborting, failingBack}, "skip": {running},
	}
	for p := range runPhases { // Any order: each phase by itself.
		for _, a := range Actions(p) {
			if !Allows(p, a) || leads[a] == nil {
				t.Errorf("%v: action %q", p, a)
			}
			ok := slices.ContainsFunc(leads[a], func(to pb.RunPhase) bool { return to == p || MayFollow(p, to) })
			if !ok {
				t.Errorf("%v: %q leads nowhere", p, a)
			}
		}
		if Allows(p, "abort") && !Allows(p, "failback") {
			t.Errorf("%v: abort may refuse and recommend a failback, which is not possible", p)
		}
	}
}

func TestStepPhases(t *testing.T) {
	for n, name := range pb.StepPhase_name { // Any order: each phase by itself.
		p := pb.StepPhase(n)
		if _, ok := stepPhases[p]; ok != (p != pb.StepPhase_STEP_PHASE_UNSPECIFIED) {
			t.Errorf("%s in the table: %v", name, ok)
		}
	}
	for from, list := range stepPhases { // Any order: each row by itself.
		for _, to := range list {
			if !StepMayFollow(from, to) || from == pb.StepPhase_STEP_PHASE_REVERTING && to != pb.StepPhase_STEP_PHASE_REVERTED {
				t.Errorf("%v to %v", from, to)
			}
		}
	}
}

func TestObjectIDs(t *testing.T) {
	for _, k := range kinds() {
		if id := NewObjectID(k, "a/b"); id.Kind() != k || id.Name() != "a/b" {
			t.Errorf("%s: %v, %q", id, id.Kind(), id.Name())
		}
	}
	if ObjectID("nonsense").Kind() != pb.Kind_KIND_UNSPECIFIED {
		t.Error("nonsense has a kind")
	}
}
