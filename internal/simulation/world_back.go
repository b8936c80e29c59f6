package simulation

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

const (
	// homeAddress is where the pool at the protected site is reached; images is where its VMs' disks are.
	homeAddress = "10.88.0.9:10809"
	images      = "/images/"
)

// wayBack is the mirror of a promoted volume to the pool at the protected site.
type wayBack struct {
	mirror       *mirror
	target       *layer
	sealed, done bool
}

func (b *wayBack) runs() bool { return b != nil && !b.done && b.mirror.cut == 0 }

func (b *wayBack) end(now time.Duration) { b.mirror.cut = now }

// pointAfter is the point that a demoted volume stands on: a disk that was handed over has none.
func (v *volume) pointAfter() *layer {
	if v.domain != "" {
		return nil
	}
	return v.point
}

// carryBack mirrors a promoted volume, and seals it.
func (p *pool) carryBack(v *volume, spec *pb.VolumeSpec) error {
	b := v.back
	sealed := b != nil && b.sealed
	switch {
	case spec.GetMirrorTo() == "" && sealed, spec.GetMirrorTo() != "" && v.given, b == nil && spec.GetSealed():
		return storage.ErrInUse
	case spec.GetMirrorTo() == "":
		if b.runs() {
			b.end(p.w.s.now)
		}
		v.back = nil
		return nil
	case b == nil || spec.GetResync() > b.mirror.sync:
		return p.mirrorBack(v, spec, sealed || spec.GetSealed())
	case spec.GetResync() == b.mirror.sync && spec.GetSealed():
		if b.runs() && !b.mirror.converged(p.w.s.now) {
			return fmt.Errorf("seal %s: the mirror has %w", spec.GetName(), storage.ErrBehind)
		}
		b.sealed = true
		p.finishBack(v)
	}
	return nil
}

func (p *pool) mirrorBack(v *volume, spec *pb.VolumeSpec, sealed bool) error {
	name, _ := strings.CutPrefix(spec.GetMirrorTo(), "nbd://"+homeAddress+"/")
	target := p.w.home.volumes[name]
	if p.w.home.down() || target == nil || target.into == nil || target.into.sync != spec.GetResync() || target.state != pb.State_STATE_REPLICA {
		return fmt.Errorf("no export %s", storage.SyncExport(name, spec.GetResync()))
	}
	if v.back.runs() {
		v.back.end(p.w.s.now)
	}
	m := &mirror{sync: spec.GetResync(), began: p.w.s.now, takes: p.w.s.between(shortestSync, longestSync)}
	target.into.mirror = m
	v.back = &wayBack{mirror: m, target: target.into, sealed: sealed}
	return nil
}

// finishBack ends the mirror of a sealed volume once its target has everything. Until then the target
// holds nothing that is known to be whole.
func (p *pool) finishBack(v *volume) {
	if b := v.back; b.runs() && b.sealed && b.mirror.converged(p.w.s.now) {
		b.done, b.target.holds, b.target.complete = true, v.holds, true
	}
}

func (p *pool) showBack(v *volume, st *pb.VolumeStatus) {
	p.finishBack(v)
	b := v.back
	st.Resync = b.mirror.sync
	if b.sealed {
		st.Export = ""
	}
	switch {
	case b.done:
		st.InSync, st.Sealed = true, true
	case !b.runs():
		st.DegradedSince, st.DegradedReason = timestamppb.New(epochStart().Add(b.mirror.cut)), "the mirror ended"
	default:
		st.Mirroring, st.InSync = true, b.mirror.converged(p.w.s.now)
	}
}

// handOver puts what the volume received in place of an old VM's disk.
func (p *pool) handOver(v *volume) {
	vm := p.w.old.vms[v.domain]
	if vm.running {
		p.w.s.fail("1 single run", "the disk of %s is replaced while it runs", v.domain)
	}
	if v.point.holds == 0 {
		p.w.s.fail("5 exact failback", "%s gets back what was not sealed: writes may be missing", v.domain)
	}
	vm.holds = v.point.holds
	p.cut(v)
	v.state, v.into, v.given = pb.State_STATE_PRIMARY, nil, true
}

// checkDropped: what was written here is dropped only when the old side has it, or somebody said so.
func (s *sim) checkDropped(name string, v *volume) {
	var last *pb.Failover
	var promotion *pb.Step
	for f := range s.state.Failovers() {
		for _, st := range f.GetSteps() {
			if st.GetObject() == string(volumeID(name)) && st.GetGeneration() > 0 && !st.GetWayBack() {
				last, promotion = f, st
			}
		}
	}
	if !v.wrote || last == nil || last.GetDiscardRecoveryData() && len(promotion.GetBackAfter()) == 0 {
		return
	}
	if vm := s.world.old.vms[name]; vm.holds != v.holds { // The VM has the name of its volume here.
		s.fail("5 exact failback", "volume %s is dropped, and the old side does not hold what was written to it", name)
	}
	s.report.CarriedBack++
}

// comesBack says whether an open run brings the disk of an old VM back.
func (s *sim) comesBack(domain string) bool {
	for f := range s.state.OpenFailovers() {
		for _, st := range f.GetSteps() {
			if st.GetWayBack() && st.GetPhase() != pb.StepPhase_STEP_PHASE_SKIPPED && st.GetSpec().GetVolume().GetDomain() == domain {
				return true
			}
		}
	}
	return false
}
