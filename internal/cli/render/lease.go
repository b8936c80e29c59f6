package render

import (
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// Leases draws the list of leases.
func Leases(ls []*pb.Lease, width int, wide bool, now time.Time) string {
	if len(ls) == 0 {
		return "no leases\n"
	}
	header := []string{"NAME", "PROJECT", "STATE", "VMS", "LEFT", "ADDRESSES"}
	if wide {
		header = append(header, "OWNER", "CLASS", "SIZE", "HOSTS", "PREEMPTED")
	}
	t := NewTable(5, header...)
	for _, l := range ls {
		var addresses, hosts []string
		for _, i := range l.GetInstances() {
			address, _, _ := strings.Cut(i.GetAddress(), "/")
			addresses = append(addresses, address)
			hosts = append(hosts, i.GetHost())
		}
		t.Row(l.GetName(), l.GetProject(), leaseState(l), fmt.Sprint(l.GetSpec().GetCount()), leaseLeft(l, now), strings.Join(addresses, " "),
			l.GetOwner(), word(l.GetClass(), "LEASE_CLASS_"), sizeText(l.GetSpec().GetResources()), strings.Join(slices.Compact(sorted(hosts)), " "), fmt.Sprint(l.GetPreemptions()))
	}
	return t.Text(width)
}

// leaseState joins the phase with how many instances run.
func leaseState(l *pb.Lease) string {
	s := word(l.GetPhase(), "LEASE_PHASE_")
	by := make([]string, 0, len(l.GetPreempting()))
	for _, p := range preempting(l) {
		by = append(by, p.GetFailover())
	}
	if len(by) > 0 {
		s += " by " + strings.Join(by, ", ")
	}
	if q := l.GetQueue(); q.GetPosition() > 0 {
		s += fmt.Sprintf(", %d of %d", q.GetPosition(), q.GetOf())
	}
	if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ACTIVE || len(l.GetLive()) == 0 {
		return s
	}
	running := 0
	for _, st := range l.GetLive() {
		if st.GetState() == pb.State_STATE_RUNNING {
			running++
		}
	}
	if running < len(l.GetInstances()) {
		return fmt.Sprintf("%s, %d up", s, running)
	}
	return s
}

// away says whether a lease is preempted and will return. One that was ended meanwhile will not.
func away(l *pb.Lease) bool {
	return l.GetPhase() == pb.LeasePhase_LEASE_PHASE_PREEMPTED || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_RETURNING
}

// preempting are the failovers that a lease returns from.
func preempting(l *pb.Lease) []*pb.LeasePreemption {
	if !away(l) {
		return nil
	}
	return l.GetPreempting()
}

// leaseLeft writes what is left of the term, or until deletion.
func leaseLeft(l *pb.Lease, now time.Time) string {
	switch l.GetPhase() {
	case pb.LeasePhase_LEASE_PHASE_PREEMPTED, pb.LeasePhase_LEASE_PHASE_RETURNING:
		return "stands still"
	case pb.LeasePhase_LEASE_PHASE_ENDED:
		if l.GetDeleteAfter() != nil {
			return "kept " + Age(l.GetDeleteAfter().AsTime().Sub(now))
		}
		return ""
	default:
		if l.GetEndsAt() == nil {
			return ""
		}
		return Left(l.GetEndsAt().AsTime().Sub(now))
	}
}

func sizeText(r *pb.Resources) string {
	if r == nil {
		return ""
	}
	out := []string{fmt.Sprintf("%dcpu", r.GetVcpus()), model.FormatBytes(r.GetMemoryBytes())}
	if d := r.GetLocalDiskBytes(); d > 0 {
		out = append(out, "disk="+model.FormatBytes(d))
	}
	out = append(out, localPools(r.GetLocalDisksBytes(), model.FormatBytes)...)
	return strings.Join(append(out, devices(r.GetDevices())...), ",")
}

// Lease describes one lease and its VMs.
func Lease(l *pb.Lease, width int, now time.Time) string {
	s := l.GetSpec()
	preempted := ""
	if l.GetPreemptedAt() != nil && away(l) {
		preempted = fmt.Sprintf("since %s; it returns by itself to the same disk, MAC and address", at(l.GetPreemptedAt()))
	}
	by, returns := preemptedBy(l, now)
	var b strings.Builder
	for line := range strings.Lines(fields(
		"lease", l.GetName(),
		"project", l.GetProject(),
		"owner", l.GetOwner(),
		"state", leaseState(l),
		"why", l.GetReason()+l.GetQueue().GetReason(),
		"not before", at(l.GetStartAt()),
		"at risk", l.GetAtRisk(),
		"preempted", preempted,
		"by", by,
		"returns", returns,
		"returned", at(l.GetReturnedAt()),
		"class", word(l.GetClass(), "LEASE_CLASS_"),
		"on preempt", onPreempt(s),
		"from", sourceText(s),
		"size", sizeText(s.GetResources()),
		"queued", queuedText(l, now),
		"created", createdText(l),
		"ends", endsText(l, now),
		"deleted", at(l.GetDeleteAfter()),
		"preemptions", fmt.Sprint(l.GetPreemptions()),
	)) {
		b.WriteString(fold(strings.TrimSuffix(line, "\n"), width, len("preemptions")+columnGap))
	}
	live := map[string]*pb.Status{}
	for _, st := range l.GetLive() {
		live[st.GetObject()] = st
	}
	t := NewTable(5, "VM", "HOST", "STATE", "ADDRESS", "MAC", "MESSAGE")
	for _, i := range l.GetInstances() {
		st := live[i.GetObject()]
		state := "unknown"
		if st != nil {
			state = strings.ToLower(model.StateName(st.GetState()))
		}
		message := st.GetMessage()
		if message == "" {
			message = st.GetNote()
		}
		t.Row(model.ObjectID(i.GetObject()).Name(), i.GetHost(), state, i.GetAddress(), i.GetMac(), message)
	}
	if t.Len() > 0 {
		b.WriteString("\n" + t.Text(width))
	}
	return b.String()
}

// queuedText says since when a lease waits, or how long it waited for its start.
func queuedText(l *pb.Lease, now time.Time) string {
	switch {
	case l.GetPhase() == pb.LeasePhase_LEASE_PHASE_QUEUED:
		return fmt.Sprintf("%s, %s ago", at(l.GetCreatedAt()), Age(now.Sub(l.GetCreatedAt().AsTime())))
	case l.GetQueuedAt() != nil:
		return fmt.Sprintf("%s, started %s later", at(l.GetQueuedAt()), Age(l.GetCreatedAt().AsTime().Sub(l.GetQueuedAt().AsTime())))
	default:
		return ""
	}
}

// createdText is when its VMs were created: one that waits has none.
func createdText(l *pb.Lease) string {
	if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_QUEUED {
		return ""
	}
	return at(l.GetCreatedAt())
}

// preemptedBy says who preempted a lease and why, what is done to it until when, and what it waits for.
func preemptedBy(l *pb.Lease, now time.Time) (by, returns string) {
	var bys, runs []string
	for _, p := range preempting(l) {
		text := fmt.Sprintf("%s, declared by %s: %s", p.GetFailover(), p.GetDeclaredBy(), p.GetReason())
		if d := p.GetDeadline(); d != nil && d.AsTime().After(now) {
			text += fmt.Sprintf("; %s at %s at the latest", model.ReclaimActionName(p.GetAction()), at(d))
		}
		if p.GetWhy() != "" {
			text += fmt.Sprintf("; %s, at a price of %s", p.GetWhy(), price(p.GetPrice()))
		}
		bys = append(bys, text)
		if h := p.GetDrainedHost(); h != "" {
			runs = append(runs, "host "+h+" is open again")
			continue
		}
		runs = append(runs, fmt.Sprintf("%s (%s) fails back", p.GetFailover(), p.GetFailoverPhase()))
	}
	if len(runs) > 0 {
		returns = "when " + strings.Join(runs, " and ")
	}
	return strings.Join(bys, "; "), returns
}

// LeaseLine says in one line where a lease stands, for who watches it.
func LeaseLine(l *pb.Lease, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", l.GetName(), leaseState(l))
	switch l.GetPhase() {
	case pb.LeasePhase_LEASE_PHASE_PREEMPTED:
		for _, p := range preempting(l) {
			if d := p.GetDeadline(); d != nil && d.AsTime().After(now) {
				fmt.Fprintf(&b, "; %s by %s (%s)", model.ReclaimActionName(p.GetAction()), at(d), p.GetReason())
			} else {
				fmt.Fprintf(&b, " (%s)", p.GetReason())
			}
		}
		b.WriteString("; it returns by itself")
	case pb.LeasePhase_LEASE_PHASE_RETURNING:
		b.WriteString("; its VMs come back")
	case pb.LeasePhase_LEASE_PHASE_ACTIVE:
		fmt.Fprintf(&b, "; ends %s", at(l.GetEndsAt()))
	case pb.LeasePhase_LEASE_PHASE_QUEUED:
		b.WriteString("; " + l.GetQueue().GetReason())
	default:
		if l.GetReason() != "" {
			b.WriteString("; " + l.GetReason())
		}
	}
	for _, st := range l.GetLive() {
		name := model.ObjectID(st.GetObject()).Name()
		state := strings.ToLower(model.StateName(st.GetState()))
		if st.GetInstance().GetGraceUntil() != nil {
			state += ", its guest was told"
		}
		if st.GetInstance().GetReady() {
			state += " and is ready"
		}
		fmt.Fprintf(&b, "; %s %s", name, state)
		if st.GetNote() != "" {
			b.WriteString(": " + st.GetNote())
		}
	}
	return oneLine(b.String()) + "\n"
}

func onPreempt(s *pb.LeaseSpec) string {
	text := model.ReclaimActionName(s.GetOnPreempt())
	if text != "" && s.GetGrace() != nil {
		text += ", after a warning of " + model.FormatDuration(s.GetGrace().AsDuration())
	}
	return text
}

func sourceText(s *pb.LeaseSpec) string {
	switch {
	case s.GetCloneOf() != "" && s.GetImage() != "":
		return "image " + s.GetImage() + ", clone of " + s.GetCloneOf()
	case s.GetCloneOf() != "":
		return "clone of " + s.GetCloneOf()
	case s.GetImage() != "":
		return "image " + s.GetImage()
	default:
		return ""
	}
}

func endsText(l *pb.Lease, now time.Time) string {
	if l.GetEndsAt() == nil {
		return ""
	}
	if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_PREEMPTED || l.GetPhase() == pb.LeasePhase_LEASE_PHASE_RETURNING {
		return "later than " + at(l.GetEndsAt()) + ": the term stands still"
	}
	if l.GetEndsAt().AsTime().Before(now) {
		return at(l.GetEndsAt())
	}
	return fmt.Sprintf("%s, in %s", at(l.GetEndsAt()), Left(l.GetEndsAt().AsTime().Sub(now)))
}
