package figure

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestReadSkipsWhatIsNoBenchmark(t *testing.T) {
	lines, err := Read(strings.NewReader(`goos: linux
goos
BenchmarkDeclare-2   	      11	  52101000 ns/op	         1.5 declare-ms	         1 limit-ms
BenchmarkDeclare-2   	      11	  52101000 ns/op	  garbage declare-ms
Benchmark
BenchmarkX 1 2
--- BENCH: BenchmarkDeclare-2
BenchmarkFailover/by=hotspare 1	5000000000 ns/op	30.5 own-ms
PASS
ok  	example.test/bench	5.013s
`))
	if err != nil || len(lines) != 2 {
		t.Fatalf("read %v, %v", lines, err)
	}
	if l := lines[0]; l.Name != "Declare" || !maps.Equal(l.Values, map[string]float64{"ns/op": 52101000, "declare-ms": 1.5, "limit-ms": 1}) {
		t.Errorf("read %+v", l)
	}
	if got, want := lines[1].String(), "BenchmarkFailover/by=hotspare 1\t5000000000 ns/op\t30.5 own-ms"; got != want {
		t.Errorf("written as %q, want %q", got, want)
	}
}

// many makes one line for each value.
func many(name, unit string, values ...float64) []Line {
	var out []Line
	for _, v := range values {
		out = append(out, Line{Name: name, Values: map[string]float64{unit: v}})
	}
	return out
}

func TestSummary(t *testing.T) {
	const ours, hand = "Failover/by=hotspare", "Failover/by=hand"
	fast, slow := []float64{5e9, 5.1e9, 5.2e9, 5e9, 4.9e9, 9e9, 5e9}, []float64{6e9, 6e9, 6e9, 6e9, 6e9, 6e9, 6e9}
	for name, c := range map[string]struct {
		lines []Line
		// row is part of what is to be printed; empty: nothing but the heading is.
		row []string
	}{
		"nothing measured": {},
		"a ratio, met":     {slices.Concat(many(ours, "ns/op", fast...), many(hand, "ns/op", fast...)), []string{"script", "  7 ", "5 s", " 1  <= 1.1: met\n"}},
		"a ratio, missed":  {slices.Concat(many(ours, "ns/op", slow...), many(hand, "ns/op", fast...)), []string{"6 s", " 1.2  <= 1.1: MISSED\n"}},
		"too few runs":     {slices.Concat(many(ours, "ns/op", 4e9, 6e9), many(hand, "ns/op", 5e9)), []string{"  2 ", "5 s", "met (fewer than 7 runs)"}},
		"no limit":         {lines: many(ours, "ns/op", fast...)},
		"a difference": {
			slices.Concat(many("Leader/killed=yes", "ns/op", slow...), many("Leader/killed=no", "ns/op", fast...)),
			[]string{"leader killed", " 1 s  <= 2.5 s: met\n"},
		},
		"the median and the worst": {many(ours, "own-ms", 20, 30, 900, 25, 35, 20, 30), []string{
			"median 7 30 ms", "worst 7 900 ms", " 30 ms  <= 300 ms: met\n", " 900 ms  <= 300 ms: MISSED\n",
		}},
		"a value alone": {many("DevReady", "ns/op", 8e8, 8e8, 8e8, 8e8, 8e8, 8e8, 8e8), []string{"dev", "0.8 s", "<= 1.5 s: met"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Summary(c.lines, Limits{LeaderSeconds: 2.5})
			text := strings.Join(strings.Fields(got), " ")
			for _, want := range c.row {
				if !strings.Contains(text, strings.Join(strings.Fields(want), " ")) {
					t.Errorf("%q is missing in:\n%s", want, got)
				}
			}
			if len(c.row) == 0 && strings.Count(got, "\n") != 1 {
				t.Errorf("want the heading alone, got:\n%s", got)
			}
		})
	}
}

func TestGuarantee(t *testing.T) {
	if got := Guarantee(many("Declare", "ns/op", 1)); got != "" {
		t.Errorf("nothing of the guarantee was measured, and it says\n%s", got)
	}
	seven := []float64{5e8, 5e8, 5e8, 5e8, 5e8, 5e8, 2e9}
	packed := Line{Name: "Classes/class=1/dims=2", Values: map[string]float64{
		"bins": 51, "bound": 50, "first-fit-decreasing-by-sum-bins": 53, "first-fit-decreasing-by-maximum-bins": 54,
		"best-fit-dot-product-bins": 52, "norm-greedy-bins": 55,
	}}
	got := Guarantee(slices.Concat(many("Prove", "ns/op", seven...), many("Scan", "ns/op", 1e6), many("Admit", "p99-ns", 60_000), []Line{packed}))
	text := strings.Join(strings.Fields(got), " ")
	for _, want := range []string{
		"full proof, audit included 7 500 ms - 500 ms <= 1000 ms: met 10,000 hosts in 20 classes",
		"against reading the site's data once 7 500 ms 1 ms 500 - the same site",
		"admission, 99th percentile 1 60 us - 60 us <= 50 us: MISSED (fewer than 7 runs) the same",
		"class=1/dims=2 51 50 53 54 52 55", "ours 2.00 %, the best heuristic of each 4.00 %",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}
