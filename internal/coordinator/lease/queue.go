package lease

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

const (
	// patience is how long a lease in line is overtaken by others that fit where it does not.
	patience = 10 * time.Minute
	// furthest is how far ahead a lease may be asked for.
	furthest = 90 * 24 * time.Hour
	// explained bounds how many leases in line are told what they wait for: each costs an admission.
	explained = 50
)

// queue decides that a lease is to wait, because of what refuses it now; nil: nothing does but its time.
func (b *builder) queue(v live.View, req *pb.CreateLeaseRequest, refusal error) (*pb.CreateLease, error) {
	l := b.lease
	at := req.GetStartAt()
	switch {
	case refusal != nil && (at == nil && !req.GetQueue() || !waitable(refusal)):
		return nil, refusal
	case l.GetClass() == pb.LeaseClass_LEASE_CLASS_FIRM:
		return nil, model.Errorf(model.FaultInvalid, "", "a firm lease does not wait: what the plans need is not given back").
			WithRemedy("a preemptible lease may wait")
	}
	l.Instances, l.StartAt = nil, at // What was begun before it was refused.
	if err := b.ever(v); err != nil {
		return nil, err
	}
	return &pb.CreateLease{Lease: l, Queued: true}, model.CheckQueue(b.project, b.s.Leases())
}

// waitable says whether time may mend a refusal.
func waitable(err error) bool {
	f := model.FaultOf(err)
	return f == model.FaultNoFit || f == model.FaultQuota
}

// ever refuses what would not fit if nothing were lent and every host answered: it would wait for ever, and
// others behind it.
func (b *builder) ever(v live.View) error {
	own := model.CheckQuota(b.project, func(func(*pb.Lease) bool) {}, b.lease.GetSpec())
	if own != nil {
		return own
	}
	site, proven := standing.Site(b.s, v)
	if proven.Lost() {
		return nil // Nobody can say now.
	}
	empty := *site
	empty.Preemptible, empty.Kept, empty.Hosts = nil, nil, slices.Clone(site.Hosts)
	for i := range empty.Hosts {
		if empty.Hosts[i].State != guarantee.Lost {
			empty.Hosts[i].State = guarantee.Usable
		}
	}
	_, err := b.admit(newCounter(&empty, proven))
	if err != nil {
		return fmt.Errorf("it would wait for ever: even with nothing lent, %w", err)
	}
	return nil
}

// since is when a lease came into line, or will.
func since(l *pb.Lease) time.Time {
	at := l.GetCreatedAt().AsTime()
	if start := l.GetStartAt(); start != nil && start.AsTime().After(at) {
		return start.AsTime()
	}
	return at
}

// line lists the leases that wait and whose time has come, in the order in which they are tried: again and again
// the oldest of the project that has the smallest dominant share (the larger one of its shares of the site's
// processors and memory, divided by its weight), as if those before it had started.
func line(s *state.State, v live.View, now time.Time) []*pb.Lease {
	waiting := map[string][]*pb.Lease{}
	held := map[string]share{}
	for l := range s.Leases() {
		switch l.GetPhase() {
		case pb.LeasePhase_LEASE_PHASE_QUEUED:
			if l.GetStartAt() == nil || v.Clock.Doubt == "" && !now.Before(l.GetStartAt().AsTime()) {
				waiting[l.GetProject()] = append(waiting[l.GetProject()], l)
			}
		case pb.LeasePhase_LEASE_PHASE_ACTIVE, pb.LeasePhase_LEASE_PHASE_RETURNING:
			held[l.GetProject()] = held[l.GetProject()].with(l)
		default:
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	for _, of := range waiting { // Any order: each is sorted by itself.
		slices.SortStableFunc(of, older)
	}
	all := total(s)
	shareOf := func(project string) float64 {
		weight := s.Resource("project/" + project).GetProject().GetSpec().GetWeight()
		return held[project].of(all) / float64(max(weight, 1))
	}
	var out []*pb.Lease
	for len(waiting) > 0 {
		next := ""
		for project, of := range waiting { // Any order: ties are broken by the leases themselves.
			if next == "" || cmp.Or(cmp.Compare(shareOf(project), shareOf(next)), older(of[0], waiting[next][0])) < 0 {
				next = project
			}
		}
		l := waiting[next][0]
		out = append(out, l)
		held[next] = held[next].with(l)
		if waiting[next] = waiting[next][1:]; len(waiting[next]) == 0 {
			delete(waiting, next)
		}
	}
	return out
}

func older(a, b *pb.Lease) int {
	return cmp.Or(since(a).Compare(since(b)), a.GetCreatedAt().AsTime().Compare(b.GetCreatedAt().AsTime()), cmp.Compare(a.GetName(), b.GetName()))
}

// share is what a project holds, or the site has.
type share struct{ vcpus, memory float64 }

func (h share) with(l *pb.Lease) share {
	n, r := float64(max(l.GetSpec().GetCount(), 1)), l.GetSpec().GetResources()
	return share{h.vcpus + n*float64(r.GetVcpus()), h.memory + n*float64(r.GetMemoryBytes())}
}

func (h share) of(all share) float64 {
	return max(h.vcpus/max(all.vcpus, 1), h.memory/max(all.memory, 1))
}

func total(s *state.State) (out share) {
	for h := range s.Hosts() {
		if h.GetOffer().GetHypervisor() && !h.GetOffer().GetProtectedSite() {
			t := model.HostTotal(h)
			out.vcpus, out.memory = out.vcpus+float64(t.TotalVCPUs), out.memory+float64(t.TotalMemoryBytes)
		}
	}
	return out
}

// overdue is the first lease in line that nobody overtakes any more, or nil.
func overdue(s *state.State, v live.View, now time.Time, c *counter) *pb.Lease {
	for _, l := range line(s, v, now) {
		if keepsWaiting(s, c, l, now) {
			return l
		}
	}
	return nil
}

// keepsWaiting says whether nobody overtakes a lease any more: it has waited long enough, and the ends of leases
// that run now would let it start. One that is over its project's quota, or that fits on no host as the hosts are
// now, keeps nobody waiting: no term bounds how long that would last. Nor does one bound how long those that are
// preempted stay away, so that their claims stay.
func keepsWaiting(s *state.State, c *counter, l *pb.Lease, now time.Time) bool {
	if now.Sub(since(l)) <= patience {
		return false
	}
	_, err := begin(s, now, c.withoutLeases(), l)
	return err == nil
}

func goesFirst(l *pb.Lease) *model.Error {
	return model.Errorf(model.FaultNoFit, "", "has to wait: %s is in line since %s and is not overtaken any more",
		l.GetName(), since(l).UTC().Format("15:04"))
}

// Dequeue returns the command that starts the first lease in line which fits now, if there is one. It admits
// under the proof of the site, so that the caller runs it where a proof may take its time.
func Dequeue(s *state.State, v live.View, now time.Time) *pb.Command {
	waiting := line(s, v, now)
	if len(waiting) == 0 {
		return nil
	}
	c := newCounter(standing.Site(s, v))
	for _, l := range waiting {
		start, err := begin(s, now, c, l)
		switch {
		case err == nil:
			return &pb.Command{
				Body: &pb.Command_StartLease{StartLease: start},
				Expects: []*pb.Expect{
					{Key: "lease/" + l.GetName(), Version: l.GetVersion()}, {Key: "placement", Version: s.Meta().GetPlacementVersion()},
				},
			}
		case keepsWaiting(s, c, l, now):
			return nil // Those behind it would take the room that it waits for.
		}
	}
	return nil
}

// begin admits a lease that waits, by what its project allows now.
func begin(s *state.State, now time.Time, c *counter, l *pb.Lease) (*pb.StartLease, error) {
	p := s.Resource("project/" + l.GetProject()).GetProject()
	if err := complete(p, proto.CloneOf(l.GetSpec()), l.GetOwner()); err != nil {
		return nil, err
	}
	if err := model.CheckQuota(p, c.of(s, l.GetProject()), l.GetSpec()); err != nil {
		return nil, err
	}
	b := &builder{s: s, at: now, project: p, lease: proto.CloneOf(l)}
	if err := b.origin(l.GetSpec()); err != nil {
		return nil, err
	}
	hosts, err := b.admit(c)
	if err != nil {
		return nil, err
	}
	objects, err := b.build(hosts)
	if err != nil {
		return nil, err
	}
	return &pb.StartLease{Lease: l.GetName(), Instances: b.lease.GetInstances(), Objects: objects}, nil
}

// Queue says of each lease that waits where it stands and what it waits for.
func Queue(s *state.State, v live.View, now time.Time) map[string]*pb.QueuePlace {
	out := map[string]*pb.QueuePlace{}
	for l := range s.Leases() {
		if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_QUEUED {
			out[l.GetName()] = &pb.QueuePlace{Reason: "starts at " + l.GetStartAt().AsTime().UTC().Format("2006-01-02 15:04 UTC")}
		}
	}
	waiting := line(s, v, now)
	if len(waiting) == 0 {
		return out
	}
	c := newCounter(standing.Site(s, v))
	var first *pb.Lease
	for i, l := range waiting {
		q := &pb.QueuePlace{Position: uint32(i + 1), Of: uint32(len(waiting)), Reason: "waits for those before it"}
		out[l.GetName()] = q
		if i >= explained {
			continue
		}
		switch _, err := begin(s, now, c, l); {
		case err != nil:
			q.Reason = err.Error()
			if first == nil && keepsWaiting(s, c, l, now) {
				first = l
			}
		case first != nil:
			q.Reason = goesFirst(first).What
		default:
			q.Reason = "it starts now"
		}
	}
	return out
}
