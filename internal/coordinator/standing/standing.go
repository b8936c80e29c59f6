// Package standing keeps the proof that every plan fits. It decides when the site has to be proven again, and
// uses what is kept where it still holds: it was checked when it was kept, by every member. It never changes
// anything itself. The coordinator's loop asks it for commands; packages lease, failover and readiness ask it for
// the decision.
package standing

import (
	"bytes"
	"slices"

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
	d := Proof(s, v)
	return demand.Site(s, v.Silent()), d
}

// Proof is the one that holds for the site.
func Proof(s *state.State, v live.View) guarantee.Decision {
	site, fingerprint := demand.Base(s, v.Silent())
	if g := s.Guarantee(); holds(s, site, fingerprint) {
		if d, err := witness.Decode(g, len(site.Dimensions)); err == nil {
			return d
		}
	}
	return proof.Prove(site)
}

// holds reports whether the proof that is kept is one of the site with this fingerprint.
func holds(s *state.State, site *guarantee.Site, fingerprint []byte) bool {
	g := s.Guarantee()
	return g != nil && bytes.Equal(g.GetFingerprint(), fingerprint) && (s.GuaranteeAudited() || witness.Verify(site, g) == nil)
}

// Silent names the hosts that may get no new work because of what the leader sees of their agents. A proof depends
// on the state and on them alone.
func Silent(s *state.State, v live.View) []string {
	return slices.DeleteFunc(v.Silent(), func(name string) bool { return s.Host(name) == nil })
}

// Keeper proves the site again and again. What it remembers of the last proof only makes the next one cheaper: a new
// one, of another leader, decides as well. It is not for concurrent use.
type Keeper struct {
	site        *guarantee.Site
	fingerprint []byte
	witness     *repair.Witness
	// repaired: what is kept was mended and not packed anew, so that it obliges hosts to more than they may need.
	repaired bool
}

// Advance returns the command that keeps the proof of the site as it is now; none when what is kept holds. Where all
// that is asked was proven, the witness is repaired; a full proof has the word if that does not succeed.
func (k *Keeper) Advance(s *state.State, v live.View) []*pb.Command {
	site, fingerprint := demand.Base(s, v.Silent())
	if holds(s, site, fingerprint) {
		k.remember(s, site, fingerprint)
		return nil
	}
	was := k.site
	d, repaired := k.repair(site, fingerprint)
	if !repaired {
		d = proof.Prove(site)
	}
	k.repaired = repaired
	c := record(s, v, fingerprint, d)
	if repaired {
		abridge(s.Guarantee(), was, site, c.GetRecordGuarantee())
	}
	return []*pb.Command{c}
}

// Improve returns the command that keeps a better proof in place of the one that holds: one that was packed anew in
// place of a repaired one, if it leaves more to leases, or one by which victims are expected to cost less. It is for quiet
// times: nothing waits for it.
func (k *Keeper) Improve(s *state.State, v live.View) []*pb.Command {
	site, fingerprint := demand.Base(s, v.Silent())
	if !holds(s, site, fingerprint) {
		return nil
	}
	was, err := witness.Decode(s.Guarantee(), len(site.Dimensions))
	if err != nil || was.Answer != guarantee.Fits || was.Asked != was.Proven {
		return nil
	}
	var c *pb.Command
	if k.repaired {
		k.repaired = false
		if d := proof.Prove(site); d.Answer == guarantee.Fits && obliged(d) < obliged(was) {
			c = record(s, v, fingerprint, d)
		}
	} else {
		c = spare(s, v, site, fingerprint, was)
	}
	if c == nil {
		return nil
	}
	k.witness = nil // The next repair begins with the better one.
	return []*pb.Command{c}
}

// worthwhile is the part of the expected cost of victims that has to be saved for an entry of the log.
const worthwhile = 0.05

// spare looks for a witness by which victims are expected to cost less, near the one that is kept; nil: there is none
// that is worth an entry.
func spare(s *state.State, v live.View, site *guarantee.Site, fingerprint []byte, d guarantee.Decision) *pb.Command {
	w := repair.New(site, d.Certificate)
	before, after := w.Spare(demand.Site(s, v.Silent()).Preemptible)
	if before-after < max(1, worthwhile*before) {
		return nil
	}
	if d.Certificate = w.Certificate(); audit.Check(site, d.Certificate) != nil {
		return nil
	}
	c := record(s, v, fingerprint, d)
	abridge(s.Guarantee(), site, site, c.GetRecordGuarantee())
	return c
}

// obliged sums up the memory that hosts may have to carry.
func obliged(d guarantee.Decision) (sum int64) {
	for _, o := range d.Certificate.Obligations {
		sum = guarantee.Add(sum, o.At(1))
	}
	return sum
}

// remember takes what is kept as what the next repair begins with.
func (k *Keeper) remember(s *state.State, site *guarantee.Site, fingerprint []byte) {
	if k.witness != nil && bytes.Equal(k.fingerprint, fingerprint) {
		return
	}
	k.site, k.fingerprint, k.witness = site, fingerprint, nil
	if d, err := witness.Decode(s.Guarantee(), len(site.Dimensions)); err == nil && d.Answer == guarantee.Fits && d.Asked == d.Proven {
		k.witness = repair.New(site, d.Certificate)
	}
}

// repair mends what is remembered for a site.
func (k *Keeper) repair(site *guarantee.Site, fingerprint []byte) (d guarantee.Decision, ok bool) {
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
	k.site, k.fingerprint, k.witness = site, fingerprint, w
	return d, true
}

// abridge leaves of a certificate what makes it of the one that is kept, where that can be said: after a repair little is
// different. The kept one was made for the site as it was.
func abridge(kept *pb.Guarantee, was, is *guarantee.Site, c *pb.RecordGuarantee) {
	if c.Change = witness.Change(kept, was, is, c.GetGuarantee().GetCertificate()); c.GetChange() != nil {
		c.Guarantee.Certificate = nil
	}
}

func record(s *state.State, v live.View, fingerprint []byte, d guarantee.Decision) *pb.Command {
	g := witness.Encode(d)
	g.SilentHosts, g.Fingerprint = Silent(s, v), fingerprint
	return &pb.Command{Body: &pb.Command_RecordGuarantee{RecordGuarantee: &pb.RecordGuarantee{Guarantee: g}}}
}
