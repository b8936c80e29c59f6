package simulation

import (
	"flag"
	"testing"
)

var (
	flagSeed   = flag.Uint64("seed", 0, "run only this seed, and print its event log")
	flagCycles = flag.Int("cycles", 40, "how many cycles to run")
)

func TestSimulation(t *testing.T) {
	if *flagSeed != 0 {
		r, err := Run(Options{Seed: *flagSeed, Log: t.Output()})
		t.Logf("%+v", r)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	for i := range *flagCycles {
		if r, err := Run(Options{Seed: uint64(i + 1)}); err != nil {
			t.Errorf("%v (%d events)\nrepeat: go test ./internal/simulation -run 'TestSimulation$' -seed=%d", err, r.Events, i+1)
		}
	}
}
