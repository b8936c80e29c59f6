// Package conformance is the suite that every storage.Driver must pass: what the seam promises, as
// named cases, run against an empty pool. The drivers' own tests call Run with a Harness; a driver
// may promise more and tests that beside itself.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

// sizeBytes is the size of the suite's volumes: small, because every resync copies all of it.
const sizeBytes = 4 << 20

// callTimeout bounds one driver call of the suite; real daemons on a loaded machine need seconds.
const callTimeout = 60 * time.Second

// Harness makes pools of one driver.
type Harness struct {
	// Driver is the driver's word in the result lines: "qcow2".
	Driver string
	// New makes an empty pool. It is called once for each case.
	New func(t *testing.T) *Fixture
}

// Fixture is one pool and the means to look at it from outside.
type Fixture struct {
	// Driver returns the driver of the pool as it runs now.
	Driver func() storage.Driver
	// Crash ends the driver and its helpers as SIGKILL would, and starts a new driver on the pool.
	Crash func(t *testing.T)
	// Write writes a value through an export, as a mirror or a VM would, and fails when there is no
	// such export.
	Write func(t *testing.T, export string, value uint64) error
	// Read returns the value that was written last, as seen through an export.
	Read func(t *testing.T, export string) (uint64, error)
	// Disk makes the disk file of a VM that is off, with a value in it, and returns its path.
	Disk func(t *testing.T, value uint64) string
	// ReadDisk returns the value that a VM would see on the disk.
	ReadDisk func(t *testing.T, path string) (uint64, error)
	// Other makes a second pool that this one's daemon reaches, as the pool of the other site.
	Other func(t *testing.T) *Fixture
	// Residue lists what the pool holds, found without the driver's help.
	Residue func(t *testing.T) []string
}

// namedCase is one promise.
type namedCase struct {
	name string
	run  func(t *testing.T, s *suite)
}

func cases() []namedCase {
	return slices.Concat(replicaCases(), promotionCases(), cloneCases(), wayBackCases())
}

// Cases returns the names of all cases, in order.
func Cases() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// Run runs every case, each in a subtest on a pool of its own.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			// Registered first, so it runs last: after the fixture's own clean-up had its say.
			t.Cleanup(func() {
				word := "pass"
				switch {
				case t.Failed():
					word = "fail"
				case t.Skipped():
					word = "skip"
				}
				t.Logf("conformance %s %s %s", h.Driver, c.name, word)
			})
			c.run(t, &suite{Fixture: h.New(t)})
		})
	}
}

type suite struct{ *Fixture }

// replica is the spec of a replica whose synchronisation n may write and whose newest converged one
// is c.
func replica(n, c uint64) *pb.VolumeSpec {
	return &pb.VolumeSpec{Pool: "pool", Name: "web-root", SizeBytes: sizeBytes, Resync: n, Converged: c}
}

func clone(name, point string) *pb.VolumeSpec {
	return &pb.VolumeSpec{Pool: "pool", Name: name, SizeBytes: sizeBytes, CloneOf: "web-root", Point: point}
}

func (s *suite) context(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	t.Cleanup(cancel)
	return ctx
}

func (s *suite) receive(t *testing.T, n, c uint64) {
	t.Helper()
	must(t, s.Driver().Receive(s.context(t), replica(n, c)))
}

func (s *suite) promote(t *testing.T) {
	t.Helper()
	must(t, s.Driver().Promote(s.context(t), replica(1, 1)))
}

func (s *suite) clone(t *testing.T, name, point string) {
	t.Helper()
	must(t, s.Driver().Clone(s.context(t), clone(name, point)))
}

func (s *suite) inspect(t *testing.T, name string) storage.Volume {
	t.Helper()
	v, err := s.Driver().Inspect(s.context(t), name)
	must(t, err)
	if v.Name != name || v.Status == nil {
		t.Fatalf("inspect %s: got name %q, status %v", name, v.Name, v.Status)
	}
	return v
}

// url turns a volume's own export into that of a synchronisation of it.
func (s *suite) url(t *testing.T, n uint64) string {
	t.Helper()
	return storage.SyncExport(s.inspect(t, "web-root").Status.GetExport(), n)
}

// mirror writes a value as synchronisation n would.
func (s *suite) mirror(t *testing.T, n, value uint64) {
	t.Helper()
	must(t, s.Write(t, s.url(t, n), value))
}

// mirrorFails makes sure that synchronisation n can write no more.
func (s *suite) mirrorFails(t *testing.T, n uint64) {
	t.Helper()
	export := s.inspect(t, "web-root").Status.GetExport()
	if export == "" {
		return
	}
	if s.Write(t, storage.SyncExport(export, n), 666) == nil {
		t.Fatalf("synchronisation %d can still write", n)
	}
}

// holds makes sure that the export of a promoted volume or a clone shows a value.
func (s *suite) holds(t *testing.T, name string, want uint64) {
	t.Helper()
	got, err := s.Read(t, s.inspect(t, name).Status.GetExport())
	must(t, err)
	if got != want {
		t.Fatalf("volume %s holds %d, want %d", name, got, want)
	}
}

func (s *suite) write(t *testing.T, name string, value uint64) {
	t.Helper()
	must(t, s.Write(t, s.inspect(t, name).Status.GetExport(), value))
}

func (s *suite) state(t *testing.T, name string, want pb.State) {
	t.Helper()
	if v := s.inspect(t, name); v.State != want {
		t.Fatalf("volume %s is %v, want %v", name, v.State, want)
	}
}

// converged makes a replica whose synchronisation 1 wrote a value and has converged.
func (s *suite) converged(t *testing.T, value uint64) {
	t.Helper()
	s.receive(t, 1, 0)
	s.mirror(t, 1, value)
	s.receive(t, 1, 1)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

// point prints a consistent point so that two can be compared; empty: there is none.
func point(v storage.Volume) string {
	p := v.Status.GetPoint()
	if p == nil {
		return ""
	}
	return fmt.Sprintf("layer %s at %s", p.GetLayer(), p.GetTime().AsTime().Format(time.RFC3339Nano))
}
