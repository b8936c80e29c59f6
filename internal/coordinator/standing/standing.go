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
	"github.com/hotspare/hotspare/internal/placement/audit"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/placement/proof"
	"github.com/hotspare/hotspare/internal/placement/repair"
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

// Keeper proves the site again and again. What it remembers of the last proof only makes the next one cheaper: a new
// one, of another leader, decides as well. It is not for concurrent use.
type Keeper struct {
	site    *guarantee.Site
	witness *repair.Witness
	// repaired: what is kept was mended and not packed anew, so that it obliges hosts to more than they may need.
	repaired bool
}

// Advance returns the command that keeps the proof of the site as it is now; none when what is kept holds. Where all
// that is asked was proven, the witness is repaired; a full proof has the word if that does not succeed.
func (k *Keeper) Advance(s *state.State, v live.View) []*pb.Command {
	site := demand.Site(s, v.Reachable)
	if holds(s, site) {
		k.remember(s, site)
		return nil
	}
	d, repaired := k.repair(site)
	if !repaired {
		d = proof.Prove(site)
	}
	k.repaired = repaired
	return []*pb.Command{record(s, v, site, d)}
}

// Improve returns the command that keeps a proof which was packed anew in place of one that was repaired, if it leaves
// more to leases. It is for quiet times: nothing waits for it.
func (k *Keeper) Improve(s *state.State, v live.View) []*pb.Command {
	if !k.repaired {
		return nil
	}
	site := demand.Site(s, v.Reachable)
	if !holds(s, site) {
		return nil
	}
	k.repaired = false
	was, err := witness.Decode(s.Guarantee(), len(site.Dimensions))
	d := proof.Prove(site)
	if err != nil || d.Answer != guarantee.Fits || obliged(d) >= obliged(was) {
		return nil
	}
	k.witness = nil
	return []*pb.Command{record(s, v, site, d)}
}

// obliged sums up the memory that hosts may have to carry.
func obliged(d guarantee.Decision) (sum int64) {
	for _, o := range d.Certificate.Obligations {
		sum = guarantee.Add(sum, o.At(1))
	}
	return sum
}

// remember takes what is kept as what the next repair begins with.
func (k *Keeper) remember(s *state.State, site *guarantee.Site) {
	if k.witness != nil && bytes.Equal(k.site.Fingerprint(), site.Fingerprint()) {
		return
	}
	k.site, k.witness = site, nil
	if d, err := witness.Decode(s.Guarantee(), len(site.Dimensions)); err == nil && d.Answer == guarantee.Fits && d.Asked == d.Proven {
		k.witness = repair.New(site, d.Certificate)
	}
}

// repair mends what is remembered for a site.
func (k *Keeper) repair(site *guarantee.Site) (d guarantee.Decision, ok bool) {
	w := k.witness
	k.witness = nil
	if w == nil || !w.Follow(k.site, site) {
		return d, false
	}
	asked := guarantee.Tolerance(site.Asked())
	d = guarantee.Decision{Answer: guarantee.Fits, Asked: asked, Proven: asked, Certificate: w.Certificate()}
	if audit.Check(site, d.Certificate) != nil {
		return d, false
	}
	k.site, k.witness = site, w
	return d, true
}

func record(s *state.State, v live.View, site *guarantee.Site, d guarantee.Decision) *pb.Command {
	g := witness.Encode(d)
	g.SilentHosts, g.Fingerprint = Silent(s, v), site.Fingerprint()
	return &pb.Command{Body: &pb.Command_RecordGuarantee{RecordGuarantee: &pb.RecordGuarantee{Guarantee: g}}}
}
