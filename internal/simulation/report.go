package simulation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// enoughForTable is how many cycles must have met every fault in every phase for every kind.
const enoughForTable = 20_000

// add sums up reports.
func (r *Report) add(o Report) {
	r.Events += o.Events
	r.Entries += o.Entries
	r.Calls += o.Calls
	r.Runs += o.Runs
	r.Leases += o.Leases
	r.Elections += o.Elections
	r.Placed += o.Placed
	r.Queued += o.Queued
	r.Drains += o.Drains
	r.CarriedBack += o.CarriedBack
	r.Virtual += o.Virtual
	for c, n := range o.Faults {
		r.Faults[c] += n
	}
}

// phases are the columns of the table.
var phases = []string{quiet, failedOver, goingBack}

// rows lists the faults with the kinds that each can meet.
func rows() []Cell {
	var out []Cell
	for _, f := range callFaults {
		for _, kind := range []pb.Kind{
			pb.Kind_KIND_INSTANCE, pb.Kind_KIND_VOLUME, pb.Kind_KIND_NETWORK, pb.Kind_KIND_ENDPOINT, pb.Kind_KIND_FENCE,
		} {
			out = append(out, Cell{Fault: string(f), Kind: model.KindName(kind)})
		}
	}
	out = append(out, Cell{Fault: string(faultHalf), Kind: model.KindName(pb.Kind_KIND_INSTANCE)})
	for _, m := range mishapActs() {
		out = append(out, Cell{Fault: m.name, Kind: "site"})
	}
	return out
}

// impossible cells: without a run nothing is fenced and no record is changed.
func impossible(c Cell) bool {
	return c.Phase == quiet && (c.Kind == model.KindName(pb.Kind_KIND_FENCE) || c.Kind == model.KindName(pb.Kind_KIND_ENDPOINT))
}

// empty lists the cells that nothing met.
func (r *Report) empty() []Cell {
	var out []Cell
	for _, c := range rows() {
		for _, c.Phase = range phases {
			if r.Faults[c] == 0 && !impossible(c) {
				out = append(out, c)
			}
		}
	}
	return out
}

// String is a summary with the table of faults.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d events, %d entries, %d driver calls, %d runs (%d times something was placed later, %d volumes carried back), %d leases, %d elections in %v of virtual time\n",
		r.Events, r.Entries, r.Calls, r.Runs, r.Placed, r.CarriedBack, r.Leases, r.Elections, r.Virtual)
	fmt.Fprintf(&b, "%-24s %-9s", "fault", "kind")
	for _, p := range phases {
		fmt.Fprintf(&b, " %11s", p)
	}
	all := rows()
	slices.SortFunc(all, func(x, y Cell) int { return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Fault, y.Fault)) })
	for _, c := range all {
		fmt.Fprintf(&b, "\n%-24s %-9s", c.Fault, c.Kind)
		for _, c.Phase = range phases {
			fmt.Fprintf(&b, " %11d", r.Faults[c])
		}
	}
	return b.String()
}
