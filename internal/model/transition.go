package model

import (
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Transition is one change of one object that one driver call makes.
type Transition struct {
	Kind     pb.Kind
	From, To pb.State
	// Acquiring actions begin only under a live permit; releasing ones are always completed (R10).
	Acquiring bool
}

// transitions lists every change that an agent can make. What is not here is reached in several
// steps (ABSENT to RUNNING by way of DEFINED) or not at all.
var transitions = []Transition{
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_ABSENT, pb.State_STATE_DEFINED, false},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_DEFINED, pb.State_STATE_RUNNING, true},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_STOPPED, pb.State_STATE_RUNNING, true},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_SAVED, pb.State_STATE_RUNNING, true},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_RUNNING, pb.State_STATE_SAVED, false},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_RUNNING, pb.State_STATE_STOPPED, false},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_SAVED, pb.State_STATE_STOPPED, false},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_STOPPED, pb.State_STATE_ABSENT, false},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_DEFINED, pb.State_STATE_ABSENT, false},
	{pb.Kind_KIND_INSTANCE, pb.State_STATE_SAVED, pb.State_STATE_ABSENT, false},

	{pb.Kind_KIND_VOLUME, pb.State_STATE_ABSENT, pb.State_STATE_REPLICA, false},
	{pb.Kind_KIND_VOLUME, pb.State_STATE_ABSENT, pb.State_STATE_CLONE, false},
	{pb.Kind_KIND_VOLUME, pb.State_STATE_REPLICA, pb.State_STATE_PRIMARY, true},
	{pb.Kind_KIND_VOLUME, pb.State_STATE_PRIMARY, pb.State_STATE_REPLICA, false},
	{pb.Kind_KIND_VOLUME, pb.State_STATE_REPLICA, pb.State_STATE_ABSENT, false},
	{pb.Kind_KIND_VOLUME, pb.State_STATE_CLONE, pb.State_STATE_ABSENT, false},

	{pb.Kind_KIND_NETWORK, pb.State_STATE_ABSENT, pb.State_STATE_PRESENT, true},
	{pb.Kind_KIND_NETWORK, pb.State_STATE_PRESENT, pb.State_STATE_ABSENT, false},

	{pb.Kind_KIND_ENDPOINT, pb.State_STATE_WITHDRAWN, pb.State_STATE_ANNOUNCED, true},
	{pb.Kind_KIND_ENDPOINT, pb.State_STATE_ANNOUNCED, pb.State_STATE_WITHDRAWN, false},

	{pb.Kind_KIND_FENCE, pb.State_STATE_OPEN, pb.State_STATE_FENCED, true},
	{pb.Kind_KIND_FENCE, pb.State_STATE_FENCED, pb.State_STATE_OPEN, true},

	{pb.Kind_KIND_HOOK, pb.State_STATE_REVERTED, pb.State_STATE_APPLIED, true},
	{pb.Kind_KIND_HOOK, pb.State_STATE_APPLIED, pb.State_STATE_REVERTED, false},
}

// Transitions returns a copy of the table, for tests and documentation.
func Transitions() []Transition { return slices.Clone(transitions) }

// States returns the states that a kind has, in the order of the table.
func States(kind pb.Kind) []pb.State {
	var out []pb.State
	for _, t := range transitions {
		if t.Kind != kind {
			continue
		}
		for _, s := range []pb.State{t.From, t.To} {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// HasState says whether objects of the kind can be in the state.
func HasState(kind pb.Kind, s pb.State) bool { return slices.Contains(States(kind), s) }

// Next returns the first transition on the shortest way from one state to another, and false when
// the states are equal or there is no way.
func Next(kind pb.Kind, from, to pb.State) (Transition, bool) {
	if from == to {
		return Transition{}, false
	}
	type hop struct {
		at    pb.State
		first Transition
	}
	seen := []pb.State{from}
	queue := []hop{{at: from}}
	for len(queue) > 0 {
		h := queue[0]
		queue = queue[1:]
		for _, t := range transitions {
			if t.Kind != kind || t.From != h.at || slices.Contains(seen, t.To) {
				continue
			}
			first := h.first
			if h.at == from {
				first = t
			}
			if t.To == to {
				return first, true
			}
			seen = append(seen, t.To)
			queue = append(queue, hop{t.To, first})
		}
	}
	return Transition{}, false
}

// Satisfies says whether an observed state is as good as the desired one, so that nothing is left
// to do. A saved instance that fell back to its disk is as good as saved: its memory is free and its
// disk is kept. DEFINED and STOPPED differ only in history.
func Satisfies(kind pb.Kind, observed, desired pb.State) bool {
	if observed == desired {
		return true
	}
	if kind != pb.Kind_KIND_INSTANCE {
		return false
	}
	off := observed == pb.State_STATE_STOPPED || observed == pb.State_STATE_DEFINED
	switch desired {
	case pb.State_STATE_SAVED, pb.State_STATE_STOPPED, pb.State_STATE_DEFINED:
		return off
	default:
		return false
	}
}

// Rest returns the state in which nothing of an object is left: there it can be forgotten.
func Rest(kind pb.Kind) pb.State {
	switch kind {
	case pb.Kind_KIND_ENDPOINT:
		return pb.State_STATE_WITHDRAWN
	case pb.Kind_KIND_FENCE:
		return pb.State_STATE_OPEN
	case pb.Kind_KIND_HOOK:
		return pb.State_STATE_REVERTED
	default:
		return pb.State_STATE_ABSENT
	}
}

// MemoryFree lists the states of an instance that hold no memory: QEMU has exited.
func MemoryFree() []pb.State {
	return []pb.State{pb.State_STATE_SAVED, pb.State_STATE_STOPPED, pb.State_STATE_DEFINED, pb.State_STATE_ABSENT}
}
