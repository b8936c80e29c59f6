package sim_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/storage"
	"github.com/hotspare/hotspare/internal/storage/conformance"
	"github.com/hotspare/hotspare/internal/storage/sim"
)

const poolAddress = "10.77.0.9:10809"

type harness struct {
	world *sim.World
	pool  *sim.Pool
}

func (h *harness) Driver() storage.Driver { return h.pool }

func (h *harness) Crash(*testing.T) { h.pool.KillDaemon() }

func (h *harness) Write(_ *testing.T, export string, value uint64) error {
	return h.world.Write(export, value)
}

func (h *harness) Read(_ *testing.T, export string) (uint64, error) {
	c, err := h.world.Read(export)
	return c.Records, err
}

func (h *harness) Disk(t *testing.T, value uint64) string {
	h.world.NewSite("protected").AddDisk(sim.Disk{Domain: "web", Disk: "vda", Path: "/disk", Records: value})
	h.world.Site("protected").Stop("web")
	return "/disk"
}

func (h *harness) ReadDisk(*testing.T, string) (uint64, error) {
	return h.world.Site("protected").Records("web", "vda"), nil
}

func (h *harness) Residue(*testing.T) []string { return h.pool.Names() }

func (h *harness) other(*testing.T) *conformance.Fixture {
	o := &harness{world: h.world, pool: h.world.NewPool("10.77.1.9:10809", 1<<40)}
	return &conformance.Fixture{Driver: o.Driver, Crash: o.Crash, Write: o.Write, Read: o.Read, Disk: o.Disk, ReadDisk: o.ReadDisk, Residue: o.Residue}
}

func newHarness() *harness {
	w := sim.NewWorld()
	return &harness{world: w, pool: w.NewPool(poolAddress, 1<<40)}
}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Harness{Driver: "sim", New: func(*testing.T) *conformance.Fixture {
		h := newHarness()
		return &conformance.Fixture{
			Driver: h.Driver, Crash: h.Crash, Write: h.Write, Read: h.Read,
			Disk: h.Disk, ReadDisk: h.ReadDisk, Residue: h.Residue, Other: h.other,
		}
	}})
}

// production is a world with one mirrored disk: 1 GiB, which takes ten seconds to converge, and one
// record each second.
func production() (*harness, *sim.Site) {
	h := newHarness()
	site := h.world.NewSite("protected")
	site.AddDisk(sim.Disk{Domain: "web", Disk: "vda", Path: "/images/web.qcow2", Records: 1000, Every: time.Second})
	return h, site
}

func source(n uint64) *pb.VolumeSpec {
	return &pb.VolumeSpec{
		Name: "web-root", Domain: "web", Disk: "vda", SizeBytes: 1 << 30, Resync: n,
		MirrorTo: "nbd://" + poolAddress + "/web-root",
	}
}

func target(n, c uint64) *pb.VolumeSpec {
	return &pb.VolumeSpec{Name: "web-root", SizeBytes: 1 << 30, Resync: n, Converged: c}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, s *sim.Site, n uint64) *pb.VolumeStatus {
	t.Helper()
	v, err := s.Inspect(t.Context(), source(n))
	must(t, err)
	return v.Status
}

func TestMirrorConvergesAndPromotesTheLastRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, site := production()
		if site.Mirror(t.Context(), source(1)) == nil {
			t.Fatal("a mirror without a target started")
		}
		must(t, h.pool.Receive(t.Context(), target(1, 0)))
		must(t, site.Mirror(t.Context(), source(1)))
		time.Sleep(5 * time.Second)
		if st := status(t, site, 1); st.GetInSync() || st.GetSyncPercent() != 50 {
			t.Fatalf("half way: %v", st)
		}
		time.Sleep(5 * time.Second)
		if st := status(t, site, 1); !st.GetInSync() || st.GetDegradedSince() != nil {
			t.Fatalf("converged: %v", st)
		}
		must(t, h.pool.Receive(t.Context(), target(1, 1)))
		time.Sleep(20 * time.Second)
		site.KillSite()
		time.Sleep(20 * time.Second)
		must(t, h.pool.Promote(t.Context(), target(1, 1)))
		must(t, h.pool.Promote(t.Context(), target(1, 1)))
		got, err := h.world.Read("nbd://" + poolAddress + "/web-root")
		must(t, err)
		if want := (sim.Content{Records: 1030}); got != want {
			t.Fatalf("promoted content %+v, want %+v", got, want)
		}
		if p := h.pool.Promotions(); len(p) != 1 || p[0].Content != got {
			t.Fatalf("promotions: %+v", p)
		}
	})
}

func TestBrokenMirrorStaysBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, site := production()
		must(t, h.pool.Receive(t.Context(), target(1, 0)))
		must(t, site.Mirror(t.Context(), source(1)))
		time.Sleep(10 * time.Second)
		must(t, h.pool.Receive(t.Context(), target(1, 1)))
		site.BreakMirror("web", "vda")
		if st := status(t, site, 1); !st.GetInSync() {
			t.Fatalf("before the next write the job must still look well: %v", st)
		}
		time.Sleep(3 * time.Second)
		must(t, site.Mirror(t.Context(), source(1)))
		if st := status(t, site, 1); st.GetInSync() || st.GetDegradedSince() == nil {
			t.Fatalf("after a write: %v", st)
		}
		if n := site.Mirrors(); n != 1 {
			t.Fatalf("%d mirrors were started for one number", n)
		}
		must(t, h.pool.Receive(t.Context(), target(2, 1)))
		must(t, site.Mirror(t.Context(), source(2)))
		time.Sleep(5 * time.Second)
		if c, ok := h.pool.Point("web-root"); !ok || c != (sim.Content{Records: 1010}) {
			t.Fatalf("the point during the resync: %+v %v", c, ok)
		}
		time.Sleep(5 * time.Second)
		must(t, h.pool.Receive(t.Context(), target(2, 2)))
		if c, _ := h.pool.Point("web-root"); c != (sim.Content{Records: 1023}) {
			t.Fatalf("the point after the resync: %+v", c)
		}
	})
}

func TestCloneFollowsNoWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, site := production()
		must(t, h.pool.Receive(t.Context(), target(1, 0)))
		must(t, site.Mirror(t.Context(), source(1)))
		time.Sleep(10 * time.Second)
		must(t, h.pool.Receive(t.Context(), target(1, 1)))
		must(t, h.pool.Clone(t.Context(), &pb.VolumeSpec{Name: "dev", CloneOf: "web-root"}))
		time.Sleep(10 * time.Second)
		if c, _ := h.world.Read("nbd://" + poolAddress + "/dev"); c.Records != 1010 {
			t.Fatalf("clone: %+v", c)
		}
		if c, _ := h.pool.Point("web-root"); c.Records != 1020 {
			t.Fatalf("point: %+v", c)
		}
	})
}

func TestWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, site := production()
		must(t, h.pool.Receive(t.Context(), target(1, 0)))
		must(t, site.Mirror(t.Context(), source(1)))
		time.Sleep(10 * time.Second)
		must(t, h.pool.Receive(t.Context(), target(1, 1)))
		site.KillSite()
		if _, err := site.Inspect(t.Context(), source(1)); err == nil {
			t.Fatal("a dead site answers")
		}
		must(t, h.pool.Promote(t.Context(), target(1, 1)))

		site.ReviveSite()
		if st := status(t, site, 1); st.GetDegradedReason() != "production VM is not running" {
			t.Fatalf("after the site's return: %v", st)
		}
		old := h.world.NewPool("10.66.0.1:10809", 1<<40)
		receive := target(1, 0)
		receive.Disk = "/images/web.qcow2"
		must(t, old.Receive(t.Context(), receive))
		back := target(1, 1)
		back.MirrorTo = "nbd://10.66.0.1:10809/web-root"
		must(t, h.pool.Promote(t.Context(), back))
		time.Sleep(10 * time.Second)
		must(t, h.world.Write("nbd://"+poolAddress+"/web-root", 1015))
		back.Sealed = true
		must(t, h.pool.Promote(t.Context(), back))
		receive.Converged = 1
		must(t, old.Promote(t.Context(), receive))
		if got := site.Records("web", "vda"); got != 1015 {
			t.Fatalf("the old disk holds %d records, want 1015", got)
		}
		drop := target(2, 1)
		drop.DropPromoted = true
		must(t, h.pool.Demote(t.Context(), drop))
		must(t, site.Run(t.Context(), source(2)))
		must(t, site.Mirror(t.Context(), source(2)))
		time.Sleep(10 * time.Second)
		must(t, h.pool.Receive(t.Context(), target(2, 2)))
		if c, ok := h.pool.Point("web-root"); !ok || c != (sim.Content{Records: 1025}) {
			t.Fatalf("mirrored again: %+v %v", c, ok)
		}
	})
}

func TestDeadDaemonIsSeenAtThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, site := production()
		must(t, h.pool.Receive(t.Context(), target(1, 0)))
		must(t, site.Mirror(t.Context(), source(1)))
		time.Sleep(10 * time.Second)
		must(t, h.pool.Receive(t.Context(), target(1, 1)))
		h.pool.KillDaemon()
		if st := status(t, site, 1); !st.GetInSync() {
			t.Fatalf("the VM's side knows before it writes: %v", st)
		}
		v, err := h.pool.Inspect(t.Context(), "web-root")
		must(t, err)
		if v.Status.GetDegradedSince() == nil {
			t.Fatalf("the pool does not know: %v", v.Status)
		}
	})
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name    string
		fault   sim.Fault
		applied bool
		err     error
	}{
		{"error", sim.Fault{Err: fault.ErrInjected}, false, fault.ErrInjected},
		{"hang", sim.Fault{Hang: true}, false, context.DeadlineExceeded},
		{"hang after the effect", sim.Fault{Hang: true, Lie: sim.LieApplied}, true, context.DeadlineExceeded},
		{"success without effect", sim.Fault{Lie: sim.LieNotApplied}, false, nil},
		{"effect with error", sim.Fault{Lie: sim.LieApplied}, true, fault.ErrInjected},
		{"late effect", sim.Fault{Lie: sim.LieLater, Later: 30 * time.Second}, true, fault.ErrInjected},
		{"delay", sim.Fault{Delay: 3 * time.Second}, true, nil},
		{"long delay", sim.Fault{Delay: time.Hour}, false, context.DeadlineExceeded},
		{"other volume", sim.Fault{Object: "db-*", Err: fault.ErrInjected}, true, nil},
		{"other method", sim.Fault{Method: "Promote", Err: fault.ErrInjected}, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness()
				fault := tt.fault
				if fault.Method == "" {
					fault.Method = "Receive"
				}
				fault.Count = 1
				h.pool.Inject(fault)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if err := h.pool.Receive(ctx, target(1, 0)); !errors.Is(err, tt.err) {
					t.Fatalf("got %v, want %v", err, tt.err)
				}
				time.Sleep(time.Minute)
				if applied := len(h.pool.Names()) == 1; applied != tt.applied {
					t.Fatalf("applied: %v, want %v", applied, tt.applied)
				}
				must(t, h.pool.Receive(t.Context(), target(1, 0)))
			})
		})
	}
}
