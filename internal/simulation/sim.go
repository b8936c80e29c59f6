package simulation

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/hotspare/hotspare/internal/coordinator/state"
)

// Options of one cycle.
type Options struct {
	// Seed decides everything: the same seed on the same commit repeats the cycle exactly.
	Seed uint64
	// Mutant breaks something on purpose; the zero value breaks nothing.
	Mutant Mutant
	// Log takes one line for each thing that happens; nil: none.
	Log io.Writer
}

// Report is what a cycle was made of.
type Report struct {
	Events, Entries, Calls, Runs, Leases, Elections int
	// Drains counts hosts that were taken out of service.
	Drains int
	// Queued counts leases that started after they had waited.
	Queued int
	// Placed counts what runs took in later than they were declared.
	Placed int
	// CarriedBack counts the volumes that were dropped here because the old side holds them.
	CarriedBack int
	Virtual     time.Duration
	// Faults counts what went wrong on purpose, by fault, phase and object kind.
	Faults map[Cell]int
}

// Cell is one cell of the table of faults.
type Cell struct{ Fault, Phase, Kind string }

// Violation is an invariant that did not hold.
type Violation struct {
	Seed            uint64
	Invariant, What string
	At              time.Duration
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d: at %v: invariant %q: %s", v.Seed, v.At, v.Invariant, v.What)
}

// sim is one cycle: everything that exists in it, its clock and its source of randomness.
type sim struct {
	o      Options
	rng    *rand.Rand
	queue  queue
	seq    uint64
	now    time.Duration
	report Report

	world   *world
	agents  []*agent
	members []*member
	raft    raft
	// state is the newest committed state: the truth that checks compare with.
	state *state.State
	links map[string]*link
	site  layout
	// misbehave is the probability that a driver call goes wrong; 0 once everything is healed.
	misbehave float64
	// healing: no more faults are made.
	healing bool
	checks  checks
}

// epochStart returns the wall clock at the beginning of each cycle.
func epochStart() time.Time { return time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC) }

// wall is the wall clock that all machines share.
func (s *sim) wall() time.Time { return epochStart().Add(s.now) }

// Run runs one cycle to its end. The error is a *Violation.
func Run(o Options) (report Report, err error) {
	s := &sim{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x686f74737061)), links: map[string]*link{}, state: state.New()}
	s.report.Faults = map[Cell]int{}
	s.checks = newChecks()
	defer func() {
		s.report.Virtual = s.now
		report = s.report
		p := recover()
		if p == nil {
			return
		}
		v, ok := p.(*Violation)
		if !ok {
			v = &Violation{Seed: o.Seed, At: s.now, Invariant: "panic", What: fmt.Sprintf("%v\n%s", p, debug.Stack())}
		}
		s.logf("VIOLATED %s: %s", v.Invariant, v.What)
		err = v
	}()
	s.build()
	s.settleIn()
	s.chaos()
	s.heal()
	s.final()
	return s.report, nil
}

// fail ends the cycle: an invariant does not hold.
func (s *sim) fail(invariant, format string, args ...any) {
	panic(&Violation{Seed: s.o.Seed, At: s.now, Invariant: invariant, What: fmt.Sprintf(format, args...)})
}

// logf writes one line of the event log.
func (s *sim) logf(format string, args ...any) {
	if s.o.Log != nil {
		_, _ = fmt.Fprintf(s.o.Log, "%12.3fs %s\n", s.now.Seconds(), fmt.Sprintf(format, args...))
	}
}
