package lease

import (
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// Bounds of what one request may ask for, and what it gets when it does not say.
const (
	maxCount    = 100
	defaultTerm = 8 * time.Hour
	minMemory   = 64 << 20
	maxMemory   = model.MaxMemoryBytes
	maxVCPUs    = model.MaxVCPUs
	maxUserData = 64 << 10
	maxSSHKeys  = 50
)

// bounds refuses what no project may ask for.
func bounds(s *pb.LeaseSpec) error {
	switch {
	case s.GetCount() > maxCount:
		return model.Errorf(model.FaultInvalid, "", "%d VMs in one lease", s.GetCount()).WithRemedy("at most %d", maxCount)
	case s.GetResources().GetVcpus() == 0 || s.GetResources().GetMemoryBytes() < minMemory:
		return model.Errorf(model.FaultInvalid, "", "a VM needs at least 1 vcpu and %s", model.Bytes(minMemory)).
			WithRemedy("for example --vm 2cpu,4GiB")
	case s.GetResources().GetVcpus() > maxVCPUs || s.GetResources().GetMemoryBytes() > maxMemory:
		return model.Errorf(model.FaultInvalid, "", "a VM of %d vcpus, %s", s.GetResources().GetVcpus(), model.Bytes(s.GetResources().GetMemoryBytes())).
			WithRemedy("at most %d vcpus, %s", maxVCPUs, model.Bytes(maxMemory))
	case len(s.GetUserData()) > maxUserData:
		return model.Errorf(model.FaultInvalid, "", "user-data of %s", model.Bytes(uint64(len(s.GetUserData())))).
			WithRemedy("at most %s", model.Bytes(maxUserData))
	case len(s.GetSshKeys()) > maxSSHKeys:
		return model.Errorf(model.FaultInvalid, "", "%d ssh keys", len(s.GetSshKeys())).WithRemedy("at most %d", maxSSHKeys)
	}
	if err := localDisks(s.GetResources()); err != nil {
		return err
	}
	if err := devices(s); err != nil {
		return err
	}
	for i, k := range s.GetSshKeys() {
		if !model.IsSSHKey(k) {
			return model.Errorf(model.FaultInvalid, "", "ssh key %d is none", i+1).
				WithRemedy(`give public keys as in authorized_keys, for example "ssh-ed25519 AAAA... name"`)
		}
	}
	return nil
}

// localDisks refuses sizes and names that no host's disk can have.
func localDisks(r *pb.Resources) error {
	fault := func(what string, bytes uint64) error {
		return model.Errorf(model.FaultInvalid, "", "%s of %s", what, model.Bytes(bytes)).
			WithRemedy("%s to %s", model.Bytes(model.MinLocalDiskBytes), model.Bytes(model.MaxLocalDiskBytes))
	}
	wrong := func(n uint64) bool { return n < model.MinLocalDiskBytes || n > model.MaxLocalDiskBytes }
	if n := r.GetLocalDiskBytes(); n > 0 && wrong(n) {
		return fault("a local disk", n)
	}
	if len(r.GetLocalDisksBytes()) > model.MaxLocalPools {
		return model.Errorf(model.FaultInvalid, "", "disks in %d local pools", len(r.GetLocalDisksBytes())).WithRemedy("at most %d", model.MaxLocalPools)
	}
	for _, pool := range slices.Sorted(maps.Keys(r.GetLocalDisksBytes())) {
		switch n := r.GetLocalDisksBytes()[pool]; {
		case !model.ValidLocalPool(pool):
			return model.Errorf(model.FaultInvalid, "", "a disk in local pool %q", pool).
				WithRemedy("disk=20GiB is one on the host's own disk, disk/ssd=20GiB one in its local pool ssd")
		case wrong(n):
			return fault("a disk in local pool "+pool, n)
		}
	}
	return nil
}

// devices refuses those that no host can have, and what a VM that has some cannot do.
func devices(s *pb.LeaseSpec) error {
	d := s.GetResources().GetDevices()
	if len(d) > model.MaxDeviceNames {
		return model.Errorf(model.FaultInvalid, "", "devices of %d names", len(d)).WithRemedy("at most %d", model.MaxDeviceNames)
	}
	for _, name := range slices.Sorted(maps.Keys(d)) {
		if !model.ValidName(name) || d[name] == 0 || d[name] > model.MaxDevices {
			return model.Errorf(model.FaultInvalid, "", "%d of device %q", d[name], name).WithRemedy("1 to %d, of a name that a host has", model.MaxDevices)
		}
	}
	if len(d) > 0 && s.GetOnPreempt() == pb.ReclaimAction_RECLAIM_ACTION_SAVE {
		return model.Errorf(model.FaultInvalid, "", "the RAM of a VM with devices cannot be saved").WithRemedy("with --on-preempt=shutdown its disks are kept")
	}
	return nil
}

// usualAction keeps as much as a VM can keep.
func usualAction(r *pb.Resources) pb.ReclaimAction {
	if len(r.GetDevices()) > 0 {
		return pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN
	}
	return pb.ReclaimAction_RECLAIM_ACTION_SAVE
}

// complete fills in what the request left open and refuses what the project does not allow.
func complete(p *pb.Project, s *pb.LeaseSpec, owner string) error {
	key := "project/" + p.GetMetadata().GetName()
	if s.GetCount() == 0 {
		s.Count = 1
	}
	if s.GetTerm() == nil {
		s.Term = durationpb.New(defaultTerm)
		if longest := p.GetSpec().GetLongestTerm(); longest != nil {
			s.Term = durationpb.New(min(defaultTerm, longest.AsDuration()))
		}
	}
	if s.GetOnPreempt() == pb.ReclaimAction_RECLAIM_ACTION_UNSPECIFIED {
		s.OnPreempt = usualAction(s.GetResources())
	}
	s.Grace = model.Grace(p, s)
	if err := bounds(s); err != nil {
		return err
	}
	switch {
	case s.GetTerm().AsDuration() <= 0:
		return model.Errorf(model.FaultInvalid, "", "the term must be longer than nothing")
	case p.GetSpec().GetLongestTerm() != nil && s.GetTerm().AsDuration() > p.GetSpec().GetLongestTerm().AsDuration():
		return model.Errorf(model.FaultQuota, key, "allows terms up to %s, asked for %s",
			p.GetSpec().GetLongestTerm().AsDuration(), s.GetTerm().AsDuration())
	case len(p.GetSpec().GetMembers()) > 0 && !slices.Contains(p.GetSpec().GetMembers(), owner):
		return model.Errorf(model.FaultDenied, key, "%s is not a member", owner).WithRemedy("ask an operator to add you to the project")
	}
	action := strings.ToLower(strings.TrimPrefix(s.GetOnPreempt().String(), "RECLAIM_ACTION_"))
	if allowed := p.GetSpec().GetActions(); len(allowed) > 0 && !slices.Contains(allowed, action) {
		return model.Errorf(model.FaultQuota, key, "does not allow --on-preempt=%s", action).WithRemedy("allowed: %s", strings.Join(allowed, ", "))
	}
	if c := s.GetCloneOf(); c != "" && !slices.Contains(p.GetSpec().GetClones(), c) {
		return model.Errorf(model.FaultDenied, key, "may not clone %s", c).WithRemedy("an operator can allow it in the project's clones")
	}
	return nil
}

// cloneSource finds the replica behind "plan/workload".
func cloneSource(s *state.State, name string) (*pb.Object, error) {
	plan, workload, _ := strings.Cut(name, "/")
	for _, r := range model.Replicas(s.Plan(plan)) {
		if r.Name != workload && r.Workload.GetName() != workload {
			continue
		}
		for _, v := range r.Workload.GetVolumes() {
			if o := s.Object(string(model.NewObjectID(pb.Kind_KIND_VOLUME, r.VolumeName(v)))); o != nil {
				return o, nil
			}
		}
	}
	return nil, model.Errorf(model.FaultNotFound, "plan/"+name, "has no replicated volume to clone").WithRemedy("name it as PLAN/WORKLOAD")
}
