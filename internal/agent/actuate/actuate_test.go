package actuate

import (
	"context"
	"errors"
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/model"
)

func TestEveryTransitionHasAnActuation(t *testing.T) {
	table := actions()
	for _, tr := range model.Transitions() {
		if table[change{tr.Kind, tr.From, tr.To}] == nil {
			t.Errorf("nothing makes %v %v to %v", tr.Kind, tr.From, tr.To)
		}
	}
	known := map[change]bool{}
	for _, tr := range model.Transitions() {
		known[change{tr.Kind, tr.From, tr.To}] = true
	}
	for c := range table {
		if !known[c] && c.from != c.to {
			t.Errorf("%v is no transition of the model", c)
		}
	}
}

// TestMissingDrivers asks an agent without any driver for everything: each answer is permanent and
// says what to do.
func TestMissingDrivers(t *testing.T) {
	a := New(&Drivers{})
	specs := map[pb.Kind]*pb.Spec{
		pb.Kind_KIND_VOLUME: {Parameters: &pb.Spec_Volume{Volume: &pb.VolumeSpec{Pool: "west"}}},
		pb.Kind_KIND_FENCE:  {Parameters: &pb.Spec_Fence{Fence: &pb.FenceSpec{Target: "east"}}},
		pb.Kind_KIND_HOOK:   {Parameters: &pb.Spec_Hook{Hook: &pb.HookSpec{Apply: []string{"true"}}}},
	}
	for _, tr := range model.Transitions() {
		id := model.NewObjectID(tr.Kind, "x")
		err := a.Do(context.Background(), reconcile.Call{Object: id, Transition: tr, Spec: specs[tr.Kind]})
		var e *model.Error
		if !errors.As(err, &e) || e.Fault != model.FaultUnsupported || e.Remedy == "" {
			t.Errorf("%v: %v", tr, err)
		}
		if tr.Kind == pb.Kind_KIND_HOOK {
			continue
		}
		if _, err := a.Observe(context.Background(), id, specs[tr.Kind]); model.FaultOf(err) != model.FaultUnsupported {
			t.Errorf("observe %v: %v", id, err)
		}
	}
	err := a.Do(context.Background(), reconcile.Call{Object: "volume/x", Spec: specs[pb.Kind_KIND_VOLUME],
		Transition: model.Transition{Kind: pb.Kind_KIND_VOLUME, From: pb.State_STATE_ABSENT, To: pb.State_STATE_REPLICA}})
	if !strings.Contains(err.Error(), `this agent has no storage pool "west"`) {
		t.Errorf("the message does not say what is missing: %v", err)
	}
	unknown := model.Transition{Kind: pb.Kind_KIND_FENCE, From: pb.State_STATE_ABSENT, To: pb.State_STATE_OPEN}
	err = a.Do(context.Background(), reconcile.Call{Object: "fence/x", Transition: unknown})
	if model.FaultOf(err) != model.FaultUnsupported {
		t.Errorf("an unknown change: %v", err)
	}
}

func TestAnOathIsNoDriversBusiness(t *testing.T) {
	d := &Drivers{}
	_, err := d.fence("fence/east", &pb.FenceSpec{Target: "east", Method: pb.FenceMethod_FENCE_METHOD_OATH})
	if model.FaultOf(err) != model.FaultInvalid {
		t.Error(err)
	}
}
