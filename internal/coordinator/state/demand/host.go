package demand

import (
	"maps"
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/placement/guarantee"
)

// host is a hypervisor host with what hotspare may use of it, as if its agent answered.
func (d *Reader) host(h *pb.Host, policy *pb.HostPolicy) guarantee.Host {
	out := guarantee.Host{
		Name: h.GetName(), FailureDomain: h.GetPolicy().GetFailureDomain(), State: hostState(h),
		SaveBandwidth: amount(h.GetCapacity().GetSaveBytesPerSecond(), 1), Labels: labels(policy.GetMetadata().GetLabels()),
	}
	out.Capacity, out.Lending = d.room(h)
	for _, r := range d.networks {
		if only := r.GetNetwork().GetSpec().GetHosts(); len(only) == 0 || slices.Contains(only, h.GetName()) {
			out.Networks = append(out.Networks, r.GetNetwork().GetMetadata().GetName())
		}
	}
	for _, r := range d.pools {
		if only := r.GetPool().GetSpec().GetHosts(); len(only) == 0 || slices.Contains(only, h.GetName()) {
			out.Pools = append(out.Pools, r.GetPool().GetMetadata().GetName())
		}
	}
	return out
}

// room is what hotspare may use of a host, and the share of it that is for what preempted leases leave there.
// Half of each disk is, where nobody says otherwise: a share that followed the plans would be too small for the
// leases that are there when the first plan asks for disk.
func (d *Reader) room(h *pb.Host) (capacity, lending guarantee.Vector) {
	t, said := model.HostTotal(h), h.GetPolicy().GetLending()
	share := map[string]uint64{}
	for pool, size := range t.TotalLocalDisks { // Any order: each by itself.
		share[pool] = size / 2
	}
	if said != nil && said.LocalDiskBytes != nil {
		share[model.LocalDisk] = said.GetLocalDiskBytes()
	}
	maps.Copy(share, said.GetLocalDisksBytes())
	capacity = d.vector(t.TotalVCPUs, t.TotalMemoryBytes, t.TotalLocalDisks[model.LocalDisk], local{t.TotalLocalDisks, t.TotalDevices})
	lending = d.vector(0, 0, share[model.LocalDisk], local{share, said.GetDevices()})
	for i := range lending {
		lending[i] = min(lending[i], capacity[i])
	}
	return capacity, lending
}

func hostState(h *pb.Host) guarantee.State {
	switch {
	case h.GetLostAt() != nil:
		return guarantee.Lost
	case h.GetCordoned() || h.GetQuarantined():
		return guarantee.Closed
	default:
		return guarantee.Usable
	}
}

func hypervisor(h *pb.Host) bool {
	return h.GetOffer().GetHypervisor() && !h.GetOffer().GetProtectedSite()
}
