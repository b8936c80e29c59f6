package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/readiness"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// maxResources bounds one apply.
const maxResources = 10_000

// Apply stores resources, all or none, after it has checked each and that the plans still fit.
func (s *Server) Apply(ctx context.Context, req *pb.ApplyRequest) (*pb.ApplyResponse, error) {
	if err := checkAll(req.GetResources()); err != nil {
		return nil, err
	}
	out := &pb.ApplyResponse{}
	_, err := s.decide(ctx, func(st *state.State) (*pb.Command, error) {
		out.Outcomes = nil
		body := &pb.ApplyResources{}
		expects := []*pb.Expect{{Key: "placement", Version: st.Meta().GetPlacementVersion()}}
		for _, r := range req.GetResources() {
			key := model.ResourceKey(r)
			action := change(st.Resource(key), r)
			out.Outcomes = append(out.Outcomes, &pb.ApplyOutcome{Key: key, Action: action})
			if action != unchanged {
				body.Resources = append(body.Resources, r)
			}
		}
		if err := references(st, req.GetResources()); err != nil {
			return nil, err
		}
		if err := noCycle(st, req.GetResources()); err != nil {
			return nil, err
		}
		if err := s.stillFits(st, body, req); err != nil {
			return nil, err
		}
		if req.GetDryRun() || len(body.GetResources()) == 0 {
			return nil, errDone
		}
		return &pb.Command{RequestId: req.GetRequestId(), Expects: expects, Body: &pb.Command_ApplyResources{ApplyResources: body}}, nil
	})
	if errors.Is(err, errDone) {
		err = nil
	}
	return out, err
}

// checkAll refuses resources that are wrong by themselves, all faults at once.
func checkAll(rs []*pb.Resource) error {
	if len(rs) == 0 || len(rs) > maxResources {
		return model.Errorf(model.FaultInvalid, "", "%d resources in one call", len(rs)).WithRemedy("send 1 to %d", maxResources)
	}
	var faults []string
	seen := map[string]bool{}
	for _, r := range rs {
		key := model.ResourceKey(r)
		if seen[key] {
			faults = append(faults, key+": named twice in one call")
		}
		seen[key] = true
		for _, f := range model.ValidateResource(r) {
			faults = append(faults, fmt.Sprintf("%s: %s: %s", key, f.Path, f.Message))
		}
	}
	if len(faults) > 0 {
		return model.Errorf(model.FaultInvalid, "", "%s", strings.Join(faults, "; "))
	}
	return nil
}

const unchanged = "unchanged"

// change says what applying a resource does: nothing when its spec and labels are as stored.
func change(old, now *pb.Resource) string {
	if old == nil {
		return "created"
	}
	bare := func(r *pb.Resource) *pb.Resource {
		r = proto.CloneOf(r)
		m := model.MetadataOf(r)
		m.ResourceVersion, m.Revision = 0, 0
		if t := r.GetTrigger(); t != nil {
			t.Status = nil
		}
		return r
	}
	if proto.Equal(bare(old), bare(now)) {
		return unchanged
	}
	return "configured"
}

// references refuses resources that name others which neither exist nor come with them.
func references(st *state.State, rs []*pb.Resource) error {
	have := map[string]bool{}
	for _, r := range rs {
		have[model.ResourceKey(r)] = true
	}
	for _, r := range rs {
		for _, ref := range model.References(r) {
			if !have[ref] && st.Resource(ref) == nil {
				return model.Errorf(model.FaultPrecondition, model.ResourceKey(r), "refers to %s, which does not exist", ref).
					WithRemedy("apply it before, or in the same call")
			}
		}
		if t := r.GetNetwork(); t != nil && t.GetSpec().GetBridge() == "" {
			return model.Errorf(model.FaultInvalid, model.ResourceKey(r), "names no bridge").WithRemedy("add spec.bridge")
		}
	}
	return nil
}

// noCycle refuses plans whose workloads wait for each other, also across plans.
func noCycle(st *state.State, rs []*pb.Resource) error {
	plans := map[string]*pb.Plan{}
	for p := range st.Plans() {
		plans[p.GetMetadata().GetName()] = p
	}
	for _, r := range rs {
		if p := r.GetPlan(); p != nil {
			plans[p.GetMetadata().GetName()] = p
		}
	}
	if c := model.PlanCycle(slices.Collect(maps.Values(plans))); c != nil {
		return model.Errorf(model.FaultInvalid, "", "workloads depend on each other: %s", strings.Join(c, " -> ")).
			WithRemedy("take one of the dependencies out")
	}
	return nil
}

// touchesFit says whether a resource is among what the proof rests on.
func touchesFit(kind string) bool {
	return slices.Contains([]string{"plan", "host", "scenario", "pool", "network"}, kind)
}

// stillFits runs the guarantee over the site as it would be.
func (s *Server) stillFits(st *state.State, body *pb.ApplyResources, req *pb.ApplyRequest) error {
	touches := slices.ContainsFunc(body.GetResources(), func(r *pb.Resource) bool {
		kind, _, _ := strings.Cut(model.ResourceKey(r), "/")
		return touchesFit(kind)
	})
	if !touches || req.GetAcceptUnproven() {
		return nil
	}
	return s.noWorse(st, &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: body}},
		"make the plans smaller, add hosts, or use --accept-unproven: the site then lends nothing until they fit")
}

// tried is the state as it would be after a command, which is not a request that could be repeated.
func (s *Server) tried(st *state.State, c *pb.Command) (*state.State, state.Result) {
	c = proto.CloneOf(c)
	c.RequestId = ""
	return st.Apply(st.Index()+1, st.Meta().GetTerm(), c)
}

// noWorse refuses what would make the proof worse (invariant 2), with what would be accepted.
func (s *Server) noWorse(st *state.State, c *pb.Command, remedy string) error {
	next, res := s.tried(st, c)
	if res.Err != nil {
		return res.Err
	}
	if out := standing.Look(st, next, s.site.Live()); out.Worse() {
		return model.Errorf(model.FaultNoFit, "", "with this the site would be %s", out).WithRemedy("%s", out.Remedy(remedy))
	}
	over := readiness.Overlent(st, s.site.Live())
	for host, why := range readiness.Overlent(next, s.site.Live()) { // Any order: one is enough.
		if over[host] == "" {
			return model.Errorf(model.FaultNoFit, "host/"+host, "%s", why).WithRemedy("%s", remedy)
		}
	}
	return nil
}

// GetResource returns one resource; for a plan also whether it is ready.
func (s *Server) GetResource(ctx context.Context, req *pb.GetResourceRequest) (*pb.GetResourceResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	r := st.Resource(req.GetKind() + "/" + req.GetName())
	if r == nil {
		return nil, model.Errorf(model.FaultNotFound, req.GetKind()+"/"+req.GetName(), "no such resource").
			WithRemedy("see: hotspare get %s", req.GetKind())
	}
	out := &pb.GetResourceResponse{Resource: r}
	if p := r.GetPlan(); p != nil {
		_, _, proof := readiness.Guarantee(st, s.site.Live())
		out.Readiness = readiness.Plan(st, s.site.Live(), p, proof)
		out.Seats = readiness.Seats(st, s.site.Live(), req.GetName(), proof)
	}
	return out, nil
}

// ListResources lists the resources of one kind, or all.
func (s *Server) ListResources(ctx context.Context, req *pb.ListResourcesRequest) (*pb.ListResourcesResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	var all []*pb.Resource
	for r := range st.Resources(req.GetKind()) {
		all = append(all, r)
	}
	rows, next := page(all, model.ResourceKey, pageSize(req.GetPageSize()), req.GetPageToken())
	return &pb.ListResourcesResponse{Resources: rows, NextPageToken: next}, nil
}

// DeleteResource removes a resource that nothing refers to, unless a plan would not fit without it.
func (s *Server) DeleteResource(ctx context.Context, req *pb.DeleteResourceRequest) (*pb.DeleteResourceResponse, error) {
	_, err := s.decide(ctx, func(st *state.State) (*pb.Command, error) {
		c := &pb.Command{RequestId: req.GetRequestId(), Body: &pb.Command_DeleteResource{DeleteResource: req}}
		if !touchesFit(req.GetKind()) || s.remembered(st, req.GetRequestId()) != "" {
			return c, nil
		}
		c.Expects = []*pb.Expect{{Key: "placement", Version: st.Meta().GetPlacementVersion()}}
		return c, s.noWorse(st, c, "apply what takes its place first")
	})
	return &pb.DeleteResourceResponse{}, err
}
