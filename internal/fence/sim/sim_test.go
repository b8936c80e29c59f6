package sim_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/fence"
	"github.com/hotspare/hotspare/internal/fence/conformance"
	"github.com/hotspare/hotspare/internal/fence/sim"
)

func TestConform(t *testing.T) {
	conformance.Run(t, func(*testing.T) conformance.Harness {
		site := sim.NewSite(nil, "east-bmc")
		return conformance.Harness{
			Driver: site,
			Target: "east-bmc",
			Alive:  func(*testing.T) bool { return site.Alive("east-bmc") },
			Start:  func(*testing.T) { site.SetAlive("east-bmc", true) },
			Stop:   func(*testing.T) { site.SetAlive("east-bmc", false) },
			Away: func(*testing.T) {
				for _, m := range []string{sim.Fence, sim.Inspect, sim.Lift} {
					site.Inject(sim.Fault{Method: m, Hang: true})
				}
			},
			Restart: func(*testing.T) fence.Driver { return site },
		}
	})
}

func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault   sim.Fault
		wantErr error
		// fenced is whether the target is off when the call returned, and later an hour on.
		fenced, later bool
	}{
		"none":       {sim.Fault{}, nil, true, true},
		"fail":       {sim.Fault{Err: fault.ErrInjected}, fault.ErrInjected, false, false},
		"hang":       {sim.Fault{Hang: true}, context.DeadlineExceeded, false, false},
		"slow":       {sim.Fault{Delay: time.Second}, nil, true, true},
		"lie":        {sim.Fault{Lie: fault.LieNotApplied}, nil, false, false},
		"lose reply": {sim.Fault{Lie: fault.LieApplied}, fault.ErrInjected, true, true},
		"late":       {sim.Fault{Hang: true, Lie: fault.LieLater, Later: 2 * time.Minute}, context.DeadlineExceeded, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := 0
				site := sim.NewSite(func(string) { told++ }, "east-bmc")
				spec := &pb.FenceSpec{Target: "east-bmc", Epoch: 3}
				c.fault.Method, c.fault.Count = sim.Fence, 1
				site.Inject(c.fault)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := site.Fence(ctx, spec); !errors.Is(err, c.wantErr) {
					t.Errorf("fence: %v, want %v", err, c.wantErr)
				}
				if got := !site.Alive("east-bmc"); got != c.fenced {
					t.Errorf("off %v, want %v", got, c.fenced)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if got := !site.Alive("east-bmc"); got != c.later {
					t.Errorf("off %v an hour later, want %v", got, c.later)
				}
				if err := site.Fence(t.Context(), spec); err != nil {
					t.Errorf("fence after the fault: %v", err)
				}
				if told != 1 || site.PowerOffs("east-bmc") != 1 || site.Calls(sim.Fence, "east-bmc") != 2 {
					t.Errorf("told %d times, turned off %d times in %d calls, want 1, 1, 2",
						told, site.PowerOffs("east-bmc"), site.Calls(sim.Fence, "east-bmc"))
				}
				if err := site.Lift(t.Context(), spec); err != nil || site.Fences("east-bmc") != 0 {
					t.Errorf("lift: %v, %d fences left", err, site.Fences("east-bmc"))
				}
			})
		})
	}
}
