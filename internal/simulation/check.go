package simulation

import (
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
)

// checks is what the checks remember.
type checks struct {
	// leases as they were accepted.
	leases map[string]*pb.Lease
	// disks by object: the identity of the disk made for it.
	disks map[string]uint64
	// preempted holds "epoch lease".
	preempted map[string]bool
	// byHand holds the values that people gave to DNS records last.
	byHand map[string]*pb.EndpointValue
}

func newChecks() checks {
	return checks{leases: map[string]*pb.Lease{}, disks: map[string]uint64{}, preempted: map[string]bool{}, byHand: map[string]*pb.EndpointValue{}}
}

func volumeID(name string) model.ObjectID { return model.NewObjectID(pb.Kind_KIND_VOLUME, name) }

// diskMade notes a disk. One that exists is never made a second time.
func (s *sim) diskMade(id model.ObjectID, token uint64) {
	if old := s.checks.disks[string(id)]; old != 0 {
		s.fail("6 leases kept", "the disk of %s is made a second time", id)
	}
	s.checks.disks[string(id)] = token
}

// check looks at the world after an event.
func (s *sim) check() {
	w := s.world
	if !w.touched {
		return
	}
	w.touched = false
	where := map[string]string{}
	for _, name := range s.site.hosts {
		h := w.hosts[name]
		var used uint64
		disk := map[string]uint64{}
		var gpus uint32
		for _, id := range h.ids() {
			d := h.domains[id]
			for pool, n := range model.LocalDisksOf(d.def.Spec) { // Any order: a sum for each pool.
				disk[pool] += n
			}
			if d.image != nil {
				disk[model.LocalDisk] += d.def.Spec.GetMemoryBytes()
			}
			if !d.running {
				continue
			}
			used += d.def.Spec.GetMemoryBytes() + h.capacity.GetOverheadBytes()
			gpus += d.def.Spec.GetDevices()[gpu]
			key := string(id)
			if d.def.Spec.GetBand() == pb.Band_BAND_PROTECTED {
				key = workloadOf(id)
				s.checkOldSelf(key, id)
			}
			if at, twice := where[key]; twice {
				s.fail("1 single run", "%s runs on %s and on %s", key, at, name)
			}
			where[key] = name
		}
		if disk[model.LocalDisk] > h.capacity.GetDiskBytes() || disk[ssd] > h.capacity.GetLocalDisksBytes()[ssd] || gpus > h.capacity.GetDevices()[gpu] {
			s.fail("3 capacity", "host %s keeps %v on its disks and gives away %d: it has %v", name, disk, gpus, h.capacity)
		}
		if used > h.capacity.GetMemoryBytes() {
			s.fail("3 capacity", "host %s runs %s of %s: %s", name, model.Bytes(used), model.Bytes(h.capacity.GetMemoryBytes()), h.describe())
		}
	}
}

func (h *host) describe() string {
	var out []string
	for _, id := range h.ids() {
		if d := h.domains[id]; d.running {
			out = append(out, string(id)+" "+model.Bytes(d.def.Spec.GetMemoryBytes()))
		}
	}
	return strings.Join(out, ", ")
}

// workloadOf returns "webshop-db" for "instance/webshop-db-e3".
func workloadOf(id model.ObjectID) string {
	name := id.Name()
	return name[:strings.LastIndex(name, "-e")]
}

// checkOldSelf: a workload runs here only while its old self does not, or somebody swore that.
func (s *sim) checkOldSelf(workload string, id model.ObjectID) {
	vm := s.world.old.vms[workload]
	if vm == nil || !vm.running {
		return
	}
	plan, _, _ := strings.Cut(workload, "-")
	if !s.sworn(plan) {
		s.fail("1 single run", "%s runs while its old self does, neither fenced nor sworn dead", id)
	}
}

// sworn says whether an oath about a plan stands in a run that is open.
func (s *sim) sworn(plan string) bool {
	for f := range s.state.OpenFailovers() {
		if slices.ContainsFunc(f.GetOaths(), func(o *pb.Oath) bool { return o.GetPlan() == plan }) {
			return true
		}
	}
	return false
}

// checkCall looks at a driver call that an agent begins.
func (s *sim) checkCall(a *agent, e reconcile.Call) {
	key := model.OrderKey{Object: e.Object, Era: e.Era, Generation: e.Generation}
	if newest := a.journal.newest[e.Object]; key.Compare(newest) < 0 {
		s.fail("4 order", "%s acts on generation %d of %s, %d was journaled", a.name, e.Generation, e.Object, newest.Generation)
	}
	if e.Transition.Acquiring && s.now >= a.allowedUntil && a.clock().Boot < a.permitUntil {
		s.fail("R10 permits", "%s begins to acquire %s without a permit of this boot", a.name, e.Object)
	}
	if e.Spec.GetInstance().GetBand() != pb.Band_BAND_LENT {
		return
	}
	if e.Transition.To == pb.State_STATE_RUNNING {
		for _, n := range e.Spec.GetInstance().GetNics() {
			if n.GetNetwork() != "lent" {
				s.fail("9 isolation", "lent %s would touch network %s", e.Object, n.GetNetwork())
			}
		}
	}
	end := e.Spec.GetInstance().GetTermEnd()
	wanted := e.Spec.GetState() == pb.State_STATE_RUNNING && (end == nil || s.wall().Before(end.AsTime()))
	if e.Transition.From == pb.State_STATE_RUNNING && e.Epoch == 0 && wanted {
		s.fail("7 once", "%s stops %s, which no failover took and whose term has not ended", a.name, e.Object)
	}
}

// runsNow says whether an instance of an agent's host runs.
func (s *sim) runsNow(a *agent, id model.ObjectID) bool {
	return a.host != nil && a.host.domains[id] != nil && a.host.domains[id].running
}

// reclaimed counts that a running instance was taken back.
func (s *sim) reclaimed(a *agent, e reconcile.Call) {
	d := a.host.domains[e.Object]
	if d == nil || d.def.Spec.GetBand() != pb.Band_BAND_LENT || e.Epoch == 0 {
		return
	}
	if d.reclaimed[e.Epoch]++; d.reclaimed[e.Epoch] > 1 {
		s.fail("7 once", "%s is preempted a second time by epoch %d", e.Object, e.Epoch)
	}
}

// checkPromotion: only from a consistent point, and only when the old side is proven dead.
func (s *sim) checkPromotion(name string, v *volume) {
	if !v.point.complete {
		s.fail("10 promotion", "volume %s is promoted from synchronisation %d, which never converged", name, v.point.sync)
	}
	o := s.state.Object(string(volumeID(name)))
	for _, over := range o.GetOverrides() {
		f := s.state.Failover(state.FailoverName(over.GetEpoch()))
		if s.proven(f, o.GetPlan()) {
			return
		}
	}
	if len(o.GetOverrides()) == 0 && (s.sworn(o.GetPlan()) || s.world.fenced(s.targetOf(o.GetPlan()))) {
		return // The run is on its way back, and the agent does not know yet.
	}
	s.fail("10 promotion", "volume %s is promoted without evidence or oath of its epoch (fences %v)", name, s.world.fences)
}

func (s *sim) targetOf(plan string) string {
	for _, p := range s.site.plans {
		if p.GetMetadata().GetName() == plan {
			for _, f := range p.GetSpec().GetFencing() {
				if f.GetPower() != nil {
					return f.GetPower().GetTarget()
				}
			}
		}
	}
	return ""
}

// proven says whether a run has an oath about a plan, or a fence of its own that holds now.
func (s *sim) proven(f *pb.Failover, plan string) bool {
	return slices.ContainsFunc(f.GetOaths(), func(o *pb.Oath) bool { return o.GetPlan() == plan }) ||
		s.world.fences[s.targetOf(plan)][f.GetEpoch()]
}

// checkRemoval: what belongs to a lease or to a declared plan is deleted only when it was decided.
func (s *sim) checkRemoval(id string) {
	o := s.state.Object(id)
	if l := s.state.Lease(o.GetLease()); l != nil && l.GetPhase() != pb.LeasePhase_LEASE_PHASE_DELETING {
		s.fail("6 leases kept", "%s of lease %s is deleted although the lease is %v", id, l.GetName(), l.GetPhase())
	}
	if o != nil && model.Effective(o).GetState() != pb.State_STATE_ABSENT {
		s.fail("6 leases kept", "%s is deleted although it is wanted %s", id, model.StateName(model.Effective(o).GetState()))
	}
	delete(s.checks.disks, id)
}

// checkEntry looks at what one entry did to the state.
func (s *sim) checkEntry(before, after *state.State, cmd *pb.Command, res state.Result) {
	if res.Err != nil {
		return
	}
	if kept, read := demand.Site(after, nil), demand.Site(demand.Anew(after), nil); !reflect.DeepEqual(kept, read) {
		s.fail("2 guarantee", "what is remembered of the site is not what is there: %+v, read anew %+v", kept, read)
	}
	for _, key := range res.Changed {
		if name, ok := strings.CutPrefix(key, "lease/"); ok {
			s.checkLease(before.Lease(name), after.Lease(name), cmd)
		}
		if name, ok := strings.CutPrefix(key, "failover/"); ok {
			s.checkEnded(after, after.Failover(name))
		}
	}
	if c := cmd.GetUndeleteLease(); c != nil {
		s.checkGuarantee(before, after, c.GetName())
	}
	if c := cmd.GetStartLease(); c != nil {
		s.report.Queued++
		s.checkGuarantee(before, after, c.GetLease())
	}
	if c := cmd.GetCreateLease(); c != nil {
		s.report.Leases++
		s.checkGuarantee(before, after, c.GetLease().GetName())
	}
	switch d := cmd.GetDeclare(); {
	case d.GetDrain() != nil:
		s.report.Drains++
	case d != nil:
		s.report.Runs++
	}
	if cmd.GetPlaceRun() != nil {
		s.report.Placed++
	}
}

func (s *sim) checkLease(before, after *pb.Lease, cmd *pb.Command) {
	switch {
	case before == nil:
		s.checks.leases[after.GetName()] = after
		return
	case after == nil:
		if before.GetPhase() != pb.LeasePhase_LEASE_PHASE_DELETING && len(before.GetInstances()) > 0 {
			s.fail("6 leases kept", "lease %s disappears while it is %v", before.GetName(), before.GetPhase())
		}
		delete(s.checks.leases, before.GetName())
		return
	}
	if before.GetPhase() == pb.LeasePhase_LEASE_PHASE_QUEUED {
		s.checks.leases[after.GetName()] = after // It has its VMs from now on.
		if cmd.GetStartLease() == nil && len(after.GetInstances()) > 0 {
			s.fail("6 leases kept", "lease %s starts by %s", after.GetName(), describe(cmd))
		}
	}
	first := s.checks.leases[after.GetName()]
	for i, now := range after.GetInstances() {
		if was := first.GetInstances()[i]; !proto.Equal(now, was) {
			s.fail("6 leases kept", "instance %s changed from %v to %v", now.GetObject(), was, now)
		}
	}
	if after.GetPhase() == pb.LeasePhase_LEASE_PHASE_DELETING && before.GetPhase() != after.GetPhase() &&
		s.wall().Before(before.GetDeleteAfter().AsTime()) {
		s.fail("6 leases kept", "lease %s is deleted before its retention time has passed", after.GetName())
	}
	s.checkPreempted(before, after, cmd)
}

func (s *sim) checkPreempted(before, after *pb.Lease, cmd *pb.Command) {
	for _, epoch := range after.GetPreemptedBy() {
		if slices.Contains(before.GetPreemptedBy(), epoch) {
			continue
		}
		key := state.FailoverName(epoch) + " " + after.GetName()
		if s.checks.preempted[key] || cmd.GetDeclare() == nil && cmd.GetPlaceRun() == nil {
			s.fail("7 once", "%s is preempted again, or by %T", key, cmd.GetBody())
		}
		s.checks.preempted[key] = true
	}
}

// checkEnded: no override of a run that went back is left.
func (s *sim) checkEnded(st *state.State, f *pb.Failover) {
	if f.GetPhase() != pb.RunPhase_RUN_PHASE_FAILED_BACK && f.GetPhase() != pb.RunPhase_RUN_PHASE_ABORTED {
		return
	}
	for o := range st.Objects() {
		for _, over := range o.GetOverrides() {
			if over.GetEpoch() == f.GetEpoch() {
				s.fail("5 exact failback", "%s is over and %s still has its override", f.GetName(), o.GetId())
			}
		}
	}
	for l := range st.Leases() {
		if slices.Contains(l.GetPreemptedBy(), f.GetEpoch()) {
			s.fail("5 exact failback", "%s is over and still preempts lease %s", f.GetName(), l.GetName())
		}
	}
}

// checkGuarantee: no lease makes the proof worse.
func (s *sim) checkGuarantee(before, after *state.State, lease string) {
	if out := standing.Look(before, after, live.New(s.wall())); out.Worse() {
		s.fail("2 guarantee", "lease %s makes the site %s", lease, out)
	}
}
