// Package lease decides leases: where a new one goes, when one ends, is deleted, or is back after a
// preemption. Pure: a version of the state, the live view and the time in, commands out (R2). The
// RPC handlers call Create; the coordinator's loop calls Advance.
//
// It never preempts: that is a failover's decision alone, so that no lease ever takes another's room.
package lease

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/admission"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
	"github.com/hotspare/hotspare/internal/runbook"
)

// Retention is how long the disks of an ended lease are kept for an undelete.
const Retention = 72 * time.Hour

// reclaimDeadline bounds a preemption: at it the agent falls to the next action.
const reclaimDeadline = 60 * time.Second

// cloneSuffix names the clone volume of a lease's instance.
const cloneSuffix = "-data"

// Create decides a new lease: admission, hosts, addresses, objects; or that it waits, where that was asked for.
func Create(s *state.State, v live.View, now time.Time, req *pb.CreateLeaseRequest, owner string) (*pb.CreateLease, []*pb.Expect, error) {
	p := s.Resource("project/" + req.GetProject()).GetProject()
	if p == nil {
		return nil, nil, model.Errorf(model.FaultNotFound, "project/"+req.GetProject(), "no such project").WithRemedy("see: hotspare get project")
	}
	spec := proto.CloneOf(req.GetSpec())
	if err := complete(p, spec, owner); err != nil {
		return nil, nil, err
	}
	ahead, err := starts(req, now)
	if err != nil {
		return nil, nil, err
	}
	b := &builder{s: s, at: now, project: p}
	if err := b.origin(spec); err != nil {
		return nil, nil, err
	}
	class := req.GetClass()
	if class == pb.LeaseClass_LEASE_CLASS_UNSPECIFIED {
		class = pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE
	}
	name := fmt.Sprintf("%s-%d", req.GetProject(), s.Meta().GetLeaseCounter()+1)
	b.lease = &pb.Lease{Name: name, Project: req.GetProject(), Owner: owner, Class: class, Spec: spec}
	if ahead {
		out, err := b.queue(v, req, nil)
		return out, nil, err
	}
	out, err := b.now(v, now)
	if err != nil {
		if out, err = b.queue(v, req, err); err != nil && waitable(err) && !req.GetQueue() && class == pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE {
			err = fmt.Errorf("%w; with --queue it waits in line", err)
		}
		return out, nil, err
	}
	return out, []*pb.Expect{{Key: "placement", Version: s.Meta().GetPlacementVersion()}}, nil
}

// starts says whether a lease is asked for a time to come.
func starts(req *pb.CreateLeaseRequest, now time.Time) (ahead bool, err error) {
	at := req.GetStartAt()
	switch {
	case at == nil:
		return false, nil
	case at.CheckValid() != nil || at.AsTime().Sub(now) > furthest:
		return false, model.Errorf(model.FaultInvalid, "", "the start at %s is too far away", at.AsTime().UTC().Format(time.RFC3339)).
			WithRemedy("at most 90 days ahead")
	case !at.AsTime().After(now):
		return false, model.Errorf(model.FaultInvalid, "", "the start at %s is not in the future", at.AsTime().UTC().Format(time.RFC3339)).
			WithRemedy("leave --at out to start at once")
	}
	return true, nil
}

// now decides a lease that starts at once.
func (b *builder) now(v live.View, now time.Time) (*pb.CreateLease, error) {
	if err := model.CheckQuota(b.project, b.s.Leases(), b.lease.GetSpec()); err != nil {
		return nil, err
	}
	c := newCounter(standing.Site(b.s, v))
	if first := overdue(b.s, v, now, c); first != nil {
		return nil, goesFirst(first)
	}
	hosts, err := b.admit(c)
	if err != nil {
		return nil, err
	}
	objects, err := b.build(hosts)
	if err != nil {
		return nil, err
	}
	return &pb.CreateLease{Lease: b.lease, Objects: objects}, nil
}

// build makes the objects of the lease's VMs on their hosts.
func (b *builder) build(hosts []string) (out []*pb.Object, err error) {
	for i, host := range hosts {
		objects, err := b.instance(i, host)
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	return out, nil
}

// admit chooses the hosts.
func (b *builder) admit(c *counter) ([]string, error) {
	spec := b.lease.GetSpec()
	reader := demand.NewReader(b.s)
	if what := reader.Lacks(spec.GetResources()); what != "" {
		return nil, model.Errorf(model.FaultNoFit, "", "no host has a %s", what).WithRemedy("see what hosts have: hotspare host list -o wide")
	}
	vm := reader.Instance(b.lease.GetName(), b.lease.GetClass(), spec)
	if n := b.project.GetSpec().GetNetwork(); n != "" {
		vm.Networks = []string{n}
	}
	if b.source != nil {
		vm.Pools = []string{b.source.GetBase().GetVolume().GetPool()}
	}
	want := slices.Repeat([]guarantee.Instance{vm}, int(spec.GetCount()))
	// Hosts with a drain in the lease's time come last, and for one that was asked for ahead not at all.
	closing := b.closing()
	hosts, err := place(c.desk(closing), b.lease.GetClass(), want)
	switch {
	case err == nil || len(closing) == 0:
		return hosts, err
	case b.lease.GetStartAt() != nil:
		return nil, fmt.Errorf("%w; drained in its time: %s", err, strings.Join(closing, ", "))
	}
	return place(c.desk(nil), b.lease.GetClass(), want)
}

func place(at *admission.Desk, class pb.LeaseClass, want []guarantee.Instance) ([]string, error) {
	if class == pb.LeaseClass_LEASE_CLASS_FIRM {
		return at.Firm(want)
	}
	return at.Preemptible(want)
}

// counter admits leases under one proof of the site, each as if no other one were.
type counter struct {
	site   *guarantee.Site
	proven guarantee.Decision
	// desks by the hosts that are closed there; cleared has none of the leases that run.
	desks   map[string]*admission.Desk
	cleared *counter
	// leases by project, once somebody asks.
	leases map[string][]*pb.Lease
}

func newCounter(site *guarantee.Site, proven guarantee.Decision) *counter {
	return &counter{site: site, proven: proven, desks: map[string]*admission.Desk{}}
}

// desk is the one where hosts are closed.
func (c *counter) desk(closing []string) *admission.Desk {
	key := strings.Join(closing, "\x00")
	if c.desks[key] == nil {
		site := *c.site
		if len(closing) > 0 {
			site.Hosts = slices.Clone(site.Hosts)
		}
		for _, name := range closing {
			if i := slices.IndexFunc(site.Hosts, func(h guarantee.Host) bool { return h.Name == name }); i >= 0 && site.Hosts[i].State == guarantee.Usable {
				site.Hosts[i].State = guarantee.Closed
			}
		}
		c.desks[key] = admission.NewDesk(&site, c.proven)
	}
	return c.desks[key]
}

// of lists the leases of a project.
func (c *counter) of(s *state.State, project string) iter.Seq[*pb.Lease] {
	if c.leases == nil {
		c.leases = map[string][]*pb.Lease{}
		for l := range s.Leases() {
			c.leases[l.GetProject()] = append(c.leases[l.GetProject()], l)
		}
	}
	return slices.Values(c.leases[project])
}

// withoutLeases admits as if all leases that run had ended. Those that are preempted come back.
func (c *counter) withoutLeases() *counter {
	if c.cleared == nil {
		ended := *c.site
		ended.Preemptible = slices.DeleteFunc(slices.Clone(c.site.Preemptible), func(vm guarantee.Instance) bool { return !vm.Held })
		c.cleared = newCounter(&ended, c.proven)
	}
	return c.cleared
}

// closing lists the hosts for which a drain is announced within the lease's time.
func (b *builder) closing() (out []string) {
	from := b.at
	if start := b.lease.GetStartAt(); start != nil && start.AsTime().After(from) {
		from = start.AsTime()
	}
	until := from.Add(b.lease.GetSpec().GetTerm().AsDuration())
	for h := range b.s.Hosts() {
		if slices.ContainsFunc(h.GetAnnounced(), func(d *pb.AnnouncedDrain) bool {
			return d.GetStart().AsTime().Before(until) && from.Before(d.GetEnd().AsTime())
		}) {
			out = append(out, h.GetName())
		}
	}
	return out
}

// builder makes the objects of one lease.
type builder struct {
	s       *state.State
	at      time.Time // When it is decided.
	project *pb.Project
	lease   *pb.Lease
	taken   map[string]bool // Addresses; nil until one is needed.
	image   *pb.ImageSpec   // What they boot from; nil when they boot from the copy.
	source  *pb.Object      // The volume whose newest consistent point is copied; nil without a copy.
}

func (b *builder) instance(i int, host string) ([]*pb.Object, error) {
	l, spec := b.lease, b.lease.GetSpec()
	name := fmt.Sprintf("%s-%d", l.GetName(), i)
	id := string(model.NewObjectID(pb.Kind_KIND_INSTANCE, name))
	is := &pb.InstanceSpec{
		Hostname: name, Vcpus: spec.GetResources().GetVcpus(), MemoryBytes: spec.GetResources().GetMemoryBytes(), Band: pb.Band_BAND_LENT,
		UserData: spec.GetUserData(), SshKeys: spec.GetSshKeys(),
		Reclaim: &pb.Reclaim{Action: spec.GetOnPreempt(), Grace: spec.GetGrace(), Deadline: durationpb.New(reclaimDeadline)},
	}
	li := &pb.LeaseInstance{Object: id, Host: host}
	var objects []*pb.Object
	b.boot(is)
	if b.source != nil {
		clone := b.clone(name, is)
		li.Volume = clone.GetId()
		objects = append(objects, clone)
	}
	model.GiveLocal(is, spec.GetResources())
	after, err := b.network(host, id, is, li)
	if err != nil {
		return nil, err
	}
	l.Instances = append(l.Instances, li)
	return append(objects, &pb.Object{
		Id: id, Kind: pb.Kind_KIND_INSTANCE, Agent: host, Lease: l.GetName(),
		Base: &pb.Spec{State: pb.State_STATE_RUNNING, After: after, Parameters: &pb.Spec_Instance{Instance: is}},
	}), nil
}

// origin finds what the VMs start from. It comes before the admission: a misspelt image is not a lack of room.
func (b *builder) origin(spec *pb.LeaseSpec) error {
	if name := spec.GetImage(); name != "" || spec.GetCloneOf() == "" {
		if b.image = b.s.Resource("image/" + name).GetImage().GetSpec(); b.image == nil {
			return model.Errorf(model.FaultNotFound, "image/"+name, "no such image").WithRemedy("see: hotspare get image")
		}
	}
	if spec.GetCloneOf() == "" {
		return nil
	}
	var err error
	b.source, err = cloneSource(b.s, spec.GetCloneOf())
	return err
}

func (b *builder) boot(is *pb.InstanceSpec) {
	if img := b.image; img.GetKernel() != "" {
		is.Boot = &pb.Boot{Kernel: img.GetKernel(), Initrd: img.GetInitrd(), Cmdline: img.GetCmdline()}
	}
	if disk := b.image.GetDisk(); disk != "" {
		is.Disks = append(is.Disks, &pb.Disk{Name: "root", Source: &pb.Disk_Image{Image: disk}})
	}
}

// clone puts the lease on an instant copy of a workload's newest consistent point.
func (b *builder) clone(name string, is *pb.InstanceSpec) *pb.Object {
	src := b.source
	pool := b.s.Resource("pool/" + src.GetBase().GetVolume().GetPool()).GetPool().GetSpec()
	vol := name + cloneSuffix
	id := string(model.NewObjectID(pb.Kind_KIND_VOLUME, vol))
	is.Disks = append(is.Disks, &pb.Disk{
		Name: "data", Volume: id, Source: &pb.Disk_Nbd{Nbd: "nbd://" + pool.GetExportAddress() + "/" + vol},
	})
	return &pb.Object{
		Id: id, Kind: pb.Kind_KIND_VOLUME, Agent: src.GetAgent(), Lease: b.lease.GetName(),
		Base: &pb.Spec{State: pb.State_STATE_CLONE, Parameters: &pb.Spec_Volume{Volume: &pb.VolumeSpec{
			Pool: src.GetBase().GetVolume().GetPool(), Name: vol, CloneOf: src.GetBase().GetVolume().GetName(),
		}}},
	}
}

// network gives the instance a card on the project's network and a local gate on that network.
func (b *builder) network(host, id string, is *pb.InstanceSpec, li *pb.LeaseInstance) ([]*pb.LocalGate, error) {
	name := b.project.GetSpec().GetNetwork()
	if name == "" {
		return nil, nil
	}
	n := b.s.Resource("network/" + name).GetNetwork()
	if n.GetSpec().GetRole() != pb.NetworkRole_NETWORK_ROLE_LENT {
		return nil, model.Errorf(model.FaultPrecondition, "network/"+name, "is not a network of role lent")
	}
	if b.taken == nil {
		b.taken = takenAddresses(b.s)
	}
	addr, ok := model.FreeAddress(n.GetSpec().GetSubnet(), n.GetSpec().GetGateway(), b.taken)
	if !ok {
		return nil, model.Errorf(model.FaultNoFit, "network/"+name, "has no free address in %q", n.GetSpec().GetSubnet())
	}
	b.taken[addr] = true
	li.Address, li.Mac = addr, model.DeriveMAC(id)
	is.Nics = append(is.Nics, &pb.Nic{
		Network: name, Bridge: n.GetSpec().GetBridge(), Mac: li.GetMac(), Address: addr, Gateway: n.GetSpec().GetGateway(),
	})
	object := runbook.NetworkObject(n, host, nil).GetId()
	return []*pb.LocalGate{{Object: object, States: []pb.State{pb.State_STATE_PRESENT}}}, nil
}

// takenAddresses lists the addresses of all lent instances and probe ports.
func takenAddresses(s *state.State) map[string]bool {
	out := map[string]bool{}
	for l := range s.Leases() {
		for _, i := range l.GetInstances() {
			out[i.GetAddress()] = true
		}
	}
	for r := range s.Resources("network") {
		for _, a := range r.GetNetwork().GetSpec().GetProbeAddresses() {
			out[a] = true
		}
	}
	return out
}

// Advance decides what time and the agents' reports mean for the leases.
func Advance(s *state.State, v live.View, now time.Time) []*pb.Command {
	var out []*pb.Command
	for l := range s.Leases() {
		if c := advance(s, v, now, l); c != nil {
			c.Expects = []*pb.Expect{{Key: "lease/" + l.GetName(), Version: l.GetVersion()}}
			out = append(out, c)
		}
	}
	return out
}

func advance(s *state.State, v live.View, now time.Time, l *pb.Lease) *pb.Command {
	ended := v.Clock.Doubt == "" && !now.Before(l.GetEndsAt().AsTime()) && !tooEarly(v, now, l)
	switch l.GetPhase() {
	case pb.LeasePhase_LEASE_PHASE_ACTIVE:
		if !ended {
			return nil
		}
		return &pb.Command{Body: &pb.Command_EndLease{EndLease: End(l, "term ended", now)}}
	case pb.LeasePhase_LEASE_PHASE_ENDED, pb.LeasePhase_LEASE_PHASE_LOST:
		if v.Clock.Doubt != "" || now.Before(l.GetDeleteAfter().AsTime()) || len(l.GetPreemptedBy()) > 0 {
			return nil
		}
		return &pb.Command{Body: &pb.Command_DeleteLease{DeleteLease: &pb.DeleteLease{Lease: l.GetName()}}}
	case pb.LeasePhase_LEASE_PHASE_RETURNING:
		if ended {
			// Its agents ended it themselves (R12) and wait: it would never be seen to run again.
			return &pb.Command{Body: &pb.Command_EndLease{EndLease: End(l, "term ended", now)}}
		}
		for _, i := range l.GetInstances() {
			if o := s.Object(i.GetObject()); o != nil && !v.Settled(o) {
				return nil
			}
		}
		return &pb.Command{Body: &pb.Command_ReturnLease{ReturnLease: &pb.ReturnLease{Lease: l.GetName()}}}
	default:
		return nil
	}
}

// tooEarly says whether a new leader should still wait for the agents of the lease to report.
func tooEarly(v live.View, now time.Time, l *pb.Lease) bool {
	if now.Sub(v.LeaderSince) >= live.WarmUp {
		return false
	}
	for _, i := range l.GetInstances() {
		if !v.Agent(i.GetHost()).Full {
			return true
		}
	}
	return false
}

// End returns the command that ends a lease and keeps its disks for the retention time.
func End(l *pb.Lease, reason string, now time.Time) *pb.EndLease {
	return &pb.EndLease{Lease: l.GetName(), Reason: reason, DeleteAfter: timestamppb.New(now.Add(Retention))}
}
