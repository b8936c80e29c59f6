package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
	"github.com/hotspare/hotspare/internal/model"
)

func (a *app) tabletopCommand() *cobra.Command {
	r := &pb.TabletopRequest{}
	c := &cobra.Command{
		Use:   "tabletop [PLAN...]",
		Short: "Compute what would happen if hosts were lost and plans declared now; nothing is changed",
		Long: `Compute what would happen if hosts were lost and the plans declared now: how good the guarantee still
is, where workloads would go, which leases would be preempted at which price, what would have no room,
and how long taking the room back takes at most. The same code decides as in a real failover; nothing
is changed. Without a PLAN: all plans that are in no open failover. Exits with 7 when something would
have no room.`,
		Example: "  hotspare tabletop\n  hotspare tabletop webshop billing --lose-host h7 --lose-failure-domain rack2\n" +
			"  hotspare tabletop --lose-host h7 --lose-only",
		RunE: func(c *cobra.Command, args []string) error {
			r.Plans = args
			if r.GetLoseOnly() && (len(args) > 0 || len(r.GetLoseHosts())+len(r.GetLoseFailureDomains()) == 0) {
				return outcome.Usagef("--lose-only goes with --lose-host or --lose-failure-domain, and without plans")
			}
			api := a.siteService()
			answer, err := api.Tabletop(c.Context(), r)
			if err != nil {
				return err
			}
			err = a.show(view{message: answer, names: []string{answer.GetAfterDeclare().GetGuarantee()}, text: func(wide bool) string {
				return render.Tabletop(answer, a.width(wide), a.Now())
			}})
			left := len(answer.GetFailover().GetUnplaced())
			for _, f := range answer.GetOpen() {
				left += len(f.GetUnplaced())
			}
			if err == nil && left > 0 {
				return outcome.Exitf(outcome.NoFit, "%d workloads would have no room", left)
			}
			return err
		},
		ValidArgsFunction: a.completePlan,
	}
	c.Flags().StringArrayVar(&r.LoseHosts, "lose-host", nil, "hypervisor host that is lost; may be repeated")
	c.Flags().StringArrayVar(&r.LoseFailureDomains, "lose-failure-domain", nil, "failure domain whose hosts are all lost; may be repeated")
	c.Flags().BoolVar(&r.LoseOnly, "lose-only", false, "declare nothing")
	staleFlag(c, &r.Stale)
	return c
}

func (a *app) planCommand() *cobra.Command {
	var stale bool
	describe := &cobra.Command{
		Use:   "describe PLAN",
		Short: "Show whether a plan could be run now, where it would run, and who would be preempted",
		Long: `Show whether a plan could be run now and what is missing, where the proof has its workloads and where
they would be when that host is lost, and what declaring it now would do. Its manifest is shown by
hotspare describe plan PLAN; scripts read hotspare tabletop PLAN -o json.`,
		Example: "  hotspare plan describe webshop",
		Args:    exactly("PLAN"),
		RunE: func(c *cobra.Command, args []string) error {
			api := a.resources()
			answer, err := api.GetResource(c.Context(), &pb.GetResourceRequest{Kind: string(model.ResourcePlan), Name: args[0], Stale: stale})
			if err != nil {
				return err
			}
			declared := &pb.TabletopResponse{}
			if answer.GetReadiness().GetFailover() == "" {
				site := a.siteService()
				if declared, err = site.Tabletop(c.Context(), &pb.TabletopRequest{Plans: args, Stale: stale}); err != nil {
					return err
				}
			}
			return a.show(view{message: answer, names: []string{"plan/" + args[0]}, text: func(wide bool) string {
				text := fmt.Sprintf("plan/%s, revision %d\n", args[0], answer.GetResource().GetPlan().GetMetadata().GetRevision()) +
					render.Readiness(answer.GetReadiness(), a.Now()) + render.Seats(answer.GetSeats(), a.width(wide))
				if declared.GetFailover() != nil {
					text += "\nif it were declared now (nothing was changed):\n" + render.Declared(declared, a.width(wide), a.Now())
				}
				return text
			}})
		},
		ValidArgsFunction: a.completePlan,
	}
	staleFlag(describe, &stale)
	return group("plan", "Show recovery plans", "  hotspare plan describe webshop", describe)
}
