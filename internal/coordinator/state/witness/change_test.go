package witness_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state/witness"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// site draws the names of a site's hosts and workloads; the latter may change places.
func site(t *rapid.T) *guarantee.Site {
	s := &guarantee.Site{Dimensions: []string{guarantee.VCPUs, guarantee.Memory}}
	draw := func(what string) []int {
		return rapid.SliceOfNDistinct(rapid.IntRange(0, 9), 0, 8, rapid.ID[int]).Draw(t, what)
	}
	for _, n := range slices.Sorted(slices.Values(draw("hosts"))) {
		s.Hosts = append(s.Hosts, guarantee.Host{Name: fmt.Sprint("h", n)})
	}
	for _, n := range draw("workloads") {
		s.Workloads = append(s.Workloads, guarantee.Workload{Name: fmt.Sprint("w", n)})
	}
	return s
}

// certificate draws one with two patterns, true or not. Moves are in the order of the workloads.
func certificate(t *rapid.T, s *guarantee.Site) *pb.Certificate {
	seat := rapid.Int32Range(-1, int32(len(s.Hosts)-1))
	c := &pb.Certificate{Scenarios: []*pb.ProvenScenario{{Name: "all", AllPlans: true, Hosts: 1}}}
	for range s.Workloads {
		c.Witness = append(c.Witness, seat.Draw(t, "seat"))
	}
	for range s.Hosts {
		c.Obligations = append(c.Obligations, rapid.Int64().Draw(t, "vcpus"), rapid.Int64().Draw(t, "memory"))
		c.Budgets = append(c.Budgets, rapid.Int64().Draw(t, "budget"))
	}
	for range 2 {
		p := &pb.CertificatePattern{Unit: 1}
		for h := range s.Hosts {
			if rapid.Bool().Draw(t, "spare") {
				p.Spares = append(p.Spares, &pb.Spares{Hosts: []int32{int32(h)}})
			}
		}
		for w := range s.Workloads {
			if h := seat.Draw(t, "moved to"); h >= 0 {
				p.Moves = append(p.Moves, int32(w), h)
			}
		}
		c.Patterns = append(c.Patterns, p)
	}
	return c
}

// A certificate is made again of any other one and of what is different.
func TestChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was, is := site(t), site(t)
		kept, next := &pb.Guarantee{Fingerprint: []byte("f"), Certificate: certificate(t, was)}, certificate(t, is)
		before := proto.CloneOf(kept)
		c := witness.Change(kept, was, is, next)
		if c == nil {
			// What has no spares any more cannot be told from what has the spares that it had.
			for i, p := range next.GetPatterns() {
				if len(p.GetSpares()) == 0 && len(kept.GetCertificate().GetPatterns()[i].GetSpares()) > 0 {
					return
				}
			}
			t.Fatal("it cannot be said")
		}
		made, err := witness.Patch(kept.GetCertificate(), c, len(is.Dimensions))
		if err != nil || !proto.Equal(made, next) {
			t.Fatalf("made %v (%v)\nof   %v", made, err, next)
		}
		if !proto.Equal(kept, before) {
			t.Fatal("the one that is kept was changed")
		}
	})
}

// Whatever a change says: a certificate or an error.
func TestPatchHoldsOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kept := certificate(t, site(t))
		list := rapid.SliceOfN(rapid.Int32Range(-2, 10), 0, 4)
		c := &pb.CertificateChange{
			Hosts:     &pb.NumberChange{Gone: list.Draw(t, "gone"), Added: list.Draw(t, "added")},
			Workloads: &pb.NumberChange{Gone: list.Draw(t, "gone"), Added: list.Draw(t, "added")}, Seats: list.Draw(t, "seats"),
			Duties:   []*pb.HostDuty{{Host: rapid.Int32Range(-1, 9).Draw(t, "host"), Obligation: rapid.SliceOfN(rapid.Int64(), 0, 3).Draw(t, "duty")}},
			Patterns: []*pb.PatternChange{{Pattern: rapid.Int32Range(-1, 3).Draw(t, "pattern"), Moves: list.Draw(t, "moves")}},
		}
		dims := rapid.IntRange(1, 3).Draw(t, "dimensions")
		if out, err := witness.Patch(kept, c, dims); err == nil && len(out.GetObligations()) != dims*len(out.GetBudgets()) {
			t.Fatalf("%d obligations for %d hosts", len(out.GetObligations()), len(out.GetBudgets()))
		}
	})
}
