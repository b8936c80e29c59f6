package failover_test

import (
	"strings"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// sharing returns a site with a second plan whose old side hangs on the same power switch.
func sharing(t *testing.T) *fixture.World {
	t.Helper()
	return fixture.New(t, strings.Replace(one("billing"), "[{oath: {}}]", "[{power: {target: east-bmc}, timeout: 20s}]", 1))
}

// fencedFor is the epoch that the switch is off for; 0: it is not.
func fencedFor(w *fixture.World) uint64 {
	spec := model.Effective(w.State.Object(fenceObj))
	if spec.GetState() != pb.State_STATE_FENCED {
		return 0
	}
	return spec.GetFence().GetEpoch()
}

const startApp = "start billing/app"

// A run does not start on what was observed for another one, and the fence is lifted by the last.
func TestEachRunHasItsOwnEvidence(t *testing.T) {
	for name, firstBack := range map[string]int{"the first goes back first": 0, "the second goes back first": 1} {
		t.Run(name, func(t *testing.T) {
			w := sharing(t)
			runs := []string{w.Declare("webshop").GetName()}
			w.Quiesce()
			phases(t, w, runs[0], completed, nil)
			w.Stuck[fenceObj] = true
			runs = append(runs, w.Declare("billing").GetName())
			w.Quiesce()
			phases(t, w, runs[1], running, map[string]pb.StepPhase{fence: released, startApp: pending})
			clear(w.Stuck)
			w.Quiesce()
			phases(t, w, runs[1], completed, map[string]pb.StepPhase{fence: done, startApp: done})
			if err := w.Failback(runs[firstBack]); err != nil {
				t.Fatal(err)
			}
			w.Quiesce()
			phases(t, w, runs[firstBack], failedBack, nil)
			last := 1 - firstBack
			if e := fencedFor(w); e != w.State.Failover(runs[last]).GetEpoch() {
				t.Errorf("fenced for epoch %d after %s has gone back", e, runs[firstBack])
			}
			phases(t, w, runs[last], completed, map[string]pb.StepPhase{fence: done})
			if err := w.Failback(runs[last]); err != nil {
				t.Fatal(err)
			}
			w.Quiesce()
			phases(t, w, runs[last], failedBack, nil)
			if e := fencedFor(w); e != 0 {
				t.Errorf("still fenced for epoch %d", e)
			}
			w.CheckReplay()
		})
	}
}

// While a fence is on its way for one run another waits its turn; when the first gives up, the second has
// it, and what worked for the second is tried for the first again.
func TestRunsFenceInTurn(t *testing.T) {
	w := sharing(t)
	w.Stuck[fenceObj] = true
	a, b := w.Declare("webshop").GetName(), w.Declare("billing").GetName()
	w.Quiesce()
	phases(t, w, a, running, map[string]pb.StepPhase{fence: released})
	phases(t, w, b, running, map[string]pb.StepPhase{fence: pending})
	w.Wait(21 * time.Second)
	phases(t, w, a, running, map[string]pb.StepPhase{fence: failed, promote: pending})
	phases(t, w, b, running, map[string]pb.StepPhase{fence: released, startApp: pending})
	clear(w.Stuck)
	w.Quiesce()
	phases(t, w, b, completed, map[string]pb.StepPhase{fence: done})
	phases(t, w, a, completed, map[string]pb.StepPhase{fence: done, promote: done})
	if e := fencedFor(w); e != 1 {
		t.Errorf("fenced for epoch %d, want the run whose turn was last", e)
	}
}
