package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/input"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
)

// waitPause is the time between two looks at what is waited for.
const waitPause = 500 * time.Millisecond

func (a *app) leaseCommand() *cobra.Command {
	return group("lease", "Lease VMs on capacity that waits for a disaster",
		"  hotspare lease create -p web --vm 2x4cpu,8GiB --image debian-12 --term 8h --wait\n  hotspare lease list",
		a.leaseCreateCommand(), a.leaseListCommand(), a.leaseDescribeCommand(), a.leaseExtendCommand(),
		a.leaseReleaseCommand(), a.leaseUndeleteCommand(), a.leaseConsoleCommand(), a.leaseWatchCommand())
}

func (a *app) leaseCreateCommand() *cobra.Command {
	var f input.LeaseFlags
	var wait bool
	c := &cobra.Command{
		Use:   "create -p PROJECT --vm [COUNTx]CPUcpu,MEMORY --image IMAGE --term TIME",
		Short: "Lease one or several equal VMs",
		Long: `Lease one or several equal VMs for a term. A failover may take them back after a warning (see
--on-preempt); they return by themselves, with the same disk, MAC and address, and the term stands
still meanwhile.

What does not fit now is refused, or waits in line with --queue: it starts by itself, and its term
begins then. Of the projects that wait the one that has least of the site comes next. A lease that has
waited ten minutes is not overtaken any more. Withdraw one with: hotspare lease release`,
		Example: "  hotspare lease create -p web --vm 2x4cpu,8GiB --image debian-12 --term 8h --ssh-key ~/.ssh/id_ed25519.pub\n" +
			"  hotspare lease create -p web --vm 8cpu,32GiB --clone-of webshop/db --term 3d --on-preempt save --wait",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return a.leaseCreate(c.Context(), f, wait) },
	}
	fl := c.Flags()
	fl.StringVarP(&f.Project, "project", "p", "", "project that the lease counts for")
	fl.StringVar(&f.VM, "vm", "", "how many VMs of what size: 2x4cpu,8GiB; with disks and\ndevices of their host:\n2x4cpu,8GiB,disk=20GiB,disk/ssd=50GiB,a100=1")
	fl.StringVar(&f.Image, "image", "", "image to start from")
	fl.StringVar(&f.CloneOf, "clone-of", "", "plan/workload whose newest consistent point is cloned")
	fl.StringVar(&f.Term, "term", "", "how long, for example 8h or 3d")
	fl.StringVar(&f.OnPreempt, "on-preempt", "", "save (RAM and disk kept), shutdown (disk kept) or discard; the coordinator chooses when left out")
	fl.StringVar(&f.Grace, "grace", "", "warning before a preemption, for example 30s")
	fl.StringVar(&f.Class, "class", "preemptible", "preemptible, or firm (survives every failover)")
	fl.StringArrayVar(&f.SSHKeys, "ssh-key", nil, "file with ssh public keys; may be repeated")
	fl.StringVar(&f.UserData, "user-data", "", "file with user data for cloud-init")
	fl.BoolVar(&f.Queue, "queue", false, "wait in line when it does not fit now, or is over the quota")
	fl.StringVar(&f.At, "at", "", "start then, for example 2026-12-01T08:00Z; waits in line from then on")
	fl.BoolVar(&wait, "wait", false, "wait until all VMs run")
	return c
}

func (a *app) leaseCreate(ctx context.Context, f input.LeaseFlags, wait bool) error {
	req, err := input.Lease(f)
	if err != nil {
		return err
	}
	req.RequestId = a.newRequestID()
	api := a.leases()
	answer, err := api.CreateLease(ctx, req)
	if err != nil {
		return err
	}
	lease := answer.GetLease()
	done := "created"
	if lease.GetPhase() == pb.LeasePhase_LEASE_PHASE_QUEUED {
		done = "queued"
	}
	if wait {
		lease, err = a.waitLease(ctx, api, lease.GetName())
		if err != nil {
			return err
		}
	}
	return a.showLease(lease, func(bool) string {
		return fmt.Sprintf("lease %s %s\n", lease.GetName(), done) + render.Leases([]*pb.Lease{lease}, a.Width, false, a.Now())
	})
}

// waitLease waits until every VM of the lease runs, or it is clear that it will not.
func (a *app) waitLease(ctx context.Context, api pb.LeaseServiceClient, name string) (*pb.Lease, error) {
	ctx, cancel := a.waitContext(ctx)
	defer cancel()
	told := ""
	for {
		answer, err := api.GetLease(ctx, &pb.GetLeaseRequest{Name: name})
		if ctx.Err() != nil {
			return nil, goesOn(ctx, "lease "+name, "hotspare lease describe "+name)
		}
		if err != nil {
			return nil, err
		}
		l := answer.GetLease()
		if leaseUp(l) {
			return l, nil
		}
		switch l.GetPhase() {
		case pb.LeasePhase_LEASE_PHASE_QUEUED:
			if line := render.LeaseLine(l, a.Now()); line != told {
				told = line
				a.say("%s", line)
			}
		case pb.LeasePhase_LEASE_PHASE_ACTIVE, pb.LeasePhase_LEASE_PHASE_PREEMPTED, pb.LeasePhase_LEASE_PHASE_RETURNING:
		default:
			return nil, outcome.Exitf(outcome.Failed, "lease %s does not start: %s", name, l.GetReason())
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitPause):
		}
	}
}

func leaseUp(l *pb.Lease) bool {
	up := map[string]bool{}
	for _, s := range l.GetLive() {
		up[s.GetObject()] = s.GetState() == pb.State_STATE_RUNNING && s.GetPhase() == pb.Phase_PHASE_SETTLED
	}
	for _, i := range l.GetInstances() {
		if !up[i.GetObject()] {
			return false
		}
	}
	return l.GetPhase() == pb.LeasePhase_LEASE_PHASE_ACTIVE && len(l.GetInstances()) > 0
}

// waitContext bounds a wait by --timeout when it was given.
func (a *app) waitContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, a.timeout)
}

// goesOn words the end of a wait: the time is up, or the user interrupted.
func goesOn(ctx context.Context, what, follow string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	return outcome.Exitf(outcome.GoesOn, "timed out, %s goes on; follow it with: %s", what, follow)
}

func (a *app) showLease(l *pb.Lease, text func(wide bool) string) error {
	return a.show(view{message: l, names: []string{l.GetName()}, text: text})
}

func (a *app) listLeases(ctx context.Context, first *pb.ListLeasesRequest) (*pb.ListLeasesResponse, error) {
	api := a.leases()
	all := &pb.ListLeasesResponse{}
	return all, client.EachPage("leases", func(token string) (string, error) {
		first.PageToken = token
		page, err := api.ListLeases(ctx, first)
		all.Leases = append(all.Leases, page.GetLeases()...)
		return page.GetNextPageToken(), err
	})
}

func (a *app) leaseListCommand() *cobra.Command {
	r := &pb.ListLeasesRequest{PageSize: client.PageSize}
	c := &cobra.Command{
		Use:     "list",
		Short:   "List leases",
		Example: "  hotspare lease list -p web\n  hotspare lease list --all -o wide",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := a.listLeases(c.Context(), r)
			if err != nil {
				return err
			}
			var names []string
			for _, l := range all.GetLeases() {
				names = append(names, l.GetName())
			}
			return a.show(view{message: all, names: names, text: func(wide bool) string {
				return render.Leases(all.GetLeases(), a.width(wide), wide, a.Now())
			}})
		},
	}
	c.Flags().StringVarP(&r.Project, "project", "p", "", "only this project's")
	c.Flags().BoolVar(&r.All, "all", false, "ended leases too")
	staleFlag(c, &r.Stale)
	return c
}

func (a *app) leaseDescribeCommand() *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use:     "describe LEASE",
		Short:   "Show one lease: state, why, what is kept, its VMs",
		Example: "  hotspare lease describe web-3",
		Args:    exactly("LEASE"),
		RunE: func(c *cobra.Command, args []string) error {
			api := a.leases()
			answer, err := api.GetLease(c.Context(), &pb.GetLeaseRequest{Name: args[0], Stale: stale})
			if err != nil {
				return err
			}
			l := answer.GetLease()
			return a.showLease(l, func(wide bool) string { return render.Lease(l, a.width(wide), a.Now()) })
		},
		ValidArgsFunction: a.completeLease,
	}
	staleFlag(c, &stale)
	return c
}

// leaseChange makes a command that changes one lease.
func (a *app) leaseChange(use, short, example, done string, change func(context.Context, pb.LeaseServiceClient, string, string) (*pb.Lease, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: exactly("LEASE"),
		RunE: func(c *cobra.Command, args []string) error {
			api := a.leases()
			l, err := change(c.Context(), api, a.newRequestID(), args[0])
			if err != nil {
				return err
			}
			what := done
			if l.GetPhase() == pb.LeasePhase_LEASE_PHASE_ENDED && len(l.GetInstances()) == 0 {
				what = "withdrawn from the queue"
			}
			return a.showLease(l, func(bool) string {
				return fmt.Sprintf("lease %s %s\n", l.GetName(), what) + render.Leases([]*pb.Lease{l}, a.Width, false, a.Now())
			})
		},
		ValidArgsFunction: a.completeLease,
	}
}

func (a *app) leaseExtendCommand() *cobra.Command {
	var by string
	c := a.leaseChange("extend LEASE --by TIME", "Let a lease end later", "  hotspare lease extend web-3 --by 4h", "extended",
		func(ctx context.Context, api pb.LeaseServiceClient, id, name string) (*pb.Lease, error) {
			if by == "" {
				return nil, outcome.Usagef("say by how much: --by 4h")
			}
			d, err := input.Duration("--by", by)
			if err != nil {
				return nil, err
			}
			answer, err := api.ExtendLease(ctx, &pb.ExtendLeaseRequest{RequestId: id, Name: name, By: d})
			return answer.GetLease(), err
		})
	c.Flags().StringVar(&by, "by", "", "how much longer, for example 4h or 1d")
	return c
}

func (a *app) leaseReleaseCommand() *cobra.Command {
	return a.leaseChange("release LEASE", "End a lease, whose disks are kept for the retention time, or withdraw one that waits", "  hotspare lease release web-3",
		"released; take it back with: hotspare lease undelete",
		func(ctx context.Context, api pb.LeaseServiceClient, id, name string) (*pb.Lease, error) {
			answer, err := api.ReleaseLease(ctx, &pb.ReleaseLeaseRequest{RequestId: id, Name: name})
			return answer.GetLease(), err
		})
}

func (a *app) leaseUndeleteCommand() *cobra.Command {
	return a.leaseChange("undelete LEASE", "Take back an ended lease before its disks are deleted", "  hotspare lease undelete web-3", "taken back",
		func(ctx context.Context, api pb.LeaseServiceClient, id, name string) (*pb.Lease, error) {
			answer, err := api.UndeleteLease(ctx, &pb.UndeleteLeaseRequest{RequestId: id, Name: name})
			return answer.GetLease(), err
		})
}
