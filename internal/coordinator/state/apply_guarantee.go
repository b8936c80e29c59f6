package state

import (
	"bytes"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/coordinator/state/witness"
	"github.com/hotspare/hotspare/internal/model"
)

// Guarantee returns how good the guarantee is, as the coordinators agreed last; nil: they never did.
func (s *State) Guarantee() *pb.Guarantee { return s.guarantee }

// recordGuarantee keeps a guarantee if its certificate holds for this very state. The site that it is for is told by its
// fingerprint and not by a version: leases change the state all the time, and never the proof. The version tells apart
// certificates of one site, for changes of them.
func (t *tx) recordGuarantee(c *pb.RecordGuarantee) (string, error) {
	g := edit(c.GetGuarantee())
	for _, name := range g.GetSilentHosts() {
		if t.Host(name) == nil {
			return "", model.Errorf(model.FaultInvalid, "guarantee", "counts %q as silent, which is no host", name)
		}
	}
	site, fingerprint := demand.Base(&t.State, g.GetSilentHosts())
	if !bytes.Equal(fingerprint, g.GetFingerprint()) {
		return "", model.Errorf(model.FaultStale, "guarantee", "it was proven for another site than this one is now")
	}
	was := t.guarantee
	err := witness.Complete(g, was, c.GetChange(), len(site.Dimensions))
	if err == nil {
		err = witness.Verify(site, g)
	}
	if err != nil {
		return "", err
	}
	g.Since, g.Version, g.ProvenAt = was.GetSince(), t.index, t.stamp()
	if was.GetWord() != g.GetWord() {
		g.Since = t.stamp()
		reason := g.GetWord()
		if g.GetReason() != "" {
			reason += ": " + g.GetReason()
		}
		t.record(&pb.Evidence{Action: "guarantee", Object: "site", Reason: reason})
	}
	t.guarantee, t.unaudited = g, false
	t.changed["guarantee"] = true
	return g.GetWord(), nil
}

// checkGuarantee refuses a guarantee that does not hold for the state that it was made for. One that was made for an
// earlier state cannot be checked; the state may come back to it (GuaranteeAudited).
func (s *State) checkGuarantee() error {
	if s.guarantee == nil {
		return nil
	}
	site, fingerprint := demand.Base(s, s.guarantee.GetSilentHosts())
	if !bytes.Equal(fingerprint, s.guarantee.GetFingerprint()) {
		s.unaudited = true
		return nil
	}
	return witness.Verify(site, s.guarantee)
}

// GuaranteeAudited reports whether this member has checked the guarantee that it keeps.
func (s *State) GuaranteeAudited() bool { return !s.unaudited }
