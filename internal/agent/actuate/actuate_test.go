package actuate

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

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
	err := a.Do(context.Background(), reconcile.Call{
		Object: "volume/x", Spec: specs[pb.Kind_KIND_VOLUME],
		Transition: model.Transition{Kind: pb.Kind_KIND_VOLUME, From: pb.State_STATE_ABSENT, To: pb.State_STATE_REPLICA},
	})
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

// scripts records what it was asked to run.
type scripts struct {
	argv        []string
	environment map[string]string
	deadline    bool
}

func (s *scripts) Run(ctx context.Context, argv []string, environment map[string]string) error {
	s.argv, s.environment = argv, environment
	_, s.deadline = ctx.Deadline()
	return nil
}

func TestHooksGetTheirSideAndAKey(t *testing.T) {
	s := &scripts{}
	a := New(&Drivers{Hooks: s})
	spec := &pb.Spec{Parameters: &pb.Spec_Hook{Hook: &pb.HookSpec{
		Apply: []string{"up"}, Revert: []string{"down", "-q"}, Timeout: durationpb.New(time.Second),
		Environment: map[string]string{"PLAN": "webshop"},
	}}}
	call := reconcile.Call{
		Object: "hook/lb", Spec: spec, Epoch: 4, Era: 1, Generation: 9,
		Transition: model.Transition{Kind: pb.Kind_KIND_HOOK, From: pb.State_STATE_APPLIED, To: pb.State_STATE_REVERTED},
	}
	if err := a.Do(context.Background(), call); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"PLAN": "webshop", "HOTSPARE_OBJECT": "hook/lb", "HOTSPARE_SIDE": "revert",
		"HOTSPARE_EPOCH": "4", "HOTSPARE_KEY": "hook/lb@1.9",
	}
	if !maps.Equal(s.environment, want) || !slices.Equal(s.argv, []string{"down", "-q"}) || !s.deadline {
		t.Errorf("ran %v with %v, deadline %v", s.argv, s.environment, s.deadline)
	}
	if len(spec.GetHook().GetEnvironment()) != 1 {
		t.Error("the order was changed")
	}
}
