package runbook

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// SourceName names the protected site's side of a replicated volume.
func SourceName(volume string) string { return volume + "@source" }

// Way is what a failback commits so that nothing written here is lost.
type Way struct {
	Steps   []*pb.Step
	Objects []*pb.Object
	Orders  []*pb.BackOrder
}

// WayInput is what the way back is made from. Nothing of it is changed.
type WayInput struct {
	Failover *pb.Failover
	Resource func(key string) *pb.Resource
	Object   func(id string) *pb.Object
}

// carried is one promoted volume on its way back.
type carried struct {
	promote *pb.Step
	name    string
	source  *pb.Object
	pool    *pb.Pool
}

func (v *carried) id(verb string) string { return verb + " " + v.name }

// startID names the start of the VM that owns the disk there.
func (v *carried) startID() string {
	return "start " + v.source.GetBase().GetVolume().GetDomain() + " at " + v.source.GetAgent()
}

// discardRemedy ends the advice of every refusal: that way is always open.
const discardRemedy = "; or add --discard-recovery-data to throw away what was written here"

// Back compiles the way back of every volume that the run has promoted:
//
//	receive back ► mirror back ► (workloads gone) seal ► hand over ► (fence lifted) start the VM there
//
// Nothing that runs here goes before every mirror is in sync, no promotion before its volume was handed
// over. A volume that cannot be carried back is an error that says what is missing.
func Back(in WayInput) (Way, error) {
	var w Way
	var all []*carried
	for _, s := range in.Failover.GetSteps() {
		if !model.MayBeWritten(in.Failover, s) {
			continue
		}
		v, err := in.carry(s)
		if err != nil {
			return Way{}, err
		}
		all = append(all, v)
	}
	var mirrors []string
	for _, v := range all {
		mirrors = append(mirrors, v.id("mirror back"))
		w.volume(in, v)
	}
	w.starts(in, all)
	for _, s := range in.Failover.GetSteps() {
		serves := s.GetKind() == pb.Kind_KIND_INSTANCE && s.GetLease() == "" || s.GetKind() == pb.Kind_KIND_ENDPOINT || s.GetKind() == pb.Kind_KIND_HOOK
		if serves && s.GetGeneration() > 0 && len(mirrors) > 0 {
			w.Orders = append(w.Orders, &pb.BackOrder{Step: s.GetId(), After: mirrors})
		}
	}
	return w, nil
}

// carry finds where a promoted volume came from.
func (in WayInput) carry(s *pb.Step) (*carried, error) {
	v := &carried{promote: s, name: model.ObjectID(s.GetObject()).Name()}
	v.source = in.Object(string(model.NewObjectID(pb.Kind_KIND_VOLUME, SourceName(v.name))))
	pool := ""
	for _, r := range model.Replicas(in.Resource("plan/" + s.GetPlan()).GetPlan()) {
		for _, d := range r.Workload.GetVolumes() {
			if r.VolumeName(d) == v.name {
				pool = d.GetSource().GetPool()
			}
		}
	}
	refuse := func(what, remedy string, args ...any) error {
		return model.Errorf(model.FaultPrecondition, s.GetObject(), "was promoted, and %s", what).WithRemedy(remedy+discardRemedy, args...)
	}
	switch v.pool = in.Resource("pool/" + pool).GetPool(); {
	case v.source == nil:
		return nil, refuse("its plan names no source to carry the data back to", "apply plan %s with a source for it", s.GetPlan())
	case pool == "":
		return nil, refuse("its source names no pool at the protected site", "apply plan %s with source.pool for it", s.GetPlan())
	case v.pool == nil:
		return nil, refuse("pool "+pool+" of its source is not declared", "apply a Pool manifest for %s", pool)
	case v.pool.GetSpec().GetAgent() != v.source.GetAgent():
		return nil, refuse(fmt.Sprintf("pool %s is kept by agent %s, its source by %s", pool, v.pool.GetSpec().GetAgent(), v.source.GetAgent()),
			"name a pool of agent %s", v.source.GetAgent())
	case v.source.GetDiskPath() == "":
		return nil, refuse("agent "+v.source.GetAgent()+" never said which file its disk is", "let agent %s connect", v.source.GetAgent())
	}
	return v, nil
}

// volume adds the steps of one volume.
func (w *Way) volume(in WayInput, v *carried) {
	epoch := in.Failover.GetEpoch()
	receive, mirror, seal, handOver := v.id("receive back"), v.id("mirror back"), v.id("seal"), v.id("hand over")
	back := &pb.VolumeSpec{
		Pool: v.pool.GetMetadata().GetName(), Name: fmt.Sprintf("%s-e%d", v.name, epoch),
		SizeBytes: v.promote.GetSpec().GetVolume().GetSizeBytes(), Disk: v.source.GetDiskPath(),
	}
	o := &pb.Object{
		Id:   string(model.NewObjectID(pb.Kind_KIND_VOLUME, fmt.Sprintf("%s@return-e%d", v.name, epoch))),
		Kind: pb.Kind_KIND_VOLUME, Agent: v.source.GetAgent(), MadeBy: epoch, Plan: v.promote.GetPlan(), Workload: v.promote.GetWorkload(),
		Base: volumeSpec(pb.State_STATE_ABSENT, back, func(*pb.VolumeSpec) {}),
	}
	w.Objects = append(w.Objects, o)
	here := proto.CloneOf(v.promote.GetSpec().GetVolume())
	here.MirrorTo, here.Resync = "nbd://"+v.pool.GetSpec().GetExportAddress()+"/"+back.GetName(), 1

	startOld := v.startID()
	w.add(v, receive, o, volumeSpec(pb.State_STATE_REPLICA, back, func(s *pb.VolumeSpec) { s.Resync = 1 }), startOld)
	m := w.add(v, mirror, nil, volumeSpec(pb.State_STATE_PRIMARY, here, func(*pb.VolumeSpec) {}), handOver)
	m.Gates, m.After = gates(done(receive)), []string{receive}
	s := w.add(v, seal, nil, volumeSpec(pb.State_STATE_PRIMARY, here, func(s *pb.VolumeSpec) { s.Sealed = true }), handOver)
	s.Gates = gates(done(mirror))
	for _, user := range in.Failover.GetSteps() {
		if user.GetKind() == pb.Kind_KIND_INSTANCE && uses(user, v.promote) {
			s.Gates = append(s.Gates, gates(reverted(user.GetId()))...)
		}
	}
	h := w.add(v, handOver, o, volumeSpec(pb.State_STATE_PRIMARY, back, func(s *pb.VolumeSpec) { s.Resync, s.Converged = 1, 1 }), startOld)
	h.Gates = gates(done(seal), &pb.Condition{Condition: &pb.Condition_WriterOff{WriterOff: v.source.GetId()}})
	w.Orders = append(w.Orders, &pb.BackOrder{Step: v.promote.GetId(), After: []string{handOver}})
}

func (w *Way) add(v *carried, id string, o *pb.Object, spec *pb.Spec, after string) *pb.Step {
	s := &pb.Step{
		Id: id, Object: v.promote.GetObject(), Kind: pb.Kind_KIND_VOLUME, Agent: v.promote.GetAgent(), Plan: v.promote.GetPlan(),
		Workload: v.promote.GetWorkload(), Spec: spec, WayBack: true, BackAfter: []string{after},
	}
	if o != nil {
		s.Object, s.Agent = o.GetId(), o.GetAgent()
	}
	w.Steps = append(w.Steps, s)
	return s
}

// starts adds the start of each VM at the old side: once all its disks were handed over, and nothing
// fences it any more.
func (w *Way) starts(in WayInput, all []*carried) {
	for _, v := range all {
		spec := v.source.GetBase().GetVolume()
		id := v.startID()
		i := slices.IndexFunc(w.Steps, func(s *pb.Step) bool { return s.GetId() == id })
		if i < 0 {
			run := volumeSpec(pb.State_STATE_PRIMARY, spec, func(s *pb.VolumeSpec) { s.MirrorTo, s.RunWriter = "", true })
			s := w.add(v, id, v.source, run, id)
			i = slices.Index(w.Steps, s)
			for _, fence := range in.Failover.GetSteps() {
				if fence.GetKind() == pb.Kind_KIND_FENCE && uses(v.promote, fence) {
					s.Gates = append(s.Gates, gates(reverted(fence.GetId()))...)
				}
			}
		}
		w.Steps[i].Gates = append(w.Steps[i].Gates, gates(done(v.id("hand over")))...)
	}
}

// uses says whether a step has a gate on another one.
func uses(s, on *pb.Step) bool {
	return slices.ContainsFunc(s.GetGates(), func(g *pb.Gate) bool {
		return slices.ContainsFunc(g.GetAnyOf(), func(c *pb.Condition) bool { return c.GetStepDone() == on.GetId() })
	})
}

func volumeSpec(st pb.State, v *pb.VolumeSpec, change func(*pb.VolumeSpec)) *pb.Spec {
	v = proto.CloneOf(v)
	change(v)
	return &pb.Spec{State: st, Parameters: &pb.Spec_Volume{Volume: v}}
}

// gates makes one gate of each condition: all must hold.
func gates(all ...*pb.Condition) []*pb.Gate {
	var out []*pb.Gate
	for _, c := range all {
		out = append(out, &pb.Gate{AnyOf: []*pb.Condition{c}})
	}
	return out
}

func reverted(step string) *pb.Condition {
	return &pb.Condition{Condition: &pb.Condition_StepReverted{StepReverted: step}}
}
