package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/follow"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
)

func (a *app) failoverCommand() *cobra.Command {
	return group("failover", "Declare, watch and steer failovers",
		"  hotspare failover declare webshop --reason \"the site is flooded\" --wait\n  hotspare failover watch webshop",
		a.declareCommand(), a.failoverListCommand(), a.failoverDescribeCommand(), a.watchCommand(), a.swearCommand(),
		a.controlCommand(pb.ControlAction_CONTROL_ACTION_PAUSE, "pause RUN", "Release no further steps; what was released goes on", "paused", false),
		a.controlCommand(pb.ControlAction_CONTROL_ACTION_RESUME, "resume RUN", "Release steps again", "resumed", false),
		a.controlCommand(pb.ControlAction_CONTROL_ACTION_RETRY, "retry RUN [STEP]", "Try a failed step, or all of them, again", "retried", true),
		a.controlCommand(pb.ControlAction_CONTROL_ACTION_SKIP, "skip RUN STEP --reason WHY", "Go on without a step; what depends on it may suffer", "skipped", true),
		a.abortCommand())
}

func (a *app) declareCommand() *cobra.Command {
	var reason string
	var dryRun, wait bool
	c := &cobra.Command{
		Use:   "declare PLAN... --reason WHY",
		Short: "Declare a failover: take lent capacity back and start the plans' workloads here",
		Long: `Declare a failover of one or several plans. Lent VMs in the way are preempted, the old side is
fenced, volumes are promoted, workloads started and endpoints repointed. It is never refused for
lack of room: what fits is started, the rest is listed. Declaring what is already declared joins it.

With --dry-run nothing happens; it shows who would be preempted and what data would be lost, and exits
with 7 when something has no room.`,
		Example: "  hotspare failover declare webshop --reason \"the site is flooded\" --wait\n" +
			"  hotspare failover declare webshop billing --dry-run --reason check",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return outcome.Usagef("%s: PLAN is missing", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return outcome.Usagef("say why: --reason \"...\" (it is recorded)")
			}
			if !dryRun {
				if err := a.confirm("a failover", strings.Join(args, " ")); err != nil {
					return err
				}
			}
			return a.declare(c.Context(), &pb.DeclareRequest{Plans: args, Reason: reason, DryRun: dryRun}, wait && !dryRun)
		},
		ValidArgsFunction: a.completePlan,
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded with your name")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show what would happen and change nothing")
	c.Flags().BoolVar(&wait, "wait", false, "follow the failover to its end")
	a.yesFlag(c)
	return c
}

// yesFlag adds --yes to what cannot be undone.
func (a *app) yesFlag(c *cobra.Command) {
	c.Flags().BoolVar(&a.yes, "yes", false, "do not ask for the name; needed where nobody can be asked")
}

func (a *app) declare(ctx context.Context, r *pb.DeclareRequest, wait bool) error {
	api := a.failovers()
	r.RequestId = a.newRequestID()
	answer, err := api.Declare(ctx, r)
	if err != nil {
		return err
	}
	f := answer.GetFailover()
	if wait {
		a.say("%s", strings.TrimSpace(declaredText(answer)))
		return a.follow(ctx, f.GetName(), follow.Completed)
	}
	err = a.show(view{message: answer, names: []string{f.GetName()}, text: func(wide bool) string {
		if r.GetDryRun() {
			return "dry run, nothing was changed\n" + render.Decision(f, a.width(wide), a.Now())
		}
		return declaredText(answer) + render.Decision(f, a.width(wide), a.Now()) +
			"\nfollow it with: hotspare failover watch " + f.GetName() + "\n"
	}})
	if err == nil && r.GetDryRun() && len(f.GetUnplaced()) > 0 {
		return outcome.Exitf(outcome.NoFit, "%d workloads have no room", len(f.GetUnplaced()))
	}
	return err
}

func declaredText(answer *pb.DeclareResponse) string {
	f := answer.GetFailover()
	what := "declared"
	if answer.GetJoined() {
		what = "was already declared; joined it"
	}
	return fmt.Sprintf("failover %s %s\n", f.GetName(), what)
}

func (a *app) listFailovers(ctx context.Context, stale bool) (*pb.ListFailoversResponse, error) {
	api := a.failovers()
	all := &pb.ListFailoversResponse{}
	return all, client.EachPage("failovers", func(token string) (string, error) {
		page, err := api.ListFailovers(ctx, &pb.ListFailoversRequest{PageSize: client.PageSize, PageToken: token, Stale: stale})
		all.Failovers = append(all.Failovers, page.GetFailovers()...)
		return page.GetNextPageToken(), err
	})
}

func (a *app) failoverListCommand() *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use: "list", Short: "List failovers", Example: "  hotspare failover list", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := a.listFailovers(c.Context(), stale)
			if err != nil {
				return err
			}
			var names []string
			for _, f := range all.GetFailovers() {
				names = append(names, f.GetName())
			}
			return a.show(view{message: all, names: names, text: func(wide bool) string {
				return render.Failovers(all.GetFailovers(), a.width(wide), a.Now())
			}})
		},
	}
	staleFlag(c, &stale)
	return c
}

func (a *app) failoverDescribeCommand() *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use:     "describe RUN",
		Short:   "Show one failover: its decision, victims, data loss, steps and time line",
		Long:    "Show one failover, named by itself or by a plan (its newest).",
		Example: "  hotspare failover describe fo-3\n  hotspare failover describe webshop -o json",
		Args:    exactly("RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			answer, err := a.getFailover(c.Context(), args[0], stale)
			if err != nil {
				return err
			}
			f := answer.GetFailover()
			return a.show(view{message: f, names: []string{f.GetName()}, text: func(wide bool) string {
				return render.Failover(f, answer.GetLive(), a.width(wide), a.Now()) + "\nTIME LINE\n" +
					render.Gantt(f, render.GanttOptions{Width: a.width(wide), Now: a.Now()})
			}})
		},
		ValidArgsFunction: a.completeFailover,
	}
	staleFlag(c, &stale)
	return c
}

func (a *app) getFailover(ctx context.Context, name string, stale bool) (*pb.GetFailoverResponse, error) {
	api := a.failovers()
	return api.GetFailover(ctx, &pb.GetFailoverRequest{Name: name, Stale: stale})
}

func (a *app) swearCommand() *cobra.Command {
	var reason, plan string
	c := &cobra.Command{
		Use:   "swear RUN --reason WHAT-YOU-SAW",
		Short: "Swear, by your name, that the old side is dead",
		Long: `Swear that the old side of a failover's plans is dead and will not write again. Promotion may wait
for this when nothing else could fence it. If it is not true, two sides will write and data is lost.
Your name and words are recorded for ever.`,
		Example: "  hotspare failover swear webshop --reason \"I saw the racks without power\"",
		Args:    exactly("RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return outcome.Usagef("say what you saw: --reason \"...\" (it is recorded)")
			}
			if err := a.confirm("an oath", args[0]); err != nil {
				return err
			}
			api := a.failovers()
			answer, err := api.Swear(c.Context(), &pb.SwearRequest{RequestId: a.newRequestID(), Name: args[0], Reason: reason, Plan: plan})
			if err != nil {
				return err
			}
			return a.showRun(answer.GetFailover(), "sworn")
		},
		ValidArgsFunction: a.completeFailover,
	}
	c.Flags().StringVar(&reason, "reason", "", "what you saw; recorded with your name")
	c.Flags().StringVar(&plan, "plan", "", "only this plan's old side; every plan of the failover when left out")
	a.yesFlag(c)
	return c
}

// showRun answers a change of a run in one line.
func (a *app) showRun(f *pb.Failover, done string) error {
	return a.show(view{message: f, names: []string{f.GetName()}, text: func(bool) string {
		return fmt.Sprintf("failover %s %s, now %s\n", f.GetName(), done, render.Phase(f.GetPhase()))
	}})
}

// controlCommand makes pause, resume, retry and skip.
func (a *app) controlCommand(action pb.ControlAction, use, short, done string, takesStep bool) *cobra.Command {
	var reason string
	verb, _, _ := strings.Cut(use, " ")
	skip := action == pb.ControlAction_CONTROL_ACTION_SKIP
	c := &cobra.Command{
		Use: use, Short: short, Example: controlExample(verb, takesStep),
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case skip:
				return exactly("RUN", "STEP")(c, args)
			case takesStep && len(args) == 2:
				return nil
			default:
				return exactly("RUN")(c, args)
			}
		},
		RunE: func(c *cobra.Command, args []string) error {
			r := &pb.ControlRequest{Name: args[0], Action: action, Reason: reason}
			if len(args) > 1 {
				r.Step = args[1]
			}
			if skip {
				if reason == "" {
					return outcome.Usagef("say why: --reason \"...\" (it is recorded)")
				}
				if err := a.confirm("skipping a step", args[0]); err != nil {
					return err
				}
			}
			return a.control(c.Context(), r, done)
		},
		ValidArgsFunction: a.completeFailover,
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded with your name")
	if skip {
		a.yesFlag(c)
	}
	return c
}

func controlExample(verb string, takesStep bool) string {
	s := "  hotspare failover " + verb + " webshop"
	if takesStep {
		s += " \"start webshop/web-1\""
	}
	if verb == "skip" {
		s += " --reason \"its image is broken\""
	}
	return s
}

func (a *app) control(ctx context.Context, r *pb.ControlRequest, done string) error {
	api := a.failovers()
	r.RequestId = a.newRequestID()
	answer, err := api.Control(ctx, r)
	if err != nil {
		return err
	}
	return a.showRun(answer.GetFailover(), done)
}

func (a *app) abortCommand() *cobra.Command {
	var reason string
	var wait bool
	c := &cobra.Command{
		Use:   "abort RUN --reason WHY",
		Short: "Undo a failover that has not promoted anything yet",
		Long: `Undo a failover: what was done is taken back in reverse order. Once a volume was promoted this
loses what was written here since; use hotspare failback then.`,
		Example: "  hotspare failover abort webshop --reason \"false alarm\"",
		Args:    exactly("RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return outcome.Usagef("say why: --reason \"...\" (it is recorded)")
			}
			answer, err := a.getFailover(c.Context(), args[0], false)
			if err != nil {
				return err
			}
			f := answer.GetFailover()
			if hasPromoted(f) {
				if err := a.confirm("aborting after a promotion", args[0]); err != nil {
					return err
				}
			}
			r := &pb.ControlRequest{Name: args[0], Action: pb.ControlAction_CONTROL_ACTION_ABORT, Reason: reason}
			if err := a.control(c.Context(), r, "aborts"); err != nil || !wait {
				return err
			}
			return a.follow(c.Context(), f.GetName(), follow.Aborted)
		},
		ValidArgsFunction: a.completeFailover,
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded with your name")
	c.Flags().BoolVar(&wait, "wait", false, "follow it to its end")
	a.yesFlag(c)
	return c
}

// hasPromoted says whether a volume of the run was, or may have been, promoted.
func hasPromoted(f *pb.Failover) bool {
	for _, s := range f.GetSteps() {
		if s.GetKind() == pb.Kind_KIND_VOLUME && s.GetSpec().GetState() == pb.State_STATE_PRIMARY && s.GetReleasedAt() != nil {
			return true
		}
	}
	return false
}

func (a *app) failbackCommand() *cobra.Command {
	var reason string
	var discard, wait bool
	c := &cobra.Command{
		Use:   "failback RUN",
		Short: "Bring everything back to where it was before a failover",
		Long: `Bring a failover's workloads back to the protected site and give the lent VMs back to their owners.

What was written here is carried back first, while the workloads run on: each promoted volume is mirrored
to a pool at the protected site (the plan's source.pool). Once all are in sync the workloads are shut
down, the last writes follow, the disks are handed over, and the old VMs are started. Until the protected
site is there again it waits; 'hotspare failover describe' says what for.

--discard-recovery-data throws away what was written here instead. Said while a failback is under way, it
gives up every volume that was not handed over yet.`,
		Example: "  hotspare failback webshop --reason \"site east is repaired\" --wait\n" +
			"  hotspare failback webshop --discard-recovery-data --reason \"it was a drill\" --wait",
		Args: exactly("RUN"),
		RunE: func(c *cobra.Command, args []string) error {
			if discard {
				if reason == "" {
					return outcome.Usagef("say why what was written here may be lost: --reason \"...\" (it is recorded)")
				}
				if err := a.confirm("throwing away what was written here since the failover", args[0]); err != nil {
					return err
				}
			}
			return a.failback(c.Context(), &pb.FailbackRequest{Name: args[0], Reason: reason, DiscardRecoveryData: discard}, wait)
		},
		ValidArgsFunction: a.completeFailover,
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded with your name")
	c.Flags().BoolVar(&discard, "discard-recovery-data", false, "throw away what was written here since the failover")
	c.Flags().BoolVar(&wait, "wait", false, "follow it to its end")
	a.yesFlag(c)
	return c
}

func (a *app) failback(ctx context.Context, r *pb.FailbackRequest, wait bool) error {
	api := a.failovers()
	r.RequestId = a.newRequestID()
	answer, err := api.Failback(ctx, r)
	if err != nil {
		return err
	}
	if wait {
		return a.follow(ctx, answer.GetFailover().GetName(), follow.FailedBack)
	}
	return a.showRun(answer.GetFailover(), "goes back")
}

func (a *app) triggerCommand() *cobra.Command {
	return group("trigger", "Let monitoring declare failovers, or keep it from doing so",
		"  hotspare trigger disarm east-down --reason maintenance",
		a.armCommand("arm TRIGGER", "Let a trigger declare again", false),
		a.armCommand("disarm TRIGGER --reason WHY", "Keep a trigger from declaring", true))
}

func (a *app) armCommand(use, short string, disarm bool) *cobra.Command {
	var reason string
	verb, _, _ := strings.Cut(use, " ")
	c := &cobra.Command{
		Use: use, Short: short, Example: "  hotspare trigger " + verb + " east-down --reason maintenance", Args: exactly("TRIGGER"),
		RunE: func(c *cobra.Command, args []string) error {
			if disarm && reason == "" {
				return outcome.Usagef("say why: --reason \"...\" (it is shown to everybody)")
			}
			api := a.failovers()
			answer, err := api.Arm(c.Context(), &pb.ArmRequest{RequestId: a.newRequestID(), Trigger: args[0], Disarm: disarm, Reason: reason})
			if err != nil {
				return err
			}
			t := answer.GetTrigger()
			return a.show(view{message: t, names: []string{"trigger/" + t.GetMetadata().GetName()}, text: func(bool) string { return render.Trigger(t) }})
		},
		ValidArgsFunction: a.completeTrigger,
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded with your name")
	return c
}
