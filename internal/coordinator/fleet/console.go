package fleet

import (
	"context"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	// consoleWait is how long an agent may take to answer a question about a console: it reads for five
	// seconds at most.
	consoleWait = 8 * time.Second
	// maxQuestions bounds the questions that one agent has not answered yet.
	maxQuestions = 16
)

// Console asks an agent for the console of one of its instances, over the session that the agent made.
// The question's id is chosen here. Nothing is asked twice: an answer that does not come is an error.
func (f *Fleet) Console(ctx context.Context, agent string, q *pb.ConsoleQuestion) (*pb.ConsoleAnswer, error) {
	key := "host/" + agent
	f.mu.Lock()
	s, leads := f.sessions[agent], f.leads
	f.mu.Unlock()
	if !leads {
		return nil, model.Errorf(model.FaultUnavailable, "", "this member does not lead any more").WithRemedy("try again")
	}
	if s == nil {
		return nil, silent(key, "is silent")
	}
	answer, done, err := s.ask(q)
	if err != nil {
		return nil, err
	}
	defer done()
	late := time.NewTimer(consoleWait)
	defer late.Stop()
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, silent(key, "fell silent")
	case <-late.C:
		return nil, silent(key, "did not answer within "+consoleWait.String())
	}
}

// silent says that an agent cannot be asked now. It is no fault of the coordinators: another would say the same.
func silent(key, what string) error {
	return model.Errorf(model.FaultPrecondition, key, "its agent %s, so its consoles cannot be read", what).
		WithRemedy("see: hotspare host list; try again when it is connected")
}

// ask queues a question. The returned function forgets it.
func (s *session) ask(q *pb.ConsoleQuestion) (<-chan *pb.ConsoleAnswer, func(), error) {
	answer := make(chan *pb.ConsoleAnswer, 1)
	s.mu.Lock()
	if len(s.asked) >= maxQuestions {
		s.mu.Unlock()
		return nil, nil, model.Errorf(model.FaultTooMany, "host/"+s.agent, "%d questions about its consoles are not answered yet", maxQuestions).
			WithRemedy("try again in a moment")
	}
	s.lastQuestion++
	id := s.lastQuestion
	s.asked[id] = answer
	s.questions = append(s.questions, &pb.SessionResponse{Message: &pb.SessionResponse_Console{Console: &pb.ConsoleQuestion{
		Id: id, Object: q.GetObject(), After: q.GetAfter(), Limit: q.GetLimit(),
	}}})
	s.mu.Unlock()
	s.signal()
	return answer, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.asked, id)
	}, nil
}

// answered hands an answer to who asked; one that nobody waits for is dropped.
func (s *session) answered(a *pb.ConsoleAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer := s.asked[a.GetId()]; answer != nil {
		answer <- a // It has room for one, and is asked for once.
		delete(s.asked, a.GetId())
	}
}
