// Package actuate turns what the agent's core decided into calls of drivers: one table leads from
// (kind, from, to) to a driver call, and one function reads each kind of object back. It decides
// nothing, keeps nothing, and never retries. Package agent calls it, one call for each object at a
// time; calls of different objects run side by side.
package actuate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/fence"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/storage"
)

// Hooks runs scripts. Nil in Drivers: the agent runs none.
type Hooks interface {
	// Run executes a command until it ends or the context does; it returns an error when it exits
	// with another code than zero. The environment is added to a minimal one.
	Run(ctx context.Context, argv []string, environment map[string]string) error
}

// Drivers are the drivers that an agent's configuration names. Every one of them may be missing.
type Drivers struct {
	Hypervisor hypervisor.Driver
	// Pools by name.
	Pools map[string]storage.Driver
	// Source mirrors disks at the protected site.
	Source   storage.Source
	Networks sdn.Driver
	// Zones by their name, with the final dot: "shop.example.".
	Zones map[string]sdn.Endpoints
	Fence fence.Driver
	Hooks Hooks
}

// Offer says what the agent can reach, for Hello.
func (d *Drivers) Offer() *pb.AgentOffer {
	o := &pb.AgentOffer{
		Hypervisor: d.Hypervisor != nil, Pools: slices.Sorted(maps.Keys(d.Pools)),
		Zones: slices.Sorted(maps.Keys(d.Zones)), ProtectedSite: d.Source != nil,
	}
	if d.Fence != nil {
		o.FenceTargets = slices.Clone(d.Fence.Targets())
	}
	return o
}

// Actuator calls the drivers. It is safe for concurrent use if the drivers are.
type Actuator struct {
	d     *Drivers
	table map[change]action
}

// change is the key of the table; refreshes have the same state twice.
type change struct {
	kind     pb.Kind
	from, to pb.State
}

// action makes one change.
type action func(ctx context.Context, d *Drivers, c reconcile.Call) error

// New returns an actuator for these drivers.
func New(d *Drivers) *Actuator { return &Actuator{d: d, table: actions()} }

// Do makes the change. Errors that time does not mend carry a model.Fault.
func (a *Actuator) Do(ctx context.Context, c reconcile.Call) error {
	t := c.Transition
	act := a.table[change{t.Kind, t.From, t.To}]
	if act == nil {
		return model.Errorf(model.FaultUnsupported, string(c.Object), "this version of the agent cannot change %s to %s",
			model.StateName(t.From), model.StateName(t.To)).WithRemedy("update the agent")
	}
	return act(ctx, a.d, c)
}

// Observe reads an object back. The spec is nil for an instance that is known only by its metadata.
func (a *Actuator) Observe(ctx context.Context, id model.ObjectID, spec *pb.Spec) (reconcile.Observation, error) {
	switch id.Kind() {
	case pb.Kind_KIND_INSTANCE:
		return a.d.observeInstance(ctx, id)
	case pb.Kind_KIND_VOLUME:
		if spec.GetVolume().GetDomain() != "" {
			return a.d.observeSource(ctx, id, spec)
		}
		return a.d.observeVolume(ctx, id, spec.GetVolume())
	case pb.Kind_KIND_NETWORK:
		return a.d.observeNetwork(ctx, id, spec)
	case pb.Kind_KIND_ENDPOINT:
		return a.d.observeEndpoint(ctx, id, spec.GetEndpoint())
	case pb.Kind_KIND_FENCE:
		return a.d.observeFence(ctx, id, spec.GetFence())
	default:
		return reconcile.Observation{}, model.Errorf(model.FaultUnsupported, string(id), "objects of this kind cannot be read")
	}
}

// missing says that the agent's configuration names no driver for an object.
func missing(id model.ObjectID, format string, args ...any) error {
	return model.Errorf(model.FaultUnsupported, string(id), "this agent has no "+format, args...).
		WithRemedy("add it to the agent's configuration and restart the agent, or move the object to another host")
}

func (d *Drivers) hypervisor(id model.ObjectID) (hypervisor.Driver, error) {
	if d.Hypervisor == nil {
		return nil, missing(id, "hypervisor")
	}
	return d.Hypervisor, nil
}

func (d *Drivers) saver(id model.ObjectID) (hypervisor.Saver, error) {
	h, err := d.hypervisor(id)
	if err != nil {
		return nil, err
	}
	s, ok := h.(hypervisor.Saver)
	if !ok {
		return nil, model.Errorf(model.FaultUnsupported, string(id), "this hypervisor cannot keep the RAM of a guest")
	}
	return s, nil
}

func (d *Drivers) pool(id model.ObjectID, v *pb.VolumeSpec) (storage.Driver, error) {
	p := d.Pools[v.GetPool()]
	if p == nil {
		return nil, missing(id, "storage pool %q", v.GetPool())
	}
	return p, nil
}

func (d *Drivers) source(id model.ObjectID) (storage.Source, error) {
	if d.Source == nil {
		return nil, missing(id, "access to the protected site's disks")
	}
	return d.Source, nil
}

func (d *Drivers) networks(id model.ObjectID) (sdn.Driver, error) {
	if d.Networks == nil {
		return nil, missing(id, "network driver")
	}
	return d.Networks, nil
}

func (d *Drivers) zone(id model.ObjectID, e *pb.EndpointSpec) (sdn.Endpoints, error) {
	z := d.Zones[e.GetDns().GetZone()]
	if z == nil {
		return nil, missing(id, "DNS zone %q", e.GetDns().GetZone())
	}
	return z, nil
}

func (d *Drivers) fence(id model.ObjectID, f *pb.FenceSpec) (fence.Driver, error) {
	if f.GetMethod() == pb.FenceMethod_FENCE_METHOD_OATH {
		return nil, model.Errorf(model.FaultInvalid, string(id), "an oath is a person's word: no agent can fence by it")
	}
	if d.Fence == nil || !slices.Contains(d.Fence.Targets(), f.GetTarget()) {
		return nil, missing(id, "fence target %q", f.GetTarget())
	}
	return d.Fence, nil
}

func (d *Drivers) observeInstance(ctx context.Context, id model.ObjectID) (reconcile.Observation, error) {
	var out reconcile.Observation
	h, err := d.hypervisor(id)
	if err != nil {
		return out, err
	}
	dom, err := h.Inspect(ctx, id)
	if errors.Is(err, hypervisor.ErrNotFound) {
		return reconcile.Observation{State: pb.State_STATE_ABSENT}, nil
	}
	if err != nil {
		return out, fmt.Errorf("inspect domain %s: %w", id.Name(), err)
	}
	return reconcile.Observation{
		State: dom.State, Problem: dom.Problem, Owner: dom.Owner, MemoryBytes: dom.MemoryBytes,
	}, nil
}

func (d *Drivers) observeVolume(ctx context.Context, id model.ObjectID, v *pb.VolumeSpec) (reconcile.Observation, error) {
	p, err := d.pool(id, v)
	if err != nil {
		return reconcile.Observation{}, err
	}
	vol, err := p.Inspect(ctx, v.GetName())
	if errors.Is(err, storage.ErrNotFound) {
		return reconcile.Observation{State: pb.State_STATE_ABSENT}, nil
	}
	if err != nil {
		return reconcile.Observation{}, fmt.Errorf("inspect volume %s in pool %s: %w", v.GetName(), v.GetPool(), err)
	}
	return reconcile.Observation{
		State: vol.State, Volume: vol.Status,
		Outdated: outdated(v, vol),
	}, nil
}

// outdated says whether a volume shows that it does not have the parameters that were ordered, whatever
// its driver answered. Into an older layer than asked for no mirror can be started.
func outdated(v *pb.VolumeSpec, vol storage.Volume) bool {
	st := vol.Status
	switch {
	case vol.State == pb.State_STATE_REPLICA:
		return st.GetResync() < v.GetResync()
	case vol.State != pb.State_STATE_PRIMARY || v.GetMirrorTo() == "" || st.GetSealed():
		return false
	case v.GetSealed() && st.GetExport() != "":
		return true
	default: // A mirror that died says so, and stays dead until it is ordered with another number.
		known := st.GetMirroring() || st.GetDegradedSince() != nil
		return !known || st.GetResync() < v.GetResync()
	}
}

// observeSource reads the disk of a protected VM. The disk is the VM's, so it is never ABSENT by
// our doing: an order of ABSENT means that nothing of ours is left on it. Whether a mirror that is
// not in sync still exists cannot be asked for, so it is ended, which is idempotent, as part of the
// reading.
func (d *Drivers) observeSource(ctx context.Context, id model.ObjectID, spec *pb.Spec) (reconcile.Observation, error) {
	var out reconcile.Observation
	s, err := d.source(id)
	if err != nil {
		return out, err
	}
	v := spec.GetVolume()
	if spec.GetState() == pb.State_STATE_ABSENT {
		if err := s.Unmirror(ctx, v); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return out, fmt.Errorf("end the mirror of disk %s of domain %s: %w", v.GetDisk(), v.GetDomain(), err)
		}
		return reconcile.Observation{State: pb.State_STATE_ABSENT}, nil
	}
	vol, err := s.Inspect(ctx, v)
	if err != nil {
		return out, fmt.Errorf("inspect disk %s of domain %s: %w", v.GetDisk(), v.GetDomain(), err)
	}
	return reconcile.Observation{
		State: vol.State, Volume: vol.Status, Outdated: v.GetRunWriter() && !vol.Status.GetWriterRunning(),
	}, nil
}

// observeNetwork reads a network back. One of which only a part is there counts as not reached,
// whichever way is wanted: making it completes it, and removing it takes the rest away.
func (d *Drivers) observeNetwork(ctx context.Context, id model.ObjectID, spec *pb.Spec) (reconcile.Observation, error) {
	n := spec.GetNetwork()
	driver, err := d.networks(id)
	if err != nil {
		return reconcile.Observation{}, err
	}
	st, err := driver.Inspect(ctx, n)
	if err == nil {
		return reconcile.Observation{State: pb.State_STATE_PRESENT, Network: st}, nil
	}
	if !errors.Is(err, sdn.ErrNotFound) {
		return reconcile.Observation{}, fmt.Errorf("inspect network %s: %w", n.GetName(), err)
	}
	names, err := driver.List(ctx)
	if err != nil {
		return reconcile.Observation{}, fmt.Errorf("list networks: %w", err)
	}
	out := reconcile.Observation{State: pb.State_STATE_ABSENT}
	if slices.Contains(names, n.GetName()) {
		out.Problem = "it is incomplete"
		if spec.GetState() == pb.State_STATE_ABSENT {
			out.State = pb.State_STATE_PRESENT
		}
	}
	return out, nil
}

func (d *Drivers) observeEndpoint(ctx context.Context, id model.ObjectID, e *pb.EndpointSpec) (reconcile.Observation, error) {
	z, err := d.zone(id, e)
	if err != nil {
		return reconcile.Observation{}, err
	}
	has, err := z.Read(ctx, e)
	if err != nil {
		return reconcile.Observation{}, fmt.Errorf("read %s record %s: %w", e.GetDns().GetType(), recordName(e), err)
	}
	if has == nil {
		has = &pb.EndpointValue{}
	}
	out := reconcile.Observation{State: pb.State_STATE_WITHDRAWN, Endpoint: &pb.EndpointStatus{Observed: has}}
	ours := &pb.EndpointValue{Values: e.GetDns().GetValues()}
	switch {
	case len(ours.GetValues()) > 0 && sdn.SameValues(has, ours):
		out.State = pb.State_STATE_ANNOUNCED
	case e.GetPreimage() != nil && !sdn.SameValues(has, e.GetPreimage()):
		out.Endpoint.Conflict = true
		out.Problem = fmt.Sprintf("somebody else set %s to %s; it is not overwritten",
			recordName(e), strings.Join(has.GetValues(), ", "))
	}
	return out, nil
}

func recordName(e *pb.EndpointSpec) string { return e.GetDns().GetName() + "." + e.GetDns().GetZone() }

func (d *Drivers) observeFence(ctx context.Context, id model.ObjectID, f *pb.FenceSpec) (reconcile.Observation, error) {
	driver, err := d.fence(id, f)
	if err != nil {
		return reconcile.Observation{}, err
	}
	state, status, err := driver.Inspect(ctx, f)
	if err != nil {
		return reconcile.Observation{}, fmt.Errorf("inspect fence of %s: %w", f.GetTarget(), err)
	}
	return reconcile.Observation{State: state, Fence: status}, nil
}
