// Package witness writes certificates of the guarantee as the coordinators keep them, and reads them again. It
// decides whether one that a leader proposes may be kept: by package audit and by what it claims, never by who
// proposes it. Apply calls it, and package standing.
package witness

import (
	"fmt"
	"slices"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// Encode writes a decision.
func Encode(d guarantee.Decision) *pb.Guarantee {
	return &pb.Guarantee{
		Word: d.Word(), Reason: d.Reason, Answer: pb.GuaranteeAnswer(d.Answer), Asked: int32(d.Asked), Proven: int32(d.Proven),
		Certificate: encode(d.Certificate),
	}
}

func encode(c *guarantee.Certificate) *pb.Certificate {
	if c == nil {
		return nil
	}
	out := &pb.Certificate{Witness: c.Witness}
	for _, s := range c.Scenarios {
		out.Scenarios = append(out.Scenarios, &pb.ProvenScenario{
			Name: s.Name, AllPlans: s.Plans == nil, Plans: s.Plans, Hosts: int32(s.Hosts), FailureDomains: int32(s.FailureDomains),
		})
	}
	for _, p := range c.Patterns {
		q := &pb.CertificatePattern{Unit: int32(p.Unit)}
		for _, hosts := range p.Spares {
			q.Spares = append(q.Spares, &pb.Spares{Hosts: hosts})
		}
		for _, m := range p.Moves {
			q.Moves = append(q.Moves, m.Workload, m.Host)
		}
		out.Patterns = append(out.Patterns, q)
	}
	for _, o := range c.Obligations {
		out.Obligations = append(out.Obligations, o...)
	}
	for _, b := range c.Budgets {
		out.Budgets = append(out.Budgets, int64(b))
	}
	return out
}

// Decode reads what Encode wrote, for a site with as many dimensions. What is malformed is an error.
func Decode(g *pb.Guarantee, dimensions int) (guarantee.Decision, error) {
	d := guarantee.Decision{
		Answer: guarantee.Answer(g.GetAnswer()), Asked: int(g.GetAsked()), Proven: int(g.GetProven()), Reason: g.GetReason(),
	}
	c := g.GetCertificate()
	if c == nil {
		return d, nil
	}
	out := &guarantee.Certificate{Witness: c.GetWitness()}
	for _, s := range c.GetScenarios() {
		sc := guarantee.Scenario{Name: s.GetName(), Hosts: int(s.GetHosts()), FailureDomains: int(s.GetFailureDomains())}
		if !s.GetAllPlans() {
			sc.Plans = append([]string{}, s.GetPlans()...) // Never nil: that would be all plans.
		}
		out.Scenarios = append(out.Scenarios, sc)
	}
	for i, p := range c.GetPatterns() {
		if len(p.GetMoves())%2 != 0 {
			return d, fmt.Errorf("pattern %d moves half a workload", i)
		}
		q := guarantee.Pattern{Unit: guarantee.Unit(p.GetUnit())}
		for _, s := range p.GetSpares() {
			q.Spares = append(q.Spares, s.GetHosts())
		}
		for m := range slices.Chunk(p.GetMoves(), 2) {
			q.Moves = append(q.Moves, guarantee.Move{Workload: m[0], Host: m[1]})
		}
		out.Patterns = append(out.Patterns, q)
	}
	if len(c.GetObligations()) != dimensions*len(c.GetBudgets()) {
		return d, fmt.Errorf("it has %d obligations and %d budgets", len(c.GetObligations()), len(c.GetBudgets()))
	}
	for o := range slices.Chunk(c.GetObligations(), max(dimensions, 1)) {
		out.Obligations = append(out.Obligations, o)
	}
	for _, b := range c.GetBudgets() {
		out.Budgets = append(out.Budgets, time.Duration(b))
	}
	d.Certificate = out
	return d, nil
}

// Verify says why a guarantee may not be kept for a site; nil: it holds, and claims no more than it shows.
func Verify(s *guarantee.Site, g *pb.Guarantee) error {
	d, err := Decode(g, len(s.Dimensions))
	if err == nil {
		err = verify(s, d)
	}
	if err == nil && g.GetWord() != d.Word() {
		err = fmt.Errorf("it is %s and says %q", d.Word(), g.GetWord())
	}
	if err != nil {
		return model.Errorf(model.FaultInvalid, "guarantee", "the certificate does not hold: %v", err).
			WithRemedy("the leader proves again by itself; if this stays, report a bug")
	}
	return nil
}

func verify(s *guarantee.Site, d guarantee.Decision) error {
	asked := guarantee.Tolerance(s.Asked())
	switch {
	case d.Asked != asked:
		return fmt.Errorf("it is for %d losses, asked are %d", d.Asked, asked)
	case d.Proven > asked, d.Proven < -1:
		return fmt.Errorf("it proves %d losses of %d", d.Proven, asked)
	case (d.Answer == guarantee.Fits) != (d.Proven == asked):
		return fmt.Errorf("its answer is %d with %d losses proven of %d", d.Answer, d.Proven, asked)
	case d.Lost() != (d.Certificate == nil):
		return fmt.Errorf("it proves %d losses, with a certificate: %v", d.Proven, d.Certificate != nil)
	case d.Lost():
		return nil
	}
	if !slices.EqualFunc(d.Certificate.Scenarios, guarantee.Weaken(s.Asked(), asked-d.Proven), guarantee.Scenario.Equal) {
		return fmt.Errorf("its scenarios are not those that are declared, with %d losses", d.Proven)
	}
	return audit.Check(s, d.Certificate)
}
