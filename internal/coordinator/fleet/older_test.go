package fleet_test

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

const replica = "volume/webshop-db-root"

// at says hello as an agent whose journal knows orders up to a generation of era 1.
func at(generation uint64) func(*pb.Hello) {
	return func(h *pb.Hello) { h.Era, h.Generation = 1, generation }
}

// confirm reports the replica under a generation, as an agent does that has written it down.
func (c *session) confirm(generation uint64) {
	c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Statuses{Statuses: &pb.StatusReport{Statuses: []*pb.Status{
		{Object: replica, Era: 1, Generation: generation},
	}}}}
	synctest.Wait()
}

func (s *site) generation() uint64 { return s.w.State.Object(replica).GetGeneration() }

// keep commits what store1 confirmed, as upkeep has it done.
func (s *site) keep(generation uint64) {
	s.do(&pb.Command{Body: &pb.Command_RecordConfirmed{RecordConfirmed: &pb.RecordConfirmed{Agents: []*pb.ConfirmedOrder{
		{Host: "store1", JournalId: "journal-store1", Era: 1, Generation: generation},
	}}}})
}

// An older journal is noticed by the leader that saw the confirmation, and by the next one. One such
// hello is only asked for another: it may have been under way while the agent confirmed more.
func TestOlderJournalIsHeld(t *testing.T) {
	for name, know := range map[string]func(s *site, c *session){
		"seen by this leader":       func(s *site, c *session) { c.confirm(s.generation()) },
		"kept by a leader before":   func(s *site, _ *session) { s.keep(s.generation()); s.fleet.Lead() },
		"kept, and seen a bit less": func(s *site, c *session) { c.confirm(s.generation() - 1); s.keep(s.generation()) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(s *site) {
				know(s, s.connect("store1", at(s.generation())))
				older := at(s.generation() - 1)
				first := s.connect("store1", older)
				if !first.ended() || model.FaultOf(first.err) != model.FaultUnavailable {
					t.Fatalf("the first hello that knows less: %v, want to be asked again", first.err)
				}
				second := s.connect("store1", older)
				if w := second.next().GetWelcome(); !strings.Contains(w.GetHeld(), "older than what it confirmed") {
					t.Errorf("held: %q", w.GetHeld())
				}
				if m := second.next(); m != nil || second.heartbeat().GetPermit().AsDuration() != 0 {
					t.Errorf("an older journal got %v, or a permit", m)
				}
				if a := s.fleet.View().Agent("store1"); !a.Older || a.Held == "" {
					t.Errorf("view %+v", a)
				}
			})
		})
	}
}

func TestHelloUnderWayIsNoOlderJournal(t *testing.T) {
	run(t, func(s *site) {
		s.connect("store1", at(s.generation())).confirm(s.generation())
		if !s.connect("store1", at(0)).ended() {
			t.Fatal("a hello that knows nothing was welcome")
		}
		if w := s.connect("store1", at(s.generation())).next().GetWelcome(); w.GetHeld() != "" {
			t.Errorf("held: %q", w.GetHeld())
		}
		// The doubt is over: the next one is asked again.
		if !s.connect("store1", at(0)).ended() {
			t.Error("held at the first hello")
		}
	})
}

// What an agent makes up is no confirmation: it could never say as much again.
func TestAbsurdConfirmations(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("store1", at(s.generation()))
		for _, generation := range []uint64{s.generation() + 1, 1 << 40, math.MaxUint64} {
			c.confirm(generation)
		}
		c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Statuses{Statuses: &pb.StatusReport{Statuses: []*pb.Status{
			{Object: "volume/not-there", Era: math.MaxUint64, Generation: math.MaxUint64}, {Object: replica, Era: 2, Generation: 1}, {},
		}}}}
		synctest.Wait()
		if k := s.fleet.View().Agent("store1").Confirmed; k != (model.OrderKey{}) {
			t.Errorf("confirmed %+v", k)
		}
		if w := s.connect("store1", at(s.generation())).next().GetWelcome(); w.GetHeld() != "" {
			t.Errorf("held: %q", w.GetHeld())
		}
	})
}

// After the readmission the journal counts as it is, also for a leader that saw more confirmed.
func TestReadmittedOlderJournal(t *testing.T) {
	run(t, func(s *site) {
		s.connect("store1", at(s.generation())).confirm(s.generation())
		s.keep(s.generation())
		s.connect("store1", at(1))
		s.connect("store1", at(1))
		s.do(&pb.Command{Body: &pb.Command_RecordHost{RecordHost: &pb.RecordHost{Host: "store1", Quarantine: true, Reason: "older"}}})
		s.do(&pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "store1", Action: "readmit"}}})
		c := s.connect("store1", at(1))
		if w := c.next().GetWelcome(); w.GetHeld() != "" {
			t.Fatalf("held: %q", w.GetHeld())
		}
		if !c.next().GetOrders().GetFull() {
			t.Error("no orders after the readmission")
		}
		s.keep(s.generation()) // Decided before the readmission: the journal is not known again yet.
		if h := s.w.State.Host("store1"); h.GetConfirmedGeneration() != 0 {
			t.Errorf("confirmed up to %d", h.GetConfirmedGeneration())
		}
	})
}
