package simulation

import (
	"slices"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Mutant is something broken on purpose, around the real code or in the world, to see that the
// checks notice.
type Mutant int

// The mutants. The zero value is none.
const (
	// MutantSkipFence releases promotions without waiting for the fence.
	MutantSkipFence Mutant = iota + 1
	// MutantIgnoreBoot lets a permit survive a reboot.
	MutantIgnoreBoot
	// MutantOldOrders restarts an agent with old orders in its journal, which what its leader sends
	// does not replace.
	MutantOldOrders
	// MutantImageStays leaves a RAM image where it was after it was loaded.
	MutantImageStays
	// MutantBlindMemory has agents start instances without looking at memory or local gates.
	MutantBlindMemory
	// MutantBelieve reads back what was ordered instead of what is.
	MutantBelieve
	// MutantAnyGeneration counts a status for whatever order is newest.
	MutantAnyGeneration
	// MutantEarlyLift lifts the fence before the workloads are gone.
	MutantEarlyLift
	// MutantDropLease deletes the disks of a lease that is still wanted.
	MutantDropLease
	// MutantKeepNetwork forgets to take a network of the failover away.
	MutantKeepNetwork
	// MutantSkipSeal hands a volume over without sealing it.
	MutantSkipSeal
	// MutantEarlyHandOver hands a volume over before it was sealed.
	MutantEarlyHandOver
	// MutantForgeProof has the leader keep a proof that obliges no host to anything.
	MutantForgeProof
	// MutantSkipEntry has one member leave out an entry of the log.
	MutantSkipEntry
)

// Broken is a mutant and the invariants that may catch it.
type Broken struct {
	Mutant Mutant
	By     []string
}

// Mutants lists all of them by name.
func Mutants() map[string]Broken {
	return map[string]Broken{
		"skip the fence":          {MutantSkipFence, []string{"10 promotion"}},
		"ignore the boot id":      {MutantIgnoreBoot, []string{"R10 permits"}},
		"act on old orders":       {MutantOldOrders, []string{"4 order"}},
		"the image stays":         {MutantImageStays, []string{"6 leases kept"}},
		"blind for memory":        {MutantBlindMemory, []string{"3 capacity"}},
		"believe without reading": {MutantBelieve, []string{"5 exact failback", "1 single run", "3 capacity", "6 leases kept"}},
		"any generation":          {MutantAnyGeneration, []string{"5 exact failback", "1 single run", "10 promotion"}},
		"early lift":              {MutantEarlyLift, []string{"1 single run"}},
		"drop a lease":            {MutantDropLease, []string{"6 leases kept"}},
		"keep a network":          {MutantKeepNetwork, []string{"5 exact failback"}},
		"skip the seal":           {MutantSkipSeal, []string{"5 exact failback", "10 promotion"}},
		"early hand over":         {MutantEarlyHandOver, []string{"5 exact failback", "10 promotion"}},
		"forge a proof":           {MutantForgeProof, []string{"controllers"}},
		"skip an entry":           {MutantSkipEntry, []string{"R1 same state", "6 leases kept"}},
	}
}

// mutateDeclare changes the decision of a failover.
func (s *sim) mutateDeclare(d *pb.Declare) {
	if s.o.Mutant != MutantSkipFence {
		return
	}
	for _, st := range d.GetFailover().GetSteps() {
		if st.GetKind() == pb.Kind_KIND_VOLUME {
			st.Gates = nil
			d.Release = append(d.Release, st.GetId())
		}
	}
}

// mutateFailback changes the decision of a failback: the seal is left out, or not waited for.
func (s *sim) mutateFailback(c *pb.Failback) {
	if s.o.Mutant != MutantSkipSeal && s.o.Mutant != MutantEarlyHandOver {
		return
	}
	for _, st := range c.GetSteps() {
		for _, g := range st.GetGates() {
			for _, cond := range g.GetAnyOf() {
				if name, ok := strings.CutPrefix(cond.GetStepDone(), "seal "); ok {
					cond.Condition = &pb.Condition_StepDone{StepDone: "mirror back " + name}
				}
			}
		}
	}
	if s.o.Mutant == MutantSkipSeal {
		c.Steps = slices.DeleteFunc(c.GetSteps(), func(st *pb.Step) bool { return st.GetSpec().GetVolume().GetSealed() })
	}
}

// mutateCommands changes what the controllers decided.
func (s *sim) mutateCommands(m *member, cmds []*pb.Command) []*pb.Command {
	switch s.o.Mutant {
	case MutantEarlyLift:
		return append(cmds, s.earlyLift(m)...)
	case MutantDropLease:
		if s.now%97 != 0 {
			break
		}
		for l := range m.st.Leases() {
			return append(cmds, &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{
				Drop: []string{l.GetInstances()[0].GetObject()},
			}}})
		}
	case MutantForgeProof:
		for _, c := range cmds {
			clear(c.GetRecordGuarantee().GetGuarantee().GetCertificate().GetObligations())
		}
	default:
	}
	return cmds
}

// earlyLift takes the fence back as soon as a run goes back.
func (s *sim) earlyLift(m *member) []*pb.Command {
	for f := range m.st.OpenFailovers() {
		if f.GetPhase() != pb.RunPhase_RUN_PHASE_FAILING_BACK {
			continue
		}
		for _, st := range f.GetSteps() {
			if st.GetKind() == pb.Kind_KIND_FENCE && st.GetPhase() == pb.StepPhase_STEP_PHASE_DONE {
				return []*pb.Command{{Body: &pb.Command_AdvanceRun{AdvanceRun: &pb.AdvanceRun{
					Failover: f.GetName(), Changes: []*pb.StepChange{{Step: st.GetId(), Phase: pb.StepPhase_STEP_PHASE_REVERTING}},
				}}}}
			}
		}
	}
	return nil
}

// withoutGates drops the local gates of a spec.
func withoutGates(spec *pb.Spec) *pb.Spec {
	if len(spec.GetAfter()) == 0 {
		return spec
	}
	out := &pb.Spec{State: spec.GetState(), Parameters: spec.GetParameters()}
	return out
}

// keepsNetwork says whether the removal of a network is left out.
func (s *sim) keepsNetwork(spec *pb.NetworkSpec) bool {
	return s.o.Mutant == MutantKeepNetwork && slices.Contains([]string{"prod"}, spec.GetName())
}
