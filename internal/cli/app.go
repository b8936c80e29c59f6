package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
	"github.com/hotspare/hotspare/internal/model"
)

// callTimeout bounds one call with its repeats when --timeout is not given: long enough for an election
// and a restart, short enough for a person.
const callTimeout = 30 * time.Second

// Options are everything that the commands take from outside.
type Options struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
	// Terminal: a person sits there who can be asked, and Out can be redrawn.
	Terminal bool
	// Width of the terminal in columns; zero: no limit, tables are not cut.
	Width int
	// Env reads an environment variable.
	Env func(string) string
	// Now reads the clock, for ages and time lines.
	Now func() time.Time
	// ConfigFile is the file of contexts; it need not exist.
	ConfigFile string
	// Version of this program, for `hotspare version`.
	Version string
	// Dial replaces the network in tests.
	Dial client.Dialer
	// Dev runs a whole site in this process until the context ends; without it there is no `hotspare dev`.
	Dev func(context.Context, DevOptions) error
}

// DevOptions say what `hotspare dev` runs.
type DevOptions struct {
	// Hosts is the number of hypervisor hosts, 2 to 100.
	Hosts int
	// Listen and HTTP are the addresses of the API; Socket is the path of its Unix socket.
	Listen, HTTP, Socket string
	// Out is where it says what to do next.
	Out io.Writer
}

// app is one run of the command.
type app struct {
	Options
	flags     client.Flags
	output    string
	timeout   time.Duration
	requestID string
	yes       bool
	// started: flags and arguments were in order; errors from here on are not about usage.
	started bool
	conn    *client.Client
}

// New makes the command tree. Most callers want Run.
func New(o Options) *cobra.Command {
	_, root := newApp(o)
	return root
}

func newApp(o Options) (*app, *cobra.Command) {
	a := &app{Options: o}
	if a.Env == nil {
		a.Env = func(string) string { return "" }
	}
	if a.Now == nil {
		a.Now = time.Now
	}
	root := &cobra.Command{
		Use:   "hotspare",
		Short: "Lend a recovery site's capacity, and take it back when a failover is declared",
		Long: `hotspare lends the capacity of a disaster-recovery site to developers, and takes it back in
seconds when a failover is declared.

Exit codes: 0 done; 1 failed; 2 usage or an invalid manifest; 3 no coordinator reachable or no
leader; 4 not authenticated or not allowed; 5 timed out while the operation goes on; 6 conflict
or precondition; 7 it does not fit, is not proven, or exceeds a quota; 130 interrupted.`,
		Example:       "  hotspare status\n  hotspare apply -f plans/\n  hotspare failover declare webshop --reason \"the site is flooded\"",
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.begin() },
		Args:              cobra.ArbitraryArgs, // groupRun words the error
		RunE:              groupRun,
	}
	root.SetIn(o.In)
	root.SetOut(o.Out)
	root.SetErr(o.Err)
	root.CompletionOptions.HiddenDefaultCmd = false
	p := root.PersistentFlags()
	p.StringArrayVar(&a.flags.Endpoints, "endpoint", nil, "coordinator as host:port or unix:/path; may be repeated (HOTSPARE_ENDPOINTS)")
	p.StringVar(&a.flags.Socket, "socket", "", "Unix socket of a coordinator on this machine, for example "+client.DefaultSocket)
	p.StringVar(&a.flags.Context, "context", "", "context of the configuration file (HOTSPARE_CONTEXT)")
	p.StringVar(&a.flags.CACert, "cacert", "", "certificate of the site's authority (HOTSPARE_CACERT)")
	p.StringVar(&a.flags.Cert, "cert", "", "client certificate (HOTSPARE_CERT)")
	p.StringVar(&a.flags.Key, "key", "", "key of the client certificate (HOTSPARE_KEY)")
	p.StringVarP(&a.output, "output", "o", "", "table, wide, json, yaml or name (HOTSPARE_OUTPUT)")
	p.DurationVar(&a.timeout, "timeout", 0, "bound on the whole command; 30s for calls and none for waits unless given")
	p.StringVar(&a.requestID, "request-id", "", "repeat a request whose outcome is unknown without doing it twice")
	root.AddCommand(a.statusCommand(), a.applyCommand(), a.getCommand(), a.describeCommand(), a.deleteCommand(),
		a.leaseCommand(), a.failoverCommand(), a.failbackCommand(), a.triggerCommand(), a.planCommand(),
		a.tabletopCommand(), a.invariantsCommand(), a.hostCommand(),
		a.agentCommand(), a.clientCommand(), a.objectsCommand(), a.evidenceCommand(), a.versionCommand())
	if o.Dev != nil {
		root.AddCommand(a.devCommand())
	}
	return a, root
}

// begin checks the global flags once cobra has read everything.
func (a *app) begin() error {
	if a.output == "" {
		a.output = a.Env("HOTSPARE_OUTPUT")
	}
	switch a.output {
	case "":
		a.output = "table"
	case "table", "wide", "json", "yaml", "name":
	default:
		return outcome.Usagef("output %q is not table, wide, json, yaml or name", a.output)
	}
	if a.timeout < 0 {
		return outcome.Usagef("--timeout must not be negative")
	}
	if a.requestID != "" {
		if _, err := uuid.Parse(a.requestID); err != nil {
			return outcome.Usagef("--request-id %q is not a UUID", a.requestID)
		}
	}
	a.started = true
	return nil
}

// Run executes one command line and returns the exit code. Errors are written to o.Err.
func Run(ctx context.Context, o Options, args []string) int {
	a, root := newApp(o)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if a.conn != nil {
		if cerr := a.conn.Close(); err == nil {
			err = cerr
		}
	}
	if err == nil {
		return outcome.OK
	}
	if !a.started && !outcome.IsUsage(err) {
		err = outcome.Usagef("%v; see hotspare --help", err)
	}
	if ctx.Err() != nil {
		err = context.Canceled
	}
	code := outcome.Code(err)
	a.printError(err)
	return code
}

// group makes a command that only holds others.
func group(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, RunE: groupRun}
	c.AddCommand(subs...)
	return c
}

func groupRun(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	hint := ""
	if s := model.Nearest(args[0], names); s != "" {
		hint = fmt.Sprintf(", did you mean %q?", s)
	}
	return outcome.Usagef("unknown command %q for %s%s", args[0], c.CommandPath(), hint)
}

// exactly checks the number of arguments and names what is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return outcome.Usagef("%s: %s is missing", c.CommandPath(), names[len(args)])
		}
		if len(args) > len(names) {
			return outcome.Usagef("%s: %q is one argument too many", c.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// app is the connection that the generated clients use: it works out whom to call on the first call, so
// that a command needs no step for it.
var _ grpc.ClientConnInterface = (*app)(nil)

// Invoke calls the site; see client.Client.
func (a *app) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c, err := a.site()
	if err != nil {
		return err
	}
	return c.Invoke(ctx, method, args, reply, opts...)
}

// NewStream opens a stream to the site; see client.Client.
func (a *app) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c, err := a.site()
	if err != nil {
		return nil, err
	}
	return c.NewStream(ctx, desc, method, opts...)
}

// site connects on first use.
func (a *app) site() (*client.Client, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	target, err := client.Resolve(a.flags, a.Env, a.ConfigFile)
	if err != nil {
		return nil, outcome.Usagef("%v", err)
	}
	timeout := a.timeout
	if timeout == 0 {
		timeout = callTimeout
	}
	a.conn, err = client.New(target, client.Options{Timeout: timeout, Dial: a.Dial})
	if err != nil {
		return nil, outcome.Usagef("%v", err)
	}
	return a.conn, nil
}

func (a *app) leases() pb.LeaseServiceClient       { return pb.NewLeaseServiceClient(a) }
func (a *app) resources() pb.ResourceServiceClient { return pb.NewResourceServiceClient(a) }
func (a *app) failovers() pb.FailoverServiceClient { return pb.NewFailoverServiceClient(a) }
func (a *app) siteService() pb.SiteServiceClient   { return pb.NewSiteServiceClient(a) }

// newRequestID returns the id for the one change that this command makes: sortable by time, and the
// same for every repeat.
func (a *app) newRequestID() string {
	if a.requestID == "" {
		a.requestID = uuid.Must(uuid.NewV7()).String() // fails only without a random source, which Go rules out
	}
	return a.requestID
}

// say writes a remark for people; programs that read JSON or names are spared it.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.Err, "%s\n", strings.TrimRight(render.Plain(fmt.Sprintf(format, args...)), "\n"))
}
