package lease_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

const (
	queued = pb.LeasePhase_LEASE_PHASE_QUEUED
	active = pb.LeasePhase_LEASE_PHASE_ACTIVE
)

// line is a site with a second project, whose leases wait.
type line struct {
	t *testing.T
	*fixture.World
}

func newLine(t *testing.T) *line {
	w := fixture.New(t)
	w.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: []*pb.Resource{
		{Resource: &pb.Resource_Project{Project: &pb.Project{Metadata: &pb.Metadata{Name: "data"}, Spec: &pb.ProjectSpec{Network: "lent"}}}},
	}}}})
	w.Quiesce()
	return &line{t, w}
}

// ask asks for a lease of so many GiB in one VM, and says what came of it.
func (l *line) ask(project string, gib uint64, change func(*pb.CreateLeaseRequest)) (string, error) {
	l.t.Helper()
	req := request(func(r *pb.CreateLeaseRequest) {
		r.Project, r.Queue, r.Spec.Resources.MemoryBytes, r.Spec.Term = project, true, gib<<30, durationpb.New(time.Hour)
	})
	if change != nil {
		change(req)
	}
	body, expects, err := lease.Create(l.State, l.View, l.Now, req, "carol")
	if err != nil {
		return "", err
	}
	return l.Must("carol", &pb.Command{Expects: expects, Body: &pb.Command_CreateLease{CreateLease: body}}), nil
}

func (l *line) must(project string, gib uint64, want pb.LeasePhase) string {
	l.t.Helper()
	name, err := l.ask(project, gib, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	l.phase(name, want)
	return name
}

func (l *line) phase(name string, want pb.LeasePhase) {
	l.t.Helper()
	if is := l.State.Lease(name).GetPhase(); is != want {
		l.t.Errorf("lease %s is %v, want %v", name, is, want)
	}
}

func (l *line) release(name string) {
	l.t.Helper()
	l.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: lease.End(l.State.Lease(name), "released", l.Now)}})
	l.Quiesce()
}

func (l *line) refused(what, says string, project string, gib uint64, change func(*pb.CreateLeaseRequest)) {
	l.t.Helper()
	if _, err := l.ask(project, gib, change); err == nil || !strings.Contains(err.Error(), says) {
		l.t.Errorf("%s: %v, want %q", what, err, says)
	}
}

// places lists where leases stand: "web-2 data-5".
func (l *line) places() string {
	at := map[uint32]string{}
	for name, q := range lease.Queue(l.State, l.View, l.Now) { // Any order: put in order below.
		at[q.GetPosition()] = name
	}
	var out []string
	for i := range uint32(len(at)) {
		out = append(out, at[i+1])
	}
	return strings.Join(out, " ")
}

func withoutQueue(r *pb.CreateLeaseRequest) { r.Queue = false }

// Leases that do not fit wait in a fair order, start by themselves when there is room, and their term begins then.
func TestQueue(t *testing.T) {
	l := newLine(t)
	first := l.must("web", 50, active)
	l.must("web", 50, active)
	l.must("web", 50, active)
	l.refused("no room", "with --queue it waits in line", "web", 40, withoutQueue)
	mine := l.must("web", 40, queued)
	second := l.must("web", 41, queued)
	other := l.must("data", 42, queued)
	if got, want := l.places(), other+" "+mine+" "+second; got != want {
		t.Errorf("the order is %s, want %s: the project that has nothing comes first, then the oldest", got, want)
	}
	if q := lease.Queue(l.State, l.View, l.Now)[mine]; q.GetOf() != 3 || !strings.Contains(q.GetReason(), "the most free on one host") {
		t.Errorf("it is told %v", q)
	}
	l.Wait(5 * time.Minute)
	l.release(first)
	l.phase(other, active)
	l.phase(mine, queued)
	if ends := l.State.Lease(other).GetEndsAt().AsTime(); !ends.Equal(l.Now.Add(time.Hour)) {
		t.Errorf("its term of an hour ends %v after its start", ends.Sub(l.Now))
	}
	if small := l.must("web", 2, active); len(l.State.Lease(small).GetInstances()) != 1 {
		t.Error("a small one does not start beside those that wait")
	}
	l.release(second)
	if l.State.Lease(second) != nil {
		t.Errorf("withdrawn, and it is %v", l.State.Lease(second))
	}
	l.release(other)
	l.phase(mine, active)
	l.CheckReplay()
}

// What waited long enough is not overtaken any more, neither from the line nor from outside of it.
func TestPatience(t *testing.T) {
	l := newLine(t)
	var hold []string
	for range 3 {
		hold = append(hold, l.must("web", 30, active))
	}
	large := l.must("data", 60, queued)
	l.Wait(9 * time.Minute)
	l.must("data", 2, active)
	l.Wait(2 * time.Minute)
	l.refused("outside of the line", large+" is in line since", "web", 2, withoutQueue)
	small := l.must("web", 2, queued)
	if q := lease.Queue(l.State, l.View, l.Now)[small]; !strings.Contains(q.GetReason(), "not overtaken any more") {
		t.Errorf("it is told %v", q)
	}
	for _, name := range hold {
		l.release(name)
	}
	l.phase(large, active)
	l.phase(small, active)
}

// One that is over its project's quota keeps nobody else waiting.
func TestQueuedOverQuota(t *testing.T) {
	l := newLine(t)
	l.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: []*pb.Resource{
		{Resource: &pb.Resource_Project{Project: &pb.Project{
			Metadata: &pb.Metadata{Name: "data"}, Spec: &pb.ProjectSpec{Network: "lent", Quota: &pb.Quota{Instances: 1}},
		}}},
	}}}})
	first := l.must("data", 2, active)
	l.refused("over the quota", "its quota is 1", "data", 2, withoutQueue)
	second := l.must("data", 2, queued)
	if q := lease.Queue(l.State, l.View, l.Now)[second]; !strings.Contains(q.GetReason(), "its quota is 1") {
		t.Errorf("it is told %v", q)
	}
	l.Wait(20 * time.Minute)
	l.must("web", 2, active)
	l.release(first)
	l.phase(second, active)
}

func TestStartAt(t *testing.T) {
	l := newLine(t)
	at := func(d time.Duration) func(*pb.CreateLeaseRequest) {
		return func(r *pb.CreateLeaseRequest) { r.StartAt = timestamppb.New(l.Now.Add(d)) }
	}
	name, err := l.ask("web", 4, at(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	l.phase(name, queued)
	if q := lease.Queue(l.State, l.View, l.Now)[name]; q.GetPosition() != 0 || !strings.Contains(q.GetReason(), "starts at 2026-11-20 11:00 UTC") {
		t.Errorf("it is told %v", q)
	}
	l.Wait(59 * time.Minute)
	l.phase(name, queued)
	l.Wait(2 * time.Minute)
	l.phase(name, active)
	l.refused("the past", "is not in the future", "web", 4, at(-time.Second))
	l.refused("far ahead", "too far away", "web", 4, at(91*24*time.Hour))
}

func TestQueueRefusals(t *testing.T) {
	l := newLine(t)
	l.refused("more than any host", "even with nothing lent", "web", 70, nil)
	l.refused("more than the quota at any time", "its quota is 20", "web", 1, func(r *pb.CreateLeaseRequest) { r.Spec.Count = 21 })
	l.refused("a project that is none", "no such project", "x", 1, nil)
	l.refused("a firm one", "a firm lease does not wait", "web", 60, func(r *pb.CreateLeaseRequest) { r.Class = pb.LeaseClass_LEASE_CLASS_FIRM })
	for range 3 {
		l.must("web", 60, active)
	}
	name := l.must("web", 60, queued)
	do := func(what string, c *pb.Command, want model.Fault, says string) {
		t.Helper()
		if err := l.Do("carol", c).Err; model.FaultOf(err) != want || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", what, err, says)
		}
	}
	do("extended", &pb.Command{Body: &pb.Command_ExtendLease{ExtendLease: &pb.ExtendLeaseRequest{Name: name, By: durationpb.New(time.Hour)}}},
		model.FaultPrecondition, "its term begins when it starts")
	do("started without VMs", &pb.Command{Body: &pb.Command_StartLease{StartLease: &pb.StartLease{Lease: name}}}, model.FaultInvalid, "is for 1 VMs, not for 0")
	l.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: lease.End(l.State.Lease(name), "released", l.Now)}})
	do("undeleted", &pb.Command{Body: &pb.Command_UndeleteLease{UndeleteLease: &pb.UndeleteLeaseRequest{Name: name}}}, model.FaultPrecondition, "create it again")
	do("started after that", &pb.Command{Body: &pb.Command_StartLease{StartLease: &pb.StartLease{Lease: name}}}, model.FaultStale, "does not wait any more")
	for range 100 {
		l.must("data", 60, queued)
	}
	l.refused("one more than may wait", "100 of its leases wait already", "data", 60, nil)
}

// What cannot start any more, however many leases end, keeps nobody else waiting.
func TestHopelessOneKeepsNobodyWaiting(t *testing.T) {
	for name, spoil := range map[string]func(l *line){
		"its host takes no lease": func(l *line) {
			l.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "h1", Action: "cordon"}}})
		},
		"its owner is no member any more": func(l *line) {
			l.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: []*pb.Resource{
				{Resource: &pb.Resource_Project{Project: &pb.Project{
					Metadata: &pb.Metadata{Name: "data"}, Spec: &pb.ProjectSpec{Network: "lent", Members: []string{"dave"}},
				}}},
			}}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t)
			l.View = l.View.WithAgent(wider(l.View.Agent("h1")))
			l.Quiesce()
			hold := l.must("web", 100, active)
			large := l.must("data", 90, queued)
			l.Wait(11 * time.Minute)
			l.refused("while it can start", large+" is in line since", "web", 2, withoutQueue)
			spoil(l)
			l.Quiesce()
			if _, err := l.ask("web", 2, withoutQueue); err != nil {
				t.Errorf("when it cannot: %v", err)
			}
			l.must("web", 2, active)
			if q := lease.Queue(l.State, l.View, l.Now)[large]; q.GetPosition() != 1 || q.GetReason() == "" {
				t.Errorf("it is told %v", q)
			}
			l.phase(large, queued)
			l.phase(hold, active)
		})
	}
}

// wider gives a host more memory than the others have.
func wider(a live.Agent) live.Agent {
	a.Capacity = proto.CloneOf(a.Capacity)
	a.Capacity.MemoryBytes *= 2
	return a
}

// What a lease is worth is what its VMs did: not the time in line.
func TestWaitingIsNoUnsavedWork(t *testing.T) {
	l := newLine(t)
	var hold []string
	for range 3 {
		hold = append(hold, l.must("web", 60, active))
	}
	asked := l.Now
	waited := l.must("data", 50, queued)
	l.Wait(30 * time.Minute)
	l.release(hold[0])
	l.phase(waited, active)
	got := l.State.Lease(waited)
	if !got.GetQueuedAt().AsTime().Equal(asked) || !got.GetCreatedAt().AsTime().Equal(l.Now) {
		t.Errorf("asked for at %v, started at %v; want %v, %v", got.GetQueuedAt().AsTime(), got.GetCreatedAt().AsTime(), asked, l.Now)
	}
	for _, vm := range demand.Site(l.State, l.View.Silent()).Preemptible {
		if vm.Lease == waited && vm.Cost != 0 {
			t.Errorf("it costs %d as it starts", vm.Cost)
		}
	}
}

// A project's share counts for less the more it weighs; equal shares go by age.
func TestWeighedShare(t *testing.T) {
	l := newLine(t)
	l.must("web", 60, active)
	l.must("data", 40, active)
	l.must("data", 20, active)
	l.must("web", 40, active)
	mine := l.must("web", 50, queued)
	other := l.must("data", 50, queued)
	if got, want := l.places(), other+" "+mine; got != want {
		t.Errorf("the order is %s, want %s", got, want)
	}
	p := proto.CloneOf(l.State.Resource("project/web").GetProject())
	p.Spec.Weight = 2
	l.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{
		Resources: []*pb.Resource{{Resource: &pb.Resource_Project{Project: p}}},
	}}})
	if got, want := l.places(), mine+" "+other; got != want {
		t.Errorf("with twice the weight the order is %s, want %s", got, want)
	}
}

// While a failover is open, what waits does not take the room that the preempted come back to, and its wait for
// that room keeps nobody else waiting.
func TestQueueDuringAFailover(t *testing.T) {
	l := newLine(t)
	for range 3 {
		l.must("web", 58, active)
	}
	waits := l.must("data", 50, queued)
	f := l.Declare("webshop")
	l.Quiesce()
	var victims []string
	for _, v := range f.GetVictims() {
		l.phase(v.GetLease(), pb.LeasePhase_LEASE_PHASE_PREEMPTED)
		victims = append(victims, v.GetLease())
	}
	if len(victims) == 0 {
		t.Fatal("nothing is preempted: the case shows nothing")
	}
	l.Wait(20 * time.Minute)
	l.phase(waits, queued)
	l.refused("beside a lease whose term ends", waits+" is in line since", "web", 1, withoutQueue)
	for i := 1; i <= 3; i++ { // From now on only the claims of the preempted are left in its way.
		lent := l.State.Lease(fmt.Sprintf("web-%d", i))
		if slices.Contains(victims, lent.GetName()) {
			continue
		}
		l.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: lent.GetInstances()[0].GetHost(), Action: "cordon"}}})
	}
	l.Join("h4", &pb.AgentOffer{Hypervisor: true})
	small := l.View.Agent("h4")
	small.Capacity = proto.CloneOf(small.Capacity)
	small.Capacity.MemoryBytes = 4 << 30
	l.View = l.View.WithAgent(small)
	l.Quiesce()
	l.must("web", 1, active)
	l.phase(waits, queued)
	if err := l.Failback(f.GetName()); err != nil {
		t.Fatal(err)
	}
	l.Quiesce()
	for _, name := range victims {
		l.phase(name, active)
	}
}

// A lease for a time to come is kept away from hosts that are drained in it, and refused where nothing else is left;
// one for now goes there last.
func TestLeasesAndAnnouncedDrains(t *testing.T) {
	l := newLine(t)
	drain := func(host string) {
		l.Must("operator/ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{
			Name: host, Action: "drain", StartAt: timestamppb.New(l.Now.Add(30 * time.Minute)), Lasts: durationpb.New(90 * time.Minute), UseTolerance: true, Reason: "new memory",
		}}})
	}
	hostOf := func(name string) string { return l.State.Lease(name).GetInstances()[0].GetHost() }
	drain("h1")
	drain("h2")
	for range 2 {
		if h := hostOf(l.must("web", 20, active)); h != "h3" {
			t.Errorf("a lease goes to %s, which is drained in its time", h)
		}
	}
	if h := hostOf(l.must("web", 40, active)); h == "h3" {
		t.Error("the case cannot show where it goes when there is no other room")
	}
	ahead := func(in time.Duration) func(*pb.CreateLeaseRequest) {
		return func(r *pb.CreateLeaseRequest) { r.StartAt = timestamppb.New(l.Now.Add(in)) }
	}
	if _, err := l.ask("web", 30, ahead(90*time.Minute)); err != nil {
		t.Errorf("it fits on h3: %v", err)
	}
	drain("h3")
	l.refused("in the time of the drains", "drained in its time: h1, h2, h3", "web", 30, ahead(90*time.Minute))
	if _, err := l.ask("web", 30, ahead(3*time.Hour)); err != nil {
		t.Errorf("after the drains: %v", err)
	}
}
