package libvirt

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSaveRate(t *testing.T) {
	d := &Driver{state: t.TempDir()}
	first, err := d.saveRate(t.Context())
	if err != nil || first == 0 || coarse(first) != first {
		t.Fatalf("%d, %v", first, err)
	}
	if left, _ := os.ReadDir(d.state); len(left) != 0 {
		t.Errorf("the trial left %v", left)
	}
	image := filepath.Join(d.state, "ram.saved")
	size := func(n int64) {
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, n); err != nil {
			t.Fatal(err)
		}
	}
	d.rate = 400 << 20
	size(1 << 20)
	d.saved(image, time.Second)
	if d.rate != 400<<20 {
		t.Error("a small image says how long the fixed part takes, and counts")
	}
	size(200 << 20)
	d.saved(image, time.Second)
	if d.rate != 350<<20 {
		t.Errorf("after a save at half the rate it is %d", d.rate>>20)
	}
	if got, err := d.saveRate(t.Context()); err != nil || got != 320<<20 {
		t.Errorf("it is told as %d, %v", got>>20, err)
	}
	d.state = "/nonexistent"
	d.rate = 0
	if _, err := d.saveRate(t.Context()); err == nil {
		t.Error("a disk that cannot be written to has a rate")
	}
}

func TestCoarse(t *testing.T) {
	for rate, want := range map[uint64]uint64{1: 1, 7: 7, 9: 8, 11: 10, 1000: 896, 1 << 40: 1 << 40} {
		if got := coarse(rate); got != want {
			t.Errorf("%d is told as %d, want %d", rate, got, want)
		}
	}
}
