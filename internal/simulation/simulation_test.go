package simulation

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	flagSeed   = flag.Uint64("seed", 0, "run only the cycle with this seed, and print its event log")
	flagFirst  = flag.Uint64("first", 0, "the first of the seeds; 0: a fresh one, which is printed")
	flagCycles = flag.Int("cycles", 60, "how many cycles to run")
)

// maxFailures ends a long run early: the first failures are enough to work on.
const maxFailures = 10

// TestSimulation runs cycles with fresh seeds. A seed that fails prints the line that repeats it.
func TestSimulation(t *testing.T) {
	if *flagSeed != 0 {
		one(t, *flagSeed)
		return
	}
	first := *flagFirst
	if first == 0 {
		first = freshSeed()
	}
	t.Logf("seeds %d to %d", first, first+uint64(*flagCycles)-1)
	total := Report{Faults: map[Cell]int{}}
	var mu sync.Mutex
	failures := 0
	each(*flagCycles, func(i int) bool {
		r, err := Run(Options{Seed: first + uint64(i)})
		mu.Lock()
		defer mu.Unlock()
		total.add(r)
		if err != nil {
			failures++
			t.Error(describeFailure(first+uint64(i), err))
		}
		return failures < maxFailures
	})
	t.Log(total.String())
	if *flagCycles >= enoughForTable {
		if total.Drains == 0 {
			t.Error("no host was drained")
		}
		if total.Queued == 0 {
			t.Error("no lease started after it had waited")
		}
		if total.Placed == 0 {
			t.Error("no run placed anything later than it was declared")
		}
		for _, c := range total.empty() {
			t.Errorf("no cycle had the fault %q in the phase %q for %s", c.Fault, c.Phase, c.Kind)
		}
	}
}

// freshSeed returns where the seeds begin: what tools/test.sh derived from the commit, so that one commit
// has one verdict, or else the time.
func freshSeed() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("HOTSPARE_SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano())
}

// one runs a single cycle with its event log.
func one(t *testing.T, seed uint64) {
	r, err := Run(Options{Seed: seed, Log: t.Output()})
	t.Log(r.String())
	if err != nil {
		t.Fatal(err)
	}
}

// each runs a function for each number on all processors, until it answers false.
func each(n int, f func(i int) bool) {
	var next atomic.Int64
	var set sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		set.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if !f(i) {
					next.Store(int64(n))
				}
			}
		})
	}
	set.Wait()
}

// lastLines is how much of the event log of a failed cycle is printed.
const lastLines = 60

// describeFailure repeats a failed cycle, which replays exactly, to show the end of its event log.
func describeFailure(seed uint64, err error) string {
	var log bytes.Buffer
	_, again := Run(Options{Seed: seed, Log: &log})
	if again == nil || again.Error() != err.Error() {
		return fmt.Sprintf("seed %d does not replay: first %v, then %v", seed, err, again)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	lines = lines[max(len(lines)-lastLines, 0):]
	return fmt.Sprintf("%v\n%s\nrepeat: go test ./internal/simulation -run 'TestSimulation$' -v -seed=%d",
		err, strings.Join(lines, "\n"), seed)
}

// TestReplay: the same seed gives the same events, to the last line.
func TestReplay(t *testing.T) {
	for seed := range uint64(8) {
		var a, b bytes.Buffer
		ra, errA := Run(Options{Seed: seed + 1, Log: &a})
		rb, errB := Run(Options{Seed: seed + 1, Log: &b})
		if !bytes.Equal(a.Bytes(), b.Bytes()) || ra.Events != rb.Events || (errA == nil) != (errB == nil) {
			t.Errorf("seed %d does not replay", seed+1)
		}
	}
}

// mutantSeeds is how many seeds may pass before a mutant must have been caught.
const mutantSeeds = 200

// TestMutants: every thing that is broken on purpose is noticed, by the check that is meant for it.
func TestMutants(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(Mutants())) {
		t.Run(name, func(t *testing.T) {
			m := Mutants()[name]
			for seed := range uint64(mutantSeeds) {
				_, err := Run(Options{Seed: seed + 1, Mutant: m.Mutant})
				var v *Violation
				if !errors.As(err, &v) {
					continue
				}
				t.Logf("seed %d: %s: %s", seed+1, v.Invariant, firstLine(v.What))
				if v.Invariant == "liveness" {
					continue // Many a thing also holds up a run: the check meant for it must see it as well.
				}
				if !slices.Contains(m.By, v.Invariant) {
					t.Errorf("caught by %q instead of one of %q", v.Invariant, m.By)
				}
				return
			}
			t.Errorf("not caught within %d seeds", mutantSeeds)
		})
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
