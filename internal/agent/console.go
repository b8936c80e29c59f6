package agent

import (
	"context"
	"errors"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	// consoleLimit bounds one reading of a console.
	consoleLimit = 5 * time.Second
	// maxConsoleBytes bounds one answer, whatever was asked for.
	maxConsoleBytes = 64 << 10
	// maxConsoles bounds the readings under way: more are answered with an error.
	maxConsoles = 8
)

// console answers a question. It reads, and changes nothing, so it needs neither order nor permit.
func (r *runtime) console(q *pb.ConsoleQuestion) {
	select {
	case r.consoles <- struct{}{}:
	default:
		r.client.AnswerConsole(&pb.ConsoleAnswer{Id: q.GetId(), Error: "this host reads as many consoles as it may; try again"})
		return
	}
	r.calls.Go(func() {
		defer func() { <-r.consoles }()
		a := &pb.ConsoleAnswer{Id: q.GetId()}
		if text, err := r.readConsole(q); err != nil {
			a.Error = err.Error()
		} else {
			a.Text, a.End = text.Text, text.End
		}
		r.client.AnswerConsole(a)
	})
}

func (r *runtime) readConsole(q *pb.ConsoleQuestion) (hypervisor.ConsoleText, error) {
	ctx, cancel := context.WithTimeout(r.ctx, consoleLimit)
	defer cancel()
	c, ok := r.o.Drivers.Hypervisor.(hypervisor.Consoler)
	if !ok {
		return hypervisor.ConsoleText{}, errors.New("this host's hypervisor shows no console")
	}
	text, err := c.Console(ctx, model.ObjectID(q.GetObject()), q.GetAfter(), int(min(q.GetLimit(), maxConsoleBytes)))
	if errors.Is(err, hypervisor.ErrNotFound) {
		return text, errors.New("the VM does not exist on its host yet, or not any more")
	}
	return text, err
}
