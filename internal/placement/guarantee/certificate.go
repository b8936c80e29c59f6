package guarantee

import (
	"fmt"
	"strings"
	"time"

	"github.com/hotspare/hotspare/internal/model"
)

// Nowhere is the host of a workload that no scenario runs.
const Nowhere = -1

// Certificate is a placement for the site as it is, and one for each pattern of losses that matters.
// Hosts and workloads are numbered as in the site that it was made for.
type Certificate struct {
	// Scenarios with the losses that are proven; fewer than asked when the site is degraded.
	Scenarios []Scenario
	// Witness is the host of each workload when nothing is lost.
	Witness []int32
	// Patterns that cover every loss: see Unit.
	Patterns []Pattern
	// Obligations are what each host may have to carry, over all scenarios and losses.
	Obligations []Vector
	// Budgets are the smallest reclaim budgets of what each host may have to carry; 0: not known.
	Budgets []time.Duration
}

// Unit is what is lost at one time.
type Unit int

// The units. A host's load moves as one block to a spare that dominates it, and so does a failure
// domain's; so a pattern without the spares covers every loss of as many units that they dominate.
const (
	UnitHost Unit = iota + 1
	UnitDomain
)

// Pattern is a placement that leaves the lost hosts empty.
type Pattern struct {
	Unit Unit
	// Spares are the hosts that carry nothing, by unit.
	Spares [][]int32
	// Moves are the differences from the witness.
	Moves []Move
}

// Move puts a workload elsewhere.
type Move struct {
	Workload, Host int32
}

// Answer is one of the three that the guarantee knows.
type Answer int

// The answers, from good to bad for whoever asks for a change. NotProven means that the search gave up.
const (
	Fits Answer = iota + 1
	NotProven
	CannotFit
)

// Decision is an answer with what backs it.
type Decision struct {
	// Answer for the losses that were asked for.
	Answer Answer
	// Asked and Proven losses; Proven is -1 when not even the site as it is fits.
	Asked, Proven int
	// Certificate of what is proven; nil when nothing is.
	Certificate *Certificate
	// Missing backs CannotFit.
	Missing *Missing
	// Reason says in words why less is proven than asked.
	Reason string
	// Steps of the search.
	Steps int
	// Fault is told when the audit refused a certificate that the search had made: then something is wrong with one of them.
	Fault error
}

// Lost says whether nothing is proven.
func (d Decision) Lost() bool { return d.Proven < 0 }

// Worse says whether this is a poorer guarantee than before: what is asked is not proven, and was, or
// fewer losses are survived. Asking for less is not worse.
func (d Decision) Worse(before Decision) bool {
	return d.Answer != Fits && (before.Answer == Fits || d.Proven < before.Proven)
}

// Word names the state of the site: "Proven(1)".
func (d Decision) Word() string {
	switch {
	case d.Lost():
		return "GuaranteeLost"
	case d.Proven < d.Asked:
		return fmt.Sprintf("Degraded(%d)", d.Proven)
	default:
		return fmt.Sprintf("Proven(%d)", d.Proven)
	}
}

// Missing is a lower bound that no placement can beat.
type Missing struct {
	// Scenario and plan that do not fit.
	Scenario, Plan string
	// Dimension that is short, or "hosts" or "failure domains" for places apart.
	Dimension string
	// Amount that is missing at least.
	Amount int64
	// Why says on what the bound rests.
	Why string
}

// String says it in words.
func (m Missing) String() string {
	return fmt.Sprintf("plan %s lacks %s: %s", m.Plan, Quantity(m.Dimension, m.Amount), m.Why)
}

// Quantity names an amount of a dimension: "4 vcpus", "8GiB memory", "20GiB local disk", "1 a100".
func Quantity(dimension string, amount int64) string {
	pool, isDisk := strings.CutPrefix(dimension, DiskPrefix)
	device, isDevice := strings.CutPrefix(dimension, DevicePrefix)
	switch {
	case dimension == VCPUs && amount == Milli:
		return "1 vcpu"
	case dimension == VCPUs && amount%Milli == 0:
		return fmt.Sprintf("%d vcpus", amount/Milli)
	case dimension == VCPUs:
		return fmt.Sprintf("%d.%03d vcpus", amount/Milli, amount%Milli)
	case dimension == Memory:
		return model.Bytes(uint64(max(amount, 0))) + " memory"
	case isDisk:
		return fmt.Sprintf("%s %s disk", model.Bytes(uint64(max(amount, 0))), pool)
	case isDevice:
		return fmt.Sprintf("%d %s", amount, device)
	case amount == 1:
		return "1 " + strings.TrimSuffix(dimension, "s")
	default:
		return fmt.Sprintf("%d %s", amount, dimension)
	}
}
