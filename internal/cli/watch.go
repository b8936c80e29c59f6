package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
)

// direction says which end a watcher waits for.
type direction int

const (
	// forward waits until the run is completed.
	forward direction = iota + 1
	// backward waits until it has failed back.
	backward
	// abort waits until it is aborted.
	abort
)

// redrawPause is the time between two drawings while nothing changes, so that clocks move.
const redrawPause = time.Second

func (a *app) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch RUN",
		Short: "Follow a failover to its end, then show its time line",
		Long: `Follow a failover, named by itself or by a plan (its newest), to its end: completed, or failed back
when it goes back. Then its time line is shown with the critical path. Exit code 1 means that it ended
incomplete or aborted; 5 that --timeout passed while it goes on.`,
		Example: "  hotspare failover watch webshop\n  hotspare failover watch fo-3 --timeout 10m",
		Args:    exactly("RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := a.getFailover(c.Context(), args[0], false)
			if err != nil {
				return err
			}
			want := forward
			switch f.GetPhase() {
			case pb.RunPhase_RUN_PHASE_FAILING_BACK, pb.RunPhase_RUN_PHASE_FAILED_BACK, pb.RunPhase_RUN_PHASE_KEPT:
				want = backward
			}
			return a.follow(c.Context(), f.GetName(), want)
		},
		ValidArgsFunction: a.completeFailover,
	}
}

// ending says whether a phase ends the wait, and whether it is the end that was waited for.
func (d direction) ending(p pb.RunPhase) (ended, good bool) {
	switch p {
	case pb.RunPhase_RUN_PHASE_COMPLETED:
		return d == forward, d == forward
	case pb.RunPhase_RUN_PHASE_INCOMPLETE:
		return d == forward, false
	case pb.RunPhase_RUN_PHASE_FAILED_BACK, pb.RunPhase_RUN_PHASE_KEPT:
		return true, d == backward
	case pb.RunPhase_RUN_PHASE_ABORTED:
		return true, d == abort
	case pb.RunPhase_RUN_PHASE_REJECTED, pb.RunPhase_RUN_PHASE_EXPIRED:
		return true, false
	default:
		return false, false
	}
}

// follow shows a run until it ends.
func (a *app) follow(ctx context.Context, name string, want direction) error {
	ctx, cancel := a.waitContext(ctx)
	defer cancel()
	w := &watcher{app: a, want: want, seen: map[string]string{}}
	f, err := w.run(ctx, name)
	w.clear()
	if ctx.Err() != nil {
		return goesOn(ctx, "failover "+name, "hotspare failover watch "+name)
	}
	if err != nil {
		return err
	}
	err = a.show(view{message: f, names: []string{f.GetName()}, text: func(wide bool) string { return a.finalText(f, wide) }})
	if err != nil {
		return err
	}
	if _, good := want.ending(f.GetPhase()); !good {
		return outcome.Exitf(outcome.Failed, "failover %s ended %s; see: hotspare failover describe %s", name, render.Phase(f.GetPhase()), name)
	}
	return nil
}

// finalText is the end of a watch: one sentence, the failed steps, the time line.
func (a *app) finalText(f *pb.Failover, wide bool) string {
	var b strings.Builder
	plans := make([]string, 0, len(f.GetPlans()))
	for _, p := range f.GetPlans() {
		plans = append(plans, p.GetPlan())
	}
	began, ended := f.GetDeclaredAt(), f.GetCompletedAt()
	back := f.GetPhase() == pb.RunPhase_RUN_PHASE_FAILED_BACK || f.GetPhase() == pb.RunPhase_RUN_PHASE_ABORTED
	if back {
		began, ended = f.GetFailbackAt(), f.GetEndedAt()
	}
	fmt.Fprintf(&b, "%s %s: %s", f.GetName(), strings.Join(plans, " "), render.Phase(f.GetPhase()))
	if began != nil && ended != nil {
		fmt.Fprintf(&b, " in %s", render.Seconds(ended.AsTime().Sub(began.AsTime())))
	}
	b.WriteString("\n\n" + render.Gantt(f, render.GanttOptions{Width: a.width(wide), Now: a.Now(), Back: back}))
	return b.String()
}

// watcher follows one run over as many streams as it takes.
type watcher struct {
	*app
	want direction
	// seen is what was printed of each step, when the output is not redrawn.
	seen map[string]string
	// drawn is how many lines the last drawing took.
	drawn int
	last  *pb.WatchFailoverResponse
}

// run returns the last state of the run, or an error.
func (w *watcher) run(ctx context.Context, name string) (*pb.Failover, error) {
	site, err := w.site()
	if err != nil {
		return nil, err
	}
	patience := w.timeout
	if patience == 0 {
		patience = callTimeout
	}
	lost := time.Time{} // since when no coordinator answers
	for {
		got, err := w.stream(ctx, site, name)
		if got {
			lost = time.Time{}
		}
		if w.ended() {
			return w.last.GetFailover(), nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil && status.Code(err) != codes.Unavailable {
			return nil, err
		}
		now := time.Now()
		if lost.IsZero() {
			lost = now
		}
		if err != nil && now.Sub(lost) > patience {
			return nil, &client.NoAnswerError{Endpoints: []string{"every coordinator"}, Waited: now.Sub(lost), Last: err}
		}
		site.Next()
		select {
		case <-ctx.Done():
		case <-time.After(waitPause):
		}
	}
}

func (w *watcher) ended() bool {
	if w.last == nil {
		return false
	}
	ended, _ := w.want.ending(w.last.GetFailover().GetPhase())
	return ended
}

// stream follows one stream; got says whether it brought anything.
func (w *watcher) stream(ctx context.Context, site *client.Client, name string) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := pb.NewFailoverServiceClient(site).WatchFailover(ctx, &pb.WatchFailoverRequest{Name: name})
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
	if w.last == nil || w.output == "json" || w.output == "yaml" || w.output == "name" {
		return
	}
	f := w.last.GetFailover()
	if w.Terminal {
		text := render.Progress(f, w.last.GetLive(), w.Width, w.Now())
		fmt.Fprint(w.Err, w.erase()+text)
		w.drawn = strings.Count(text, "\n")
		return
	}
	w.say1("run", render.Phase(f.GetPhase()), fmt.Sprintf("%s: %s\n", f.GetName(), render.Phase(f.GetPhase())))
	for _, st := range f.GetSteps() {
		state := render.StepPhase(st.GetPhase())
		if st.GetPhase() == pb.StepPhase_STEP_PHASE_PENDING {
			continue
		}
		if st.GetHealthyAt() != nil {
			state += " healthy"
		}
		w.say1("step "+st.GetId(), state, render.StepLine(f, st, w.Now()))
	}
}

// say1 prints a line when the state it is about has changed.
func (w *watcher) say1(key, state, line string) {
	if w.seen[key] == state {
		return
	}
	w.seen[key] = state
	fmt.Fprint(w.Err, line)
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
		fmt.Fprint(w.Err, w.erase())
		w.drawn = 0
	}
}
