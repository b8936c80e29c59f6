package fleet

import (
	"bytes"
	"maps"
	"slices"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/model"
)

// sendAll sends every spec of the agent, unless it holds exactly these and was not told that they follow.
func (s *session) sendAll(stream Stream, hello *pb.Hello, w *pb.Welcome) error {
	all := s.all(s.f.o.State(), w)
	if !w.GetOrdersFollow() && holds(hello, all) {
		return nil
	}
	return stream.Send(&pb.SessionResponse{Message: &pb.SessionResponse_Orders{Orders: all}})
}

// all builds the message with every spec of the agent.
func (s *session) all(st *state.State, w *pb.Welcome) *pb.Orders {
	all := &pb.Orders{Era: st.Meta().GetEra(), Term: w.GetTerm(), Full: true}
	for o := range st.ObjectsOf(s.agent) {
		all.Orders = append(all.Orders, order(o))
	}
	return all
}

// holds says whether an agent holds exactly these orders (by digest).
func holds(hello *pb.Hello, all *pb.Orders) bool {
	keys := make([]model.OrderKey, 0, len(all.GetOrders()))
	for _, o := range all.GetOrders() {
		keys = append(keys, model.OrderKey{Object: model.ObjectID(o.GetObject()), Era: all.GetEra(), Generation: o.GetGeneration()})
	}
	return bytes.Equal(model.OrdersDigest(keys), hello.GetOrdersDigest())
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
