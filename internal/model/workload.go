package model

import (
	"fmt"
	"strconv"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Replica is one VM of a workload.
type Replica struct {
	Plan     string
	Workload *pb.Workload
	Ordinal  int
	// Name is the workload's name, with "-ordinal" when it has several replicas.
	Name string
}

// Key returns "plan/name", the name of the replica in witnesses and placements.
func (r Replica) Key() string { return r.Plan + "/" + r.Name }

// Replicas expands the workloads of a plan, in the plan's order.
func Replicas(p *pb.Plan) []Replica {
	var out []Replica
	for _, w := range p.GetSpec().GetWorkloads() {
		n := int(max(w.GetReplicas(), 1))
		for i := range n {
			r := Replica{Plan: p.GetMetadata().GetName(), Workload: w, Ordinal: i, Name: w.GetName()}
			if n > 1 {
				r.Name = fmt.Sprintf("%s-%d", w.GetName(), i)
			}
			out = append(out, r)
		}
	}
	return out
}

// VolumeName returns the name of a replica's volume in its pool.
func (r Replica) VolumeName(v *pb.WorkloadVolume) string {
	return strings.ReplaceAll(v.GetReplica(), "{ordinal}", strconv.Itoa(r.Ordinal))
}

// Address returns the CIDR of a replica's network card, or "".
func (r Replica) Address(n *pb.WorkloadNic) string {
	if list := n.GetAddresses(); r.Ordinal < len(list) {
		return list[r.Ordinal]
	}
	return n.GetAddress()
}

// MAC returns the hardware address of a replica's n-th network card: the declared one for a single
// replica, else one that follows from the name, so that it is the same after every failover.
func (r Replica) MAC(n int) string {
	if m := r.Workload.GetNics()[n].GetMac(); m != "" && max(r.Workload.GetReplicas(), 1) == 1 {
		return m
	}
	return DeriveMAC(fmt.Sprintf("%s#%d", r.Key(), n))
}

// IsReplicaOf says whether a replica's name is that of the workload, or of one of its numbered replicas.
func IsReplicaOf(name, workload string) bool {
	ordinal, ok := strings.CutPrefix(name, workload+"-")
	if !ok {
		return name == workload
	}
	_, err := strconv.ParseUint(ordinal, 10, 32)
	return err == nil
}
