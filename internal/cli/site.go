package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/follow"
	"github.com/hotspare/hotspare/internal/cli/input"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
	"github.com/hotspare/hotspare/internal/model"
)

func (a *app) statusCommand() *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show the site on one screen: guarantee, plans, open failovers, lent capacity, alarms",
		Example: "  hotspare status\n  hotspare status -o json | jq .guarantee",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			api := a.siteService()
			s, err := api.GetStatus(c.Context(), &pb.GetStatusRequest{Stale: stale})
			if err != nil {
				return err
			}
			return a.show(view{message: s, names: []string{s.GetGuarantee()}, text: func(wide bool) string {
				return render.Status(s, a.width(wide), a.Now())
			}})
		},
	}
	staleFlag(c, &stale)
	return c
}

func (a *app) hostCommand() *cobra.Command {
	return group("host", "Show and manage the site's hosts", "  hotspare host list\n  hotspare host cordon h7 --reason \"new memory\"",
		a.hostListCommand(),
		a.hostChange("cordon", "Lend nothing new on a host", "cordoned"),
		a.hostChange("drain", "Take a host out of service", "drained"),
		a.hostChange("uncordon", "Lend on a host again", "uncordoned"),
		a.hostChange("readmit", "Trust a quarantined agent with its new journal", "readmitted"),
		a.hostRemoveCommand())
}

func (a *app) hostListCommand() *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use: "list", Short: "List hosts and agents", Example: "  hotspare host list -o wide", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			api := a.siteService()
			all, err := listHosts(c.Context(), api, stale)
			if err != nil {
				return err
			}
			var names []string
			for _, h := range all.GetHosts() {
				names = append(names, h.GetName())
			}
			return a.show(view{message: all, names: names, text: func(wide bool) string {
				return render.Hosts(all.GetHosts(), a.width(wide), wide, a.Now())
			}})
		},
	}
	staleFlag(c, &stale)
	return c
}

const drainHelp = `Take a host out of service: nothing new runs there, and what is lent there is taken back, whole leases
at a time, each by its own --on-preempt after its warning. It is refused if a plan would not fit any more without
the host; --use-tolerance --for TIME accepts for a while that fewer losses are survived. Protected VMs and firm
leases are in the way: nothing moves them. 'hotspare host uncordon' opens the host again, and the leases return.
With --at it is announced: it is checked now and when it begins, and leases are kept away from its time.`

func (a *app) hostChange(action, short, done string) *cobra.Command {
	var reason, lasts, start string
	var dryRun, tolerance, wait, cancel bool
	c := &cobra.Command{
		Use: action + " HOST", Short: short, Args: exactly("HOST"),
		Example: "  hotspare host " + action + " h7 --dry-run\n  hotspare host " + action + " h7 --reason \"new memory\"",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := input.Duration("--for", lasts)
			if err != nil {
				return err
			}
			req := &pb.UpdateHostRequest{
				RequestId: a.newRequestID(), Name: args[0], Action: action, Reason: reason, DryRun: dryRun, UseTolerance: tolerance, Lasts: d,
			}
			if req.StartAt, err = input.Time("--at", start); err != nil {
				return err
			}
			done := done
			switch {
			case cancel && dryRun:
				return outcome.Usagef("--cancel and --dry-run: forgetting an announced drain changes nothing else")
			case cancel:
				req.Action, done = "cancel-drain", "is not to be drained any more"
			case start != "" && !dryRun:
				done = "will be drained"
			}
			answer, err := a.siteService().UpdateHost(c.Context(), req)
			if err != nil {
				return err
			}
			if run := answer.GetHost().GetLive().GetDrain(); wait && run != "" {
				return a.follow(c.Context(), run, follow.Completed)
			}
			return a.show(view{message: answer, names: []string{args[0]}, text: func(bool) string {
				return render.HostChange(answer, args[0], done, dryRun, a.Width, a.Now())
			}})
		},
		ValidArgsFunction: a.completeHost,
	}
	c.Flags().StringVar(&reason, "reason", "", "why; recorded with your name")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say whether it is possible and what it does to the guarantee, and change nothing")
	if action == "drain" {
		c.Long = drainHelp
		c.Flags().BoolVar(&wait, "wait", false, "follow it until everything is taken back")
		c.Flags().StringVar(&start, "at", "", "announce it: it begins by itself then, for example 2026-12-01T08:00Z; needs --for")
		c.Flags().BoolVar(&cancel, "cancel", false, "forget what was announced, with --at only that one")
	}
	if action == "cordon" || action == "drain" {
		c.Flags().StringVar(&lasts, "for", "", "uncordon by itself after this time, for example 2h")
		c.Flags().BoolVar(&tolerance, "use-tolerance", false, "also when fewer losses are survived meanwhile; needs --for and --reason")
	}
	return c
}

func (a *app) hostRemoveCommand() *cobra.Command {
	var lost bool
	var reason string
	c := &cobra.Command{
		Use: "remove HOST", Short: "Take a host out of the site, or give your word that it is lost", Args: exactly("HOST"),
		Long: `Take a host out of the site that holds nothing any more. With --lost: your word that nothing of the host
runs any more and nothing on its disks will be used. What it ran of open failovers is placed on other hosts
at once, leases with a VM on it are lost, and its agent is refused when it comes back. When this is not
true, a protected VM runs twice.`,
		Example: "  hotspare host remove h7\n  hotspare host remove h7 --lost --reason \"the rack burnt\"",
		RunE: func(c *cobra.Command, args []string) error {
			r := &pb.UpdateHostRequest{RequestId: a.newRequestID(), Name: args[0], Action: "remove", Reason: reason}
			done, what := "removed", "removing a host"
			if lost {
				if reason == "" {
					return outcome.Usagef("say how you know: --reason \"...\" (it is recorded)")
				}
				r.Action, done, what = "lose", "is lost", "giving a host up with its VMs and disks"
			}
			if err := a.confirm(what, args[0]); err != nil {
				return err
			}
			api := a.siteService()
			answer, err := api.UpdateHost(c.Context(), r)
			if err != nil {
				return err
			}
			return a.show(view{message: answer, names: []string{args[0]}, text: func(bool) string { return fmt.Sprintf("host %s %s\n", args[0], done) }})
		},
		ValidArgsFunction: a.completeHost,
	}
	c.Flags().BoolVar(&lost, "lost", false, "it is destroyed, or will never come back as it was")
	c.Flags().StringVar(&reason, "reason", "", "why; recorded with your name")
	a.yesFlag(c)
	return c
}

func (a *app) agentCommand() *cobra.Command {
	return group("agent", "Enrol agents", "  hotspare agent token create --host h7",
		group("token", "Make tokens with which an agent gets its certificate", "  hotspare agent token create --host h7", a.tokenCommand()))
}

func (a *app) tokenCommand() *cobra.Command {
	var host, valid, caOut string
	c := &cobra.Command{
		Use:     "create --host HOST",
		Short:   "Make a token for one agent; it is shown once",
		Example: "  hotspare agent token create --host h7 > h7.token",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if host == "" {
				return outcome.Usagef("say for which agent: --host HOST")
			}
			d, err := input.Duration("--valid", valid)
			if err != nil {
				return err
			}
			api := a.siteService()
			answer, err := api.CreateToken(c.Context(), &pb.CreateTokenRequest{RequestId: a.newRequestID(), Host: host, Valid: d})
			if err != nil {
				return err
			}
			if caOut != "" {
				if err := os.WriteFile(caOut, answer.GetAuthority(), 0o644); err != nil {
					return fmt.Errorf("write the authority's certificate: %w", err)
				}
			}
			a.say("token for agent %s, valid until %s; it is not shown again", host, answer.GetExpiresAt().AsTime().UTC().Format("2006-01-02 15:04 UTC"))
			return a.show(view{message: answer, names: []string{answer.GetToken()}, text: func(bool) string { return answer.GetToken() + "\n" }})
		},
	}
	c.Flags().StringVar(&host, "host", "", "name of the only agent that may use it")
	c.Flags().StringVar(&valid, "valid", "", "how long, at most 7d; 1h when left out")
	c.Flags().StringVar(&caOut, "ca-out", "", "file for the authority's certificate; the agent does not need it")
	return c
}

func (a *app) clientCommand() *cobra.Command {
	return group("client", "Make client certificates for users", "  hotspare client issue ann --role operator --out ~/.config/hotspare", a.issueCommand())
}

func (a *app) issueCommand() *cobra.Command {
	var role, out, valid string
	c := &cobra.Command{
		Use:   "issue USER --role ROLE",
		Short: "Make a key and a client certificate for a user",
		Long: `Make a key here and have the site's authority sign a certificate for it. Three files are written:
USER.key (readable by you only; it never leaves this machine), USER.crt and ca.crt.`,
		Example: "  hotspare client issue ann --role operator --out ~/.config/hotspare",
		Args:    exactly("USER"),
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(model.Roles(), role) {
				return outcome.Usagef("--role %q is not %s", role, strings.Join(model.Roles(), ", "))
			}
			if args[0] != filepath.Base(args[0]) || strings.HasPrefix(args[0], ".") {
				return outcome.Usagef("user %q cannot be the name of a file", args[0])
			}
			d, err := input.Duration("--valid", valid)
			if err != nil {
				return err
			}
			return a.issue(c.Context(), &pb.IssueClientRequest{User: args[0], Role: role, Valid: d}, out)
		},
	}
	c.Flags().StringVar(&role, "role", "", "developer, operator or monitor")
	c.Flags().StringVar(&out, "out", ".", "directory for the files")
	c.Flags().StringVar(&valid, "valid", "", "how long; the coordinator's default when left out")
	return c
}

func (a *app) issue(ctx context.Context, r *pb.IssueClientRequest, dir string) error {
	keyFile := filepath.Join(dir, r.GetUser()+".key")
	if _, err := os.Lstat(keyFile); !errors.Is(err, fs.ErrNotExist) {
		return outcome.Usagef("%s exists; remove it first or choose another --out", keyFile)
	}
	api := a.siteService()
	r.RequestId = a.newRequestID()
	key, csr, err := client.NewKey(r.GetUser())
	if err != nil {
		return err
	}
	r.Csr = csr
	answer, err := api.IssueClient(ctx, r)
	if err != nil {
		return err
	}
	names, err := client.WriteIdentity(dir, r.GetUser(), key, answer.GetCertificate(), answer.GetAuthority())
	if err != nil {
		return err
	}
	return a.show(view{message: answer, names: names, text: func(bool) string {
		return fmt.Sprintf("certificate for %s with role %s:\n  key   %s\n  cert  %s\n  ca    %s\n", r.GetUser(), r.GetRole(), names[0], names[1], names[2])
	}})
}

func listHosts(ctx context.Context, api pb.SiteServiceClient, stale bool) (*pb.ListHostsResponse, error) {
	all := &pb.ListHostsResponse{}
	return all, client.EachPage("hosts", func(token string) (string, error) {
		page, err := api.ListHosts(ctx, &pb.ListHostsRequest{Stale: stale, PageToken: token})
		all.Hosts = append(all.Hosts, page.GetHosts()...)
		return page.GetNextPageToken(), err
	})
}

func listObjects(ctx context.Context, api pb.SiteServiceClient, r *pb.ListObjectsRequest) (*pb.ListObjectsResponse, error) {
	all := &pb.ListObjectsResponse{}
	return all, client.EachPage("objects", func(token string) (string, error) {
		r.PageToken = token
		page, err := api.ListObjects(ctx, r)
		all.Objects = append(all.Objects, page.GetObjects()...)
		return page.GetNextPageToken(), err
	})
}

func (a *app) objectsCommand() *cobra.Command {
	r := &pb.ListObjectsRequest{}
	list := &cobra.Command{
		Use: "list", Short: "List objects: what should be, and what is", Args: exactly(),
		Example: "  hotspare objects list --agent h7",
		RunE: func(c *cobra.Command, _ []string) error {
			api := a.siteService()
			all, err := listObjects(c.Context(), api, r)
			if err != nil {
				return err
			}
			var names []string
			for _, o := range all.GetObjects() {
				names = append(names, o.GetObject().GetId())
			}
			return a.show(view{message: all, names: names, text: func(wide bool) string {
				return render.Objects(all.GetObjects(), a.width(wide), wide)
			}})
		},
	}
	list.Flags().StringVar(&r.Agent, "agent", "", "only this agent's")
	staleFlag(list, &r.Stale)
	return group("objects", "Look behind the scenes: the objects that agents keep", "  hotspare objects list", list)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: exactly(), Example: "  hotspare version -o json",
		RunE: func(*cobra.Command, []string) error {
			version := a.Version
			if version == "" {
				version = "unknown"
			}
			m, err := structpb.NewStruct(map[string]any{"version": version, "go": runtime.Version()})
			if err != nil {
				return fmt.Errorf("describe the version: %w", err)
			}
			return a.show(view{message: m, names: []string{version}, text: func(bool) string {
				return fmt.Sprintf("hotspare %s (%s)\n", version, runtime.Version())
			}})
		},
	}
}

func (a *app) devCommand() *cobra.Command {
	o := DevOptions{Out: a.Out}
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole site in this process, to try things out",
		Long: `Run a coordinator, hosts, a storage host and a protected site in this process on the loopback interface,
with simulated drivers and an example plan, until it is interrupted. Nothing needs to be installed, and
nothing is left behind.`,
		Example: "  hotspare dev\n  hotspare dev --hosts 8",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Hosts < 2 || o.Hosts > 100 {
				return outcome.Usagef("--hosts %d: want 2 to 100", o.Hosts)
			}
			return a.Dev(c.Context(), o)
		},
	}
	c.Flags().IntVar(&o.Hosts, "hosts", 3, "number of hypervisor hosts")
	c.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:7443", "address of the gRPC API")
	c.Flags().StringVar(&o.HTTP, "http-listen", "127.0.0.1:7080", "address of JSON over HTTPS and of the webhooks")
	c.Flags().StringVar(&o.Socket, "dev-socket", "", "Unix socket of the API; in a temporary directory when left out")
	return c
}
