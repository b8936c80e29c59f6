package cli

import (
	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
)

func (a *app) invariantsCommand() *cobra.Command {
	check := &cobra.Command{
		Use:   "check",
		Short: "Judge the ten invariants by the replicated state and what the leader sees now",
		Long: `Judge the ten invariants of the design by the replicated state and what the leader sees of the agents
now; the certificate of the guarantee is audited anew. Nothing is changed. Exits with 1 when one is
violated: that is a bug or damage, keep the output and the evidence log.`,
		Example: "  hotspare invariants check",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			api := a.siteService()
			answer, err := api.CheckInvariants(c.Context(), &pb.CheckInvariantsRequest{})
			if err != nil {
				return err
			}
			var wrong []string
			for _, v := range answer.GetVerdicts() {
				if v.GetResult() == pb.InvariantResult_INVARIANT_RESULT_VIOLATED {
					wrong = append(wrong, v.GetName())
				}
			}
			err = a.show(view{message: answer, names: wrong, text: func(wide bool) string {
				return render.Invariants(answer.GetVerdicts(), a.width(wide))
			}})
			if err == nil && len(wrong) > 0 {
				return outcome.Exitf(outcome.Failed, "%d of %d invariants are violated", len(wrong), len(answer.GetVerdicts()))
			}
			return err
		},
	}
	return group("invariants", "Check what must always hold", "  hotspare invariants check", check)
}
