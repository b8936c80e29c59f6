// Package sim is a simulated protected site that can be fenced: targets that are alive or off, in
// memory, with faults on command. A Site stands for the world, so it outlives the agents that fence
// it; a test makes it once and hands it to each agent that it starts.
//
// It decides nothing and powers nothing on. It waits only on channels and timers, so it runs in a
// testing/synctest bubble. The strict simulation, the cluster tests and `hotspare dev` use it; it
// passes the same conformance suite as the real driver.
package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/fence"
)

// Site is a protected site with targets that can be fenced. Each is alive at first.
type Site struct {
	*fault.Faults
	off func(target string)

	mu sync.Mutex
	// The rest is guarded by mu.
	targets map[string]*target
}

// target is one thing that can be fenced.
type target struct {
	alive bool
	// fences holds the time at which each epoch's fence observed the target off.
	fences map[uint64]time.Time
	// powerOffs counts how often an alive target was turned off by a fence.
	powerOffs int
}

var _ fence.Driver = (*Site)(nil)

// NewSite makes a site. The function off, which may be nil, is told each target that a fence turns
// off, so that the test's old side stops with it; it is called without any lock held.
func NewSite(off func(target string), targets ...string) *Site {
	if off == nil {
		off = func(string) {}
	}
	s := &Site{Faults: &fault.Faults{}, off: off, targets: map[string]*target{}}
	for _, name := range targets {
		s.targets[name] = &target{alive: true, fences: map[uint64]time.Time{}}
	}
	return s
}

// Targets implements fence.Driver.
func (s *Site) Targets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.targets))
}

// Fence implements fence.Driver.
func (s *Site) Fence(ctx context.Context, spec *pb.FenceSpec) error {
	return s.Through(ctx, Fence, spec.GetTarget(), func(context.Context) error {
		turned, err := s.turnOff(spec)
		if turned {
			s.off(spec.GetTarget())
		}
		return err
	})
}

// turnOff records the fence and reports whether the target was alive.
func (s *Site) turnOff(spec *pb.FenceSpec) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(spec)
	if err != nil {
		return false, err
	}
	if spec.GetEpoch() == 0 {
		return false, errors.New("the epoch is not set")
	}
	turned := t.alive
	if turned {
		t.alive = false
		t.powerOffs++
	}
	if _, again := t.fences[spec.GetEpoch()]; !again {
		t.fences[spec.GetEpoch()] = time.Now()
	}
	return turned, nil
}

// Inspect implements fence.Driver.
func (s *Site) Inspect(ctx context.Context, spec *pb.FenceSpec) (pb.State, *pb.FenceStatus, error) {
	state, status := pb.State_STATE_OPEN, &pb.FenceStatus{}
	err := s.Through(ctx, Inspect, spec.GetTarget(), func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		t, err := s.find(spec)
		if err != nil {
			return err
		}
		if spec.GetEpoch() == 0 {
			if len(t.fences) > 0 {
				state = pb.State_STATE_FENCED
			}
			return nil
		}
		since, fenced := t.fences[spec.GetEpoch()]
		if !fenced || t.alive {
			return nil
		}
		state = pb.State_STATE_FENCED
		status = &pb.FenceStatus{
			Epoch:      spec.GetEpoch(),
			Evidence:   fmt.Sprintf("simulated target %s was turned off", spec.GetTarget()),
			ObservedAt: timestamppb.New(since),
		}
		return nil
	})
	if err != nil {
		return pb.State_STATE_UNSPECIFIED, nil, err
	}
	return state, status, nil
}

// Lift implements fence.Driver.
func (s *Site) Lift(ctx context.Context, spec *pb.FenceSpec) error {
	return s.Through(ctx, Lift, spec.GetTarget(), func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		t, err := s.find(spec)
		if err != nil {
			return err
		}
		if spec.GetEpoch() == 0 {
			clear(t.fences)
		}
		delete(t.fences, spec.GetEpoch())
		return nil
	})
}

// find returns the target that a spec names; mu is held.
func (s *Site) find(spec *pb.FenceSpec) (*target, error) {
	t := s.targets[spec.GetTarget()]
	if t == nil {
		return nil, fmt.Errorf("fence target %s is not configured", spec.GetTarget())
	}
	return t, nil
}

// Alive reports whether a target runs; false for a target that does not exist.
func (s *Site) Alive(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[name]
	return t != nil && t.alive
}

// SetAlive is somebody else's hand: power on, or a site that dies by itself. A target that dies
// without a fence is no evidence: it stays OPEN.
func (s *Site) SetAlive(name string, alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.targets[name]; t != nil {
		t.alive = alive
	}
}

// PowerOffs counts how often a fence turned a living target off.
func (s *Site) PowerOffs(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.targets[name]; t != nil {
		return t.powerOffs
	}
	return 0
}

// Fences counts the fences of a target that were not lifted; what a residue check compares.
func (s *Site) Fences(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.targets[name]; t != nil {
		return len(t.fences)
	}
	return 0
}
