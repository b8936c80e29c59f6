// Command hotspare-agent runs the agent of one host. This package only wires: flags, configuration,
// drivers, certificates, signals.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/hotspare/hotspare/internal/agent"
	"github.com/hotspare/hotspare/internal/agent/join"
	"github.com/hotspare/hotspare/internal/config"
	"github.com/hotspare/hotspare/internal/daemon"
	"github.com/hotspare/hotspare/internal/trust"
)

// version is set by the build.
var version string

// defaultConfig is where the packages put the configuration.
const defaultConfig = "/etc/hotspare/agent.yaml"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hotspare-agent:", err)
		return 1
	}
	return 0
}

func command() *cobra.Command {
	var path string
	var validate bool
	c := &cobra.Command{
		Use:   "hotspare-agent",
		Short: "Run the hotspare agent of this host",
		Long: `Run the agent of this host. At its first start it joins the site with the token in token_file. Stopping or
restarting it never touches a VM. SIGHUP reads the identity anew.`,
		Example:      "  hotspare-agent --config /etc/hotspare/agent.yaml\n  hotspare-agent --validate",
		Version:      version,
		Args:         cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := config.LoadAgent(path, os.Getenv)
			if err != nil {
				return err
			}
			if validate {
				fmt.Fprintln(c.OutOrStdout(), path+": valid")
				return nil
			}
			return serve(c.Context(), k)
		},
	}
	c.Flags().StringVar(&path, "config", defaultConfig, "configuration file")
	c.Flags().BoolVar(&validate, "validate", false, "check the configuration and end")
	return c
}

// serve runs the agent until the context ends.
func serve(ctx context.Context, k *config.Agent) error {
	log := daemon.Logger(os.Stderr, k.Log)
	keeper, err := identity(ctx, k, log)
	if err != nil {
		return err
	}
	boot, err := agent.HostBootID()
	if err != nil {
		return err
	}
	drivers, closeDrivers, err := openDrivers(k, log)
	if err != nil {
		return err
	}
	defer closeDrivers()
	failpoints(k, &drivers)
	dial := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(keeper.Client()))}
	a, err := agent.New(agent.Options{
		Name: k.Name, Version: version, Coordinators: k.Coordinators, DialOptions: func(string) []grpc.DialOption { return dial },
		Drivers: drivers, JournalPath: k.Journal, BootID: boot, Wall: time.Now, Boot: agent.HostBoot, NewID: uuid.NewString, Log: log,
	})
	if err != nil {
		return err
	}
	var parts sync.WaitGroup
	parts.Go(func() { keeper.Run(ctx, log, join.Renew(k.Coordinators, dial)) })
	parts.Go(func() { daemon.OnReload(ctx, log, keeper.Reload) })
	parts.Go(func() { daemon.Ready(ctx, log, func() error { return nil }) })
	log.Info("agent started", "host", k.Name, "version", version)
	ctx, cancel := context.WithCancel(ctx)
	err = a.Run(ctx)
	cancel()
	daemon.Stopping(log)
	parts.Wait()
	return err
}

// identity opens the agent's certificate; without one it joins the site with its token.
func identity(ctx context.Context, k *config.Agent, log *slog.Logger) (*trust.Keeper, error) {
	if _, err := os.Stat(k.IdentityFile); errors.Is(err, fs.ErrNotExist) {
		token, err := config.ReadSecret(k.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("%s has not joined yet: %w (make a token with: hotspare agent token create --host %s)", k.Name, err, k.Name)
		}
		if err := join.Join(ctx, join.Options{
			Name: k.Name, Token: token, Coordinators: k.Coordinators, Path: k.IdentityFile, Now: time.Now,
		}); err != nil {
			return nil, err
		}
		if err := os.Remove(k.TokenFile); err != nil {
			log.Warn("the spent join token was not deleted", "path", k.TokenFile, "error", err)
		}
		log.Info("joined the site", "host", k.Name)
	}
	keeper, err := trust.OpenKeeper(k.IdentityFile, time.Now)
	if err != nil {
		return nil, err
	}
	if id := keeper.Identity(); id.Role != trust.RoleAgent || id.Name != k.Name {
		return nil, fmt.Errorf("%s belongs to %s, this is agent %s: delete it and join with a new token", k.IdentityFile, id, k.Name)
	}
	return keeper, nil
}
