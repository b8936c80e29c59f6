package conformance

import (
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

func wayBackCases() []namedCase {
	return []namedCase{
		{"a-disk-is-handed-over-on-promotion", handOver},
		{"a-disk-that-was-handed-over-stays-when-its-volume-goes", handedOverStays},
		{"a-disk-that-is-to-be-handed-over-is-not-cloned", handOverNotCloned},
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
