package qcow2

import (
	"context"
	"errors"
	"fmt"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

var errCrash = errors.New("crash")

// crashCase is one changing call that is cut short at every step, with and without the daemon.
type crashCase struct {
	name string
	// before brings the pool to where the call is made; it may use no step hook.
	before func(t *testing.T, h *harness)
	call   func(t *testing.T, h *harness) error
	// after checks the outcome of the repeated call.
	after func(t *testing.T, h *harness)
}

func rootSpec(n, converged uint64) *pb.VolumeSpec {
	return &pb.VolumeSpec{Name: "root", SizeBytes: 4 << 20, Resync: n, Converged: converged}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *harness) url(name string) string { return "nbd://" + h.address + "/" + name }

func (h *harness) holds(t *testing.T, export string, want uint64) {
	t.Helper()
	got, err := h.Read(t, h.url(export))
	must(t, err)
	if got != want {
		t.Fatalf("export %s holds %d, want %d", export, got, want)
	}
}

// pointOf7 makes a replica with a consistent point that holds 7, written by synchronisation 1.
func pointOf7(t *testing.T, h *harness) {
	t.Helper()
	must(t, h.driver.Receive(t.Context(), rootSpec(1, 0)))
	must(t, h.Write(t, h.url("root@1"), 7))
	must(t, h.driver.Receive(t.Context(), rootSpec(1, 1)))
}

func promoted(t *testing.T, h *harness) {
	t.Helper()
	pointOf7(t, h)
	must(t, h.driver.Promote(t.Context(), rootSpec(1, 1)))
	must(t, h.Write(t, h.url("root"), 9))
}

func cloned(t *testing.T, h *harness) {
	t.Helper()
	pointOf7(t, h)
	must(t, h.driver.Clone(t.Context(), &pb.VolumeSpec{Name: "dev", CloneOf: "root"}))
	must(t, h.Write(t, h.url("root@1"), 8))
}

// backPrepared is a promoted volume that holds 9, and another pool that is ready for its way back.
func backPrepared(t *testing.T, h *harness) {
	t.Helper()
	promoted(t, h)
	h.other = newHarness(t)
	must(t, h.other.driver.Receive(t.Context(), rootSpec(1, 0)))
}

func (h *harness) backSpec(n uint64, sealed bool) *pb.VolumeSpec {
	return &pb.VolumeSpec{Name: "root", SizeBytes: 4 << 20, Resync: n, Sealed: sealed, MirrorTo: h.other.url("root")}
}

func (h *harness) awaitBack(t *testing.T, done func(*pb.VolumeStatus) bool) (last *pb.VolumeStatus) {
	t.Helper()
	waitFor(t, "the way back", func() bool {
		v, err := h.driver.Inspect(t.Context(), "root")
		must(t, err)
		last = v.Status
		return done(last)
	})
	return last
}

// seal asks for it until the mirror has caught up.
func (h *harness) seal(ctx context.Context, t *testing.T, n uint64) (err error) {
	t.Helper()
	waitFor(t, "the mirror to catch up", func() bool {
		err = h.driver.Promote(ctx, h.backSpec(n, true))
		return !errors.Is(err, storage.ErrBehind)
	})
	return err
}

// sealBack seals the volume, with a new number when the first was lost, and makes sure that the other
// pool then holds what this one does.
func (h *harness) sealBack(t *testing.T, want uint64) {
	t.Helper()
	n := uint64(1)
	ended := func(v *pb.VolumeStatus) bool { return v.GetInSync() || v.GetDegradedSince() != nil }
	if !h.awaitBack(t, ended).GetInSync() {
		n = 2
		must(t, h.other.driver.Receive(t.Context(), rootSpec(n, 0)))
		must(t, h.driver.Promote(t.Context(), h.backSpec(n, false)))
		h.awaitBack(t, ended)
	}
	must(t, h.seal(t.Context(), t, n))
	h.awaitBack(t, (*pb.VolumeStatus).GetSealed)
	must(t, h.other.driver.Promote(t.Context(), rootSpec(n, n)))
	h.other.holds(t, "root", want)
}

func crashCases() []crashCase {
	return []crashCase{
		{
			"first receive", func(*testing.T, *harness) {},
			func(t *testing.T, h *harness) error { return h.driver.Receive(t.Context(), rootSpec(1, 0)) },
			func(t *testing.T, h *harness) { must(t, h.Write(t, h.url("root@1"), 8)) },
		},
		{
			"resync", pointOf7,
			func(t *testing.T, h *harness) error { return h.driver.Receive(t.Context(), rootSpec(2, 1)) },
			func(t *testing.T, h *harness) {
				must(t, h.Write(t, h.url("root@2"), 8))
				must(t, h.driver.Promote(t.Context(), rootSpec(2, 1)))
				h.holds(t, "root", 7)
			},
		},
		{
			"promote", pointOf7,
			func(t *testing.T, h *harness) error { return h.driver.Promote(t.Context(), rootSpec(1, 1)) },
			func(t *testing.T, h *harness) {
				h.holds(t, "root", 7)
				if h.Write(t, h.url("root@1"), 8) == nil {
					t.Fatal("the mirror can still write")
				}
			},
		},
		{
			"demote", promoted,
			func(t *testing.T, h *harness) error {
				spec := rootSpec(2, 1)
				spec.DropPromoted = true
				return h.driver.Demote(t.Context(), spec)
			},
			func(t *testing.T, h *harness) {
				must(t, h.driver.Receive(t.Context(), rootSpec(2, 1)))
				must(t, h.Write(t, h.url("root@2"), 8))
				must(t, h.driver.Promote(t.Context(), rootSpec(2, 1)))
				h.holds(t, "root", 7)
			},
		},
		{
			"clone", pointOf7,
			func(t *testing.T, h *harness) error {
				return h.driver.Clone(t.Context(), &pb.VolumeSpec{Name: "dev", CloneOf: "root"})
			},
			func(t *testing.T, h *harness) {
				must(t, h.Write(t, h.url("root@1"), 8))
				must(t, h.Write(t, h.url("dev"), 9))
				h.holds(t, "root@1", 8)
				h.holds(t, "dev", 9)
				if v, err := h.driver.Inspect(t.Context(), "root"); err != nil || v.Status.GetLayers() != 2 {
					t.Fatalf("source: %v %v", v.Status, err)
				}
			},
		},
		{
			"remove a clone", cloned,
			func(t *testing.T, h *harness) error { return h.driver.Remove(t.Context(), "dev") },
			func(t *testing.T, h *harness) {
				h.holds(t, "root@1", 8)
				must(t, h.driver.Remove(t.Context(), "root"))
				if r := h.Residue(t); len(r) != 0 {
					t.Fatalf("left behind: %v", r)
				}
			},
		},
		{
			"mirror back", backPrepared,
			func(t *testing.T, h *harness) error { return h.driver.Promote(t.Context(), h.backSpec(1, false)) },
			func(t *testing.T, h *harness) {
				must(t, h.Write(t, h.url("root"), 10))
				h.sealBack(t, 10)
			},
		},
		{
			"seal", func(t *testing.T, h *harness) {
				backPrepared(t, h)
				must(t, h.driver.Promote(t.Context(), h.backSpec(1, false)))
				h.awaitBack(t, (*pb.VolumeStatus).GetInSync)
			},
			func(t *testing.T, h *harness) error { return h.seal(t.Context(), t, 1) },
			func(t *testing.T, h *harness) {
				if h.Write(t, h.url("root"), 10) == nil {
					t.Fatal("a sealed volume was written to")
				}
				h.sealBack(t, 9)
			},
		},
		{
			"remove a replica", pointOf7,
			func(t *testing.T, h *harness) error { return h.driver.Remove(t.Context(), "root") },
			func(t *testing.T, h *harness) {
				if r := h.Residue(t); len(r) != 0 {
					t.Fatalf("left behind: %v", r)
				}
			},
		},
	}
}

// TestCrashAtEveryStep cuts each changing call short after each of its steps, as SIGKILL of the
// agent (and of the daemon) would, and repeats it.
func TestCrashAtEveryStep(t *testing.T) {
	for _, c := range crashCases() {
		for _, withDaemon := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/daemon dies %v", c.name, withDaemon), func(t *testing.T) {
				reached := 0
				for at := 1; ; at++ {
					if !crashAt(t, c, at, withDaemon) {
						break
					}
					reached++
				}
				if reached < 2 {
					t.Fatalf("only %d steps were cut short", reached)
				}
			})
		}
	}
}

// crashAt says whether the call has as many steps.
func crashAt(t *testing.T, c crashCase, at int, withDaemon bool) bool {
	t.Helper()
	h := newHarness(t)
	c.before(t, h)
	seen := 0
	h.driver.between = func(string) error {
		seen++
		if seen == at {
			return errCrash
		}
		return nil
	}
	err := c.call(t, h)
	if err == nil {
		return false
	}
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	if withDaemon {
		h.killDaemon(t)
	}
	h.restart(t)
	if _, err := h.driver.Inspect(t.Context(), "root"); err != nil && !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("inspect after a crash at step %d: %v", at, err)
	}
	if err := c.call(t, h); err != nil {
		t.Fatalf("repeat after a crash at step %d: %v", at, err)
	}
	c.after(t, h)
	return true
}
