// Command hotspare-pack packs vectors into as few identical bins as it can, with the same code that
// proves the guarantee. It reads the text format in which vector bin packing instances are published:
//
//	dimensions
//	capacity of a bin in each dimension
//	number of item types
//	for each type its demand in each dimension and how many items there are of it
//
// All are whole numbers that are not negative, separated by any white space. It prints the number of
// bins and, with -solution, a line for each bin that lists type:count pairs, types numbered from 0, so
// that anybody can check the packing.
//
// It exits with 0 when it has a packing, 1 when it cannot read or write, and 2 when what it was
// given is wrong. People who measure the engine and the tests call it; the product never does.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

const usage = `usage: hotspare-pack [-limit 1s] [-solution] [file.vbp]

Packs vectors into as few bins as it can and prints the number of bins. Without a file, or with "-",
it reads standard input.

`

const example = `
example: three types in bins of 10 x 8, four items of the first, two of each other

  $ printf '2  10 8  3  5 2 4  5 4 2  1 4 2' | hotspare-pack -solution
  4
  1:2
  0:1 2:1
  0:1 2:1
  0:2
`

// Exit codes.
const (
	exitFailed = 1
	exitBad    = 2
)

// slice is how many steps run between two looks at the clock, a millisecond or a few.
const slice = 20_000

func main() {
	began := time.Now()
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, func() time.Duration { return time.Since(began) }))
}

// run is the program; elapsed says how long it has been running.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, elapsed func() time.Duration) int {
	flags := flag.NewFlagSet("hotspare-pack", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed below, in the form of all others
	limit := flags.Duration("limit", time.Second, "how long to look for a better packing")
	solution := flags.Bool("solution", false, "print what lies in each bin")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		fmt.Fprint(stdout, example)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "hotspare-pack: %v; see hotspare-pack --help\n", err)
		return exitBad
	case flags.NArg() > 1:
		fmt.Fprintf(stderr, "hotspare-pack: one file at a time, not %d\n", flags.NArg())
		return exitBad
	case *limit < 0:
		fmt.Fprintf(stderr, "hotspare-pack: the limit %v is negative\n", *limit)
		return exitBad
	}
	p, err := load(flags.Arg(0), stdin)
	if err != nil {
		fmt.Fprintf(stderr, "hotspare-pack: %v\n", err)
		if bad := (*inputError)(nil); errors.As(err, &bad) {
			return exitBad
		}
		return exitFailed
	}
	search := pack.NewSearch(p, pack.Options{Minimise: true, Stop: func() bool { return elapsed() >= *limit }})
	for !search.Done() && elapsed() < *limit {
		search.Run(slice)
	}
	if err := write(stdout, search.Solution(), *solution); err != nil {
		fmt.Fprintf(stderr, "hotspare-pack: write the result: %v\n", err)
		return exitFailed
	}
	return 0
}

// load reads a file, or standard input if there is no name.
func load(name string, stdin io.Reader) (pack.Problem, error) {
	if name == "" || name == "-" {
		p, err := read(stdin)
		if err != nil {
			return p, fmt.Errorf("standard input: %w", err)
		}
		return p, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return pack.Problem{}, err
	}
	defer file.Close()
	p, err := read(file)
	if err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func write(to io.Writer, s pack.Solution, all bool) error {
	out := bufio.NewWriter(to)
	fmt.Fprintln(out, len(s.Bins))
	if !all {
		return out.Flush()
	}
	for _, b := range s.Bins {
		separator := ""
		for _, c := range b.Items {
			fmt.Fprintf(out, "%s%d:%d", separator, c.Class, c.Count)
			separator = " "
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}
