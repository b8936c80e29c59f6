package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Deadlines of driver calls. A deadline means unknown, never failed (R11), so each is generous: it
// only bounds how long an object says WORKING before it says UNKNOWN.
const (
	// callTimeout fits every call that moves no data in bulk.
	callTimeout = time.Minute
	// restoreTimeout reads a RAM image back: 64 GiB at 250 MB/s.
	restoreTimeout = 5 * time.Minute
	// defaultSaveDeadline is used when a spec names none.
	defaultSaveDeadline = 5 * time.Minute
	// defaultGrace is how long a guest may take to shut down when a spec names nothing.
	defaultGrace = 30 * time.Second
	// stopMargin is what a stop may take beyond the guest's grace: the kill and the exit of QEMU.
	stopMargin = 15 * time.Second
	// hookMargin is what a hook may take beyond its own timeout: ending its processes.
	hookMargin = 5 * time.Second
)

// next returns the transition that leads from the observed state towards the desired one; done when
// nothing is left to do. It never leads through a state that loses what the desired state keeps.
func next(kind pb.Kind, observed, desired pb.State) (t model.Transition, done bool, err error) {
	if model.Satisfies(kind, observed, desired) {
		return t, true, nil
	}
	to := desired
	if kind == pb.Kind_KIND_INSTANCE {
		to = waypoint(observed, desired)
	}
	t, ok := model.Next(kind, observed, to)
	if !ok {
		return t, false, fmt.Errorf("there is no way from %s to %s",
			model.StateName(observed), model.StateName(desired))
	}
	for at := t.To; at != to; {
		if at == pb.State_STATE_ABSENT {
			return t, false, fmt.Errorf("the way from %s to %s would delete it first: order %s before",
				model.StateName(observed), model.StateName(desired), model.StateName(pb.State_STATE_ABSENT))
		}
		hop, ok := model.Next(kind, at, to)
		if !ok {
			break
		}
		at = hop.To
	}
	return t, false, nil
}

// waypoint returns the state to head for. The shortest way in the table is not always the right
// one: deleting a running instance must not save its RAM first, and one that does not exist is as
// free of memory as a saved one once it is defined.
func waypoint(observed, desired pb.State) pb.State {
	const (
		absent  = pb.State_STATE_ABSENT
		defined = pb.State_STATE_DEFINED
		stopped = pb.State_STATE_STOPPED
	)
	switch {
	case observed == absent && desired != absent:
		return defined
	case observed == pb.State_STATE_RUNNING && desired == absent:
		return stopped
	case desired == defined && observed != absent:
		return stopped
	}
	return desired
}

// reached says whether an observed state shows that a transition happened.
func reached(t model.Transition, observed pb.State) bool {
	if observed == t.To {
		return true
	}
	// A hypervisor shows a stopped domain as DEFINED: they differ only in history.
	return t.Kind == pb.Kind_KIND_INSTANCE && off(observed) && off(t.To)
}

func off(s pb.State) bool {
	return s == pb.State_STATE_STOPPED || s == pb.State_STATE_DEFINED
}

// firstState is the state of an object that was never touched: its ledger entry ends there.
func firstState(kind pb.Kind) pb.State {
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

// refreshes says whether an object that is in a state takes other parameters by one more call.
func refreshes(kind pb.Kind, s pb.State) bool {
	switch kind {
	case pb.Kind_KIND_INSTANCE:
		return off(s)
	case pb.Kind_KIND_HOOK:
		return false
	default:
		return s != firstState(kind)
	}
}

// refresh is the transition from a state to itself, which gives the driver other parameters. It is
// acquiring when entering the state is.
func refresh(kind pb.Kind, s pb.State) model.Transition {
	t := model.Transition{Kind: kind, From: s, To: s}
	for _, into := range model.Transitions() {
		if into.Kind == kind && into.To == s && into.Acquiring {
			t.Acquiring = true
		}
	}
	if kind == pb.Kind_KIND_INSTANCE {
		t = model.Transition{Kind: kind, From: pb.State_STATE_DEFINED, To: pb.State_STATE_DEFINED}
	}
	return t
}

// digest identifies the parameters that a driver was given. Of an instance only what is in its
// definition counts: a longer term or another probe is no reason to define it again.
func digest(spec *pb.Spec) string {
	c := &pb.Spec{Parameters: spec.GetParameters()}
	if spec.GetInstance() != nil {
		c = proto.Clone(c).(*pb.Spec)
		i := c.GetInstance()
		i.Reclaim, i.Health, i.TermEnd, i.Preemption = nil, nil, nil, nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		// Only a string that is not UTF-8 can do that, and such a message is not received.
		panic("reconcile: a received spec must be encodable: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// artefact names what a call may make outside of the agent.
func artefact(id model.ObjectID, kind pb.Kind, spec *pb.Spec) string {
	switch kind {
	case pb.Kind_KIND_VOLUME:
		return "volume " + spec.GetVolume().GetPool() + "/" + spec.GetVolume().GetName()
	case pb.Kind_KIND_NETWORK:
		return "bridge " + spec.GetNetwork().GetBridge()
	case pb.Kind_KIND_ENDPOINT:
		r := spec.GetEndpoint().GetDns()
		return "record " + r.GetName() + "." + r.GetZone() + " " + r.GetType()
	case pb.Kind_KIND_FENCE:
		return "fence of " + spec.GetFence().GetTarget()
	case pb.Kind_KIND_HOOK:
		return "hook " + id.Name()
	default:
		return "domain " + id.Name()
	}
}

// timeout returns how long one call may take before its outcome is called unknown.
func timeout(t model.Transition, spec *pb.Spec) time.Duration {
	switch {
	case t.From == pb.State_STATE_SAVED && t.To == pb.State_STATE_RUNNING:
		return restoreTimeout
	case t.Kind == pb.Kind_KIND_HOOK && spec.GetHook().GetTimeout() != nil:
		return spec.GetHook().GetTimeout().AsDuration() + hookMargin
	default:
		return callTimeout
	}
}

// convergingPoll is how often a mirror is read while it converges: until it has, its plan is not ready.
const convergingPoll = 250 * time.Millisecond

// pollEvery is how often an object is read again without a reason. A fence is verified for as long
// as it holds; a volume's replication moves without an event. A network is kept apart by filters that a
// reload of the host's firewall takes away without an event.
func pollEvery(kind pb.Kind) time.Duration {
	switch kind {
	case pb.Kind_KIND_FENCE, pb.Kind_KIND_VOLUME:
		return 2 * time.Second
	case pb.Kind_KIND_NETWORK:
		return 5 * time.Second
	default:
		return time.Minute
	}
}

// backoff returns the wait before the next try: half a second, doubled with each attempt, at most 30 s,
// which bounds how late a repaired cause is noticed.
func backoff(attempts uint32) time.Duration {
	const first, last = 500 * time.Millisecond, 30 * time.Second
	if attempts == 0 {
		return 0
	}
	if attempts > 6 {
		return last
	}
	return min(first<<(attempts-1), last)
}

// checkOrder says what is wrong with an order, or nil. The order is kept in any case: it is the newest.
func checkOrder(o *pb.Order) error {
	id := model.ObjectID(o.GetObject())
	kind := o.GetKind()
	if id.Kind() != kind || id.Name() == "" || kind == pb.Kind_KIND_UNSPECIFIED {
		return fmt.Errorf("order for %q: the name does not fit its kind %v", id, kind)
	}
	s := o.GetSpec()
	if !model.HasState(kind, s.GetState()) {
		return fmt.Errorf("order for %s: a %s has no state %s", id, model.KindName(kind), model.StateName(s.GetState()))
	}
	if kind == pb.Kind_KIND_INSTANCE && s.GetState() == pb.State_STATE_ABSENT && s.GetParameters() == nil {
		return nil
	}
	if parametersKind(s) != kind {
		return fmt.Errorf("order for %s: its parameters are missing or of another kind", id)
	}
	return nil
}

func parametersKind(s *pb.Spec) pb.Kind {
	switch s.GetParameters().(type) {
	case *pb.Spec_Instance:
		return pb.Kind_KIND_INSTANCE
	case *pb.Spec_Volume:
		return pb.Kind_KIND_VOLUME
	case *pb.Spec_Network:
		return pb.Kind_KIND_NETWORK
	case *pb.Spec_Endpoint:
		return pb.Kind_KIND_ENDPOINT
	case *pb.Spec_Fence:
		return pb.Kind_KIND_FENCE
	case *pb.Spec_Hook:
		return pb.Kind_KIND_HOOK
	default:
		return pb.Kind_KIND_UNSPECIFIED
	}
}
