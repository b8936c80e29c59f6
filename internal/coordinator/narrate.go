package coordinator

import (
	"log/slog"
	"slices"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// narrator writes what the log of raft did to runs and leases as lines that an operator would want in
// an incident's time line: a failover can be told from them and the agents' lines alone. Only the
// leader's narrator speaks, so that each thing is said once. It is used by the goroutine that applies.
type narrator struct {
	log    *slog.Logger
	runs   map[string]*pb.Failover
	leases map[string]pb.LeasePhase
}

func newNarrator(log *slog.Logger) *narrator {
	return &narrator{log: log, runs: map[string]*pb.Failover{}, leases: map[string]pb.LeasePhase{}}
}

// take tells what one entry changed; after a restore changed is nil, and nothing is said.
func (n *narrator) take(st *state.State, changed []string, speak bool) {
	if changed == nil {
		clear(n.runs)
		clear(n.leases)
		for f := range st.Failovers() {
			n.runs[f.GetName()] = f
		}
		for l := range st.Leases() {
			n.leases[l.GetName()] = l.GetPhase()
		}
		return
	}
	for _, key := range changed {
		kind, name, _ := strings.Cut(key, "/")
		switch kind {
		case "failover":
			f := st.Failover(name)
			if speak && f != nil {
				n.run(n.runs[name], f)
			}
			n.runs[name] = f
		case "lease":
			phase := st.Lease(name).GetPhase()
			if speak && phase != n.leases[name] && phase != pb.LeasePhase_LEASE_PHASE_UNSPECIFIED {
				n.log.Info("lease phase changed", "lease", name, "phase", strings.TrimPrefix(phase.String(), "LEASE_PHASE_"), "reason", st.Lease(name).GetReason())
			}
			n.leases[name] = phase
		}
	}
}

func (n *narrator) run(before, f *pb.Failover) {
	log := n.log.With("failover", f.GetName())
	if before == nil {
		var plans []string
		for _, p := range f.GetPlans() {
			plans = append(plans, p.GetPlan())
		}
		log.Info("failover declared", "plans", strings.Join(plans, ","), "drains", f.GetDrainedHost(), "actor", f.GetDeclaredBy(), "reason", f.GetReason(),
			"steps", len(f.GetSteps()), "victims", len(f.GetVictims()), "unplaced", len(f.GetUnplaced()))
	}
	if before != nil {
		for _, p := range f.GetPlacements() {
			if slices.ContainsFunc(before.GetPlacements(), func(o *pb.Placement) bool { return o.GetObject() == p.GetObject() }) {
				continue
			}
			log.Info("workload placed later", "plan", p.GetPlan(), "workload", p.GetWorkload(), "host", p.GetHost())
		}
	}
	for _, o := range f.GetOaths()[min(len(before.GetOaths()), len(f.GetOaths())):] {
		log.Info("oath sworn", "plan", o.GetPlan(), "actor", o.GetPerson(), "reason", o.GetReason())
	}
	was := map[string]*pb.Step{}
	for _, s := range before.GetSteps() {
		was[s.GetId()] = s
	}
	for _, s := range f.GetSteps() {
		n.step(log, was[s.GetId()], s)
	}
	if before.GetPhase() != f.GetPhase() {
		log.Info("run phase changed", "phase", model.PhaseName(f.GetPhase()))
	}
}

func (n *narrator) step(log *slog.Logger, was, s *pb.Step) {
	log = log.With("step", s.GetId(), "object", s.GetObject(), "host", s.GetAgent())
	if was.GetHealthyAt() == nil && s.GetHealthyAt() != nil {
		log.Info("step healthy")
	}
	if was.GetPhase() == s.GetPhase() && was.GetGeneration() == s.GetGeneration() {
		return
	}
	switch s.GetPhase() {
	case pb.StepPhase_STEP_PHASE_RELEASED:
		log.Info("step released", "opened_by", s.GetOpenedBy(), "generation", s.GetGeneration())
	case pb.StepPhase_STEP_PHASE_DONE:
		log.Info("step finished", "note", s.GetMessage(), "took", s.GetDoneAt().AsTime().Sub(s.GetReleasedAt().AsTime()))
	case pb.StepPhase_STEP_PHASE_FAILED:
		log.Warn("step failed", "reason", s.GetMessage())
	case pb.StepPhase_STEP_PHASE_SKIPPED:
		log.Info("step skipped", "reason", s.GetMessage())
	case pb.StepPhase_STEP_PHASE_REVERTING:
		log.Info("step reverting", "generation", s.GetGeneration())
	case pb.StepPhase_STEP_PHASE_REVERTED:
		log.Info("step reverted")
	default: // A pending step is no news.
	}
}

// carriedOn says what a new leader takes over, so that what the last one had no time to say is not lost.
func carriedOn(log *slog.Logger, st *state.State) {
	for f := range st.OpenFailovers() {
		open := 0
		for _, s := range f.GetSteps() {
			switch s.GetPhase() {
			case pb.StepPhase_STEP_PHASE_PENDING, pb.StepPhase_STEP_PHASE_RELEASED, pb.StepPhase_STEP_PHASE_REVERTING:
				open++
			default:
			}
		}
		log.Info("run carried on", "failover", f.GetName(), "phase", model.PhaseName(f.GetPhase()), "open_steps", open)
	}
}
