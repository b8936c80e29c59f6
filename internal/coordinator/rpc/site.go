package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/invariants"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/readiness"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/tabletop"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/trust"
	"github.com/hotspare/hotspare/internal/trust/token"
)

// GetStatus returns the site on one screen.
func (s *Server) GetStatus(ctx context.Context, req *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	v := s.site.Live()
	word, reason, proof := readiness.Guarantee(st, v)
	out := &pb.GetStatusResponse{
		Guarantee: word, GuaranteeReason: reason, Lent: lent(st), Members: s.site.Members(), Alarms: readiness.Alarms(st, v), Index: st.Index(),
		GuaranteeSince: guaranteeSince(st, word),
		Margins:        readiness.Margins(st, v, proof), Weakest: readiness.Weakest(st, v, proof),
	}
	if req.GetStale() {
		out.Age = durationpb.New(s.site.Age())
	}
	for p := range st.Plans() {
		out.Plans = append(out.Plans, readiness.Plan(st, v, p, proof))
	}
	for f := range st.OpenFailovers() {
		out.Open = append(out.Open, f)
	}
	for h := range st.Hosts() {
		out.Hosts++
		if v.Agent(h.GetName()).Connected {
			out.HostsConnected++
		}
	}
	return out, nil
}

// guaranteeSince is since when the coordinators have agreed on the word.
func guaranteeSince(st *state.State, word string) *timestamppb.Timestamp {
	if g := st.Guarantee(); g.GetWord() == word {
		return g.GetSince()
	}
	return nil
}

// lent sums up what the site has and what of it is lent.
func lent(st *state.State) *pb.Lent {
	out := &pb.Lent{}
	for h := range st.Hosts() {
		if h.GetOffer().GetHypervisor() && !h.GetOffer().GetProtectedSite() && h.GetLostAt() == nil {
			t := model.HostTotal(h)
			out.TotalVcpus += uint32(t.TotalVCPUs)
			out.TotalMemoryBytes += t.TotalMemoryBytes
		}
	}
	for l := range st.Leases() {
		n := uint32(len(l.GetInstances()))
		switch l.GetPhase() {
		case pb.LeasePhase_LEASE_PHASE_ACTIVE, pb.LeasePhase_LEASE_PHASE_RETURNING:
			out.Instances += n
			out.Vcpus += n * l.GetSpec().GetResources().GetVcpus()
			out.MemoryBytes += uint64(n) * l.GetSpec().GetResources().GetMemoryBytes()
		case pb.LeasePhase_LEASE_PHASE_PREEMPTED:
			out.Preempted += n
		case pb.LeasePhase_LEASE_PHASE_QUEUED:
			out.Queued++
		default:
		}
	}
	return out
}

// ListHosts lists all hosts with what the leader sees of them.
func (s *Server) ListHosts(ctx context.Context, req *pb.ListHostsRequest) (*pb.ListHostsResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	var all []*pb.Host
	risks := readiness.Risks(st, s.site.Live())
	for h := range st.Hosts() {
		h = s.withLive(st, h)
		h.Live.AtRisk = risks[h.GetName()]
		all = append(all, h)
	}
	hosts, next := page(all, (*pb.Host).GetName, rows(req.GetPageSize()), req.GetPageToken())
	return &pb.ListHostsResponse{Hosts: hosts, NextPageToken: next}, nil
}

func (s *Server) withLive(st *state.State, h *pb.Host) *pb.Host {
	h, v := proto.CloneOf(h), s.site.Live()
	a := v.Agent(h.GetName())
	h.Live = &pb.HostLive{Session: "unknown", Since: timestamppb.New(a.Since)}
	switch {
	case h.GetLostAt() != nil:
		h.Live.Session, h.Live.Since = "lost", h.GetLostAt()
	case a.Connected && a.Held == "":
		h.Live.Session = "connected"
	case a.Connected:
		h.Live.Session = "held"
	case a.Name != "":
		h.Live.Session = "silent"
	default:
		h.Live.Since = nil
	}
	for _, d := range h.GetAnnounced() {
		if _, err := failover.Begin(st, v, s.site.Now(), h, d); err != nil {
			h.Live.Overdue = err.Error()
		}
	}
	if f := failover.DrainOf(st, h.GetName()); f != nil && h.GetCordoned() {
		h.Live.Drain, h.Live.Drained = f.GetName(), f.GetPhase() == pb.RunPhase_RUN_PHASE_COMPLETED
	}
	for o := range st.ObjectsOf(h.GetName()) {
		if model.Effective(o).GetState() != pb.State_STATE_RUNNING {
			continue
		}
		if o.GetLease() != "" {
			h.Live.LentInstances++
		} else {
			h.Live.ProtectedInstances++
		}
	}
	return h
}

// UpdateHost cordons, drains, uncordons, removes, readmits or loses a host.
func (s *Server) UpdateHost(ctx context.Context, req *pb.UpdateHostRequest) (*pb.UpdateHostResponse, error) {
	out := &pb.UpdateHostResponse{}
	_, err := s.decide(ctx, func(st *state.State) (*pb.Command, error) {
		if req.GetAction() == "lose" {
			return s.loseHost(st, req)
		}
		c := &pb.Command{RequestId: req.GetRequestId(), Body: &pb.Command_UpdateHost{UpdateHost: req}}
		if s.remembered(st, req.GetRequestId()) != "" {
			return c, nil // Apply answers a repeat with the first outcome.
		}
		if takesHost(req) { // What else is decided meanwhile may need this very host.
			c.Expects = []*pb.Expect{{Key: "placement", Version: st.Meta().GetPlacementVersion()}}
		}
		if req.GetAction() == "drain" && req.GetStartAt() == nil {
			body, expects, err := failover.Drain(st, req, actor(ctx).Name)
			if err != nil {
				return nil, err
			}
			out.Victims = body.GetFailover().GetVictims()
			c.Body, c.Expects = &pb.Command_Declare{Declare: body}, expects
		}
		before, after, err := s.hostChange(st, c, req)
		if err == nil && req.GetDryRun() {
			out.Before, out.After, err = before, after, errDone
		}
		return c, err
	})
	if err != nil && !errors.Is(err, errDone) {
		return nil, err
	}
	st := s.site.State()
	if h := st.Host(req.GetName()); h != nil {
		out.Host = s.withLive(st, h)
	}
	return out, nil
}

func takesHost(req *pb.UpdateHostRequest) bool {
	return slices.Contains([]string{"cordon", "drain", "remove"}, req.GetAction())
}

// hostChange says what the guarantee would be after a change. Taking a host away may break it: then that is
// the answer (invariant 2).
func (s *Server) hostChange(st *state.State, c *pb.Command, req *pb.UpdateHostRequest) (is, will *pb.SiteProof, err error) {
	takes := takesHost(req)
	if !takes && !req.GetDryRun() {
		return nil, nil, nil
	}
	next, res := s.tried(st, c)
	if res.Err == nil && req.GetStartAt() != nil { // As if it began now.
		now := proto.CloneOf(req)
		now.StartAt = nil
		next, res = s.tried(st, &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: now}})
	}
	if res.Err != nil {
		return nil, nil, res.Err
	}
	out := standing.Look(st, next, s.site.Live())
	if tolerated := req.GetUseTolerance() && !out.After.Lost(); takes && out.Worse() && !tolerated {
		return nil, nil, model.Errorf(model.FaultNoFit, "host/"+req.GetName(), "without it the site would be %s", out).
			WithRemedy("%s", out.Remedy(remedyOf(req, out.After)))
	}
	return &pb.SiteProof{Guarantee: out.Before.Word(), Reason: out.Why(out.Before)}, &pb.SiteProof{Guarantee: out.After.Word(), Reason: out.Why(out.After)}, nil
}

// remedyOf says what would be accepted instead of a host taken away.
func remedyOf(req *pb.UpdateHostRequest, after guarantee.Decision) string {
	if req.GetAction() != "remove" && !after.Lost() {
		return "add a host or make a plan smaller first, or use up tolerance for a while: --use-tolerance --for 2h"
	}
	return "add a host or make a plan smaller first"
}

func (s *Server) loseHost(st *state.State, req *pb.UpdateHostRequest) (*pb.Command, error) {
	key := "host/" + req.GetName()
	if req.GetDryRun() {
		return nil, model.Errorf(model.FaultInvalid, key, "there is no dry run of a loss").
			WithRemedy("see: hotspare tabletop --lose-host %s", req.GetName())
	}
	if a := s.site.Live().Agent(req.GetName()); a.Connected && a.Held == "" {
		return nil, model.Errorf(model.FaultPrecondition, key, "is connected: it is not lost").
			WithRemedy("cordon it, end its leases, or cut its power first")
	}
	return &pb.Command{
		RequestId: req.GetRequestId(),
		Body:      &pb.Command_LoseHost{LoseHost: failover.Lose(st, req.GetName(), req.GetReason(), s.site.Now(), lease.Retention)},
		Expects:   []*pb.Expect{{Key: "placement", Version: st.Meta().GetPlacementVersion()}},
	}, nil
}

// CheckInvariants judges the invariants now.
func (s *Server) CheckInvariants(ctx context.Context, _ *pb.CheckInvariantsRequest) (*pb.CheckInvariantsResponse, error) {
	st, err := s.read(ctx, false)
	if err != nil {
		return nil, err
	}
	return &pb.CheckInvariantsResponse{Verdicts: invariants.Check(st, s.site.Live())}, nil
}

// Tabletop computes what would happen.
func (s *Server) Tabletop(ctx context.Context, req *pb.TabletopRequest) (*pb.TabletopResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	return tabletop.Answer(st, s.site.Live(), s.site.Now(), req, actor(ctx).String())
}

// Bounds of a join token's life.
const (
	defaultTokenLife = time.Hour
	maxTokenLife     = 7 * 24 * time.Hour
)

// CreateToken makes a join token for one agent. Only its hash is kept.
func (s *Server) CreateToken(ctx context.Context, req *pb.CreateTokenRequest) (*pb.CreateTokenResponse, error) {
	id := trust.Identity{Role: trust.RoleAgent, Name: req.GetHost()}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	life := req.GetValid().AsDuration()
	if req.GetValid() == nil {
		life = defaultTokenLife
	}
	if life <= 0 || life > maxTokenLife {
		return nil, model.Errorf(model.FaultInvalid, "", "a token cannot live %s", life).WithRemedy("at most %s", maxTokenLife)
	}
	authority, err := s.authority()
	if err != nil {
		return nil, err
	}
	t, err := token.New(rand.Reader, authority.Fingerprint())
	if err != nil {
		return nil, err
	}
	expires := timestamppb.New(s.site.Now().Add(life))
	// The request's id is not remembered: nobody keeps the secret that a repeat would have to be answered
	// with. A repeat makes another token, and the first one expires unused.
	if _, err := s.decide(ctx, func(*state.State) (*pb.Command, error) {
		return &pb.Command{Body: &pb.Command_StoreToken{StoreToken: &pb.StoreToken{
			TokenHash: t.Hash(), Host: req.GetHost(), ExpiresAt: expires,
		}}}, nil
	}); err != nil {
		return nil, err
	}
	return &pb.CreateTokenResponse{Token: t.Text(), ExpiresAt: expires, Authority: authority.CertificatePEM()}, nil
}

// authority returns the site's certificate authority from the replicated state.
func (s *Server) authority() (*trust.Authority, error) {
	m := s.site.State().Meta()
	if len(m.GetAuthorityKey()) == 0 {
		return nil, model.Errorf(model.FaultUnavailable, "authority", "the site has no certificate authority yet").
			WithRemedy("it is made when the first coordinator leads; try again")
	}
	return trust.ParseAuthority(m.GetAuthorityCertificate(), m.GetAuthorityKey())
}

// defaultClientLife is that of a user's certificate when nobody says another; trust.MaxUserLife bounds it.
const defaultClientLife = 90 * 24 * time.Hour

// IssueClient signs a client certificate for a user with a role.
func (s *Server) IssueClient(ctx context.Context, req *pb.IssueClientRequest) (*pb.IssueClientResponse, error) {
	id := trust.Identity{Role: trust.Role(req.GetRole()), Name: req.GetUser()}
	life := req.GetValid().AsDuration()
	if req.GetValid() == nil {
		life = defaultClientLife
	}
	if !id.Role.IsUser() {
		return nil, model.Errorf(model.FaultInvalid, "", "role %q is not one of a user", req.GetRole()).
			WithRemedy("use developer, operator or monitor")
	}
	if trust.IsLocal(id.Name) {
		return nil, model.Errorf(model.FaultInvalid, "", "%q is a name of the local socket", id.Name).WithRemedy("choose another user name")
	}
	authority, err := s.authority()
	if err != nil {
		return nil, err
	}
	cert, err := authority.Sign(trust.Order{Request: req.GetCsr(), Identity: id, Life: life, Now: s.site.Now()})
	if err != nil {
		return nil, err
	}
	made, err := trust.ParseCertificate(cert)
	if err != nil {
		return nil, err
	}
	// Nobody gets a certificate that the log of decisions does not name.
	if _, err := s.decide(ctx, func(*state.State) (*pb.Command, error) {
		return &pb.Command{Body: &pb.Command_RecordClient{RecordClient: &pb.RecordClient{
			User: id.Name, Role: string(id.Role), Serial: made.SerialNumber.Text(16), ExpiresAt: timestamppb.New(made.NotAfter),
		}}}, nil
	}); err != nil {
		return nil, err
	}
	return &pb.IssueClientResponse{Certificate: cert, Authority: authority.CertificatePEM()}, nil
}

// ListObjects lists objects with what is seen of them.
func (s *Server) ListObjects(ctx context.Context, req *pb.ListObjectsRequest) (*pb.ListObjectsResponse, error) {
	st, err := s.read(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	v := s.site.Live()
	var all []*pb.ObjectView
	for o := range st.Objects() {
		if req.GetAgent() == "" || o.GetAgent() == req.GetAgent() {
			all = append(all, &pb.ObjectView{Object: o, Status: v.Raw(o.GetId())})
		}
	}
	id := func(o *pb.ObjectView) string { return o.GetObject().GetId() }
	objects, next := page(all, id, rows(req.GetPageSize()), req.GetPageToken())
	return &pb.ListObjectsResponse{Objects: objects, NextPageToken: next}, nil
}

// ListEvidence returns a page of the log of decisions.
func (s *Server) ListEvidence(ctx context.Context, req *pb.ListEvidenceRequest) (*pb.ListEvidenceResponse, error) {
	st, err := s.read(ctx, false)
	if err != nil {
		return nil, err
	}
	n := pageSize(req.GetPageSize())
	out := &pb.ListEvidenceResponse{}
	bytes := 0
	for e := range st.Evidence(req.GetAfterSequence()) {
		if bytes += proto.Size(e); len(out.GetEntries()) == n || len(out.GetEntries()) > 0 && bytes > maxPageBytes {
			break
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}
