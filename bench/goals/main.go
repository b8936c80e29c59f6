// Command goals prints the guarantee's table of figures, each with its goal and its conditions, from the
// output of `go test -bench`; `make bench` calls it at its end. It measures nothing itself.
package main

import (
	"fmt"
	"os"

	"github.com/hotspare/hotspare/bench/figure"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "goals:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name the file with the benchmark lines, for example build/bench.txt")
	}
	file, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer file.Close()
	lines, err := figure.Read(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", args[0], err)
	}
	fmt.Print(figure.Guarantee(lines))
	return nil
}
