package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/input"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
	"github.com/hotspare/hotspare/internal/trust/evidence"
)

func (a *app) evidenceCommand() *cobra.Command {
	return group("evidence", "Read the log of decisions", "  hotspare evidence list\n  hotspare evidence export > evidence.jsonl\n  hotspare evidence verify evidence.jsonl",
		a.evidenceListCommand(), a.evidenceExportCommand(), a.evidenceVerifyCommand())
}

// eachEvidence pages through the log after a sequence number.
func (a *app) eachEvidence(ctx context.Context, after uint64, visit func(*pb.Evidence) error) error {
	api := a.siteService()
	for range client.MaxPages {
		page, err := api.ListEvidence(ctx, &pb.ListEvidenceRequest{AfterSequence: after, PageSize: client.PageSize})
		if err != nil {
			return err
		}
		if len(page.GetEntries()) == 0 {
			return nil
		}
		for _, e := range page.GetEntries() {
			if e.GetSequence() <= after {
				return fmt.Errorf("list evidence: entry %d came after entry %d", e.GetSequence(), after)
			}
			after = e.GetSequence()
			if err := visit(e); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("list evidence: more than %d pages: go on with --after %d", client.MaxPages, after)
}

func (a *app) evidenceListCommand() *cobra.Command {
	var after uint64
	c := &cobra.Command{
		Use: "list", Short: "List the log of decisions", Args: exactly(), Example: "  hotspare evidence list --after 1000",
		RunE: func(c *cobra.Command, _ []string) error {
			all := &pb.ListEvidenceResponse{}
			var names []string
			err := a.eachEvidence(c.Context(), after, func(e *pb.Evidence) error {
				all.Entries = append(all.Entries, e)
				names = append(names, fmt.Sprint(e.GetSequence()))
				return nil
			})
			if err != nil {
				return err
			}
			return a.show(view{message: all, names: names, text: func(wide bool) string {
				return render.Evidence(all.GetEntries(), a.width(wide))
			}})
		},
	}
	c.Flags().Uint64Var(&after, "after", 0, "only entries after this number")
	return c
}

func (a *app) evidenceExportCommand() *cobra.Command {
	var after uint64
	c := &cobra.Command{
		Use: "export", Short: "Write the log of decisions as JSON lines, hashes included", Args: exactly(),
		Example: "  hotspare evidence export > evidence.jsonl",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.eachEvidence(c.Context(), after, func(e *pb.Evidence) error {
				line, err := toJSONLine(e)
				if err != nil {
					return err
				}
				return a.write(line)
			})
		},
	}
	c.Flags().Uint64Var(&after, "after", 0, "only entries after this number")
	return c
}

func (a *app) evidenceVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE|-",
		Short: "Check an export without any coordinator: nothing was changed, removed or put in between",
		Long: `Check the chain of hashes of an export, without any coordinator. The hash of the last entry is
printed: compare it with one that was kept elsewhere, or the end of the log could have been cut off.`,
		Example: "  hotspare evidence verify evidence.jsonl",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			in := a.In
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return outcome.Usagef("read the export: %v", err)
				}
				defer f.Close()
				in = f
			}
			return a.verifyEvidence(in)
		},
	}
}

func (a *app) verifyEvidence(in io.Reader) error {
	all, err := input.Evidence(in)
	if err != nil {
		return err
	}
	last, err := evidence.VerifyChain(all)
	if err != nil {
		return err
	}
	first, end := all[0].GetSequence(), all[len(all)-1]
	return a.show(view{message: end, names: []string{fmt.Sprintf("%x", last)}, text: func(bool) string {
		return fmt.Sprintf("entries %d to %d are unchanged; the last hash is\n%x\n", first, end.GetSequence(), last)
	}})
}
