package simulation

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fence"
	"github.com/hotspare/hotspare/internal/sdn"
)

var (
	_ sdn.Endpoints = (*zone)(nil)
	_ fence.Driver  = (*switches)(nil)
)

// zone is a DNS server.
type zone struct{ w *world }

func recordKey(r *pb.DnsRecord) string { return r.GetName() + "." + r.GetZone() + " " + r.GetType() }

// Read implements sdn.Endpoints.
func (z *zone) Read(_ context.Context, spec *pb.EndpointSpec) (*pb.EndpointValue, error) {
	return z.w.records[recordKey(spec.GetDns())], nil
}

// Announce implements sdn.Endpoints.
func (z *zone) Announce(_ context.Context, spec *pb.EndpointSpec) error {
	if spec.GetPreimage() == nil {
		return fmt.Errorf("announce %s: no pre-image is committed", recordKey(spec.GetDns()))
	}
	return z.change(spec, ours(spec), spec.GetPreimage())
}

// Withdraw implements sdn.Endpoints.
func (z *zone) Withdraw(_ context.Context, spec *pb.EndpointSpec) error {
	if spec.GetPreimage() == nil {
		return fmt.Errorf("withdraw %s: no pre-image is committed", recordKey(spec.GetDns()))
	}
	return z.change(spec, spec.GetPreimage(), ours(spec))
}

func ours(spec *pb.EndpointSpec) *pb.EndpointValue {
	return &pb.EndpointValue{Values: spec.GetDns().GetValues(), Ttl: spec.GetDns().GetTtl()}
}

func (z *zone) change(spec *pb.EndpointSpec, want, replaceable *pb.EndpointValue) error {
	key := recordKey(spec.GetDns())
	if sdn.Judge(z.w.records[key], want, replaceable) == sdn.VerdictConflict {
		return sdn.ErrConflict
	}
	z.w.records[key] = want
	return nil
}

// switches are the power switches of the protected site's machines.
type switches struct{ w *world }

// Targets implements fence.Driver.
func (f *switches) Targets() []string { return slices.Sorted(maps.Keys(f.w.fences)) }

// Fence implements fence.Driver.
func (f *switches) Fence(_ context.Context, spec *pb.FenceSpec) error {
	if !f.w.old.reach {
		return errDown
	}
	for _, name := range f.w.old.names() {
		if vm := f.w.old.vms[name]; vm.target == spec.GetTarget() {
			f.w.stopOld(vm)
		}
	}
	f.w.fences[spec.GetTarget()][spec.GetEpoch()] = true
	f.w.touched = true
	return nil
}

// Inspect implements fence.Driver. Without an epoch it is about the fences of all epochs.
func (f *switches) Inspect(_ context.Context, spec *pb.FenceSpec) (pb.State, *pb.FenceStatus, error) {
	if !f.w.old.reach {
		return pb.State_STATE_UNSPECIFIED, nil, errDown
	}
	held := f.w.fences[spec.GetTarget()][spec.GetEpoch()]
	if spec.GetEpoch() == 0 {
		held = f.w.fenced(spec.GetTarget())
	}
	if !held {
		return pb.State_STATE_OPEN, &pb.FenceStatus{}, nil
	}
	return pb.State_STATE_FENCED, &pb.FenceStatus{Epoch: spec.GetEpoch(), Evidence: "off", ObservedAt: timestamppb.New(epochStart)}, nil
}

// Lift implements fence.Driver. What it allows is done by people, soon.
func (f *switches) Lift(_ context.Context, spec *pb.FenceSpec) error {
	if !f.w.old.reach {
		return errDown
	}
	held := f.w.fences[spec.GetTarget()]
	delete(held, spec.GetEpoch())
	if spec.GetEpoch() == 0 {
		clear(held)
	}
	f.w.s.after(f.w.s.between(0, 30e9), f.w.startOld)
	return nil
}
