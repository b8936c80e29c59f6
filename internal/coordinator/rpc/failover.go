package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// Declare starts a failover, or joins the open one. The answer comes after the commit; the first
// orders have left by then.
func (s *Server) Declare(ctx context.Context, req *pb.DeclareRequest) (*pb.DeclareResponse, error) {
	joined := false
	var known *pb.Failover
	r, err := s.decide(ctx, func(st *state.State) (*pb.Command, error) {
		if s.remembered(st, req.GetRequestId()) != "" {
			// Apply answers a repeat with the first outcome, and refuses the id for anything else.
			return &pb.Command{RequestId: req.GetRequestId(), Body: &pb.Command_Declare{}}, nil
		}
		known = failover.Join(st, req)
		if joined = known != nil; joined {
			return nil, errDone
		}
		if err := failover.CheckTrigger(st, s.site.Live(), s.site.Now(), req); err != nil {
			return nil, err
		}
		body, expects, err := failover.Declare(st, s.site.Live(), req, actor(ctx).String())
		if err != nil {
			return nil, err
		}
		if req.GetDryRun() {
			known = body.GetFailover()
			return nil, errDone
		}
		return &pb.Command{RequestId: req.GetRequestId(), Expects: expects, Body: &pb.Command_Declare{Declare: body}}, nil
	})
	if errors.Is(err, errDone) {
		return &pb.DeclareResponse{Failover: known, Joined: joined}, nil
	}
	if err != nil {
		return nil, err
	}
	return &pb.DeclareResponse{Failover: s.site.State().Failover(r.Name)}, nil
}

// errDone ends a decision that needs no command.
var errDone = errors.New("nothing to commit")

// find returns a run by its name, or the newest run of a plan with that name.
func find(st *state.State, name string) (*pb.Failover, error) {
	if f := st.Failover(name); f != nil {
		return f, nil
	}
	var newest *pb.Failover
	for f := range st.Failovers() {
		for _, p := range f.GetPlans() {
			if p.GetPlan() == name {
				newest = f
			}
		}
	}
	if newest == nil {
		return nil, model.Errorf(model.FaultNotFound, "failover/"+name, "no such failover, and no failover of a plan with this name").
			WithRemedy("see: hotspare failover list")
	}
	return newest, nil
}

// GetFailover returns one run.
func (s *Server) GetFailover(ctx context.Context, req *pb.GetFailoverRequest) (*pb.GetFailoverResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	f, err := find(st, req.GetName())
	return &pb.GetFailoverResponse{Failover: f, Live: s.reports(f)}, err
}

// reports are what the agents say of a run's objects now.
func (s *Server) reports(f *pb.Failover) (out []*pb.Status) {
	v := s.site.Live()
	for _, step := range f.GetSteps() {
		if l := v.Raw(step.GetObject()); l != nil {
			out = append(out, l)
		}
	}
	return out
}

// ListFailovers lists runs, oldest first.
func (s *Server) ListFailovers(ctx context.Context, req *pb.ListFailoversRequest) (*pb.ListFailoversResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	var all []*pb.Failover
	for f := range st.Failovers() {
		all = append(all, f)
	}
	key := func(f *pb.Failover) string { return fmt.Sprintf("%020d", f.GetEpoch()) }
	rows, next := page(all, key, pageSize(req.GetPageSize()), req.GetPageToken())
	return &pb.ListFailoversResponse{Failovers: rows, NextPageToken: next}, nil
}

// reportEvery bounds how often a watch sends a run of which only the agents' reports have changed.
const reportEvery = time.Second

// WatchFailover sends the run at each change of it or, not more often than reportEvery, of what the agents report of it, until it
// has come to rest or the caller leaves.
func (s *Server) WatchFailover(req *pb.WatchFailoverRequest, stream grpc.ServerStreamingServer[pb.WatchFailoverResponse]) error {
	ctx := stream.Context()
	st, err := s.read(ctx, false)
	if err != nil {
		return err
	}
	f, err := find(st, req.GetName())
	if err != nil {
		return err
	}
	name, sent := f.GetName(), &pb.WatchFailoverResponse{}
	early := time.NewTicker(reportEvery)
	defer early.Stop()
	for due := false; ; {
		changed := s.site.Changed()
		f := s.site.State().Failover(name)
		if f == nil {
			return model.Errorf(model.FaultUnavailable, "failover/"+name, "is not known to this member any more")
		}
		if news := f.GetVersion() != sent.GetFailover().GetVersion(); news || due { // Else its objects are not looked at: there may be thousands.
			due = false
			if live := s.reports(f); news || !slices.Equal(live, sent.GetLive()) {
				early.Reset(reportEvery)
				sent = &pb.WatchFailoverResponse{Failover: f, Live: live}
				if err := stream.Send(sent); err != nil {
					return err
				}
			}
		}
		if !model.Open(f.GetPhase()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-early.C:
			due = true
		}
	}
}

// control proposes a command about one run and returns the run.
func (s *Server) control(ctx context.Context, name, requestID string, body func(f *pb.Failover) *pb.Command) (*pb.Failover, error) {
	r, err := s.decide(ctx, func(st *state.State) (*pb.Command, error) {
		f, err := find(st, name)
		if err != nil {
			return nil, err
		}
		c := body(f)
		c.RequestId = requestID
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	return s.site.State().Failover(r.Name), nil
}

// Swear records a named person's word that the old side is dead.
func (s *Server) Swear(ctx context.Context, req *pb.SwearRequest) (*pb.SwearResponse, error) {
	if req.GetReason() == "" {
		return nil, model.Errorf(model.FaultInvalid, "failover/"+req.GetName(), "an oath needs a reason").
			WithRemedy(`for example --reason "I saw the racks without power"`)
	}
	f, err := s.control(ctx, req.GetName(), req.GetRequestId(), func(f *pb.Failover) *pb.Command {
		return &pb.Command{Body: &pb.Command_Swear{Swear: &pb.SwearRequest{Name: f.GetName(), Plan: req.GetPlan(), Reason: req.GetReason()}}}
	})
	return &pb.SwearResponse{Failover: f}, err
}

// Control pauses, resumes, retries, skips or aborts.
func (s *Server) Control(ctx context.Context, req *pb.ControlRequest) (*pb.ControlResponse, error) {
	f, err := s.control(ctx, req.GetName(), req.GetRequestId(), func(f *pb.Failover) *pb.Command {
		return &pb.Command{Body: &pb.Command_Control{Control: &pb.ControlRequest{
			Name: f.GetName(), Action: req.GetAction(), Step: req.GetStep(), Reason: req.GetReason(),
		}}}
	})
	return &pb.ControlResponse{Failover: f}, err
}

// Failback begins the way back.
func (s *Server) Failback(ctx context.Context, req *pb.FailbackRequest) (*pb.FailbackResponse, error) {
	r, err := s.decide(ctx, func(st *state.State) (*pb.Command, error) {
		f, err := find(st, req.GetName())
		if err != nil {
			return nil, err
		}
		body, expects, err := &pb.Failback{Failover: f.GetName()}, []*pb.Expect(nil), error(nil)
		if s.remembered(st, req.GetRequestId()) == "" { // Apply answers a repeat with the first answer.
			body, expects, err = failover.Failback(st, f, req.GetReason(), req.GetDiscardRecoveryData())
		}
		return &pb.Command{RequestId: req.GetRequestId(), Body: &pb.Command_Failback{Failback: body}, Expects: expects}, err
	})
	if err != nil {
		return nil, err
	}
	return &pb.FailbackResponse{Failover: s.site.State().Failover(r.Name)}, nil
}

// Arm lets a trigger declare again, or keeps it from it.
func (s *Server) Arm(ctx context.Context, req *pb.ArmRequest) (*pb.ArmResponse, error) {
	_, err := s.decide(ctx, func(*state.State) (*pb.Command, error) {
		return &pb.Command{RequestId: req.GetRequestId(), Body: &pb.Command_Arm{Arm: req}}, nil
	})
	return &pb.ArmResponse{Trigger: s.site.State().Resource("trigger/" + req.GetTrigger()).GetTrigger()}, err
}
