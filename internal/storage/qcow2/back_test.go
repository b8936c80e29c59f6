package qcow2

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

// TestTargetThatHangs: a target that takes connections and never answers stops neither the guest that
// writes here nor the pool, and is not sealed. When it answers again everything goes on.
func TestTargetThatHangs(t *testing.T) {
	h := newHarness(t)
	backPrepared(t, h)
	must(t, h.driver.Promote(t.Context(), h.backSpec(1, false)))
	h.awaitBack(t, (*pb.VolumeStatus).GetInSync)
	pid := h.other.daemonPID()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // It may have gone on.

	must(t, h.Write(t, h.url("root"), 10))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	v, err := h.driver.Inspect(ctx, "root")
	must(t, err)
	if !v.Status.GetMirroring() || v.Status.GetSealed() {
		t.Fatalf("while the target hangs: %v", v.Status)
	}
	waitFor(t, "the seal to be refused", func() bool {
		err := h.driver.Promote(ctx, h.backSpec(1, true))
		if err == nil {
			t.Fatal("a volume was sealed whose target hangs")
		}
		return errors.Is(err, storage.ErrBehind)
	})
	h.holds(t, "root", 10)

	must(t, syscall.Kill(pid, syscall.SIGCONT))
	h.awaitBack(t, func(v *pb.VolumeStatus) bool { return v.GetInSync() && v.GetMirroring() })
	h.sealBack(t, 10)
}

// TestFlushThatHangs: a target that hangs only when the seal flushes it does not hold the pool up. The
// volume stays unsealed for its readers until the flush is answered.
func TestFlushThatHangs(t *testing.T) {
	h := newHarness(t)
	backPrepared(t, h)
	must(t, h.driver.Promote(t.Context(), h.backSpec(1, false)))
	h.awaitBack(t, (*pb.VolumeStatus).GetInSync)
	pid := h.other.daemonPID()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // It may have gone on.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, h.seal(ctx, t, 1))
	for range 2 {
		v, err := h.driver.Inspect(ctx, "root")
		must(t, err)
		if v.Status.GetSealed() || v.Status.GetExport() != "" {
			t.Fatalf("while the flush hangs: %v", v.Status)
		}
	}
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	h.sealBack(t, 9)
}
