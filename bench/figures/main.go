// Command figures measures the figures of issue 2 that a program can measure: the whole failover against a
// hand-written script, our part of its critical path, the loss of the leader, the way from a declaration to
// the first order, and the start of `hotspare dev`. What needs real parts runs on a site of package
// e2e/site, in rounds that alternate with their limits. `make figures` calls it, docs/figures.md
// explains it; it leaves nothing behind.
//
// Every run is a line that benchstat reads, on standard output and in a file; what it is doing, and the
// summary at the end, go to standard error and standard output.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hotspare/hotspare/bench/figure"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
)

// limit bounds everything; eleven minutes are planned.
const limit = 25 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

// names are the figures that can be asked for, in the order in which they run.
func names() []string { return []string{"declare", "dev", "leader", "failover"} }

// figures is one run of the command.
type figures struct {
	rounds int
	bin    string
	out    io.Writer // standard output and the file
	lines  []figure.Line
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("figures", flag.ContinueOnError)
	rounds := flags.Int("rounds", figure.Want, "rounds of each kind")
	only := flags.String("only", strings.Join(names(), ","), "which figures")
	bin := flags.String("bin", "bin", "folder of the programs")
	to := flags.String("out", "build/figures.txt", "file for the benchmark lines")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted := strings.Split(*only, ",")
	for _, w := range wanted {
		if !slices.Contains(names(), w) {
			return fmt.Errorf("no figure is called %q; there are %s", w, strings.Join(names(), ", "))
		}
	}
	programs, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*to), 0o755); err != nil {
		return err
	}
	file, err := os.Create(*to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f := &figures{rounds: *rounds, bin: programs, out: io.MultiWriter(os.Stdout, file)}
	err = f.measure(ctx, wanted)
	added := 2*raftnode.HeartbeatTimeout + raftnode.ElectionTimeout + time.Second
	fmt.Printf("\n%s", figure.Summary(f.lines, figure.Limits{LeaderSeconds: added.Seconds()}))
	return err
}

func (f *figures) measure(ctx context.Context, wanted []string) error {
	began := time.Now()
	defer func() { say("everything took %v", time.Since(began).Round(time.Second)) }()
	if slices.Contains(wanted, "declare") {
		if err := f.goBenchmark(ctx, "BenchmarkDeclare", "11x"); err != nil {
			return err
		}
	}
	if slices.Contains(wanted, "dev") {
		if err := f.goBenchmark(ctx, "BenchmarkDevReady", "1x"); err != nil {
			return err
		}
	}
	if slices.Contains(wanted, "leader") || slices.Contains(wanted, "failover") {
		return f.onSite(ctx, wanted)
	}
	return nil
}

// goBenchmark runs an ordinary benchmark, each run in a process state of its own.
func (f *figures) goBenchmark(ctx context.Context, name, times string) error {
	say("%s, %d runs", name, f.rounds)
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", times,
		"-count", fmt.Sprint(f.rounds), "./bench")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	lines, err := figure.Read(bytes.NewReader(out))
	if err != nil {
		return fmt.Errorf("read the output of %s: %w", name, err)
	}
	for _, l := range lines {
		f.add(l)
	}
	return nil
}

// add takes the line of one run.
func (f *figures) add(l figure.Line) {
	f.lines = append(f.lines, l)
	fmt.Fprintln(f.out, l)
}

// say tells what is going on, apart from the benchmark lines.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "# "+format+"\n", args...) }
