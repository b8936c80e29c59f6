package figure

import (
	"fmt"
	"strings"
)

// Want is how often a figure must be measured before its median counts.
const Want = 7

// series names one row of measurements: a benchmark and a unit.
type series struct{ name, unit string }

// row is one figure: what is measured, what it is compared with, and the goal.
type row struct {
	what     string
	measured series
	// limit is measured in the same run; without one the goal is on the measured value itself.
	limit series
	// minus: the figure is the difference to the limit and not the ratio.
	minus bool
	// worst: the largest value counts, not the median.
	worst bool
	// goal is the largest value that meets it; 0: only reported.
	goal float64
	// scale turns the unit into the one that is shown.
	scale float64
	shown string
	// under which conditions it was measured; empty: the command's documentation says it.
	under string
}

// Limits are the goals that depend on constants of the product.
type Limits struct {
	// LeaderSeconds is what the loss of the leader may add.
	LeaderSeconds float64
}

// rows is the table of figures of issue 2, as far as programs can measure them.
func rows(l Limits) []row {
	const ours, hand = "Failover/by=hotspare", "Failover/by=hand"
	return []row{
		{
			what:     "whole failover / hand-written script",
			measured: series{ours, "ns/op"}, limit: series{hand, "ns/op"}, goal: 1.10, scale: 1e-9, shown: "s",
		},
		{
			what:     "  the same without the guest's boot",
			measured: series{ours, "without-boot-ms"}, limit: series{hand, "without-boot-ms"}, scale: 1, shown: "ms",
		},
		{
			what:     "  guest serves until its health is noticed",
			measured: series{ours, "notice-ms"}, limit: series{hand, "notice-ms"}, minus: true, scale: 1, shown: "ms",
		},
		{what: "our part of the critical path, median", measured: series{ours, "own-ms"}, goal: 300, scale: 1, shown: "ms"},
		{what: "our part of the critical path, worst", measured: series{ours, "own-ms"}, worst: true, goal: 300, scale: 1, shown: "ms"},
		{what: "our part of the whole failover, median", measured: series{ours, "own-percent"}, goal: 3, scale: 1, shown: "%"},
		{
			what:     "leader killed right after declare, added",
			measured: series{"Leader/killed=yes", "ns/op"}, limit: series{"Leader/killed=no", "ns/op"},
			minus: true, goal: l.LeaderSeconds, scale: 1e-9, shown: "s",
		},
		{
			what:     "declare to first order / commit + round trip",
			measured: series{"Declare", "declare-ms"}, limit: series{"Declare", "limit-ms"}, goal: 3, scale: 1, shown: "ms",
		},
		{what: "hotspare dev, start to ready", measured: series{"DevReady", "ns/op"}, goal: 1.5, scale: 1e-9, shown: "s"},
	}
}

// Summary is the table of figures for people; figures of which nothing was measured are left out.
func Summary(lines []Line, l Limits) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-46s %3s %10s %10s %9s  %s\n", "figure", "n", "median", "limit", "figure", "goal")
	for _, r := range rows(l) {
		measured, limit := Values(lines, r.measured.name, r.measured.unit), Values(lines, r.limit.name, r.limit.unit)
		if len(measured) == 0 || r.limit.name != "" && len(limit) == 0 {
			continue
		}
		b.WriteString(r.text(measured, limit) + "\n")
	}
	return b.String()
}

func (r row) text(measured, limit []float64) string {
	value, shown := median(measured)*r.scale, func(v float64) string { return fmt.Sprintf("%.4g %s", v, r.shown) }
	if r.worst {
		value = measured[len(measured)-1] * r.scale
	}
	against, figure, unit := "-", value, " "+r.shown
	if len(limit) > 0 {
		m := median(limit) * r.scale
		against = shown(m)
		if r.minus {
			figure = value - m
		} else {
			figure, unit = value/m, ""
		}
	}
	goal := "-"
	if r.goal > 0 {
		verdict := "met"
		if figure > r.goal {
			verdict = "MISSED"
		}
		goal = fmt.Sprintf("<= %.4g%s: %s", r.goal, unit, verdict)
		if len(measured) < Want {
			goal += fmt.Sprintf(" (fewer than %d runs)", Want)
		}
	}
	return fmt.Sprintf("%-46s %3d %10s %10s %9s  %s", r.what, len(measured), shown(value), against, fmt.Sprintf("%.3g%s", figure, unit), goal)
}
