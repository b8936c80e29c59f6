package witness

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// Change says how a certificate differs from the one that is kept, which was made for the site as it was. Nil: it cannot
// be said, since scenarios, dimensions or the number of patterns are others.
func Change(kept *pb.Guarantee, was, is *guarantee.Site, next *pb.Certificate) *pb.CertificateChange {
	old := kept.GetCertificate()
	if old == nil || next == nil || len(was.Dimensions) != len(is.Dimensions) || len(old.GetPatterns()) != len(next.GetPatterns()) {
		return nil
	}
	host := func(h *guarantee.Host) string { return h.Name }
	workload := func(w *guarantee.Workload) string { return w.Name }
	out := &pb.CertificateChange{
		Of: kept.GetVersion(), Hosts: renumber(was.Hosts, is.Hosts, host), Workloads: renumber(was.Workloads, is.Workloads, workload),
	}
	dims := len(is.Dimensions)
	base, err := Patch(old, out, dims)
	if err != nil || len(base.GetWitness()) != len(next.GetWitness()) || len(base.GetBudgets()) != len(next.GetBudgets()) {
		return nil // It was made for yet another site.
	}
	for i, at := range next.GetWitness() {
		if base.GetWitness()[i] != at {
			out.Seats = append(out.Seats, int32(i), at)
		}
	}
	out.Duties = duties(base, next, dims)
	for i, p := range next.GetPatterns() {
		if c := patternChange(base.GetPatterns()[i], p); c != nil {
			c.Pattern = int32(i)
			out.Patterns = append(out.Patterns, c)
		}
	}
	if made, err := Patch(old, out, dims); err != nil || !proto.Equal(made, sorted(next)) {
		return nil
	}
	return out
}

// duties lists what hosts may have to carry otherwise than before.
func duties(was, is *pb.Certificate, dims int) (out []*pb.HostDuty) {
	for i, budget := range is.GetBudgets() {
		duty := is.GetObligations()[i*dims : (i+1)*dims]
		if was.GetBudgets()[i] != budget || !slices.Equal(was.GetObligations()[i*dims:(i+1)*dims], duty) {
			out = append(out, &pb.HostDuty{Host: int32(i), Obligation: duty, Budget: budget})
		}
	}
	return out
}

// renumber says what is gone of a list and what was added.
func renumber[T any](was, is []T, name func(*T) string) *pb.NumberChange {
	out := &pb.NumberChange{}
	at := make(map[string]int, len(is))
	for i := range is {
		at[name(&is[i])] = i
	}
	stays := make([]bool, len(is))
	next := 0
	for i := range was {
		if n, there := at[name(&was[i])]; there && n >= next { // What has changed places is gone, and added again.
			stays[n], next = true, n+1
		} else {
			out.Gone = append(out.Gone, int32(i))
		}
	}
	for i, s := range stays {
		if !s {
			out.Added = append(out.Added, int32(i))
		}
	}
	return out
}

func patternChange(was, is *pb.CertificatePattern) *pb.PatternChange {
	out := &pb.PatternChange{}
	if !slices.EqualFunc(was.GetSpares(), is.GetSpares(), func(a, b *pb.Spares) bool { return slices.Equal(a.GetHosts(), b.GetHosts()) }) {
		out.Spares = is.GetSpares()
	}
	before, after := moves(was), moves(is)
	for _, m := range pairs(was.GetMoves()) {
		if _, moved := after[m[0]]; !moved {
			out.Moves = append(out.Moves, m[0], guarantee.Nowhere)
		}
	}
	for _, m := range pairs(is.GetMoves()) {
		if h, moved := before[m[0]]; !moved || h != m[1] {
			out.Moves = append(out.Moves, m[0], m[1])
		}
	}
	if out.Spares == nil && out.Moves == nil {
		return nil
	}
	return out
}

func moves(p *pb.CertificatePattern) map[int32]int32 {
	out := make(map[int32]int32, len(p.GetMoves())/2)
	for _, m := range pairs(p.GetMoves()) {
		out[m[0]] = m[1]
	}
	return out
}

// pairs are the numbers two by two; one that is left over is dropped.
func pairs(list []int32) (out [][2]int32) {
	for ; len(list) >= 2; list = list[2:] {
		out = append(out, [2]int32(list[:2]))
	}
	return out
}

// sorted is a certificate with its moves in the order of the workloads, as Patch writes them.
func sorted(c *pb.Certificate) *pb.Certificate {
	out := &pb.Certificate{Scenarios: c.GetScenarios(), Witness: c.GetWitness(), Obligations: c.GetObligations(), Budgets: c.GetBudgets()}
	for _, p := range c.GetPatterns() {
		out.Patterns = append(out.Patterns, &pb.CertificatePattern{Unit: p.GetUnit(), Spares: p.GetSpares(), Moves: written(moves(p))})
	}
	return out
}

func written(moves map[int32]int32) (out []int32) {
	all := make([][2]int32, 0, len(moves))
	for w, h := range moves { // Any order: sorted below.
		all = append(all, [2]int32{w, h})
	}
	slices.SortFunc(all, func(a, b [2]int32) int { return int(a[0]) - int(b[0]) })
	for _, m := range all {
		out = append(out, m[0], m[1])
	}
	return out
}

// Complete gives a proposed guarantee its certificate, where the proposal says what makes it of the one that is kept.
func Complete(proposed, kept *pb.Guarantee, c *pb.CertificateChange, dimensions int) error {
	switch {
	case c == nil:
		return nil
	case proposed.GetCertificate() != nil:
		return model.Errorf(model.FaultInvalid, "guarantee", "has a certificate and a change of one").WithRemedy("propose one of the two")
	case kept.GetCertificate() == nil || kept.GetVersion() != c.GetOf():
		return model.Errorf(model.FaultStale, "guarantee", "it changes another certificate than the one that is kept").
			WithRemedy("it is made anew by itself")
	}
	var err error
	if proposed.Certificate, err = Patch(kept.GetCertificate(), c, dimensions); err != nil {
		return model.Errorf(model.FaultInvalid, "guarantee", "the certificate cannot be changed like this: %v", err).
			WithRemedy("propose the whole certificate")
	}
	return nil
}

// Patch makes the certificate that a change describes of the one that is kept. It may still be wrong in every way: the
// audit has the word. What names nothing is an error.
func Patch(kept *pb.Certificate, c *pb.CertificateChange, dimensions int) (*pb.Certificate, error) {
	if len(kept.GetObligations()) != dimensions*len(kept.GetBudgets()) {
		return nil, fmt.Errorf("the site has %d dimensions now", dimensions)
	}
	host, hosts, err := numbers(c.GetHosts(), len(kept.GetBudgets()))
	if err != nil {
		return nil, fmt.Errorf("hosts: %w", err)
	}
	workload, workloads, err := numbers(c.GetWorkloads(), len(kept.GetWitness()))
	if err != nil {
		return nil, fmt.Errorf("workloads: %w", err)
	}
	out := &pb.Certificate{
		Scenarios: kept.GetScenarios(), Witness: slices.Repeat([]int32{guarantee.Nowhere}, workloads),
		Obligations: make([]int64, hosts*dimensions), Budgets: make([]int64, hosts),
	}
	for i, at := range kept.GetWitness() {
		if workload[i] >= 0 {
			out.Witness[workload[i]] = renumbered(host, at)
		}
	}
	for i, at := range host {
		if at >= 0 {
			out.Budgets[at] = kept.GetBudgets()[i]
			copy(out.Obligations[int(at)*dimensions:], kept.GetObligations()[i*dimensions:(i+1)*dimensions])
		}
	}
	for _, p := range kept.GetPatterns() {
		q := &pb.CertificatePattern{Unit: p.GetUnit()}
		for _, s := range p.GetSpares() {
			q.Spares = append(q.Spares, &pb.Spares{Hosts: renumberedAll(host, s.GetHosts())})
		}
		moved := map[int32]int32{}
		for _, m := range pairs(p.GetMoves()) {
			if w, h := renumbered(workload, m[0]), renumbered(host, m[1]); w >= 0 && h >= 0 {
				moved[w] = h
			}
		}
		q.Moves = written(moved)
		out.Patterns = append(out.Patterns, q)
	}
	return out, overwrite(out, c, dimensions)
}

// overwrite sets what a change says of a certificate that is numbered anew already.
func overwrite(out *pb.Certificate, c *pb.CertificateChange, dimensions int) error {
	if len(c.GetSeats())%2 != 0 {
		return fmt.Errorf("a workload without its host")
	}
	for _, s := range pairs(c.GetSeats()) {
		if s[0] < 0 || int(s[0]) >= len(out.GetWitness()) {
			return fmt.Errorf("there is no workload %d", s[0])
		}
		out.Witness[s[0]] = s[1]
	}
	for _, d := range c.GetDuties() {
		if d.GetHost() < 0 || int(d.GetHost()) >= len(out.GetBudgets()) || len(d.GetObligation()) != dimensions {
			return fmt.Errorf("host %d may have to carry %d dimensions of %d", d.GetHost(), len(d.GetObligation()), dimensions)
		}
		out.Budgets[d.GetHost()] = d.GetBudget()
		copy(out.Obligations[int(d.GetHost())*dimensions:], d.GetObligation())
	}
	for _, d := range c.GetPatterns() {
		if d.GetPattern() < 0 || int(d.GetPattern()) >= len(out.GetPatterns()) || len(d.GetMoves())%2 != 0 {
			return fmt.Errorf("pattern %d has %d numbers of moves", d.GetPattern(), len(d.GetMoves()))
		}
		overwritePattern(out.GetPatterns()[d.GetPattern()], d)
	}
	return nil
}

func overwritePattern(p *pb.CertificatePattern, d *pb.PatternChange) {
	if len(d.GetSpares()) > 0 {
		p.Spares = d.GetSpares()
	}
	moved := moves(p)
	for _, m := range pairs(d.GetMoves()) {
		if m[1] == guarantee.Nowhere {
			delete(moved, m[0])
		} else {
			moved[m[0]] = m[1]
		}
	}
	p.Moves = written(moved)
}

// numbers lists the new number of each element of a list, -1 for one that is gone, and how many there are now.
func numbers(c *pb.NumberChange, old int) (to []int32, n int, err error) {
	n = old - len(c.GetGone()) + len(c.GetAdded())
	if !ascends(c.GetGone(), old) || !ascends(c.GetAdded(), n) {
		return nil, 0, fmt.Errorf("of %d, %d are gone and %d have come by numbers that cannot be", old, len(c.GetGone()), len(c.GetAdded()))
	}
	gone, added := c.GetGone(), c.GetAdded()
	to = make([]int32, old)
	next := int32(0)
	for i := range to {
		if len(gone) > 0 && int(gone[0]) == i {
			to[i], gone = guarantee.Nowhere, gone[1:]
			continue
		}
		for len(added) > 0 && added[0] == next {
			next, added = next+1, added[1:]
		}
		to[i] = next
		next++
	}
	return to, n, nil
}

// ascends says whether numbers are of a list of so many, each larger than the one before it.
func ascends(list []int32, n int) bool {
	last := int32(-1)
	for _, i := range list {
		if i <= last || int(i) >= n {
			return false
		}
		last = i
	}
	return true
}

// renumbered is the new number of an old one; -1: it is gone, or never was.
func renumbered(to []int32, old int32) int32 {
	if old < 0 || int(old) >= len(to) {
		return guarantee.Nowhere
	}
	return to[old]
}

func renumberedAll(to []int32, old []int32) (out []int32) {
	for _, i := range old {
		if n := renumbered(to, i); n >= 0 {
			out = append(out, n)
		}
	}
	return out
}
