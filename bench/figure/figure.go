// Package figure turns benchmark lines into the figures that the issues ask for: a median, its limit
// from the same run, their ratio, and whether the goal is met. It reads and writes the format that
// benchstat understands and decides nothing else; bench/figures calls it.
package figure

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Line is one line of a benchmark's output: one run, with its values by unit.
type Line struct {
	Name   string
	Values map[string]float64
}

// String is the line as `go test -bench` would print it.
func (l Line) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Benchmark%s 1", l.Name)
	for _, unit := range slices.Sorted(maps.Keys(l.Values)) {
		fmt.Fprintf(&b, "\t%s %s", strconv.FormatFloat(l.Values[unit], 'f', -1, 64), unit)
	}
	return b.String()
}

// Read takes the benchmark lines out of a text; everything else is skipped, as benchstat does.
func Read(r io.Reader) ([]Line, error) {
	var out []Line
	for s := bufio.NewScanner(r); ; {
		if !s.Scan() {
			return out, s.Err()
		}
		if l, ok := parse(s.Text()); ok {
			out = append(out, l)
		}
	}
}

func parse(text string) (Line, bool) {
	words := strings.Fields(text)
	if len(words) < 4 || len(words)%2 != 0 {
		return Line{}, false
	}
	name, found := strings.CutPrefix(words[0], "Benchmark")
	if _, err := strconv.ParseUint(words[1], 10, 64); !found || err != nil {
		return Line{}, false
	}
	l := Line{Name: withoutProcs(name), Values: map[string]float64{}}
	for i := 2; i < len(words); i += 2 {
		v, err := strconv.ParseFloat(words[i], 64)
		if err != nil {
			return Line{}, false
		}
		l.Values[words[i+1]] = v
	}
	return l, true
}

// withoutProcs cuts the number of processors off, which `go test` puts behind the name when it is not 1.
func withoutProcs(name string) string {
	if at := strings.LastIndexByte(name, '-'); at > 0 {
		if _, err := strconv.ParseUint(name[at+1:], 10, 16); err == nil {
			return name[:at]
		}
	}
	return name
}

// Values returns what the runs of one benchmark measured in a unit, smallest first.
func Values(lines []Line, name, unit string) []float64 {
	var out []float64
	for _, l := range lines {
		if v, ok := l.Values[unit]; ok && l.Name == name {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// median returns the middle of sorted values; of an even number the mean of the two in the middle.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
