// Command hotspare is what developers and operators type. This package only wires internal/cli to the
// process: arguments, environment, terminal, signals and the exit code.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotspare/hotspare/internal/cli"
)

// version is set by the linker from the commit; see the Makefile.
var version = "unknown"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	options := cli.Options{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Terminal:   isTerminal(os.Stdin) && isTerminal(os.Stderr),
		Width:      width(os.Stdout),
		Env:        os.Getenv,
		Now:        time.Now,
		ConfigFile: configFile(),
		Version:    version,
		Dev:        dev,
	}
	return cli.Run(ctx, options, os.Args[1:])
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// width returns the columns of a terminal, or zero for anything else: a file takes any width.
func width(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// configFile is ~/.config/hotspare/config.yaml, or below $XDG_CONFIG_HOME.
func configFile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "hotspare", "config.yaml")
}
