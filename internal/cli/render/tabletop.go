package render

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Tabletop draws what would happen: the guarantee before and after, what would be lost, the decision, and how
// long taking the room back takes.
func Tabletop(r *pb.TabletopResponse, width int, now time.Time) string {
	var b strings.Builder
	b.WriteString("tabletop, nothing was changed\n\n")
	for line := range strings.Lines(fields(
		"now", Proof(r.GetNow()),
		"after the losses", Proof(r.GetAfterLosses()),
		"while the plans run", Proof(r.GetAfterDeclare()),
		"hosts lost", strings.Join(r.GetLostHosts(), " "),
		"leases lost", strings.Join(r.GetLostLeases(), " "),
	)) {
		b.WriteString(fold(strings.TrimSuffix(line, "\n"), width, len("while the plans run")+columnGap))
	}
	for _, f := range r.GetOpen() {
		fmt.Fprintf(&b, "\n%s, open, would go on with:\n", f.GetName())
		b.WriteString(Decision(f, width, now))
	}
	b.WriteString(Declared(r, width, now))
	return b.String()
}

// Declared draws what a declaration would commit, and how long taking the room back takes.
func Declared(r *pb.TabletopResponse, width int, now time.Time) string {
	return Decision(r.GetFailover(), width, now) + section("ROOM IS TAKEN BACK WITHIN", reclaims(r.GetReclaim(), inner(width)))
}

// Proof words a guarantee and why it is not better.
func Proof(p *pb.SiteProof) string {
	if p.GetReason() == "" {
		return p.GetGuarantee()
	}
	return p.GetGuarantee() + ": " + p.GetReason()
}

func reclaims(rs []*pb.HostReclaim, width int) string {
	if len(rs) == 0 {
		return ""
	}
	t := NewTable(2, "HOST", "AT MOST", "LEASES")
	for _, r := range rs {
		bound := "unknown: " + model.ApproxBytes(r.GetSaveBytes()) + " to save, at a rate never measured"
		if r.GetBound() != nil {
			bound = Seconds(r.GetBound().AsDuration())
		}
		t.Row(r.GetHost(), bound, strings.Join(r.GetLeases(), " "))
	}
	return t.Text(width)
}

// Seats draws where the proof has the workloads of a plan.
func Seats(seats []*pb.Seat, width int) string {
	if len(seats) == 0 {
		return ""
	}
	duration := func(d *durationpb.Duration) string {
		if d == nil {
			return ""
		}
		return Seconds(d.AsDuration())
	}
	t := NewTable(0, "WORKLOAD", "HOST", "WHEN THAT IS LOST", "RECLAIM WITHIN", "SERVES AFTER")
	for _, s := range seats {
		t.Row(s.GetWorkload(), s.GetHost(), s.GetWhenLost(), duration(s.GetReclaimBudget()), duration(s.GetServesAfter()))
	}
	return section("WHERE THE PROOF HAS THEM", t.Text(inner(width)))
}

// marginText says how much of each dimension no loss that is survived can claim.
func marginText(ms []*pb.Margin) string {
	var parts []string
	for _, m := range ms {
		free := max(m.GetTotal()-m.GetObliged(), 0)
		switch m.GetDimension() {
		case "vcpus":
			parts = append(parts, fmt.Sprintf("%g of %g vCPU", float64(free)/1000, float64(m.GetTotal())/1000))
		case "memory":
			parts = append(parts, model.ApproxBytes(uint64(free))+" of "+model.ApproxBytes(uint64(m.GetTotal())))
		default:
			if device, ok := strings.CutPrefix(m.GetDimension(), "device/"); ok {
				parts = append(parts, fmt.Sprintf("%d of %d %s", free, m.GetTotal(), device))
			} else if m.GetObliged() > 0 { // A disk that no plan asks for says nothing.
				pool := strings.TrimPrefix(m.GetDimension(), "disk/")
				parts = append(parts, fmt.Sprintf("%s of %s %s disk", model.ApproxBytes(uint64(free)), model.ApproxBytes(uint64(m.GetTotal())), pool))
			}
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return strings.Join(parts, ", ") + " that no plan needs, whatever is lost"
}
