// Package tabletop answers what would happen if hosts were lost and plans declared now. It asks the
// deciders of the real thing, package failover and the state's apply, on a copy of the state, and decides
// nothing by itself. It is pure, and nothing that it computes may ever be committed. The RPC handlers call it.
package tabletop

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/readiness"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// reason is what the copy's records say.
const reason = "tabletop"

// what is the site as it would be, and who asks.
type what struct {
	*state.State
	v   live.View
	now time.Time
	by  string
}

// Answer computes what would happen. by is who asks.
func Answer(s *state.State, v live.View, now time.Time, req *pb.TabletopRequest, by string) (*pb.TabletopResponse, error) {
	lost, err := losses(s, req)
	if err != nil {
		return nil, err
	}
	w := &what{State: s, v: v, now: now, by: by}
	out := &pb.TabletopResponse{LostHosts: lost, Now: w.prove()}
	if err := w.lose(lost); err != nil {
		return nil, err
	}
	if len(lost) > 0 {
		out.AfterLosses = w.prove()
	}
	for l := range w.Leases() {
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_LOST && s.Lease(l.GetName()).GetPhase() != l.GetPhase() {
			out.LostLeases = append(out.LostLeases, l.GetName())
		}
	}
	for f := range w.OpenFailovers() {
		if len(f.GetLostHosts()) > len(s.Failover(f.GetName()).GetLostHosts()) {
			out.Open = append(out.Open, f)
		}
	}
	plans := req.GetPlans()
	if len(plans) == 0 {
		plans = idle(w.State)
	}
	if req.GetLoseOnly() || len(plans) == 0 {
		return out, nil
	}
	return out, w.declare(plans, out)
}

// declare fills in what a declaration of the plans would commit.
func (w *what) declare(plans []string, out *pb.TabletopResponse) error {
	body, _, err := failover.Declare(w.State, w.v, &pb.DeclareRequest{Plans: plans, Reason: reason}, w.by)
	if err != nil {
		return err
	}
	out.Failover = body.GetFailover()
	out.Reclaim = reclaim(w.State, out.GetFailover().GetVictims())
	if err := w.apply(&pb.Command{Body: &pb.Command_Declare{Declare: body}}); err != nil {
		return err
	}
	out.AfterDeclare = w.prove()
	return nil
}

func (w *what) prove() *pb.SiteProof {
	word, why, _ := readiness.Guarantee(w.State, w.v)
	return &pb.SiteProof{Guarantee: word, Reason: why}
}

func (w *what) apply(c *pb.Command) error {
	c.Actor, c.Time, c.Level = w.by, timestamppb.New(w.now), state.SupportedLevel
	next, res := w.Apply(w.Index()+1, w.Meta().GetTerm(), c)
	if res.Err == nil {
		w.State = next
	}
	return res.Err
}

// lose takes the hosts out one by one, and lets open runs place anew what they had there.
func (w *what) lose(hosts []string) error {
	for _, h := range hosts {
		c := &pb.Command{Body: &pb.Command_LoseHost{LoseHost: failover.Lose(w.State, h, reason, w.now, lease.Retention)}}
		if err := w.apply(c); err != nil {
			return err
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	for _, c := range failover.Place(w.State, w.v) {
		// Of two runs that want the same room the second would decide anew.
		if err := w.apply(c); err != nil && model.FaultOf(err) != model.FaultStale {
			return err
		}
	}
	return nil
}

// losses names the hosts that the question takes away, in order.
func losses(s *state.State, req *pb.TabletopRequest) ([]string, error) {
	names := failover.HostNames(s)
	out := slices.Clone(req.GetLoseHosts())
	for _, name := range out {
		if !slices.Contains(names, name) {
			return nil, unknown("host", name, names, "no hypervisor host of the recovery site")
		}
	}
	var domains []string
	for _, name := range names {
		domains = append(domains, s.Host(name).GetPolicy().GetFailureDomain())
	}
	for _, d := range req.GetLoseFailureDomains() {
		if d == "" || !slices.Contains(domains, d) {
			return nil, unknown("failure domain", d, domains, "no host is in this failure domain")
		}
		for i, name := range names {
			if domains[i] == d {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(name string) bool { return s.Host(name).GetLostAt() != nil }), nil
}

func unknown(kind, name string, known []string, what string) error {
	e := model.Errorf(model.FaultNotFound, kind+"/"+name, "%s", what)
	known = slices.DeleteFunc(slices.Clone(known), func(k string) bool { return k == "" })
	if near := model.Nearest(name, known); near != "" {
		return e.WithRemedy("did you mean %q?", near)
	}
	slices.Sort(known)
	if known = slices.Compact(known); len(known) == 0 {
		return e.WithRemedy("there is none")
	}
	return e.WithRemedy("known: %s", strings.Join(known[:min(len(known), 20)], ", "))
}

// idle are the plans that could be declared.
func idle(s *state.State) (out []string) {
	for p := range s.Plans() {
		if name := p.GetMetadata().GetName(); s.OpenFailoverOf(name) == nil {
			out = append(out, name)
		}
	}
	return out
}

// reclaim bounds for each host how long taking back its victims takes.
func reclaim(s *state.State, victims []*pb.Victim) (out []*pb.HostReclaim) {
	reader := demand.NewReader(s)
	parts := map[string][]guarantee.Reclaim{}
	for _, v := range victims {
		i := slices.IndexFunc(out, func(r *pb.HostReclaim) bool { return r.GetHost() == v.GetHost() })
		if i < 0 {
			i = len(out)
			out = append(out, &pb.HostReclaim{Host: v.GetHost()})
		}
		if !slices.Contains(out[i].GetLeases(), v.GetLease()) {
			out[i].Leases = append(out[i].Leases, v.GetLease())
		}
		r := reader.Instance(v.GetLease(), s.Lease(v.GetLease()).GetClass(), s.Lease(v.GetLease()).GetSpec()).Reclaim
		parts[v.GetHost()] = append(parts[v.GetHost()], r)
		out[i].SaveBytes += uint64(r.SaveBytes)
	}
	for _, r := range out {
		if r.GetSaveBytes() == 0 { // No host's rate of saving is measured yet.
			r.Bound = durationpb.New(guarantee.Bound(0, parts[r.GetHost()]...))
		}
	}
	slices.SortFunc(out, func(a, b *pb.HostReclaim) int { return strings.Compare(a.GetHost(), b.GetHost()) })
	return out
}
