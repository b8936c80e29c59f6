package fleet_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// question is one that a user waits for.
type question struct {
	answer *pb.ConsoleAnswer
	err    error
	done   bool
}

func (s *site) ask(ctx context.Context, agent, object string) *question {
	q := &question{}
	s.wg.Go(func() {
		a, err := s.fleet.Console(ctx, agent, &pb.ConsoleQuestion{Id: 77, Object: object, Limit: 10})
		s.mu.Lock()
		defer s.mu.Unlock()
		q.answer, q.err, q.done = a, err, true
	})
	return q
}

func (s *site) look(q *question) question {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return *q
}

func (c *session) answers(id uint64, text string) {
	c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Console{Console: &pb.ConsoleAnswer{Id: id, Text: []byte(text)}}}
}

func TestConsoleQuestions(t *testing.T) {
	run(t, func(s *site) {
		if q := s.look(s.ask(s.t.Context(), "store1", "instance/a")); !q.done || model.FaultOf(q.err) != model.FaultPrecondition {
			t.Errorf("of an agent that is not there: %+v", q)
		}
		c := s.connect("store1", nil)
		c.next()
		c.next()
		a, b := s.ask(s.t.Context(), "store1", "instance/a"), s.ask(s.t.Context(), "store1", "instance/b")
		first, second := c.next().GetConsole(), c.next().GetConsole()
		if first.GetId() == second.GetId() || first.GetLimit() != 10 {
			t.Fatalf("asked %v and %v", first, second)
		}
		c.answers(999, "nobody asked")
		c.answers(second.GetId(), second.GetObject())
		c.answers(second.GetId(), "twice")
		c.answers(first.GetId(), first.GetObject())
		if one, two := s.look(a), s.look(b); string(one.answer.GetText()) != "instance/a" || string(two.answer.GetText()) != "instance/b" {
			t.Errorf("answers went to the wrong asker: %+v %+v", one, two)
		}
		s.fleet.Resign()
		if q := s.look(s.ask(s.t.Context(), "store1", "instance/a")); model.FaultOf(q.err) != model.FaultUnavailable {
			t.Errorf("of a member that does not lead: %+v", q)
		}
	})
}

// Who waits is told when the agent is cut off, does not answer, is asked too much, or when the asker leaves.
func TestConsoleQuestionsThatGetNoAnswer(t *testing.T) {
	run(t, func(s *site) {
		c := s.connect("store1", nil)
		beat := func() { c.up <- &pb.SessionRequest{Message: &pb.SessionRequest_Heartbeat{Heartbeat: &pb.Heartbeat{}}} }
		ctx, leave := context.WithCancel(s.t.Context())
		defer leave()
		var waiting []*question
		for range 16 {
			waiting = append(waiting, s.ask(ctx, "store1", "instance/a"))
		}
		synctest.Wait()
		if q := s.look(s.ask(s.t.Context(), "store1", "instance/a")); model.FaultOf(q.err) != model.FaultTooMany {
			t.Errorf("the seventeenth question: %+v", q)
		}
		leave()
		for _, w := range waiting {
			if q := s.look(w); !q.done || q.err == nil {
				t.Fatalf("the asker left: %+v", q)
			}
		}
		late := s.ask(s.t.Context(), "store1", "instance/a")
		for range 9 {
			<-time.After(time.Second)
			beat()
		}
		if q := s.look(late); model.FaultOf(q.err) != model.FaultPrecondition || !strings.Contains(q.err.Error(), "did not answer") {
			t.Errorf("no answer: %+v", q)
		}
		cut := s.ask(s.t.Context(), "store1", "instance/a")
		synctest.Wait()
		c.end()
		if q := s.look(cut); model.FaultOf(q.err) != model.FaultPrecondition || !strings.Contains(q.err.Error(), "fell silent") {
			t.Errorf("cut off: %+v", q)
		}
	})
}
