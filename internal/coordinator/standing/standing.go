// Package standing keeps the proof that every plan fits. It decides when the site has to be proven again, and
// uses what is kept where it still holds: it was checked when it was kept, by every member. It never changes
// anything itself. The coordinator's loop asks it for commands; packages lease, failover and readiness ask it for
// the decision.
package standing

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

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
	_, d := proofWith(s, v.Silent())
	return d
}

// proofWith is the proof of the site if these hosts are silent.
func proofWith(s *state.State, silent []string) (*guarantee.Site, guarantee.Decision) {
	site, d, kept := keptFor(s, silent)
	if !kept {
		d = proof.Prove(site)
	}
	return site, d
}

// keptFor is the site if these hosts are silent, and the proof that is kept if it is one of that site.
func keptFor(s *state.State, silent []string) (site *guarantee.Site, d guarantee.Decision, kept bool) {
	site, fingerprint := demand.Base(s, silent)
	if !holds(s, site, fingerprint) {
		return site, d, false
	}
	d, err := witness.Decode(s.Guarantee(), len(site.Dimensions))
	return site, d, err == nil
}

// Outlook is what a change makes of the guarantee.
type Outlook struct {
	Before, After guarantee.Decision
	// Once these hosts, which are silent, have answered again; empty: now.
	Once []string
}

// Look says what the guarantee becomes by a change: as the site is seen or, if only that is worse, as it will be when the
// hosts that are silent answer again. What is lent or planned while hosts are down must not be what is in the way when they
// are back. A host that the change itself takes away does not come back for it. Of a site that is not proven yet as it is
// seen, a search from the beginning says what it is now, and it may find less than the leader knows.
func Look(s, next *state.State, v live.View) Outlook {
	silent := v.Silent()
	out := look(s, next, silent)
	if out.Worse() {
		return out
	}
	var away, once []string
	for _, name := range silent {
		switch h := next.Host(name); {
		case h == nil || h.GetCordoned() && !s.Host(name).GetCordoned():
			away = append(away, name)
		case !h.GetCordoned() && !h.GetQuarantined() && h.GetLostAt() == nil: // Any other takes nothing, silent or not.
			once = append(once, name)
		}
	}
	if len(once) == 0 {
		return out
	}
	if _, differs := changed(s, next, away); !differs {
		return out
	}
	if later := look(s, next, away); later.Worse() {
		later.Once = once
		return later
	}
	return out
}

// changed is the site after a change if these hosts are silent, and whether it is another one than before.
func changed(s, next *state.State, silent []string) (*guarantee.Site, bool) {
	_, was := demand.Base(s, silent)
	site, is := demand.Base(next, silent)
	return site, !bytes.Equal(was, is)
}

// look says what a change makes of the guarantee if these hosts are silent.
func look(s, next *state.State, silent []string) (out Outlook) {
	site, before := proofWith(s, silent)
	out = Outlook{Before: before, After: before}
	is, differs := changed(s, next, silent)
	if !differs {
		return out
	}
	if _, kept, holds := keptFor(next, silent); holds {
		out.After = kept
	} else {
		out.After = proof.Renew(is, proof.Earlier{Site: site, Decision: before})
	}
	return out
}

// Worse says whether the change makes it worse (invariant 2).
func (o Outlook) Worse() bool { return o.After.Worse(o.Before) }

// String says what the site would be, and why.
func (o Outlook) String() string {
	if why := o.Why(o.After); why != "" {
		return o.After.Word() + ": " + why
	}
	return o.After.Word()
}

// Why says why the site is not better before or after the change, and of which time that is.
func (o Outlook) Why(d guarantee.Decision) string {
	if len(o.Once) == 0 {
		return d.Reason
	}
	when := "once " + strings.Join(o.Once, ", ") + " can be reached again"
	if d.Reason == "" {
		return when
	}
	return when + ", " + d.Reason
}

// Remedy says what to do, where the change is refused: what would help in any case, or what is about silent hosts.
func (o Outlook) Remedy(otherwise string) string {
	if len(o.Once) == 0 {
		return otherwise
	}
	return "bring " + strings.Join(o.Once, ", ") + " back first, or take it out of service: hotspare host cordon " + o.Once[0] + "; or " + otherwise
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

// Keeper proves the site again and again. What it remembers of the last proofs makes the next one cheaper, and no worse
// than it was where a search from the beginning would find less; one of another leader begins without. It is not for
// concurrent use.
type Keeper struct {
	// Fault is told when a certificate that was made here is refused by the audit: something is wrong with the search, and
	// the site is proven in another way. Nil: nobody is.
	Fault func(error)

	// last is the last proof, of the site with this fingerprint, and witness what is repaired of it; good is the last proof
	// of all that was asked.
	last, good  proof.Earlier
	fingerprint []byte
	witness     *repair.Witness
	// stale: something better was proposed for that site, and may be kept by now.
	stale bool
	// repaired: what is kept was mended and not packed anew, so that it obliges hosts to more than they may need.
	repaired bool
	// sparedAt is the state in which no lease could be spared.
	sparedAt uint64
}

// Advance returns the command that keeps the proof of the site as it is now; none when what is kept holds. Where all
// that is asked was proven, the witness is repaired; a full proof has the word if that does not succeed.
func (k *Keeper) Advance(s *state.State, v live.View) []*pb.Command {
	site, fingerprint := demand.Base(s, v.Silent())
	if holds(s, site, fingerprint) {
		if k.stale || !bytes.Equal(k.fingerprint, fingerprint) {
			k.read(s.Guarantee(), site)
		}
		return nil
	}
	if k.stale && bytes.Equal(k.fingerprint, s.Guarantee().GetFingerprint()) {
		k.read(s.Guarantee(), k.last.Site)
	}
	was := k.last.Site
	d, repaired := k.repair(site)
	k.repaired = repaired
	if repaired {
		k.remember(site, fingerprint, d, k.witness)
	} else {
		d = proof.Renew(site, k.known()...)
		k.fault(d.Fault)
		k.remember(site, fingerprint, d, nil)
	}
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
	switch {
	case k.repaired:
		k.repaired = false
		if d := proof.Prove(site); d.Answer == guarantee.Fits && obliged(d) < obliged(was) {
			c = record(s, v, fingerprint, d)
		}
	case k.sparedAt != s.Index():
		if c = k.spare(s, v, site, fingerprint, was); c == nil {
			k.sparedAt = s.Index()
		}
	}
	if c == nil {
		return nil
	}
	k.stale = true // The next repair begins with the better one, if it is kept.
	return []*pb.Command{c}
}

// worthwhile is the part of the expected cost of victims that has to be saved for an entry of the log.
const worthwhile = 0.05

// spare looks for a witness by which victims are expected to cost less, near the one that is kept; nil: there is none
// that is worth an entry.
func (k *Keeper) spare(s *state.State, v live.View, site *guarantee.Site, fingerprint []byte, d guarantee.Decision) *pb.Command {
	w := repair.New(site, d.Certificate)
	before, after := w.Spare(demand.Site(s, v.Silent()).Preemptible)
	if before-after < max(1, worthwhile*before) {
		return nil
	}
	d.Certificate = w.Certificate()
	if err := audit.Check(site, d.Certificate); err != nil {
		k.fault(fmt.Errorf("the local search made a wrong certificate: %w", err))
		return nil
	}
	c := record(s, v, fingerprint, d)
	abridge(s.Guarantee(), site, site, c.GetRecordGuarantee())
	return c
}

func (k *Keeper) fault(err error) {
	if k.Fault != nil && err != nil {
		k.Fault(err)
	}
}

// obliged sums up the memory that hosts may have to carry.
func obliged(d guarantee.Decision) (sum int64) {
	for _, o := range d.Certificate.Obligations {
		sum = guarantee.Add(sum, o.At(1))
	}
	return sum
}

// read takes what is kept for a site as what the next proof begins with.
func (k *Keeper) read(g *pb.Guarantee, site *guarantee.Site) {
	if d, err := witness.Decode(g, len(site.Dimensions)); err == nil {
		k.remember(site, g.GetFingerprint(), d, nil)
	}
}

// remember takes a proof as what the next one begins with, and the witness that is repaired of it; nil: it is made anew.
func (k *Keeper) remember(site *guarantee.Site, fingerprint []byte, d guarantee.Decision, w *repair.Witness) {
	k.last, k.fingerprint, k.witness, k.stale = proof.Earlier{Site: site, Decision: d}, fingerprint, w, false
	if d.Answer != guarantee.Fits {
		return
	}
	k.good = k.last
	if w == nil && d.Asked == d.Proven {
		k.witness = repair.New(site, d.Certificate)
	}
}

// known lists the proofs that are remembered.
func (k *Keeper) known() (out []proof.Earlier) {
	for _, p := range []proof.Earlier{k.last, k.good} {
		if p.Site != nil {
			out = append(out, p)
		}
	}
	return out
}

// repair mends what is remembered for a site.
func (k *Keeper) repair(site *guarantee.Site) (d guarantee.Decision, ok bool) {
	w := k.witness
	k.witness = nil
	if w == nil || !w.Follow(k.last.Site, site) {
		return d, false
	}
	asked := guarantee.Tolerance(site.Asked())
	d = guarantee.Decision{Answer: guarantee.Fits, Asked: asked, Proven: asked, Certificate: w.Certificate()}
	if err := audit.Check(site, d.Certificate); err != nil {
		k.fault(fmt.Errorf("the repair made a wrong certificate: %w", err))
		return d, false
	}
	k.witness = w
	return d, true
}

// abridge leaves of a certificate what makes it of the one that is kept, where that can be said and is less: after a repair
// little is different. The kept one was made for the site as it was.
func abridge(kept *pb.Guarantee, was, is *guarantee.Site, c *pb.RecordGuarantee) {
	whole := c.GetGuarantee().GetCertificate()
	if change := witness.Change(kept, was, is, whole); change != nil && proto.Size(change) < proto.Size(whole) {
		c.Change, c.Guarantee.Certificate = change, nil
	}
}

func record(s *state.State, v live.View, fingerprint []byte, d guarantee.Decision) *pb.Command {
	g := witness.Encode(d)
	g.SilentHosts, g.Fingerprint = Silent(s, v), fingerprint
	return &pb.Command{Body: &pb.Command_RecordGuarantee{RecordGuarantee: &pb.RecordGuarantee{Guarantee: g}}}
}
