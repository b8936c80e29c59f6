package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/stream"
)

func (a *app) leaseConsoleCommand() *cobra.Command {
	r := &pb.ReadConsoleRequest{}
	c := &cobra.Command{
		Use:   "console LEASE",
		Short: "Show what a VM of a lease wrote to its serial console",
		Long: `Show the newest output of a VM's serial console, also of one that is off. It needs no route to the VM: the
coordinator asks the agent of its host. With --follow it goes on until you interrupt it. On a terminal, what
would steer the terminal is left out.`,
		Example: "  hotspare lease console web-3\n  hotspare lease console web-3 --vm 1 --follow",
		Args:    exactly("LEASE"),
		RunE: func(c *cobra.Command, args []string) error {
			if a.output == "json" || a.output == "yaml" || a.output == "name" {
				return outcome.Usagef("a console has no form %s: it is shown as it is", a.output)
			}
			r.Name = args[0]
			return a.stream(c.Context(), r.GetFollow(), func(ctx context.Context, site stream.Site, o stream.Options) error {
				return stream.Console(ctx, site, r, o)
			})
		},
		ValidArgsFunction: a.completeLease,
	}
	c.Flags().Uint32Var(&r.Vm, "vm", 0, "which of the lease's VMs, from 0")
	c.Flags().BoolVarP(&r.Follow, "follow", "f", false, "go on with what the guest writes")
	return c
}

func (a *app) leaseWatchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch LEASE",
		Short: "Follow a lease: a line for each change, until you interrupt it",
		Long: `Follow a lease: preempted by which failover, why and until when, ready, saved, back. It goes on until you
interrupt it, --timeout has passed or the lease is deleted; -o json writes the whole lease at each change.`,
		Example: "  hotspare lease watch web-3\n  hotspare lease watch web-3 -o json --timeout 1h",
		Args:    exactly("LEASE"),
		RunE: func(c *cobra.Command, args []string) error {
			write := func(l *pb.Lease, line string) error {
				if a.output == "table" || a.output == "wide" {
					return a.write(line)
				}
				if a.output != "json" {
					return a.showLease(l, func(bool) string { return line })
				}
				text, err := toJSONLine(l)
				if err != nil {
					return err
				}
				return a.write(text)
			}
			return a.stream(c.Context(), true, func(ctx context.Context, site stream.Site, o stream.Options) error {
				return stream.Lease(ctx, site, args[0], write, o)
			})
		},
		ValidArgsFunction: a.completeLease,
	}
}

// stream shows something; what is endless is shown for as long as --timeout says, if it was given.
func (a *app) stream(ctx context.Context, endless bool, show func(context.Context, stream.Site, stream.Options) error) error {
	site, err := a.site()
	if err != nil {
		return err
	}
	bounded, cancel := a.waitContext(ctx)
	defer cancel()
	o := stream.Options{Out: a.Out, Say: a.say, Terminal: a.Terminal, Patience: a.timeout, Now: a.Now}
	if o.Patience == 0 {
		o.Patience = callTimeout
	}
	err = show(bounded, site, o)
	if endless && errors.Is(bounded.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	return err
}
