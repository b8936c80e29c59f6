package state

import (
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Result is the outcome of one entry, the same on every member.
type Result struct {
	// Err is nil, or a *model.Error: the entry changed nothing but the index.
	Err error
	// Name of what the command made or changed: a lease, a failover.
	Name string
	// Changed lists the keys that the entry changed ("object/instance/x", "failover/fo-1"), in order.
	Changed []string
}

// Apply returns the state after one entry of the log. A command that is refused leaves everything
// but the index as it was. The command itself is not modified.
func (s *State) Apply(index, term uint64, c *pb.Command) (*State, Result) {
	refuse := func(err error) (*State, Result) {
		t := s.begin(index, term, &pb.Command{})
		out := t.State
		return &out, Result{Err: err}
	}
	if c.GetLevel() > s.meta.GetLevel() {
		return refuse(model.Errorf(model.FaultUnsupported, "", "command needs level %d, the site is at level %d",
			c.GetLevel(), s.meta.GetLevel()))
	}
	digest := requestDigest(c)
	if id := c.GetRequestId(); id != "" {
		if r := s.Request(id); r != nil {
			if string(r.GetDigest()) != string(digest) {
				return refuse(model.Errorf(model.FaultInvalid, "request/"+id, "this request_id was used for another request").
					WithRemedy("choose a new request_id"))
			}
			out, res := refuse(nil)
			res.Name = r.GetResult()
			return out, res
		}
	}
	for _, e := range c.GetExpects() {
		if v := s.VersionOf(e.GetKey()); v != e.GetVersion() {
			return refuse(model.Errorf(model.FaultStale, e.GetKey(), "changed since it was read (version %d, now %d)",
				e.GetVersion(), v))
		}
	}
	t := s.begin(index, term, c)
	name, err := t.dispatch(c)
	if err != nil {
		return refuse(err)
	}
	if id := c.GetRequestId(); id != "" {
		t.remember(id, digest, name)
	}
	out := t.State
	return &out, Result{Name: name, Changed: t.changedKeys()}
}

// requestDigest tells requests with the same id apart. Decisions differ between two tries of one
// request (another leader chooses other hosts), so only who asks, for which kind of thing (the command's
// number, which no member writes differently), and the request itself count.
func requestDigest(c *pb.Command) []byte {
	m := c.ProtoReflect()
	number := protoreflect.FieldNumber(0)
	if body := m.WhichOneof(m.Descriptor().Oneofs().ByName("body")); body != nil {
		number = body.Number()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %x", c.GetActor(), number, c.GetRequestDigest()))
	return sum[:]
}

// dispatch applies one command of a known kind and returns the name of what it is about.
func (t *tx) dispatch(c *pb.Command) (string, error) {
	switch b := c.GetBody().(type) {
	case *pb.Command_RecordClient:
		return t.recordClient(b.RecordClient)
	case *pb.Command_SetAuthority:
		return t.setAuthority(b.SetAuthority)
	case *pb.Command_RaiseLevel:
		return t.raiseLevel(b.RaiseLevel)
	case *pb.Command_ApplyResources:
		return t.applyResources(b.ApplyResources)
	case *pb.Command_DeleteResource:
		return t.deleteResource(b.DeleteResource)
	case *pb.Command_ForgetObjects:
		return t.forgetObjects(b.ForgetObjects)
	case *pb.Command_RecordPreimage:
		return t.recordPreimage(b.RecordPreimage)
	case *pb.Command_RecordPoints:
		return t.recordPoints(b.RecordPoints)
	default:
		if name, err, ok := t.dispatchHost(c); ok {
			return name, err
		}
		if name, err, ok := t.dispatchLease(c); ok {
			return name, err
		}
		return t.dispatchRun(c)
	}
}

// dispatchHost applies the commands about hosts and their agents; ok is false for any other.
func (t *tx) dispatchHost(c *pb.Command) (name string, err error, ok bool) {
	ok = true
	switch b := c.GetBody().(type) {
	case *pb.Command_JoinHost:
		name, err = t.joinHost(b.JoinHost)
	case *pb.Command_RecordHost:
		name, err = t.recordHost(b.RecordHost)
	case *pb.Command_UpdateHost:
		name, err = t.updateHost(b.UpdateHost)
	case *pb.Command_StoreToken:
		name, err = t.storeToken(b.StoreToken)
	case *pb.Command_RecordConfirmed:
		name, err = t.recordConfirmed(b.RecordConfirmed)
	case *pb.Command_LoseHost:
		name, err = t.loseHost(b.LoseHost)
	case *pb.Command_RecordGuarantee:
		name, err = t.recordGuarantee(b.RecordGuarantee)
	default:
		ok = false
	}
	return name, err, ok
}

// dispatchLease applies the commands about leases; ok is false for any other.
func (t *tx) dispatchLease(c *pb.Command) (name string, err error, ok bool) {
	ok = true
	switch b := c.GetBody().(type) {
	case *pb.Command_CreateLease:
		name, err = t.createLease(b.CreateLease)
	case *pb.Command_ExtendLease:
		name, err = t.extendLease(b.ExtendLease)
	case *pb.Command_EndLease:
		name, err = t.endLease(b.EndLease)
	case *pb.Command_StartLease:
		name, err = t.startLease(b.StartLease)
	case *pb.Command_UndeleteLease:
		name, err = t.undeleteLease(b.UndeleteLease)
	case *pb.Command_DeleteLease:
		name, err = t.deleteLease(b.DeleteLease)
	case *pb.Command_ReturnLease:
		name, err = t.returnLease(b.ReturnLease)
	default:
		ok = false
	}
	return name, err, ok
}

// dispatchRun applies the commands about failovers and drills.
func (t *tx) dispatchRun(c *pb.Command) (string, error) {
	switch b := c.GetBody().(type) {
	case *pb.Command_Declare:
		return t.declare(b.Declare)
	case *pb.Command_AdvanceRun:
		return t.advanceRun(b.AdvanceRun)
	case *pb.Command_PlaceRun:
		return t.placeRun(b.PlaceRun)
	case *pb.Command_Swear:
		return t.swear(b.Swear)
	case *pb.Command_Control:
		return t.control(b.Control)
	case *pb.Command_Failback:
		return t.failback(b.Failback)
	case *pb.Command_Arm:
		return t.arm(b.Arm)
	default:
		return "", model.Errorf(model.FaultUnsupported, "", "no command in the entry, or one that this version does not know").
			WithRemedy("upgrade this member")
	}
}

// edit returns a copy that may be changed and put back.
func edit[T proto.Message](m T) T { return proto.CloneOf(m) }
