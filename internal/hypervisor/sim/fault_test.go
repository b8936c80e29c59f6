package sim_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
	"github.com/hotspare/hotspare/internal/model"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func do(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func wantState(t *testing.T, h *sim.Host, id model.ObjectID, want pb.State) {
	t.Helper()
	d, err := h.Inspect(t.Context(), id)
	if err != nil || d.State != want {
		t.Fatalf("inspect %s: %v, %v; want %v", id, d.State, err, want)
	}
}

func defined(t *testing.T, h *sim.Host, name string) model.ObjectID {
	t.Helper()
	d := definition(name)
	do(t, "define", h.Define(t.Context(), d))
	return d.ID
}

func TestGuestTimeAndHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(sim.Options{
			Costs: sim.Costs{Start: time.Second, Save: time.Second, SaveBytesPerSecond: 64 * mib, Restore: time.Second},
			Guest: sim.GuestBehaviour{HealthyAfter: 5 * time.Second},
		})
		id := defined(t, h, "a")
		began := time.Now()
		do(t, "start", h.Start(t.Context(), id))
		if took := time.Since(began); took != time.Second {
			t.Errorf("start took %v", took)
		}
		v, _ := h.Guest(id)
		if v.Healthy || h.Answers("10.0.0.2/24") || !v.HealthyAt.Equal(began.Add(6*time.Second)) {
			t.Errorf("healthy too early: %+v", v)
		}
		time.Sleep(4 * time.Second)
		do(t, "save", h.Save(t.Context(), id)) // one second and 128 MiB at 64 MiB/s
		if took := time.Since(began); took != 8*time.Second {
			t.Errorf("start, four seconds and save took %v", took)
		}
		time.Sleep(time.Hour)
		do(t, "restore", h.Restore(t.Context(), id))
		after, _ := h.Guest(id)
		if after.BootID != v.BootID || after.Counter != 40 || after.Healthy {
			t.Errorf("restored guest: %+v, want counter 40 of boot %s", after, v.BootID)
		}
		time.Sleep(time.Second)
		if !h.Answers("10.0.0.2") || h.Answers("10.0.0.3") || h.Answers("nonsense") {
			t.Error("the guest should answer at its own address only")
		}
		h.SetGuest(id, sim.GuestBehaviour{NeverHealthy: true})
		if h.Answers("10.0.0.2") {
			t.Error("a guest that is never healthy answers")
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(sim.Options{Capacity: &pb.Capacity{Vcpus: 4, MemoryBytes: 520 * mib, OverheadBytes: 100 * mib, DiskBytes: 200 * mib}})
		a, b, c := defined(t, h, "a"), defined(t, h, "b"), defined(t, h, "c")
		do(t, "start a", h.Start(t.Context(), a))
		do(t, "start b", h.Start(t.Context(), b))
		if err := h.Start(t.Context(), c); !errors.Is(err, sim.ErrNoMemory) {
			t.Errorf("third guest: %v, want ErrNoMemory", err)
		}
		do(t, "save a", h.Save(t.Context(), a))
		do(t, "start c", h.Start(t.Context(), c))
		if err := h.Restore(t.Context(), a); !errors.Is(err, sim.ErrNoMemory) {
			t.Errorf("restore without memory: %v, want ErrNoMemory", err)
		}
		wantState(t, h, a, pb.State_STATE_SAVED)
		if err := h.Save(t.Context(), b); !errors.Is(err, sim.ErrNoSpace) {
			t.Errorf("second image: %v, want ErrNoSpace", err)
		}
		wantState(t, h, b, pb.State_STATE_RUNNING)
		do(t, "drop", h.DropSaved(t.Context(), a))
		do(t, "save b", h.Save(t.Context(), b))
	})
}

func TestStartTakesMemoryFromItsBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(sim.Options{Capacity: &pb.Capacity{Vcpus: 4, MemoryBytes: 200 * mib}, Costs: sim.Costs{Start: time.Minute}})
		a, b := defined(t, h, "a"), defined(t, h, "b")
		if err := h.Start(within(t, time.Second), a); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("start with a short deadline: %v", err)
		}
		wantState(t, h, a, pb.State_STATE_DEFINED)
		if err := h.Start(t.Context(), b); !errors.Is(err, sim.ErrNoMemory) {
			t.Errorf("second guest: %v, want ErrNoMemory", err)
		}
		time.Sleep(time.Minute)
		wantState(t, h, a, pb.State_STATE_RUNNING) // it timed out and succeeded later
	})
}

func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(sim.Options{Costs: sim.Costs{Save: time.Minute}})
		a, b := defined(t, h, "a"), defined(t, h, "b")
		do(t, "start a", h.Start(t.Context(), a))
		do(t, "start b", h.Start(t.Context(), b))
		do(t, "save a", h.Save(t.Context(), a))
		boot := h.BootID()
		events, err := h.Watch(t.Context())
		do(t, "watch", err)
		saving := make(chan error)
		go func() { saving <- h.Save(t.Context(), b) }()
		synctest.Wait()
		h.Crash()
		if err := <-saving; !errors.Is(err, sim.ErrPowerLoss) {
			t.Errorf("save through a crash: %v, want ErrPowerLoss", err)
		}
		if _, open := <-events; open {
			t.Error("the watch outlived the crash")
		}
		if h.BootID() == boot {
			t.Error("the boot id did not change")
		}
		wantState(t, h, a, pb.State_STATE_SAVED)
		wantState(t, h, b, pb.State_STATE_DEFINED)
		do(t, "restore a", h.Restore(t.Context(), a))
		do(t, "start b", h.Start(t.Context(), b))
		if c := h.History()[b]; c != (sim.Counts{Defines: 1, Starts: 2}) {
			t.Errorf("history of b: %+v", c)
		}
	})
}

func TestKillDuringSaveLeavesNoImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(sim.Options{Costs: sim.Costs{Save: time.Minute}})
		id := defined(t, h, "a")
		do(t, "start", h.Start(t.Context(), id))
		saving := make(chan error)
		go func() { saving <- h.Save(t.Context(), id) }()
		synctest.Wait()
		h.Kill(id)
		if err := <-saving; err == nil {
			t.Error("save of a killed guest succeeded")
		}
		wantState(t, h, id, pb.State_STATE_DEFINED)
	})
}

func TestProblemStopsTheGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(sim.Options{})
		id := defined(t, h, "a")
		do(t, "start", h.Start(t.Context(), id))
		h.SetProblem(id, "paused: I/O error on vda")
		time.Sleep(time.Second)
		d, err := h.Inspect(t.Context(), id)
		if v, _ := h.Guest(id); err != nil || d.Problem == "" || v.Counter != 0 || h.Answers("10.0.0.2") {
			t.Errorf("paused guest: %+v %+v %v", d, v, err)
		}
		h.SetProblem(id, "")
		time.Sleep(time.Second)
		if v, _ := h.Guest(id); v.Counter != 10 {
			t.Errorf("counter %d after a second, want 10", v.Counter)
		}
	})
}

func TestFaults(t *testing.T) {
	boom := errors.New("boom")
	cases := []struct {
		name      string
		fault     sim.Fault
		wantErr   error
		wantNow   pb.State
		wantLater pb.State // an hour after
	}{
		{"error", sim.Fault{Method: "Start", Err: boom, Count: 1}, boom, pb.State_STATE_DEFINED, pb.State_STATE_DEFINED},
		{"hang", sim.Fault{Method: "Start", Hang: true}, context.DeadlineExceeded, pb.State_STATE_DEFINED, pb.State_STATE_DEFINED},
		{"delay", sim.Fault{Object: "instance/*", Method: "Start", Delay: time.Second}, nil, pb.State_STATE_RUNNING, pb.State_STATE_RUNNING},
		{"delay beyond the deadline", sim.Fault{Method: "Start", Delay: time.Hour}, context.DeadlineExceeded, pb.State_STATE_DEFINED, pb.State_STATE_DEFINED},
		{"yes but not applied", sim.Fault{Method: "Start", Lie: sim.LieNotApplied}, nil, pb.State_STATE_DEFINED, pb.State_STATE_DEFINED},
		{"no but applied", sim.Fault{Method: "Start", Lie: sim.LieApplied}, fault.ErrInjected, pb.State_STATE_RUNNING, pb.State_STATE_RUNNING},
		{"applied and never answers", sim.Fault{Method: "Start", Lie: sim.LieApplied, Hang: true}, context.DeadlineExceeded, pb.State_STATE_RUNNING, pb.State_STATE_RUNNING},
		{"times out, succeeds later", sim.Fault{Method: "Start", Lie: sim.LieLater, Later: time.Minute, Err: context.DeadlineExceeded}, context.DeadlineExceeded, pb.State_STATE_DEFINED, pb.State_STATE_RUNNING},
		{"another object", sim.Fault{Object: "instance/b*", Err: boom}, nil, pb.State_STATE_RUNNING, pb.State_STATE_RUNNING},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(sim.Options{})
				id := defined(t, h, "a")
				release := h.Inject(c.fault)
				if err := h.Start(within(t, 10*time.Second), id); !errors.Is(err, c.wantErr) {
					t.Errorf("start: %v, want %v", err, c.wantErr)
				}
				wantState(t, h, id, c.wantNow)
				time.Sleep(time.Hour)
				wantState(t, h, id, c.wantLater)
				release()
				do(t, "start after the fault", h.Start(within(t, 10*time.Second), id))
				wantState(t, h, id, pb.State_STATE_RUNNING)
			})
		})
	}
}

func TestReleasedHangGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(sim.Options{})
		id := defined(t, h, "a")
		release := h.Inject(sim.Fault{Method: "Start", Hang: true, Count: 1})
		starting := make(chan error)
		go func() { starting <- h.Start(t.Context(), id) }()
		time.Sleep(time.Hour)
		wantState(t, h, id, pb.State_STATE_DEFINED)
		release()
		release()
		do(t, "released start", <-starting)
		wantState(t, h, id, pb.State_STATE_RUNNING)
	})
}

func TestAcceptedWorkDiesWithTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(sim.Options{})
		id := defined(t, h, "a")
		h.Inject(sim.Fault{Method: "Start", Lie: sim.LieLater, Later: time.Minute, Count: 1})
		if err := h.Start(t.Context(), id); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("start: %v", err)
		}
		h.Crash()
		time.Sleep(time.Hour)
		wantState(t, h, id, pb.State_STATE_DEFINED)
	})
}

func TestGraceIsForTheGuest(t *testing.T) {
	cases := []struct {
		name  string
		guest sim.GuestBehaviour
		want  time.Duration
		count sim.Counts
	}{
		{"obeys", sim.GuestBehaviour{ShutdownTakes: 3 * time.Second}, 3 * time.Second, sim.Counts{Defines: 1, Starts: 1, Stops: 1}},
		{"too slow", sim.GuestBehaviour{ShutdownTakes: time.Minute}, 11 * time.Second, sim.Counts{Defines: 1, Starts: 1, Kills: 1}},
		{"ignores", sim.GuestBehaviour{IgnoresShutdown: true}, 11 * time.Second, sim.Counts{Defines: 1, Starts: 1, Kills: 1}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(sim.Options{Guest: c.guest, Costs: sim.Costs{Kill: time.Second}})
				id := defined(t, h, "a")
				do(t, "start", h.Start(t.Context(), id))
				began := time.Now()
				do(t, "stop", h.Stop(t.Context(), id, hypervisor.StopOptions{Grace: 10 * time.Second}))
				if took := time.Since(began); took != c.want {
					t.Errorf("stop took %v, want %v", took, c.want)
				}
				if got := h.History()[id]; got != c.count {
					t.Errorf("history %+v, want %+v", got, c.count)
				}
			})
		})
	}
}
