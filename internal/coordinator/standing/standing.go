// Package standing keeps the proof that every plan fits. It decides when the site has to be proven again, and
// uses what is kept where it still holds: it was checked when it was kept, by every member. It never changes
// anything itself. The coordinator's loop asks it for commands; packages lease, failover and readiness ask it for
// the decision.
package standing

import (
	"bytes"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/coordinator/state/witness"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
)

// Site describes the site, with the proof that holds for it.
func Site(s *state.State, v live.View) (*guarantee.Site, guarantee.Decision) {
	site := demand.Site(s, v.Reachable)
	if g := s.Guarantee(); holds(s, site) {
		if d, err := witness.Decode(g, len(site.Dimensions)); err == nil {
			return site, d
		}
	}
	return site, proof.Prove(site)
}

// holds reports whether the proof that is kept is one of this site.
func holds(s *state.State, site *guarantee.Site) bool {
	g := s.Guarantee()
	return g != nil && bytes.Equal(g.GetFingerprint(), site.Fingerprint()) && (s.GuaranteeAudited() || witness.Verify(site, g) == nil)
}

// Silent names the hosts that may get no new work because of what the leader sees of their agents. A proof depends
// on the state and on them alone.
func Silent(s *state.State, v live.View) (out []string) {
	for h := range s.Hosts() {
		if !v.Reachable(h.GetName()) {
			out = append(out, h.GetName())
		}
	}
	return out
}

// Advance returns the command that keeps the proof of the site as it is now; none when what is kept holds.
func Advance(s *state.State, v live.View) []*pb.Command {
	site := demand.Site(s, v.Reachable)
	if holds(s, site) {
		return nil
	}
	g := witness.Encode(proof.Prove(site))
	g.SilentHosts, g.Fingerprint = Silent(s, v), site.Fingerprint()
	return []*pb.Command{{Body: &pb.Command_RecordGuarantee{RecordGuarantee: &pb.RecordGuarantee{Guarantee: g}}}}
}
