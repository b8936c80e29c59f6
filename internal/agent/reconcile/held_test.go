package reconcile

import (
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// TestAHeldAgentTouchesNothing: its journal may be an older copy, whose orders are long done or undone.
func TestAHeldAgentTouchesNothing(t *testing.T) {
	held := &pb.Welcome{Era: 1, Term: 2, Held: "quarantined"}
	for name, order := range map[string]*pb.Spec{
		"a save": vm(saved), "a stop": vm(stopped), "a deletion": vm(absent),
	} {
		t.Run(name, func(t *testing.T) {
			w := runningVM(t)
			w.order(2, a, order)
			w.start()
			w.do(w.core.LeaderSeen(held, w.now))
			w.tell()
			w.settle()
			w.live(4 * wordLimit)
			w.settle()
			w.began()
			if st := w.is(a, running, waiting); !strings.Contains(st.GetMessage(), "no orders") {
				t.Errorf("message %q", st.GetMessage())
			}
			// It stays so when the agent starts again without any link, and ends with a leader's word.
			w.start()
			w.settle()
			w.live(4 * wordLimit)
			w.settle()
			w.began()
			w.do(w.core.LeaderSeen(&pb.Welcome{Era: 1, Term: 2}, w.now))
			w.settle()
			w.is(a, map[pb.State]pb.State{saved: saved, stopped: defined, absent: absent}[order.GetState()], settled)
		})
	}
}

// TestLittleIsDoneBeforeALeaderSpoke: what takes a guest back is done after a while, what cannot be
// taken back waits for the word.
func TestLittleIsDoneBeforeALeaderSpoke(t *testing.T) {
	w := runningVM(t)
	w.order(2, a, vm(absent))
	w.start()
	w.tell()
	w.settle()
	w.log = nil
	w.live(4 * wordLimit)
	w.settle()
	w.began("a RUNNING>STOPPED")
	w.is(a, defined, waiting)
	w.hear()
	w.settle()
	w.began("a DEFINED>ABSENT")
}

// A leader that is none any more cannot hold the agent.
func TestAHeldAgentFollowsOnlyTheNewestLeader(t *testing.T) {
	w := runningVM(t)
	w.do(w.core.LeaderSeen(&pb.Welcome{Era: 1, Term: 5}, w.now))
	w.do(w.core.LeaderSeen(&pb.Welcome{Era: 1, Term: 4, Held: "an older leader has not heard of the readmission"}, w.now))
	if w.core.Marks().Held {
		t.Error("a leader of an older term holds the agent")
	}
}

// TestOrdersThatFollowHaveTheWord: a welcome alone does not tell a restarted or readmitted agent whether
// what its journal says is still wanted.
func TestOrdersThatFollowHaveTheWord(t *testing.T) {
	follow := &pb.Welcome{Era: 1, Term: 2, OrdersFollow: true}
	for name, before := range map[string]func(w *world){
		"restarted":  func(*world) {},
		"readmitted": func(w *world) { w.do(w.core.LeaderSeen(&pb.Welcome{Era: 1, Term: 2, Held: "quarantined"}, w.now)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := runningVM(t)
			w.order(2, a, vm(saved))
			w.start()
			before(w)
			w.do(w.core.LeaderSeen(follow, w.now))
			w.settle()
			w.is(a, running, waiting)
			w.orders(&pb.Orders{Era: 1, Term: 2, Full: true, Orders: []*pb.Order{anOrder(9, a, vm(running))}})
			w.settle()
			w.is(a, running, settled)
			w.began()
		})
	}
}

// TestForgettingWaitsForTheReading: an answer before it would be told again to forget, for as long as the
// driver takes.
func TestForgettingWaitsForTheReading(t *testing.T) {
	w := runningVM(t)
	w.order(2, a, vm(absent))
	w.settle()
	forget := &pb.Orders{Era: 1, Term: 1, Forget: []string{string(a)}}
	w.start()
	for range 3 {
		delete(w.reported, a)
		w.orders(forget)
		if st := w.reported[a]; st != nil {
			t.Fatalf("reported before it was read: %v", st)
		}
	}
	w.read()
	if _, ok := w.journal[a]; ok {
		t.Error("an absent instance is still known")
	}
}
