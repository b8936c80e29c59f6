package fleet

import (
	"bytes"
	"maps"
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// sendAll sends every spec of the agent, unless it holds exactly these (by digest).
func (s *session) sendAll(stream Stream, hello *pb.Hello, w *pb.Welcome) error {
	st := s.f.o.State()
	all := &pb.Orders{Era: st.Meta().GetEra(), Term: w.GetTerm(), Full: true}
	var keys []model.OrderKey
	for o := range st.ObjectsOf(s.agent) {
		all.Orders = append(all.Orders, order(o))
		keys = append(keys, model.OrderKey{Object: model.ObjectID(o.GetId()), Era: all.GetEra(), Generation: o.GetGeneration()})
	}
	if bytes.Equal(model.OrdersDigest(keys), hello.GetOrdersDigest()) {
		return nil
	}
	return stream.Send(&pb.SessionResponse{Message: &pb.SessionResponse_Orders{Orders: all}})
}

// orders builds one message from the newest specs of the marked objects.
func (s *session) orders(w *pb.Welcome, dirty, forget map[string]bool) *pb.SessionResponse {
	st := s.f.o.State()
	out := &pb.Orders{Era: st.Meta().GetEra(), Term: w.GetTerm()}
	for _, id := range slices.Sorted(maps.Keys(dirty)) {
		if o := st.Object(id); o != nil {
			out.Orders = append(out.Orders, order(o))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(forget)) {
		if st.Object(id) == nil {
			out.Forget = append(out.Forget, id)
		}
	}
	return &pb.SessionResponse{Message: &pb.SessionResponse_Orders{Orders: out}}
}

func order(o *pb.Object) *pb.Order {
	owner := o.GetLease()
	if owner == "" {
		owner = o.GetPlan()
	}
	return &pb.Order{
		Object: o.GetId(), Kind: o.GetKind(), Generation: o.GetGeneration(), Spec: model.Effective(o), Owner: owner,
		Epoch: model.Winner(o).GetEpoch(),
	}
}
