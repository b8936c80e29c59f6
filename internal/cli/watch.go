package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/follow"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
)

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
			answer, err := a.getFailover(c.Context(), args[0], false)
			if err != nil {
				return err
			}
			f := answer.GetFailover()
			want := follow.Completed
			switch f.GetPhase() {
			case pb.RunPhase_RUN_PHASE_FAILING_BACK, pb.RunPhase_RUN_PHASE_FAILED_BACK, pb.RunPhase_RUN_PHASE_KEPT:
				want = follow.FailedBack
			default:
			}
			return a.follow(c.Context(), f.GetName(), want)
		},
		ValidArgsFunction: a.completeFailover,
	}
}

// follow shows a run until it ends.
func (a *app) follow(ctx context.Context, name string, want follow.Goal) error {
	ctx, cancel := a.waitContext(ctx)
	defer cancel()
	site, err := a.site()
	if err != nil {
		return err
	}
	o := follow.Options{
		Out: a.Err, Terminal: a.Terminal, Width: a.Width, Now: a.Now, Patience: a.timeout,
		Quiet: a.output == "json" || a.output == "yaml" || a.output == "name",
	}
	if o.Patience == 0 {
		o.Patience = callTimeout
	}
	f, err := follow.Run(ctx, site, name, want, o)
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
	if _, good := want.Ending(f.GetPhase()); !good {
		return outcome.Exitf(outcome.Failed, "failover %s ended %s; see: hotspare failover describe %s", name, render.Phase(f.GetPhase()), name)
	}
	return nil
}

// finalText is the end of a watch: one sentence, the failed steps, the time line.
func (a *app) finalText(f *pb.Failover, wide bool) string {
	var b strings.Builder
	began, ended := f.GetDeclaredAt(), f.GetCompletedAt()
	back := f.GetPhase() == pb.RunPhase_RUN_PHASE_FAILED_BACK || f.GetPhase() == pb.RunPhase_RUN_PHASE_ABORTED
	if back {
		began, ended = f.GetFailbackAt(), f.GetEndedAt()
	}
	fmt.Fprintf(&b, "%s %s: %s", f.GetName(), render.RunOf(f), render.Phase(f.GetPhase()))
	if began != nil && ended != nil {
		fmt.Fprintf(&b, " in %s", render.Seconds(ended.AsTime().Sub(began.AsTime())))
	}
	b.WriteString("\n\n" + render.Gantt(f, render.GanttOptions{Width: a.width(wide), Now: a.Now(), Back: back}))
	return b.String()
}
