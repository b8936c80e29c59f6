package clustertest

import (
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// watch looks at the world all the time: what must never happen, not even for a moment. It asks the
// simulated parts, not hotspare, but for which guests are on their way out.
type watch struct {
	w    *world
	s    *site
	done chan struct{}
	gone chan struct{}

	mu   sync.Mutex
	seen map[string]bool
	// orders holds the newest generation on which each object was acted.
	orders map[string]uint64
}

// lookEvery is how often it looks when nothing happens that makes it look.
const lookEvery = 500 * time.Millisecond

func newWatch(w *world) *watch {
	return &watch{w: w, done: make(chan struct{}), gone: make(chan struct{}), seen: map[string]bool{}, orders: map[string]uint64{}}
}

func (x *watch) begin(s *site) {
	x.s = s
	s.book.hook(x.order)
	go func() {
		defer close(x.gone)
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			select {
			case <-x.done:
				return
			case <-t.C:
				x.w.powerOn()
				x.look("by the clock")
			}
		}
	}()
}

func (x *watch) end() {
	close(x.done)
	<-x.gone
}

// wrong reports a broken invariant once.
func (x *watch) wrong(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	x.mu.Lock()
	again := x.seen[text]
	x.seen[text] = true
	x.mu.Unlock()
	if !again {
		x.s.t.Errorf("%s: %s", time.Now().Format("15:04:05.000"), text)
	}
}

var epochSuffix = regexp.MustCompile(`-e[0-9]+$`)

// look checks single run (1) and capacity (3).
func (x *watch) look(when string) {
	runs := map[string]string{}
	for _, name := range x.w.names {
		domains, err := x.w.hosts[name].List(x.w.ctx)
		if err != nil {
			continue // The test has ended.
		}
		var vcpus uint32
		var memory uint64
		for _, d := range domains {
			if d.State != pb.State_STATE_RUNNING {
				continue
			}
			if x.stays(string(d.ID)) {
				vcpus += d.VCPUs
			}
			memory += d.MemoryBytes + overhead
			id := epochSuffix.ReplaceAllString(string(d.ID), "")
			if other := runs[id]; other != "" {
				x.wrong("invariant 1, single run: %s runs on %s and on %s", id, other, name)
			}
			runs[id] = name
			x.oldSide(string(d.ID), when)
		}
		if memory > hostMemory {
			x.wrong("invariant 3, capacity: guests of %d MiB run on %s", memory>>20, name)
		}
		if vcpus > hostVCPUs {
			x.wrong("invariant 3, capacity: guests of %d vcpus run on %s (%s)", vcpus, name, when)
		}
	}
}

// oldSide checks that no workload runs while its old self may be alive.
func (x *watch) oldSide(id, when string) {
	for plan, target := range map[string]string{"webshop": "east-power", "billing": "east-bill"} {
		if !regexp.MustCompile("^instance/"+plan+"-").MatchString(id) || !x.w.fence.Alive(target) || x.sworn(plan) {
			continue
		}
		x.wrong("invariant 1, single run: %s runs while %s is alive (%s)", id, target, when)
	}
}

// sworn says whether any member knows an oath about the plan in an open run.
// stays says whether a guest is to run on: one that is being saved or stopped shares its processors for that while
// with what may start already, and never its memory.
func (x *watch) stays(id string) bool {
	var newest *state.State
	for _, m := range x.s.members {
		if m.c != nil && (newest == nil || m.c.State().Index() > newest.Index()) {
			newest = m.c.State()
		}
	}
	return newest == nil || model.Effective(newest.Object(id)).GetState() == pb.State_STATE_RUNNING
}

func (x *watch) sworn(plan string) bool {
	for _, m := range x.s.members {
		if m.c == nil {
			continue
		}
		for f := range m.c.State().OpenFailovers() {
			for _, o := range f.GetOaths() {
				if o.GetPlan() == plan {
					return true
				}
			}
		}
	}
	return false
}

// order checks that no agent acts on an older order than before (4).
func (x *watch) order(r record) {
	if r.msg != "driver call began" {
		return
	}
	generation, err := strconv.ParseUint(r.attrs["generation"], 10, 64)
	if err != nil {
		x.wrong("a driver call's log line without a generation: %s", r)
		return
	}
	key := r.process + " " + r.attrs["object"]
	x.mu.Lock()
	newest := x.orders[key]
	x.orders[key] = max(newest, generation)
	x.mu.Unlock()
	if generation < newest {
		x.wrong("invariant 4, order: %s acted on generation %d after %d", key, generation, newest)
	}
}

// promotions checks that each was made once for each run, from a consistent point (10).
func (s *site) promotions() {
	count := map[string]int{}
	for _, p := range s.world.pool.Promotions() {
		count[p.Volume]++
		if p.Content.Torn {
			s.t.Errorf("invariant 10, promotion: %s was promoted from a point that is not consistent", p.Volume)
		}
	}
	runs := map[string]int{}
	for f := range s.state().Failovers() {
		for _, st := range f.GetSteps() {
			if st.GetKind() == pb.Kind_KIND_VOLUME && st.GetGeneration() > 0 && !st.GetWayBack() {
				runs[st.GetSpec().GetVolume().GetName()]++
			}
		}
	}
	for v, n := range count {
		if n > runs[v] {
			s.t.Errorf("invariant 10, promotion: %s was promoted %d times in %d runs", v, n, runs[v])
		}
	}
}

// sameStates waits until all running members hold the same state, byte for byte.
func (s *site) sameStates() {
	s.until("all members agree", 30*time.Second, func() bool {
		l := s.leader()
		if l == nil {
			return false
		}
		for _, m := range s.members {
			if m.up && m.c.State().Index() != l.c.State().Index() {
				return false
			}
		}
		return true
	})
	want := s.snapshot(s.leader())
	for _, m := range s.members {
		if m.up && s.snapshot(m) != want && m.c.State().Index() == s.leader().c.State().Index() {
			s.t.Errorf("%s and %s hold different states at index %d", m.name, s.leader().name, m.c.State().Index())
		}
	}
}
