// Package clock judges the leader's clock against the other members' (rule R1). Pure: readings in, a
// judgement out; the coordinator reads the clocks, and puts the judgement into the live view, where the
// time-driven controllers and the status see it.
//
// It never says that a clock is right when too few are known to tell.
package clock

import (
	"fmt"
	"slices"
	"time"

	"github.com/hotspare/hotspare/internal/coordinator/live"
)

// Limit is how far a clock may be from the median of the members.
const Limit = 5 * time.Second

// Reading is another member's clock: how far it is ahead of the leader's.
type Reading struct {
	Member string
	Ahead  time.Duration
}

// waiting is what stands still while the leader's clock is in doubt.
const waiting = "until then no lease ends, nothing that an ended lease left is deleted, no trigger's hold-down passes, and no point of a replica is confirmed; failovers go on"

// Judge compares the clock of the leader with those that were read lately. members counts all of them;
// late says that there was time enough to read them.
func Judge(leader string, members int, readings []Reading, late bool) live.Clock {
	if members == 1 {
		return live.Clock{}
	}
	if known := 1 + len(readings); known < members/2+1 {
		c := live.Clock{Doubt: fmt.Sprintf("of %d members' clocks only %d could be read", members, known)}
		if late {
			c.Alarms = []string{fmt.Sprintf("coordinator %s leads and cannot compare its clock: %s: look at the links between the coordinators' API ports; %s", leader, c.Doubt, waiting)}
		}
		return c
	}
	median := median(readings)
	var c live.Clock
	if off := -median; off.Abs() > Limit {
		c.Doubt = fmt.Sprintf("the clock of coordinator %s, which leads, is %s the median of the members", leader, far(off))
		c.Alarms = append(c.Alarms, fmt.Sprintf("%s: set it right, or stop that coordinator so that another one leads; %s", c.Doubt, waiting))
	}
	for _, r := range readings {
		if off := r.Ahead - median; off.Abs() > Limit {
			c.Alarms = append(c.Alarms, fmt.Sprintf("the clock of coordinator %s is %s the median of the members: set it right before that coordinator leads", r.Member, far(off)))
		}
	}
	return c
}

// median of all clocks, the leader's included, as a distance from the leader's. Of an even number it is
// the middle one that is farther away: two clocks that differ cannot tell which of them is wrong.
func median(readings []Reading) time.Duration {
	all := []time.Duration{0}
	for _, r := range readings {
		all = append(all, r.Ahead)
	}
	slices.Sort(all)
	upper, lower := all[len(all)/2], all[(len(all)-1)/2]
	if upper.Abs() > lower.Abs() {
		return upper
	}
	return lower
}

// far says how far a clock is off, and to which side.
func far(off time.Duration) string {
	side := "ahead of"
	if off < 0 {
		side = "behind"
	}
	return fmt.Sprintf("%s %s", off.Abs().Round(time.Second), side)
}
