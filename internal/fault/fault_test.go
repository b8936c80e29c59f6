package fault_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotspare/hotspare/internal/fault"
)

// What each way to go wrong means: the error, whether the effect came before the answer, and whether at all.
func TestWays(t *testing.T) {
	const limit = time.Minute
	want := map[string]struct {
		err           error
		before, after int
		took          time.Duration
	}{
		"fails":          {fault.ErrInjected, 0, 0, 0},
		"never answers":  {context.DeadlineExceeded, 0, 0, limit},
		"is slow":        {nil, 1, 1, time.Second},
		"is not applied": {nil, 0, 0, 0},
		"loses its word": {fault.ErrInjected, 1, 1, 0},
		"succeeds later": {context.DeadlineExceeded, 1, 1, limit},
	}
	ways := fault.Ways(time.Second)
	if len(ways) != len(want) {
		t.Errorf("ways: %q", slices.Sorted(maps.Keys(ways)))
	}
	for name, f := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faults, done := &fault.Faults{}, 0
				f.Method, f.Object, f.Count = "Start", "web-*", 1
				faults.Inject(f)
				call := func(object string) error {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					defer cancel()
					return faults.Through(ctx, "Start", object, func(context.Context) error { done++; return nil })
				}
				if err := call("db"); err != nil || done != 1 {
					t.Fatalf("another object: %v", err)
				}
				done = 0
				began := time.Now()
				if err := call("web-1"); !errors.Is(err, want[name].err) || time.Since(began) != want[name].took || done != want[name].before {
					t.Errorf("%v after %v with %d effects", err, time.Since(began), done)
				}
				<-time.After(time.Hour)
				synctest.Wait()
				if done != want[name].after || faults.Effects("Start", "web-1") != done || faults.Calls("Start", "web-1") != 1 {
					t.Errorf("%d effects, %d counted", done, faults.Effects("Start", "web-1"))
				}
				if err := call("web-1"); err != nil {
					t.Errorf("the next call: %v", err)
				}
			})
		})
	}
}

// A call that hangs goes on when its fault is taken away, by the one who injected it or with all others.
func TestReleased(t *testing.T) {
	for name, all := range map[string]bool{"one": false, "all": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faults := &fault.Faults{}
				release := faults.Inject(fault.Fault{Hang: true})
				answer := make(chan error, 1)
				go func() {
					answer <- faults.Through(t.Context(), "Start", "web", func(context.Context) error { return nil })
				}()
				synctest.Wait()
				if len(answer) > 0 {
					t.Fatal("it does not hang")
				}
				if all {
					faults.Clear()
				}
				release()
				release()
				if err := <-answer; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What comes late knows it.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults, late := &fault.Faults{}, false
		faults.Inject(fault.Fault{Lie: fault.LieLater, Later: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		err := faults.Through(ctx, "Start", "web", func(ctx context.Context) error {
			late = fault.Late(ctx) && ctx.Err() == nil
			return nil
		})
		cancel()
		if !errors.Is(err, fault.ErrInjected) {
			t.Errorf("got %v", err)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if !late || fault.Late(t.Context()) {
			t.Errorf("late %v", late)
		}
	})
}
