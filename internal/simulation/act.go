package simulation

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// act is one thing that users do, or that breaks, drawn by its weight. What has a name is counted.
type act struct {
	weight int
	name   string
	do     func(s *sim)
}

// userActs are what developers, operators and the monitoring system do.
func userActs() []act {
	return []act{
		{8, "", (*sim).createLease},
		{1, "", (*sim).extendLease},
		{2, "", (*sim).releaseLease},
		{2, "", (*sim).undeleteLease},
		{4, "", (*sim).declareByHand},
		{3, "", (*sim).declareByTrigger},
		{2, "", (*sim).failback},
		{1, "", (*sim).abort},
		{1, "", (*sim).pause},
		{2, "", (*sim).resume},
		{1, "", (*sim).retry},
		{1, "", (*sim).skip},
		{2, "", (*sim).swear},
		{1, "", (*sim).arm},
		{1, "", (*sim).editPlan},
		{1, "", (*sim).cordon},
		{1, "", (*sim).drain},
	}
}

func (s *sim) draw(acts []act) {
	sum := 0
	for _, a := range acts {
		sum += a.weight
	}
	n := s.rng.IntN(sum)
	for _, a := range acts {
		if n -= a.weight; n < 0 {
			if a.name != "" {
				s.report.Faults[Cell{a.name, s.phase(), "site"}]++
			}
			a.do(s)
			return
		}
	}
}

// ignore is for users who only look at the answer.
func (s *sim) ignore(what string) func(state.Result, error) {
	return func(r state.Result, err error) { s.logf("%s: %s %v", what, r.Name, err) }
}

// user proposes one command without a decision.
func (s *sim) user(c *pb.Command) {
	s.ask("operator/ann", func(*member) (*pb.Command, error) { return c, nil }, s.ignore(describe(c)))
}

func (s *sim) createLease() {
	req := &pb.CreateLeaseRequest{Project: "web", Spec: &pb.LeaseSpec{
		Count: uint32(s.number(1, 2)), Resources: &pb.Resources{Vcpus: uint32(s.number(1, 4)), MemoryBytes: uint64(s.number(1, 6)) * gib},
		Image: "debian", Term: durationpb.New(s.between(time.Minute, 3*time.Hour)), Grace: durationpb.New(s.between(0, 10*time.Second)),
		OnPreempt: pick(s, []pb.ReclaimAction{
			pb.ReclaimAction_RECLAIM_ACTION_SAVE, pb.ReclaimAction_RECLAIM_ACTION_SAVE,
			pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN, pb.ReclaimAction_RECLAIM_ACTION_DISCARD,
		}),
	}}
	if s.chance(0.3) {
		req.Spec.Resources.LocalDiskBytes = uint64(s.number(1, 30)) * gib
	}
	if s.chance(0.2) {
		req.Spec.Resources.LocalDisksBytes = map[string]uint64{ssd: uint64(s.number(1, 20)) * gib}
	}
	if s.chance(0.2) {
		req.Spec.Resources.Devices = map[string]uint32{gpu: 1}
		req.Spec.OnPreempt = pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN
	}
	if s.chance(0.2) {
		req.Spec.CloneOf = "webshop/db"
	}
	if s.chance(0.1) {
		req.Class = pb.LeaseClass_LEASE_CLASS_FIRM
	}
	req.Queue = s.chance(0.4)
	if s.chance(0.1) {
		req.StartAt = stamp(s.wall().Add(s.between(time.Second, 20*time.Minute)))
	}
	s.ask("developer/carol", func(m *member) (*pb.Command, error) {
		body, expects, err := lease.Create(m.st, m.view, m.s.wall(), req, "carol")
		return &pb.Command{Body: &pb.Command_CreateLease{CreateLease: body}, Expects: expects}, err
	}, s.ignore("create lease"))
}

// someLease draws a lease in a phase; "" when there is none.
func (s *sim) someLease(phases ...pb.LeasePhase) string {
	var names []string
	for l := range s.state.Leases() {
		for _, p := range phases {
			if l.GetPhase() == p {
				names = append(names, l.GetName())
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return pick(s, names)
}

func (s *sim) extendLease() {
	if name := s.someLease(pb.LeasePhase_LEASE_PHASE_ACTIVE, pb.LeasePhase_LEASE_PHASE_PREEMPTED); name != "" {
		s.user(&pb.Command{Body: &pb.Command_ExtendLease{ExtendLease: &pb.ExtendLeaseRequest{Name: name, By: durationpb.New(time.Hour)}}})
	}
}

func (s *sim) releaseLease() {
	name := s.someLease(pb.LeasePhase_LEASE_PHASE_ACTIVE, pb.LeasePhase_LEASE_PHASE_PREEMPTED, pb.LeasePhase_LEASE_PHASE_RETURNING, pb.LeasePhase_LEASE_PHASE_QUEUED)
	if name == "" {
		return
	}
	end := lease.End(s.state.Lease(name), "released by carol", s.wall())
	s.user(&pb.Command{Body: &pb.Command_EndLease{EndLease: end}})
}

func (s *sim) undeleteLease() {
	if name := s.someLease(pb.LeasePhase_LEASE_PHASE_ENDED); name != "" {
		s.ask("developer/carol", func(m *member) (*pb.Command, error) {
			c := &pb.Command{
				Body:    &pb.Command_UndeleteLease{UndeleteLease: &pb.UndeleteLeaseRequest{Name: name}},
				Expects: []*pb.Expect{{Key: "placement", Version: m.st.Meta().GetPlacementVersion()}},
			}
			return c, s.stillFits(m, c)
		}, s.ignore("undelete "+name))
	}
}

func (s *sim) somePlans() []string {
	switch s.number(0, 2) {
	case 0:
		return []string{"webshop"}
	case 1:
		return []string{"billing"}
	default:
		return []string{"webshop", "billing"}
	}
}

func (s *sim) declareByHand() {
	s.declare(&pb.DeclareRequest{Plans: s.somePlans(), Reason: "I saw smoke", RequestId: fmt.Sprintf("request-%d", s.number(1, 1000))})
}

// declareByTrigger repeats itself, as monitoring systems do.
func (s *sim) declareByTrigger() {
	req := &pb.DeclareRequest{
		Plans: s.somePlans(), Reason: "alert", Trigger: "east-down", Key: fmt.Sprintf("fingerprint@%d", s.number(1, 3)),
		Since: timestamppb.New(time.Unix(0, 0)),
	}
	for range s.number(1, 4) {
		s.declare(req)
	}
}

// declare does what the handler of Declare does.
func (s *sim) declare(req *pb.DeclareRequest) {
	s.ask("operator/ann", func(m *member) (*pb.Command, error) {
		if req.GetRequestId() != "" && m.st.Request(req.GetRequestId()) != nil || failover.Join(m.st, req) != nil {
			return nil, nil
		}
		if err := failover.CheckTrigger(m.st, m.view, m.st.Time(), req); err != nil {
			return nil, err
		}
		body, expects, err := failover.Declare(m.st, m.view, req, "ann")
		if err != nil {
			return nil, err
		}
		s.mutateDeclare(body)
		return &pb.Command{RequestId: req.GetRequestId(), Expects: expects, Body: &pb.Command_Declare{Declare: body}}, nil
	}, s.ignore("declare"))
}

// someRun draws an open run; nil when there is none.
func (s *sim) someRun() *pb.Failover {
	var open []*pb.Failover
	for f := range s.state.OpenFailovers() {
		open = append(open, f)
	}
	if len(open) == 0 {
		return nil
	}
	return pick(s, open)
}

func (s *sim) failback() {
	if f := s.someRun(); f != nil {
		s.failBack(f.GetName(), s.chance(0.25))
	}
}

// failBack does what the handler of Failback does.
func (s *sim) failBack(name string, discard bool) {
	s.ask("operator/ann", func(m *member) (*pb.Command, error) {
		body, expects, err := failover.Failback(m.st, m.st.Failover(name), "repaired", discard)
		if err != nil {
			return nil, err
		}
		s.mutateFailback(body)
		return &pb.Command{Expects: expects, Body: &pb.Command_Failback{Failback: body}}, nil
	}, s.ignore(fmt.Sprintf("failback %s, discard %v", name, discard)))
}

func (s *sim) control(f *pb.Failover, a pb.ControlAction, step string) {
	if f == nil {
		return
	}
	s.user(&pb.Command{Body: &pb.Command_Control{Control: &pb.ControlRequest{Name: f.GetName(), Action: a, Step: step, Reason: "because"}}})
}

func (s *sim) abort()  { s.control(s.someRun(), pb.ControlAction_CONTROL_ACTION_ABORT, "") }
func (s *sim) pause()  { s.control(s.someRun(), pb.ControlAction_CONTROL_ACTION_PAUSE, "") }
func (s *sim) resume() { s.control(s.someRun(), pb.ControlAction_CONTROL_ACTION_RESUME, "") }
func (s *sim) retry()  { s.control(s.someRun(), pb.ControlAction_CONTROL_ACTION_RETRY, "") }

func (s *sim) skip() {
	f := s.someRun()
	for _, st := range f.GetSteps() {
		if st.GetPhase() == pb.StepPhase_STEP_PHASE_FAILED {
			s.control(f, pb.ControlAction_CONTROL_ACTION_SKIP, st.GetId())
			return
		}
	}
}

func (s *sim) swear() {
	if f := s.someRun(); f != nil {
		s.swearDead(f, "")
	}
}

func (s *sim) swearDead(f *pb.Failover, plan string) {
	s.user(&pb.Command{Body: &pb.Command_Swear{Swear: &pb.SwearRequest{Name: f.GetName(), Plan: plan, Reason: "I saw the racks without power"}}})
}

func (s *sim) arm() {
	s.user(&pb.Command{Body: &pb.Command_Arm{Arm: &pb.ArmRequest{Trigger: "east-down", Disarm: s.chance(0.2), Reason: "maintenance"}}})
}

// editPlan changes a plan within what still fits, as the handler of Apply demands.
func (s *sim) editPlan() {
	p := proto.CloneOf(pick(s, s.site.plans))
	last := p.GetSpec().GetWorkloads()[len(p.GetSpec().GetWorkloads())-1]
	switch s.number(0, 3) {
	case 0:
		last.Resources.MemoryBytes = uint64(s.number(1, 5)) * gib
	case 1:
		p.Spec.Rank = uint32(s.number(1, 30))
	case 2:
		p.Spec.Workloads = append(p.Spec.Workloads, &pb.Workload{
			Name: "extra", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: gib}, Image: "debian", Optional: true,
		})
	default:
		p.Spec.Endpoints = nil
	}
	r := &pb.Resource{Resource: &pb.Resource_Plan{Plan: p}}
	s.ask("operator/ann", func(m *member) (*pb.Command, error) {
		c := &pb.Command{
			Body:    &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: []*pb.Resource{r}}},
			Expects: []*pb.Expect{{Key: "placement", Version: m.st.Meta().GetPlacementVersion()}},
		}
		return c, s.stillFits(m, c)
	}, s.ignore("edit plan"))
}

// stillFits refuses what would make the proof worse, as the handlers do.
func (s *sim) stillFits(m *member, c *pb.Command) error {
	next, res := m.st.Apply(m.st.Index()+1, m.term, c)
	if res.Err != nil {
		return res.Err
	}
	if out := standing.Look(m.st, next, m.view); out.Worse() {
		return model.Errorf(model.FaultNoFit, "", "the site would be %s", out)
	}
	return nil
}

// drain does what the handler does.
func (s *sim) drain() {
	req := &pb.UpdateHostRequest{Name: pick(s, s.site.hosts), Action: "drain", Reason: "new memory"}
	if s.chance(0.5) {
		req.Lasts = durationpb.New(s.between(time.Minute, time.Hour))
	}
	if s.chance(0.3) {
		req.Lasts, req.StartAt = durationpb.New(s.between(time.Minute, time.Hour)), stamp(s.wall().Add(s.between(time.Second, 20*time.Minute)))
		s.user(&pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: req}})
		return
	}
	s.ask("operator/ann", func(m *member) (*pb.Command, error) {
		body, expects, err := failover.Drain(m.st, req, "ann")
		if err != nil {
			return nil, err
		}
		c := &pb.Command{Expects: expects, Body: &pb.Command_Declare{Declare: body}}
		return c, s.stillFits(m, c)
	}, s.ignore("drain "+req.GetName()))
}

func (s *sim) cordon() {
	name := pick(s, s.site.hosts)
	action := "cordon"
	if s.state.Host(name).GetCordoned() {
		action = "uncordon"
	}
	s.ask("operator/ann", func(m *member) (*pb.Command, error) {
		c := &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: name, Action: action}}}
		if action == "uncordon" {
			return c, nil
		}
		return c, s.stillFits(m, c)
	}, s.ignore(action+" "+name))
}
