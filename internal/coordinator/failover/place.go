package failover

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/runbook"
)

// Place decides what open runs can take in now that they had to leave out when they were declared: room
// has appeared, or an agent that keeps what was missing. What they have is not moved. It costs a search,
// so the coordinator asks less often than Advance.
func Place(s *state.State, v live.View) []*pb.Command {
	var out []*pb.Command
	for f := range s.OpenFailovers() {
		if !model.Placing(f.GetPhase()) || len(f.GetWaiting()) == 0 {
			continue
		}
		if body := place(s, v, f); body != nil {
			out = append(out, &pb.Command{
				Body: &pb.Command_PlaceRun{PlaceRun: body},
				Expects: []*pb.Expect{
					{Key: "failover/" + f.GetName(), Version: f.GetVersion()}, {Key: "placement", Version: s.Meta().GetPlacementVersion()},
				},
			})
		}
	}
	return out
}

// Lose returns the command by which a host is lost, on an operator's word. Runs are pinned to what their
// plans said when they were declared; of one of which nothing was unplaced that is known no more once it
// was edited, and what it says now counts.
func Lose(s *state.State, host, reason string, now time.Time, retention time.Duration) *pb.LoseHost {
	out := &pb.LoseHost{Host: host, Reason: reason, DeleteAfter: timestamppb.New(now.Add(retention))}
	for f := range s.OpenFailovers() {
		for _, p := range f.GetPlacements() {
			plan := s.Plan(p.GetPlan())
			if p.GetHost() == host && plan != nil && !slices.Contains(out.GetPlans(), plan) {
				out.Plans = append(out.Plans, plan)
			}
		}
	}
	return out
}

// waiting are the plans of which something is unplaced.
func waiting(plans []*pb.Plan, left []*pb.Unplaced) []*pb.Plan {
	var out []*pb.Plan
	for _, p := range plans {
		if slices.ContainsFunc(left, func(u *pb.Unplaced) bool { return u.GetPlan() == p.GetMetadata().GetName() }) {
			out = append(out, p)
		}
	}
	return out
}

// place returns what is added to the run, or nil. What finds room but cannot be made all the same gives
// its room up to the others.
func place(s *state.State, v live.View, f *pb.Failover) *pb.PlaceRun {
	want := slices.DeleteFunc(replicas(f.GetWaiting()), func(r replica) bool { return !unplaced(f.GetUnplaced(), r.Plan, r.Name) })
	for {
		next := proto.CloneOf(f)
		assign(s, v, next, want)
		graph, err := runbook.Compile(runbook.Input{
			Epoch: f.GetEpoch(), Run: f.GetRun(), Plans: f.GetWaiting(), Placements: next.GetPlacements(), Victims: present(s, next.GetVictims()),
			Resource: s.Resource, Object: s.Object, HostNames: HostNames(s),
		})
		if err != nil {
			return nil // A victim is gone since: the next version of the state decides anew.
		}
		before := len(want)
		want = slices.DeleteFunc(want, func(r replica) bool { return unplaced(graph.Unplaced, r.Plan, r.Name) })
		if len(want) == before {
			graph.Release = free(s, f.GetEpoch(), graph.Steps, graph.Release)
			return addition(f, next, graph)
		}
	}
}

// present leaves out the victims that were lost with their hosts.
func present(s *state.State, victims []*pb.Victim) []*pb.Victim {
	return slices.DeleteFunc(slices.Clone(victims), func(v *pb.Victim) bool { return s.Object(v.GetObject()) == nil })
}

func unplaced(list []*pb.Unplaced, plan, workload string) bool {
	return slices.ContainsFunc(list, func(u *pb.Unplaced) bool { return u.GetPlan() == plan && u.GetWorkload() == workload })
}

// addition is what the graph has more than the run, or nil when nothing of what is unplaced is in it.
func addition(f, next *pb.Failover, graph runbook.Graph) *pb.PlaceRun {
	out := &pb.PlaceRun{
		Failover: f.GetName(), Placements: next.GetPlacements()[len(f.GetPlacements()):], Victims: next.GetVictims()[len(f.GetVictims()):],
		Objects: graph.Objects,
	}
	for _, u := range f.GetUnplaced() {
		placed := slices.ContainsFunc(out.GetPlacements(), func(p *pb.Placement) bool {
			return p.GetPlan() == u.GetPlan() && p.GetWorkload() == u.GetWorkload()
		})
		if !placed && (!runbook.Endpoint(u) || unplaced(graph.Unplaced, u.GetPlan(), u.GetWorkload())) {
			out.Unplaced = append(out.Unplaced, u)
		}
	}
	if len(out.GetUnplaced()) == len(f.GetUnplaced()) {
		return nil
	}
	for _, st := range graph.Steps {
		if slices.ContainsFunc(f.GetSteps(), func(o *pb.Step) bool { return o.GetId() == st.GetId() }) {
			continue
		}
		out.Steps = append(out.Steps, st)
		if slices.Contains(graph.Release, st.GetId()) {
			out.Release = append(out.Release, st.GetId())
		}
	}
	return out
}
