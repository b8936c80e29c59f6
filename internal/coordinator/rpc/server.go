package rpc

import (
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/fleet"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// Site is the coordinator as the handlers need it.
type Site interface {
	// State and Live are the present versions.
	State() *state.State
	Live() live.View
	// Propose commits a command as the given actor and returns its outcome.
	Propose(ctx context.Context, actor string, c *pb.Command) (state.Result, error)
	// Verify returns nil when this member leads and has applied everything committed before.
	Verify(ctx context.Context) error
	// Leading returns nil when this member leads as far as it knows: enough for a proposal, which a
	// deposed leader cannot commit anyway.
	Leading() error
	// Changed returns a channel that is closed at the next change of state or live view.
	Changed() <-chan struct{}
	// Age says how old what this member shows may be: the time since it last heard from the leader or,
	// leading, from a quorum.
	Age() time.Duration
	// Members lists the coordinators.
	Members() []*pb.Member
	// Now is the wall clock.
	Now() time.Time
}

// Server serves all services.
type Server struct {
	pb.UnimplementedLeaseServiceServer
	pb.UnimplementedResourceServiceServer
	pb.UnimplementedFailoverServiceServer
	pb.UnimplementedSiteServiceServer
	pb.UnimplementedAgentServiceServer
	pb.UnimplementedMemberServiceServer

	site  Site
	fleet *fleet.Fleet
	// consoles that users read now.
	consoles consoles
	// refused counts leases that are refused.
	refused func(model.Fault)
}

// New returns a server for a site. refused hears of each lease that is refused.
func New(site Site, f *fleet.Fleet, refused func(model.Fault)) *Server {
	return &Server{site: site, fleet: f, refused: refused, consoles: consoles{open: map[trust.Identity]int{}}}
}

// Register adds every service to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	pb.RegisterLeaseServiceServer(g, s)
	pb.RegisterResourceServiceServer(g, s)
	pb.RegisterFailoverServiceServer(g, s)
	pb.RegisterSiteServiceServer(g, s)
	pb.RegisterAgentServiceServer(g, s)
	pb.RegisterMemberServiceServer(g, s)
}

// actor returns who calls, for quotas, ownership and evidence.
func actor(ctx context.Context) trust.Identity { return identityFrom(ctx) }

// read verifies leadership for a read that is not asked to be stale.
func (s *Server) read(ctx context.Context, stale bool) (*state.State, error) {
	if !stale {
		if err := s.site.Verify(ctx); err != nil {
			return nil, err
		}
	}
	return s.site.State(), nil
}

// maxTries bounds how often a decision is made again because the state changed under it (R3).
const maxTries = 20

// decide proposes what a decision returns and decides again when what it was based on has changed.
func (s *Server) decide(ctx context.Context, decision func(*state.State) (*pb.Command, error)) (state.Result, error) {
	var err error
	for range maxTries {
		if err = s.site.Leading(); err != nil {
			return state.Result{}, err
		}
		var c *pb.Command
		if c, err = decision(s.site.State()); err != nil {
			return state.Result{}, err
		}
		if c.GetRequestId() != "" {
			c.RequestDigest, _ = ctx.Value(digestKey{}).([]byte)
		}
		var r state.Result
		if r, err = s.site.Propose(ctx, actor(ctx).String(), c); err == nil {
			return r, nil
		}
		if model.FaultOf(err) != model.FaultStale || errors.Is(err, context.Canceled) {
			return state.Result{}, err
		}
	}
	return state.Result{}, &model.Error{Fault: model.FaultUnavailable, What: "the site changes faster than a decision can be made", Err: err}
}

// remembered returns the outcome of a request that was answered before.
func (s *Server) remembered(st *state.State, requestID string) string {
	if requestID == "" {
		return ""
	}
	return st.Request(requestID).GetResult()
}

// Bounds of a page of a list.
const (
	defaultPage = 100
	maxPage     = 1000
)

// pageSize is how many rows a page holds that was asked for with this size.
func pageSize(size int32) int {
	if size <= 0 {
		return defaultPage
	}
	return min(int(size), maxPage)
}

// maxPageBytes bounds a page: gRPC's clients take answers of up to 4 MiB unless they were told otherwise,
// and what is shown with a row comes on top. A single row may be larger.
const maxPageBytes = 2 << 20

// page cuts one page out of items ordered by key, of at most n rows; the token is the key after which it
// begins.
func page[T proto.Message](items []T, key func(T) string, n int, token string) (out []T, next string) {
	bytes := 0
	for _, item := range items {
		if token != "" && key(item) <= token {
			continue
		}
		if bytes += proto.Size(item); len(out) == n || len(out) > 0 && bytes > maxPageBytes {
			return out, key(out[len(out)-1])
		}
		out = append(out, item)
	}
	return out, ""
}

// rows is how many rows a page holds of what was not paged at first: all that fit, unless a size is asked for.
func rows(size int32) int {
	if size <= 0 {
		return math.MaxInt
	}
	return pageSize(size)
}
