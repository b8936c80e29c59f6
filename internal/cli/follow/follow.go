// Package follow watches one run to its end and shows on the way what changes: redrawn on a terminal, a
// line for each change elsewhere.
//
// It survives changes of the leader by opening another stream. It decides only when the wait is over.
// internal/cli calls it and shows the end.
package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/render"
)

// retryPause is the time before a broken stream is opened again.
const retryPause = 500 * time.Millisecond

// Goal is the end that a watcher waits for.
type Goal int

// The goals. A run that ends otherwise ends the wait too.
const (
	// Completed: the failover is through.
	Completed Goal = iota + 1
	// FailedBack: everything is back where it was, or was kept.
	FailedBack
	// Aborted: everything was undone.
	Aborted
)

// redrawPause is the time between two drawings while nothing changes, so that clocks move.
const redrawPause = time.Second

// Site is where a watcher opens its streams; Next turns to another coordinator.
type Site interface {
	grpc.ClientConnInterface
	Next()
}

// Options say how progress is shown.
type Options struct {
	// Out is where progress goes; the end is shown by the caller.
	Out io.Writer
	// Terminal: Out can be redrawn.
	Terminal bool
	// Quiet shows nothing.
	Quiet bool
	// Width of the terminal in columns.
	Width int
	Now   func() time.Time
	// Patience is how long no coordinator may answer.
	Patience time.Duration
}

// Ending says whether a phase ends the wait, and whether it is the end that was waited for.
func (g Goal) Ending(p pb.RunPhase) (ended, good bool) {
	switch p {
	case pb.RunPhase_RUN_PHASE_COMPLETED:
		return g == Completed, g == Completed
	case pb.RunPhase_RUN_PHASE_INCOMPLETE:
		return g == Completed, false
	case pb.RunPhase_RUN_PHASE_FAILED_BACK, pb.RunPhase_RUN_PHASE_KEPT:
		return true, g == FailedBack
	case pb.RunPhase_RUN_PHASE_ABORTED:
		return true, g == Aborted
	case pb.RunPhase_RUN_PHASE_REJECTED, pb.RunPhase_RUN_PHASE_EXPIRED:
		return true, false
	default:
		return false, false
	}
}

// Run watches a run until it ends and returns its last state. A context that ends first is an error.
func Run(ctx context.Context, site Site, name string, goal Goal, o Options) (*pb.Failover, error) {
	w := &watcher{Options: o, site: site, goal: goal, seen: map[string]string{}}
	defer w.clear()
	return w.run(ctx, name)
}

// watcher follows one run over as many streams as it takes.
type watcher struct {
	Options
	site Site
	goal Goal
	// seen is what was printed of each step, when the output is not redrawn.
	seen map[string]string
	// drawn is how many lines the last drawing took.
	drawn int
	last  *pb.WatchFailoverResponse
}

func (w *watcher) run(ctx context.Context, name string) (*pb.Failover, error) {
	lost := time.Time{} // since when no coordinator answers
	for {
		got, err := w.stream(ctx, name)
		if got {
			lost = time.Time{}
		}
		if w.ended() {
			return w.last.GetFailover(), nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil && !retryable(err) {
			return nil, err
		}
		now := time.Now()
		if lost.IsZero() {
			lost = now
		}
		if err != nil && now.Sub(lost) > w.Patience {
			return nil, &client.NoAnswerError{Endpoints: []string{"every coordinator"}, Waited: now.Sub(lost), Last: err}
		}
		w.site.Next()
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

// retryable says whether another stream may help. The server's clock may see our deadline before our own
// does; then the context ends the wait a moment later.
func retryable(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

func (w *watcher) ended() bool {
	if w.last == nil {
		return false
	}
	ended, _ := w.goal.Ending(w.last.GetFailover().GetPhase())
	return ended
}

// stream follows one stream; got says whether it brought anything.
func (w *watcher) stream(ctx context.Context, name string) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := pb.NewFailoverServiceClient(w.site).WatchFailover(ctx, &pb.WatchFailoverRequest{Name: name})
	if err != nil {
		return false, err
	}
	type event struct {
		answer *pb.WatchFailoverResponse
		err    error
	}
	events := make(chan event)
	go func() { // ends with the stream, whose context this function cancels
		for {
			answer, err := s.Recv()
			select {
			case events <- event{answer, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(redrawPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return got, ctx.Err()
		case <-tick.C:
			w.draw()
		case e := <-events:
			if e.err != nil {
				return got, streamEnd(e.err)
			}
			got, w.last = true, e.answer
			w.draw()
			if w.ended() {
				return got, nil
			}
		}
	}
}

// streamEnd keeps the end of a stream that the server closed in good order from being an error: a leader
// that steps down does that.
func streamEnd(err error) error {
	if _, ok := status.FromError(err); !ok || errors.Is(err, context.Canceled) {
		return status.Error(codes.Unavailable, "the coordinator ended the stream: "+err.Error())
	}
	return err
}

// draw shows the present state: redrawn on a terminal, else a line for each change.
func (w *watcher) draw() {
	if w.last == nil || w.Quiet {
		return
	}
	f := w.last.GetFailover()
	if w.Terminal {
		text := render.Progress(f, w.last.GetLive(), w.Width, w.Now())
		fmt.Fprint(w.Out, w.erase()+text)
		w.drawn = strings.Count(text, "\n")
		return
	}
	for _, st := range f.GetSteps() {
		state := render.StepPhase(st.GetPhase())
		if st.GetPhase() == pb.StepPhase_STEP_PHASE_PENDING {
			continue
		}
		if st.GetHealthyAt() != nil {
			state += " healthy"
		}
		if st.GetWayBack() {
			state += " " + st.GetMessage() // How far a mirror has come.
		}
		w.sayOnce("step "+st.GetId(), state, render.StepLine(f, st, w.Now()))
	}
	w.sayOnce("run", render.Phase(f.GetPhase()), fmt.Sprintf("%s: %s\n", f.GetName(), render.Phase(f.GetPhase())))
}

// sayOnce prints a line when the state it is about has changed.
func (w *watcher) sayOnce(key, state, line string) {
	if w.seen[key] == state {
		return
	}
	w.seen[key] = state
	fmt.Fprint(w.Out, line)
}

// erase returns what moves the cursor to the top of the last drawing and clears from there.
func (w *watcher) erase() string {
	if w.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\x1b[J", w.drawn)
}

// clear takes the last drawing away before the final text.
func (w *watcher) clear() {
	if w.Terminal {
		fmt.Fprint(w.Out, w.erase())
		w.drawn = 0
	}
}
