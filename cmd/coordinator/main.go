// Command hotspare-coordinator runs one coordinator. This package only wires: flags, configuration,
// certificates, listeners, signals.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hotspare/hotspare/internal/config"
)

// version is set by the build.
var version string

// defaultConfig is where the packages put the configuration.
const defaultConfig = "/etc/hotspare/coordinator.yaml"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hotspare-coordinator:", err)
		return 1
	}
	return 0
}

func command() *cobra.Command {
	var path string
	var validate bool
	root := &cobra.Command{
		Use:   "hotspare-coordinator",
		Short: "Run one coordinator of a hotspare site",
		Long: `Run one coordinator. It needs its identity (see "hotspare-coordinator setup") and a configuration.
SIGHUP reads the identity anew. Lent and protected VMs do not notice when it stops.`,
		Example:      "  hotspare-coordinator --config /etc/hotspare/coordinator.yaml\n  hotspare-coordinator --validate",
		Version:      version,
		Args:         cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := config.LoadCoordinator(path, os.Getenv)
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
	root.PersistentFlags().StringVar(&path, "config", defaultConfig, "configuration file")
	root.Flags().BoolVar(&validate, "validate", false, "check the configuration and end")
	root.AddCommand(setupCommand(&path))
	return root
}

func setupCommand(path *string) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "setup",
		Short: "Make the certificate authority and the identities of a new site's coordinators",
		Long: `Make the site's own certificate authority and one identity for each member in the configuration. Put
NAME.pem on member NAME as its identity_file, and authority.pem beside the identity of the member that
says "bootstrap: true". Delete authority.pem everywhere once the site has started: the coordinators keep
the authority in their replicated state.`,
		Example: "  hotspare-coordinator setup --config coordinator.yaml --out pki",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := config.LoadCoordinator(*path, os.Getenv)
			if err != nil {
				return err
			}
			return setup(c.OutOrStdout(), k, out)
		},
	}
	c.Flags().StringVar(&out, "out", ".", "directory for the files; nothing in it is overwritten")
	return c
}
