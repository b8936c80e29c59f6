package conformance

import (
	"errors"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

func wayBackCases() []namedCase {
	return []namedCase{
		{"a-disk-is-handed-over-on-promotion", handOver},
		{"a-disk-that-was-handed-over-stays-when-its-volume-goes", handedOverStays},
		{"a-disk-that-is-to-be-handed-over-is-not-cloned", handOverNotCloned},
		{"hand-over-takes-the-last-word-on-convergence", handOverConverged},
		{"writes-go-back-and-the-seal-ends-them", mirrorBackAndSeal},
		{"mirror-back-again-changes-nothing", mirrorBackAgain},
		{"mirror-back-waits-for-its-target", mirrorBackWaits},
		{"a-mirror-back-that-died-stays-dead", mirrorBackDies},
		{"a-target-that-died-is-not-sealed", sealFindsDeadTarget},
		{"a-sealed-volume-is-copied-anew-with-a-new-number", sealedCopiedAnew},
		{"a-seal-survives-a-crash", sealSurvivesCrash},
		{"a-sealed-volume-is-demoted-by-the-word-only", sealedDemoted},
		{"a-late-order-of-the-way-back-does-no-harm", lateOrders},
	}
}

// wayBack is the spec of a replica whose content goes back to a disk file.
func wayBack(disk string, n, c uint64) *pb.VolumeSpec {
	spec := replica(n, c)
	spec.Disk = disk
	return spec
}

// mirroredBack makes a disk that holds 5 and a replica of 7 that is to replace it.
func (s *suite) mirroredBack(t *testing.T) (disk string) {
	t.Helper()
	disk = s.Disk(t, 5)
	must(t, s.Driver().Receive(s.context(t), wayBack(disk, 1, 0)))
	s.mirror(t, 1, 7)
	must(t, s.Driver().Receive(s.context(t), wayBack(disk, 1, 1)))
	s.diskHolds(t, disk, 5)
	return disk
}

func (s *suite) diskHolds(t *testing.T, disk string, want uint64) {
	t.Helper()
	got, err := s.ReadDisk(t, disk)
	must(t, err)
	if got != want {
		t.Fatalf("disk %s holds %d, want %d", disk, got, want)
	}
}

func handOver(t *testing.T, s *suite) {
	disk := s.mirroredBack(t)
	must(t, s.Driver().Promote(s.context(t), wayBack(disk, 1, 1)))
	s.Crash(t)
	must(t, s.Driver().Promote(s.context(t), wayBack(disk, 1, 1)))
	s.diskHolds(t, disk, 7)
	v := s.inspect(t, "web-root")
	if v.State != pb.State_STATE_PRIMARY || v.Status.GetExport() != "" || point(v) == "" {
		t.Fatalf("got %v %v", v.State, v.Status)
	}
}

func handedOverStays(t *testing.T, s *suite) {
	disk := s.mirroredBack(t)
	must(t, s.Driver().Promote(s.context(t), wayBack(disk, 1, 1)))
	must(t, s.Driver().Demote(s.context(t), wayBack(disk, 0, 0)))
	if v := s.inspect(t, "web-root"); v.State != pb.State_STATE_REPLICA || point(v) != "" {
		t.Fatalf("got %v %v", v.State, v.Status)
	}
	must(t, s.Driver().Remove(s.context(t), "web-root"))
	s.diskHolds(t, disk, 7)
	if r := s.Residue(t); len(r) != 0 {
		t.Fatalf("left behind: %v", r)
	}
}

func handOverNotCloned(t *testing.T, s *suite) {
	disk := s.mirroredBack(t)
	wants(t, "clone", s.Driver().Clone(s.context(t), clone("dev", "")), storage.ErrNoPoint)
	must(t, s.Driver().Promote(s.context(t), wayBack(disk, 1, 1)))
	s.diskHolds(t, disk, 7)
}

func handOverConverged(t *testing.T, s *suite) {
	disk := s.Disk(t, 5)
	must(t, s.Driver().Receive(s.context(t), wayBack(disk, 1, 0)))
	s.mirror(t, 1, 7)
	wants(t, "promote", s.Driver().Promote(s.context(t), wayBack(disk, 1, 0)), storage.ErrNoPoint)
	must(t, s.Driver().Promote(s.context(t), wayBack(disk, 1, 1)))
	s.diskHolds(t, disk, 7)
}

// failedBack is a promoted volume that holds 9, and the pool that is to receive it.
type failedBack struct {
	*suite
	other *suite
	disk  string
}

func (s *suite) failedOver(t *testing.T) *failedBack {
	t.Helper()
	s.converged(t, 7)
	s.promote(t)
	s.write(t, "web-root", 9)
	f := &failedBack{suite: s, other: &suite{Fixture: s.Other(t)}}
	f.disk = f.other.Disk(t, 5)
	return f
}

// receiveBack makes the other pool ready for synchronisation n.
func (f *failedBack) receiveBack(t *testing.T, n uint64) {
	t.Helper()
	must(t, f.other.Driver().Receive(f.context(t), wayBack(f.disk, n, 0)))
}

// back is the spec of the promoted volume on its way back.
func (f *failedBack) back(t *testing.T, n uint64, sealed bool) *pb.VolumeSpec {
	t.Helper()
	spec := replica(1, 1)
	spec.Resync, spec.Sealed = n, sealed
	spec.MirrorTo = f.other.inspect(t, "web-root").Status.GetExport()
	return spec
}

func (f *failedBack) carry(t *testing.T, n uint64, sealed bool) error {
	t.Helper()
	return f.Driver().Promote(f.context(t), f.back(t, n, sealed))
}

// seal asks for it until the mirror has caught up.
func (f *failedBack) seal(t *testing.T, n uint64) (err error) {
	t.Helper()
	f.until(t, "caught up", func() bool {
		err = f.carry(t, n, true)
		return !errors.Is(err, storage.ErrBehind)
	})
	return err
}

// await looks at the promoted volume until it is as wanted.
func (f *failedBack) await(t *testing.T, what string, done func(*pb.VolumeStatus) bool) {
	t.Helper()
	f.until(t, what, func() bool { return done(f.inspect(t, "web-root").Status) })
}

func (f *failedBack) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	ctx := f.context(t)
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until the volume is %s: %v", what, f.inspect(t, "web-root").Status)
		case <-tick.C:
		}
	}
}

func (f *failedBack) awaitSync(t *testing.T, n uint64) {
	t.Helper()
	f.await(t, "in sync", func(v *pb.VolumeStatus) bool { return v.GetInSync() && v.GetMirroring() && v.GetResync() == n })
}

func (f *failedBack) awaitSeal(t *testing.T, n uint64) {
	t.Helper()
	f.await(t, "sealed", func(v *pb.VolumeStatus) bool { return v.GetSealed() && v.GetInSync() && v.GetResync() == n })
}

func (f *failedBack) awaitDegraded(t *testing.T) {
	t.Helper()
	f.await(t, "degraded", func(v *pb.VolumeStatus) bool {
		return v.GetDegradedSince() != nil && !v.GetMirroring() && !v.GetInSync() && !v.GetSealed()
	})
}

// synced is a promoted volume whose mirror number 1 is in sync.
func (s *suite) synced(t *testing.T) *failedBack {
	t.Helper()
	f := s.failedOver(t)
	f.receiveBack(t, 1)
	must(t, f.carry(t, 1, false))
	f.awaitSync(t, 1)
	return f
}

// handedOver makes sure that the disk at the other side gets a value.
func (f *failedBack) handedOver(t *testing.T, n, want uint64) {
	t.Helper()
	must(t, f.other.Driver().Promote(f.context(t), wayBack(f.disk, n, n)))
	f.other.diskHolds(t, f.disk, want)
}

// writerless makes sure that nothing can write to the promoted volume.
func (f *failedBack) writerless(t *testing.T, export string) {
	t.Helper()
	if got := f.inspect(t, "web-root").Status.GetExport(); got != "" {
		t.Fatalf("a sealed volume is exported as %s", got)
	}
	if f.Write(t, export, 666) == nil {
		t.Fatal("a sealed volume was written to")
	}
}

func mirrorBackAndSeal(t *testing.T, s *suite) {
	f := s.synced(t)
	export := f.inspect(t, "web-root").Status.GetExport()
	f.holds(t, "web-root", 9)
	f.write(t, "web-root", 10)
	must(t, f.seal(t, 1))
	f.awaitSeal(t, 1)
	f.writerless(t, export)
	f.state(t, "web-root", pb.State_STATE_PRIMARY)
	f.handedOver(t, 1, 10)
}

func mirrorBackAgain(t *testing.T, s *suite) {
	f := s.synced(t)
	must(t, f.carry(t, 1, false))
	f.write(t, "web-root", 10)
	f.awaitSync(t, 1)
	must(t, f.seal(t, 1))
	f.awaitSeal(t, 1)
	must(t, f.seal(t, 1))
	f.awaitSeal(t, 1)
	f.handedOver(t, 1, 10)
}

func mirrorBackWaits(t *testing.T, s *suite) {
	f := s.failedOver(t)
	f.receiveBack(t, 1)
	if f.carry(t, 2, false) == nil {
		t.Fatal("a mirror began without its target")
	}
	f.receiveBack(t, 2)
	must(t, f.carry(t, 2, false))
	f.awaitSync(t, 2)
	must(t, f.Driver().Promote(f.context(t), replica(1, 1)))
	f.write(t, "web-root", 10)
	if v := f.inspect(t, "web-root"); v.Status.GetMirroring() || v.Status.GetInSync() {
		t.Fatalf("still mirrored: %v", v.Status)
	}
}

func mirrorBackDies(t *testing.T, s *suite) {
	f := s.synced(t)
	f.Crash(t)
	f.awaitDegraded(t)
	f.write(t, "web-root", 10)
	must(t, f.carry(t, 1, false))
	f.awaitDegraded(t)
	f.receiveBack(t, 2)
	must(t, f.carry(t, 2, false))
	f.awaitSync(t, 2)
	must(t, f.seal(t, 2))
	f.awaitSeal(t, 2)
	f.handedOver(t, 2, 10)
}

func sealFindsDeadTarget(t *testing.T, s *suite) {
	f := s.synced(t)
	f.other.Crash(t)
	if err := f.seal(t, 1); err == nil {
		f.awaitDegraded(t)
	}
	f.receiveBack(t, 2)
	must(t, f.seal(t, 2))
	f.awaitSeal(t, 2)
	f.handedOver(t, 2, 9)
}

func sealedCopiedAnew(t *testing.T, s *suite) {
	f := s.synced(t)
	f.write(t, "web-root", 10)
	f.Crash(t)
	export := f.inspect(t, "web-root").Status.GetExport()
	must(t, f.seal(t, 1))
	f.awaitDegraded(t)
	f.writerless(t, export)
	f.receiveBack(t, 2)
	must(t, f.seal(t, 2))
	f.awaitSeal(t, 2)
	f.writerless(t, export)
	f.handedOver(t, 2, 10)
}

func sealSurvivesCrash(t *testing.T, s *suite) {
	f := s.synced(t)
	export := f.inspect(t, "web-root").Status.GetExport()
	must(t, f.seal(t, 1))
	f.awaitSeal(t, 1)
	f.Crash(t)
	f.other.Crash(t)
	f.awaitSeal(t, 1)
	f.writerless(t, export)
	must(t, f.seal(t, 1))
	f.awaitSeal(t, 1)
	f.handedOver(t, 1, 9)
}

func sealedDemoted(t *testing.T, s *suite) {
	f := s.synced(t)
	must(t, f.seal(t, 1))
	f.awaitSeal(t, 1)
	wants(t, "promote without a mirror", f.Driver().Promote(f.context(t), replica(1, 1)), storage.ErrInUse)
	wants(t, "demote", f.Driver().Demote(f.context(t), replica(2, 1)), storage.ErrWouldDrop)
	f.awaitSeal(t, 1)
	spec := replica(2, 1)
	spec.DropPromoted = true
	must(t, f.Driver().Demote(f.context(t), spec))
	f.state(t, "web-root", pb.State_STATE_REPLICA)
	f.mirror(t, 2, 11)
	f.handedOver(t, 1, 9)
}

// lateOrders: what was asked for on an earlier way back, and comes when it is over, neither promotes nor
// seals anything.
func lateOrders(t *testing.T, s *suite) {
	f := s.synced(t)
	must(t, f.seal(t, 1))
	f.awaitSeal(t, 1)
	late, lateSeal := f.back(t, 1, false), f.back(t, 1, true)
	spec := replica(2, 1)
	spec.DropPromoted = true
	must(t, f.Driver().Demote(f.context(t), spec))
	for _, o := range []*pb.VolumeSpec{late, lateSeal} {
		wants(t, "a late order", f.Driver().Promote(f.context(t), o), storage.ErrInUse)
		f.state(t, "web-root", pb.State_STATE_REPLICA)
	}
	s.promote(t)
	wants(t, "a late seal", f.Driver().Promote(f.context(t), lateSeal), storage.ErrInUse)
	f.write(t, "web-root", 12)
	f.holds(t, "web-root", 12)
}
