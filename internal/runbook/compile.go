package runbook

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Timeouts after which a released step counts as failed. Generous: a late success still counts.
const (
	networkTimeout  = 30 * time.Second
	promoteTimeout  = 2 * time.Minute
	startTimeout    = 3 * time.Minute
	endpointTimeout = time.Minute
	fenceTimeout    = time.Minute
	// reclaimSlack is added to a victim's own deadline: reading back and the next action at the deadline.
	reclaimSlack = 30 * time.Second
)

// Input is everything that a graph is made from. Nothing of it is changed.
type Input struct {
	Epoch uint64
	Run   pb.RunKind
	Plans []*pb.Plan
	// Placements say where each replica goes; replicas without one are left out.
	Placements []*pb.Placement
	Victims    []*pb.Victim
	// Resource returns a declared resource by key, Object an object that exists, or nil.
	Resource func(key string) *pb.Resource
	Object   func(id string) *pb.Object
	// Preemption is what the guests of the victims are told.
	Preemption *pb.Preemption
	// HostNames are all hypervisor hosts in order: a network's probe addresses are dealt out in this order.
	HostNames []string
}

// Graph is what a failover commits.
type Graph struct {
	Steps []*pb.Step
	// Objects that the run creates, base ABSENT.
	Objects []*pb.Object
	// Unplaced is what cannot be run because something that the plan names is kept by no agent: a
	// declaration is not refused for it, the rest of the plan goes on.
	Unplaced []*pb.Unplaced
	// Release lists the steps without global gates: the declare entry itself releases them.
	Release []string
}

type compiler struct {
	in    Input
	out   Graph
	steps map[string]*pb.Step
}

// Compile returns the graph of a failover. An error names what the plans refer to and does not exist.
func Compile(in Input) (Graph, error) {
	c := &compiler{in: in, steps: map[string]*pb.Step{}}
	for _, v := range in.Victims {
		if err := c.victim(v); err != nil {
			return Graph{}, err
		}
	}
	for _, p := range in.Plans {
		c.plan(p)
	}
	for _, s := range c.out.Steps {
		if len(s.GetGates()) == 0 {
			c.out.Release = append(c.out.Release, s.GetId())
		}
	}
	return c.out, nil
}

func (c *compiler) add(s *pb.Step) {
	if c.steps[s.GetId()] == nil {
		c.steps[s.GetId()] = s
		c.out.Steps = append(c.out.Steps, s)
	}
}

// create adds an object that the run makes and that vanishes with it.
func (c *compiler) create(o *pb.Object) {
	if c.in.Object(o.GetId()) != nil || slices.ContainsFunc(c.out.Objects, func(x *pb.Object) bool { return x.GetId() == o.GetId() }) {
		return
	}
	o.MadeBy = c.in.Epoch
	c.out.Objects = append(c.out.Objects, o)
}

func (c *compiler) victim(v *pb.Victim) error {
	o := c.in.Object(v.GetObject())
	if o == nil {
		return model.Errorf(model.FaultNotFound, v.GetObject(), "victim does not exist")
	}
	spec := proto.CloneOf(o.GetBase())
	spec.State = pb.State_STATE_SAVED
	spec.After = nil
	spec.GetInstance().Preemption = proto.CloneOf(c.in.Preemption)
	spec.GetInstance().TermEnd = nil // The term stands still while a lease is preempted (R12).
	limit := spec.GetInstance().GetReclaim().GetDeadline().AsDuration() + spec.GetInstance().GetReclaim().GetGrace().AsDuration()
	c.add(&pb.Step{
		Id: "reclaim " + v.GetLease() + " " + model.ObjectID(o.GetId()).Name(), Object: o.GetId(), Kind: o.GetKind(), Agent: o.GetAgent(),
		Lease: v.GetLease(), Spec: spec, Timeout: durationpb.New(limit + reclaimSlack),
	})
	return nil
}

func (c *compiler) plan(p *pb.Plan) {
	name, fenced := p.GetMetadata().GetName(), c.fences(p)
	unplaced := func(what string, err error) {
		if err != nil {
			c.out.Unplaced = append(c.out.Unplaced, &pb.Unplaced{Plan: name, Workload: what, Reason: err.Error()})
		}
	}
	for _, r := range model.Replicas(p) {
		unplaced(r.Name, c.replica(p, r, fenced))
	}
	for _, e := range p.GetSpec().GetEndpoints() {
		unplaced(endpointPrefix+e.GetDns().GetName(), c.endpoint(p, e.GetDns(), fenced))
	}
}

// endpointPrefix marks an endpoint among what is unplaced.
const endpointPrefix = "endpoint "

// Endpoint says whether it is an endpoint that is unplaced, and not a workload.
func Endpoint(u *pb.Unplaced) bool { return strings.HasPrefix(u.GetWorkload(), endpointPrefix) }

// fences adds one step for each way to prove the old side dead; each waits for the failure of the one
// before. It returns the gate behind them, or nil when the plan names no fencing. A target that no agent
// reaches leaves the oath: the run waits for it visibly.
func (c *compiler) fences(p *pb.Plan) *pb.Gate {
	name := p.GetMetadata().GetName()
	gate := &pb.Gate{}
	previous := ""
	for _, f := range p.GetSpec().GetFencing() {
		if f.GetPower() == nil {
			gate.AnyOf = append(gate.AnyOf, &pb.Condition{Condition: &pb.Condition_Oath{Oath: name}})
			continue
		}
		target := f.GetPower().GetTarget()
		o := c.in.Object(string(model.NewObjectID(pb.Kind_KIND_FENCE, target)))
		if o == nil {
			gate.AnyOf = append(gate.AnyOf, &pb.Condition{Condition: &pb.Condition_Oath{Oath: name}})
			continue
		}
		id := "fence " + target
		gate.AnyOf = append(gate.AnyOf, done(id))
		s := &pb.Step{
			Id: id, Object: o.GetId(), Kind: o.GetKind(), Agent: o.GetAgent(), Plan: name, Timeout: orDefault(f.GetTimeout(), fenceTimeout),
			Spec: &pb.Spec{State: pb.State_STATE_FENCED, Parameters: &pb.Spec_Fence{Fence: &pb.FenceSpec{
				Target: target, Method: pb.FenceMethod_FENCE_METHOD_POWER, Epoch: c.in.Epoch,
			}}},
		}
		if previous != "" {
			s.Gates = []*pb.Gate{{AnyOf: []*pb.Condition{{Condition: &pb.Condition_StepFailed{StepFailed: previous}}}}}
		}
		c.add(s)
		previous = id
	}
	if len(gate.GetAnyOf()) == 0 {
		return nil
	}
	return gate
}

func done(step string) *pb.Condition {
	return &pb.Condition{Condition: &pb.Condition_StepDone{StepDone: step}}
}

func orDefault(d *durationpb.Duration, otherwise time.Duration) *durationpb.Duration {
	if d.AsDuration() > 0 {
		return d
	}
	return durationpb.New(otherwise)
}

func (c *compiler) placement(r model.Replica) *pb.Placement {
	i := slices.IndexFunc(c.in.Placements, func(p *pb.Placement) bool { return p.GetPlan() == r.Plan && p.GetWorkload() == r.Name })
	if i < 0 {
		return nil
	}
	return c.in.Placements[i]
}

func startID(plan, replica string) string { return "start " + plan + "/" + replica }

func (c *compiler) replica(p *pb.Plan, r model.Replica, fenced *pb.Gate) error {
	at := c.placement(r)
	if at == nil {
		return nil
	}
	s := &pb.Step{
		Id: startID(r.Plan, r.Name), Object: at.GetObject(), Kind: pb.Kind_KIND_INSTANCE, Agent: at.GetHost(), Plan: r.Plan,
		Workload: r.Name, Optional: r.Workload.GetOptional(), Timeout: durationpb.New(startTimeout),
	}
	if fenced != nil && len(r.Workload.GetVolumes()) == 0 {
		s.Gates = append(s.Gates, proto.CloneOf(fenced))
	}
	spec := &pb.InstanceSpec{
		Hostname: r.Plan + "-" + r.Name, Vcpus: r.Workload.GetResources().GetVcpus(), MemoryBytes: r.Workload.GetResources().GetMemoryBytes(),
		Band: pb.Band_BAND_PROTECTED,
	}
	if err := c.boot(r, spec); err != nil {
		return err
	}
	after, err := c.networks(r, at.GetHost(), s, spec)
	if err != nil {
		return err
	}
	if err := c.volumes(r, fenced, s, spec); err != nil {
		return err
	}
	model.GiveLocal(spec, r.Workload.GetResources())
	c.memory(at.GetHost(), s, &after)
	c.dependencies(p, r, s)
	spec.Health = health(r, spec)
	s.Spec = &pb.Spec{State: pb.State_STATE_RUNNING, After: after, Parameters: &pb.Spec_Instance{Instance: spec}}
	base := &pb.Spec{State: pb.State_STATE_ABSENT, Parameters: &pb.Spec_Instance{Instance: proto.CloneOf(spec)}}
	c.create(&pb.Object{
		Id: at.GetObject(), Kind: pb.Kind_KIND_INSTANCE, Agent: at.GetHost(), Base: base, Plan: r.Plan, Workload: r.Name,
	})
	c.add(s)
	return nil
}

func (c *compiler) boot(r model.Replica, spec *pb.InstanceSpec) error {
	name := r.Workload.GetImage()
	if name == "" {
		return nil
	}
	img := c.in.Resource("image/" + name).GetImage().GetSpec()
	if img == nil {
		return model.Errorf(model.FaultNotFound, "image/"+name, "no such image")
	}
	if img.GetKernel() != "" {
		spec.Boot = &pb.Boot{Kernel: img.GetKernel(), Initrd: img.GetInitrd(), Cmdline: img.GetCmdline()}
	}
	return nil
}

// volumes adds the promotion of each volume and makes the start wait for it.
func (c *compiler) volumes(r model.Replica, fenced *pb.Gate, start *pb.Step, spec *pb.InstanceSpec) error {
	// All or none: a volume is not promoted for a VM that cannot start.
	for _, v := range r.Workload.GetVolumes() {
		if id := string(model.NewObjectID(pb.Kind_KIND_VOLUME, r.VolumeName(v))); c.in.Object(id) == nil {
			return model.Errorf(model.FaultNotFound, id, "is kept by no agent").
				WithRemedy("the agent of pool %s must have joined", v.GetPool())
		}
	}
	for _, v := range r.Workload.GetVolumes() {
		name := r.VolumeName(v)
		id := string(model.NewObjectID(pb.Kind_KIND_VOLUME, name))
		o := c.in.Object(id)
		pool := c.in.Resource("pool/" + v.GetPool()).GetPool().GetSpec()
		vs := proto.CloneOf(o.GetBase().GetVolume())
		s := &pb.Step{
			Id: "promote " + name, Object: id, Kind: o.GetKind(), Agent: o.GetAgent(), Plan: r.Plan, Workload: r.Name,
			Timeout: durationpb.New(promoteTimeout),
			Spec:    &pb.Spec{State: pb.State_STATE_PRIMARY, Parameters: &pb.Spec_Volume{Volume: vs}},
		}
		if fenced != nil {
			s.Gates = append(s.Gates, proto.CloneOf(fenced))
		}
		c.add(s)
		start.Gates = append(start.Gates, &pb.Gate{AnyOf: []*pb.Condition{done(s.GetId())}})
		spec.Disks = append(spec.Disks, &pb.Disk{
			Name: v.GetName(), Volume: id, Source: &pb.Disk_Nbd{Nbd: "nbd://" + pool.GetExportAddress() + "/" + name},
		})
	}
	return nil
}

// networks adds the networks of the host and returns the local gates on them.
func (c *compiler) networks(r model.Replica, host string, start *pb.Step, spec *pb.InstanceSpec) ([]*pb.LocalGate, error) {
	var after []*pb.LocalGate
	for i, n := range r.Workload.GetNics() {
		decl := c.in.Resource("network/" + n.GetNetwork()).GetNetwork()
		if decl == nil {
			return nil, model.Errorf(model.FaultNotFound, "network/"+n.GetNetwork(), "no such network")
		}
		o := NetworkObject(decl, host, c.in.HostNames)
		s := &pb.Step{
			Id: "network " + model.ObjectID(o.GetId()).Name(), Object: o.GetId(), Kind: o.GetKind(), Agent: host, Plan: r.Plan,
			Timeout: durationpb.New(networkTimeout), Spec: proto.CloneOf(o.GetBase()),
		}
		s.Spec.State = pb.State_STATE_PRESENT
		c.create(o)
		c.add(s)
		start.After = appendNew(start.After, s.GetId())
		after = append(after, &pb.LocalGate{Object: o.GetId(), States: []pb.State{pb.State_STATE_PRESENT}})
		spec.Nics = append(spec.Nics, &pb.Nic{
			Network: n.GetNetwork(), Bridge: decl.GetSpec().GetBridge(), Mac: r.MAC(i), Address: r.Address(n), Gateway: n.GetGateway(),
		})
	}
	return after, nil
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// NetworkObject returns the object of a network on one host, base ABSENT. hosts are all hypervisor
// hosts in order; those that reach the network get its probe addresses in this order.
func NetworkObject(n *pb.Network, host string, hosts []string) *pb.Object {
	name := n.GetMetadata().GetName()
	spec := &pb.NetworkSpec{Name: name, Role: n.GetSpec().GetRole(), Bridge: n.GetSpec().GetBridge(), Uplink: n.GetSpec().GetUplink()}
	if only := n.GetSpec().GetHosts(); len(only) > 0 {
		hosts = slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return !slices.Contains(only, h) })
	}
	if i := slices.Index(hosts, host); i >= 0 && i < len(n.GetSpec().GetProbeAddresses()) {
		spec.ProbeAddress = n.GetSpec().GetProbeAddresses()[i]
	}
	return &pb.Object{
		Id: string(model.NewObjectID(pb.Kind_KIND_NETWORK, name+"@"+host)), Kind: pb.Kind_KIND_NETWORK, Agent: host,
		Base: &pb.Spec{State: pb.State_STATE_ABSENT, Parameters: &pb.Spec_Network{Network: spec}},
	}
}

// memory makes the start wait, on the agent itself, until the victims of its host have left.
func (c *compiler) memory(host string, start *pb.Step, after *[]*pb.LocalGate) {
	for _, s := range c.out.Steps {
		if s.GetLease() != "" && s.GetAgent() == host {
			start.After = appendNew(start.After, s.GetId())
			*after = append(*after, &pb.LocalGate{Object: s.GetObject(), States: model.MemoryFree()})
		}
	}
}

// dependencies makes the start wait for the health of what it depends on, in this plan ("db") or in
// another ("billing/db").
func (c *compiler) dependencies(p *pb.Plan, r model.Replica, start *pb.Step) {
	for _, dep := range r.Workload.GetDependsOn() {
		plan, name, other := strings.Cut(dep, "/")
		if !other {
			plan, name = r.Plan, dep
		}
		for _, target := range c.in.Plans {
			if target.GetMetadata().GetName() == plan {
				c.waitFor(target, name, start)
			}
		}
		if !slices.ContainsFunc(c.in.Plans, func(q *pb.Plan) bool { return q.GetMetadata().GetName() == plan }) {
			start.Gates = append(start.Gates, &pb.Gate{AnyOf: []*pb.Condition{
				{Condition: &pb.Condition_WorkloadHealthy{WorkloadHealthy: plan + "/" + name}},
			}})
		}
	}
}

// waitFor adds a gate on every replica of a workload: healthy when it has a probe, else started. An
// optional one without room is passed like an optional one that failed; any other never opens.
func (c *compiler) waitFor(p *pb.Plan, workload string, step *pb.Step) {
	for _, d := range model.Replicas(p) {
		if d.Workload.GetName() != workload || d.Workload.GetOptional() && c.placement(d) == nil {
			continue
		}
		id := startID(d.Plan, d.Name)
		cond := done(id)
		if d.Workload.GetHealthy() != nil {
			cond = &pb.Condition{Condition: &pb.Condition_StepHealthy{StepHealthy: id}}
		}
		step.Gates = append(step.Gates, &pb.Gate{AnyOf: []*pb.Condition{cond}})
	}
}

func health(r model.Replica, spec *pb.InstanceSpec) *pb.Health {
	h := r.Workload.GetHealthy()
	if h == nil {
		return nil
	}
	address := ""
	if nics := spec.GetNics(); len(nics) > 0 {
		address, _, _ = strings.Cut(nics[0].GetAddress(), "/")
	}
	fill := func(s string) string { return strings.ReplaceAll(s, "{address}", address) }
	out := &pb.Health{Http: fill(h.GetHttp()), Tcp: fill(h.GetTcp()), Within: h.GetWithin()}
	if nics := spec.GetNics(); len(nics) > 0 {
		out.Network = nics[0].GetNetwork()
	}
	return out
}

// EndpointObjectID names the object of a DNS endpoint.
func EndpointObjectID(d *pb.PlanDns) model.ObjectID {
	return model.NewObjectID(pb.Kind_KIND_ENDPOINT, fmt.Sprintf("%s.%s%s", d.GetName(), d.GetZone(), d.GetType()))
}

// EndpointSpec returns what an endpoint is to be when it is announced.
func EndpointSpec(d *pb.PlanDns) *pb.EndpointSpec {
	return &pb.EndpointSpec{Dns: &pb.DnsRecord{
		Zone: d.GetZone(), Name: d.GetName(), Type: d.GetType(), Values: d.GetValues(), Ttl: d.GetTtl(),
	}}
}

func (c *compiler) endpoint(p *pb.Plan, d *pb.PlanDns, fenced *pb.Gate) error {
	if d == nil {
		return nil
	}
	id := string(EndpointObjectID(d))
	o := c.in.Object(id)
	if o == nil {
		return model.Errorf(model.FaultNotFound, id, "no agent keeps zone %s", d.GetZone()).
			WithRemedy("add the zone to an agent's configuration")
	}
	spec := proto.CloneOf(o.GetBase())
	spec.State = pb.State_STATE_ANNOUNCED
	s := &pb.Step{
		Id: "announce " + model.ObjectID(id).Name(), Object: id, Kind: o.GetKind(), Agent: o.GetAgent(), Plan: p.GetMetadata().GetName(),
		Spec: spec, Timeout: durationpb.New(endpointTimeout),
	}
	after := d.GetAfter()
	if len(after) == 0 {
		for _, w := range p.GetSpec().GetWorkloads() {
			after = append(after, w.GetName())
		}
	}
	for _, w := range after {
		c.waitFor(p, w, s)
	}
	if len(s.GetGates()) == 0 && fenced != nil {
		s.Gates = append(s.Gates, proto.CloneOf(fenced)) // Nothing to wait for here, but two announcers must never be.
	}
	c.add(s)
	return nil
}
