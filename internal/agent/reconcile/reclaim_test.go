package reconcile

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

func TestReclaim(t *testing.T) {
	const save, shutdown, discard = pb.ReclaimAction_RECLAIM_ACTION_SAVE, pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN, pb.ReclaimAction_RECLAIM_ACTION_DISCARD
	fail := func(w *world) { w.returns(a, false, errDriver); w.read() }
	good := func(w *world) { w.returns(a, true, nil); w.read() }
	noContact := func(w *world) {
		w.returns(a, false, &model.Error{Fault: model.FaultUnavailable, What: "no contact"})
		w.read()
		w.pass(time.Second)
		w.read()
	}
	late := func(w *world) {
		w.pass(31 * time.Second)
		w.is(a, running, unknown)
		w.returns(a, false, fmt.Errorf("context canceled"))
		w.read()
	}
	cases := map[string]struct {
		action pb.ReclaimAction
		steps  []func(*world)
		calls  []string
		graces []time.Duration
		note   string
		state  pb.State
		cold   bool
	}{
		"save": {
			save,
			[]func(*world){good},
			[]string{"a RUNNING>SAVED"},
			[]time.Duration{0},
			"", saved, false,
		},
		"save fails": {
			save,
			[]func(*world){fail, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 20 * time.Second},
			"save failed: the driver failed; shut down, the disk was kept", defined, true,
		},
		"hypervisor restarts in mid-save": {
			save,
			[]func(*world){noContact, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>SAVED"},
			[]time.Duration{0, 0},
			"", saved, false,
		},
		"hypervisor stays away": {
			save,
			[]func(*world){noContact, func(w *world) { w.pass(31 * time.Second); noContact(w) }, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>SAVED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 0, 0},
			"save passed its deadline of 30s; killed, the disk was kept", defined, true,
		},
		"save fails late": {
			save,
			[]func(*world){func(w *world) { w.pass(25 * time.Second); fail(w) }, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 5 * time.Second},
			"save failed: the driver failed; shut down, the disk was kept", defined, true,
		},
		"save passes its deadline": {
			save,
			[]func(*world){late, good},
			[]string{"a RUNNING>SAVED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 0},
			"save passed its deadline of 30s; killed, the disk was kept", defined, true,
		},
		"save passes its deadline and succeeds": {save, []func(*world){func(w *world) {
			w.pass(31 * time.Second)
			w.returns(a, true, errDriver)
			w.read()
		}}, []string{"a RUNNING>SAVED"}, []time.Duration{0}, "", saved, false},
		"nothing helps but the third kill": {
			save,
			[]func(*world){
				fail, fail, fail,
				func(w *world) {
					if len(w.calls) > 0 {
						w.t.Fatalf("a kill that failed is repeated without a pause")
					}
					w.pass(time.Minute)
					fail(w)
					w.pass(time.Minute)
				}, good,
			},
			[]string{"a RUNNING>SAVED", "a RUNNING>STOPPED", "a RUNNING>STOPPED", "a RUNNING>STOPPED", "a RUNNING>STOPPED"},
			[]time.Duration{0, 20 * time.Second, 0, 0, 0},
			"save failed: the driver failed; killed, the disk was kept", defined, true,
		},
		"shutdown": {
			shutdown,
			[]func(*world){good},
			[]string{"a RUNNING>STOPPED"},
			[]time.Duration{20 * time.Second},
			"", defined, false,
		},
		"shutdown fails": {
			shutdown,
			[]func(*world){fail, good},
			[]string{"a RUNNING>STOPPED", "a RUNNING>STOPPED"},
			[]time.Duration{20 * time.Second, 0},
			"shutdown failed: the driver failed; killed, the disk was kept", defined, false,
		},
		"discard": {
			discard,
			[]func(*world){good},
			[]string{"a RUNNING>STOPPED"},
			[]time.Duration{0},
			"", defined, false,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			spec := reclaim(c.action, 20*time.Second, 30*time.Second)
			w := runningVM(t, spec)
			w.order(2, a, vm(saved, spec))
			w.read()
			var graces []time.Duration
			for _, step := range c.steps {
				graces = append(graces, graceOfLast(w)...)
				step(w)
			}
			// A kill that is repeated is seen only through the log.
			if len(graces) < len(c.graces) {
				graces = append(graces, 0)
			}
			if !slices.Equal(graces, c.graces) {
				t.Errorf("graces %v, not %v", graces, c.graces)
			}
			w.began(c.calls...)
			if st := w.is(a, c.state, settled); st.GetNote() != c.note {
				t.Errorf("note %q", st.GetNote())
			}
			w.order(3, a, vm(running, spec))
			w.settle()
			if st := w.is(a, running, settled); st.GetInstance().GetColdBoot() != c.cold {
				t.Errorf("cold boot %v", st.GetInstance().GetColdBoot())
			}
		})
	}
}

func graceOfLast(w *world) []time.Duration {
	if len(w.calls) == 0 {
		return nil
	}
	return []time.Duration{w.calls[len(w.calls)-1].Grace}
}

// TestReclaimTimeBeginsAnew: an old attempt to save must not shorten the next one.
func TestReclaimTimeBeginsAnew(t *testing.T) {
	spec := reclaim(pb.ReclaimAction_RECLAIM_ACTION_SAVE, 20*time.Second, 30*time.Second)
	w := runningVM(t, spec)
	w.order(2, a, vm(saved, spec))
	w.read()
	w.order(3, a, vm(running, spec))
	w.returns(a, false, errDriver)
	w.settle()
	st := w.is(a, running, settled)
	if st.GetInstance().GetColdBoot() {
		t.Error("a guest that never stopped is called cold")
	}
	w.pass(time.Hour)
	w.settle()
	w.order(4, a, vm(saved, spec))
	w.settle()
	w.is(a, saved, settled)
	w.began("a RUNNING>SAVED", "a RUNNING>SAVED")
}

func TestANewerOrderShortensAStop(t *testing.T) {
	w := runningVM(t)
	w.order(2, a, vm(stopped, reclaim(0, 10*time.Minute, 20*time.Minute)))
	w.read()
	w.order(3, a, vm(saved, reclaim(0, time.Second, 5*time.Second)))
	w.pass(6 * time.Second)
	if len(w.cancelled) != 1 {
		t.Error("a guest that shuts down at leisure holds up a failover")
	}
}

func TestTermEnd(t *testing.T) {
	ends := func(w *world, d time.Duration) func(*pb.InstanceSpec) {
		at := timestamppb.New(w.now.Wall.Add(d))
		return func(i *pb.InstanceSpec) { i.TermEnd = at }
	}
	t.Run("stops the instance and keeps all of it", func(t *testing.T) {
		w := newWorld(t)
		w.order(1, a, vm(running, ends(w, time.Hour)))
		w.settle()
		w.log = nil
		for range 59 {
			w.pass(time.Minute)
			w.settle()
		}
		w.began()
		w.pass(2 * time.Minute)
		w.settle()
		w.began("a RUNNING>SAVED")
		if st := w.is(a, saved, waiting); st.GetNote() != "term ended locally" {
			t.Errorf("note %q", st.GetNote())
		}
		w.start()
		w.permit(time.Hour)
		w.settle()
		w.began()
		w.tell()
		w.order(2, a, vm(running, ends(w, time.Hour)))
		w.settle()
		w.is(a, running, settled)
		w.began("a SAVED>RUNNING")
	})
	t.Run("leaves what a failover holds", func(t *testing.T) {
		w := newWorld(t)
		o := anOrder(1, a, vm(running, ends(w, time.Hour)))
		o.Epoch = 4
		w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{o}})
		w.settle()
		victim := anOrder(1, b, vm(saved, ends(w, time.Hour)))
		victim.Epoch = 4
		w.thing(b).state = saved
		w.orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{victim}})
		w.settle()
		w.log = nil
		w.pass(3 * time.Hour)
		w.settle()
		w.began()
		w.is(a, running, settled)
		w.is(b, saved, settled)
	})
	t.Run("begins nothing afterwards", func(t *testing.T) {
		w := newWorld(t)
		w.order(1, a, vm(running, ends(w, -time.Minute)))
		w.settle()
		w.began()
		w.is(a, absent, waiting)
	})
}

func TestRestoreIsTriedOnce(t *testing.T) {
	cases := map[string]struct {
		// happens while the agent is dead, with the restore under way.
		happens func(w *world)
		calls   []string
		cold    bool
	}{
		"it was done":           {func(w *world) { w.thing(a).state = running }, nil, false},
		"the image was taken":   {func(w *world) { w.thing(a).state = defined }, []string{"a DEFINED>RUNNING"}, true},
		"it had not even begun": {func(*world) {}, []string{"a SAVED>RUNNING"}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := runningVM(t)
			w.order(2, a, vm(saved))
			w.settle()
			w.order(3, a, vm(running))
			w.read()
			w.began("a RUNNING>SAVED", "a SAVED>RUNNING")
			if !w.journal[a].RestoreBegun {
				t.Fatal("the restore was begun without being written down")
			}
			c.happens(w)
			w.start()
			w.tell()
			w.permit(time.Minute)
			w.settle()
			w.began(c.calls...)
			st := w.is(a, running, settled)
			if st.GetInstance().GetColdBoot() != c.cold || (st.GetNote() != "") != c.cold {
				t.Errorf("status %v", st)
			}
			if w.journal[a].RestoreBegun {
				t.Error("the restore is still open")
			}
		})
	}
}

func TestACrashedGuestIsStartedAgain(t *testing.T) {
	w := runningVM(t)
	for i, wait := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
		w.thing(a).state = defined
		w.do(w.core.DriverEvent(a, w.now))
		w.read()
		if st := w.is(a, defined, failed); st.GetAttempts() != uint32(i+1) {
			t.Errorf("attempts %d", st.GetAttempts())
		}
		w.pass(wait - time.Millisecond)
		w.began()
		w.pass(time.Millisecond)
		w.settle()
		w.began("a DEFINED>RUNNING")
	}
	w.pass(stableAfter)
	w.settle()
	w.pass(stableAfter)
	if st := w.is(a, running, settled); st.GetAttempts() != 0 {
		t.Errorf("attempts %d after a stable minute", st.GetAttempts())
	}
}
