package conformance

import (
	"context"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

func replicaCases() []namedCase {
	return []namedCase{
		{"receive-makes-a-replica", receiveMakesReplica},
		{"receive-again-changes-nothing", receiveAgain},
		{"receive-without-a-number-lets-nothing-write", receiveWithoutNumber},
		{"no-point-before-convergence", noPointBeforeConvergence},
		{"a-converged-synchronisation-is-a-point", convergedIsPoint},
		{"a-resync-keeps-the-last-point", resyncKeepsPoint},
		{"a-resync-cuts-the-older-mirror", resyncCutsOlder},
		{"an-older-number-changes-nothing", olderNumber},
		{"a-converged-resync-replaces-the-point", resyncReplacesPoint},
		{"unknown-volumes-are-not-found", unknownNotFound},
		{"a-cancelled-context-changes-nothing", cancelledContext},
		{"capacity-is-plausible", capacityPlausible},
		{"a-replica-survives-a-crash", replicaSurvivesCrash},
		{"nothing-is-left-after-remove", nothingLeft},
	}
}

func receiveMakesReplica(t *testing.T, s *suite) {
	s.receive(t, 1, 0)
	v := s.inspect(t, "web-root")
	if v.State != pb.State_STATE_REPLICA || v.Status.GetResync() != 1 || v.Status.GetExport() == "" || v.Status.GetLayers() == 0 {
		t.Fatalf("got %v %v", v.State, v.Status)
	}
	list, err := s.Driver().List(s.context(t))
	must(t, err)
	if len(list) != 1 || list[0].Name != "web-root" || list[0].State != pb.State_STATE_REPLICA {
		t.Fatalf("list: got %v", list)
	}
	s.mirror(t, 1, 7)
	got, err := s.Read(t, s.url(t, 1))
	must(t, err)
	if got != 7 {
		t.Fatalf("mirrored content is %d, want 7", got)
	}
}

func receiveAgain(t *testing.T, s *suite) {
	s.converged(t, 7)
	before := s.inspect(t, "web-root")
	s.receive(t, 1, 1)
	s.receive(t, 1, 0)
	after := s.inspect(t, "web-root")
	if point(before) != point(after) || before.Status.GetLayers() != after.Status.GetLayers() {
		t.Fatalf("before %v\nafter  %v", before.Status, after.Status)
	}
	got, err := s.Read(t, s.url(t, 1))
	must(t, err)
	if got != 7 {
		t.Fatalf("mirrored content is %d, want 7", got)
	}
}

func receiveWithoutNumber(t *testing.T, s *suite) {
	s.receive(t, 0, 0)
	s.state(t, "web-root", pb.State_STATE_REPLICA)
	s.mirrorFails(t, 0)
	s.converged(t, 3)
	if point(s.inspect(t, "web-root")) == "" {
		t.Fatal("no point after convergence")
	}
}

func noPointBeforeConvergence(t *testing.T, s *suite) {
	s.receive(t, 1, 0)
	s.mirror(t, 1, 7)
	if p := point(s.inspect(t, "web-root")); p != "" {
		t.Fatalf("a converging replica has the point %s", p)
	}
	wants(t, "promote", s.Driver().Promote(s.context(t), replica(1, 0)), storage.ErrNoPoint)
	wants(t, "clone", s.Driver().Clone(s.context(t), clone("dev", "")), storage.ErrNoPoint)
	s.state(t, "web-root", pb.State_STATE_REPLICA)
	s.mirror(t, 1, 8)
	if r := s.Residue(t); len(r) != 1 {
		t.Fatalf("a refused clone left %v", r)
	}
}

func convergedIsPoint(t *testing.T, s *suite) {
	before := time.Now().Add(-time.Second)
	s.converged(t, 7)
	p := s.inspect(t, "web-root").Status.GetPoint()
	if p.GetLayer() == "" || p.GetTime().AsTime().Before(before) || p.GetTime().AsTime().After(time.Now()) {
		t.Fatalf("got point %v", p)
	}
	s.mirror(t, 1, 8)
}

func resyncKeepsPoint(t *testing.T, s *suite) {
	s.converged(t, 7)
	before := point(s.inspect(t, "web-root"))
	s.receive(t, 2, 1)
	s.mirror(t, 2, 8)
	v := s.inspect(t, "web-root")
	if point(v) != before || v.Status.GetResync() != 2 {
		t.Fatalf("point before %s, now %s, resync %d", before, point(v), v.Status.GetResync())
	}
}

func resyncCutsOlder(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.receive(t, 2, 1)
	s.mirrorFails(t, 1)
	s.receive(t, 3, 1)
	s.mirrorFails(t, 2)
	s.mirror(t, 3, 9)
	if p := point(s.inspect(t, "web-root")); p == "" {
		t.Fatal("the point of synchronisation 1 is gone")
	}
}

func olderNumber(t *testing.T, s *suite) {
	s.receive(t, 2, 0)
	s.mirror(t, 2, 7)
	s.receive(t, 1, 1)
	v := s.inspect(t, "web-root")
	if v.Status.GetResync() != 2 || point(v) != "" {
		t.Fatalf("got resync %d, point %q", v.Status.GetResync(), point(v))
	}
	s.mirrorFails(t, 1)
	s.mirror(t, 2, 8)
}

func resyncReplacesPoint(t *testing.T, s *suite) {
	s.converged(t, 7)
	before := s.inspect(t, "web-root")
	s.receive(t, 2, 1)
	s.mirror(t, 2, 8)
	s.receive(t, 2, 2)
	after := s.inspect(t, "web-root")
	if point(after) == point(before) {
		t.Fatalf("point is still %s", point(after))
	}
	if after.Status.GetLayers() != before.Status.GetLayers() {
		t.Fatalf("%d layers, want the older one dropped", after.Status.GetLayers())
	}
	s.promote(t)
	s.holds(t, "web-root", 8)
}

func unknownNotFound(t *testing.T, s *suite) {
	d, ctx := s.Driver(), s.context(t)
	_, err := d.Inspect(ctx, "web-root")
	wants(t, "inspect", err, storage.ErrNotFound)
	wants(t, "promote", d.Promote(ctx, replica(1, 1)), storage.ErrNotFound)
	wants(t, "demote", d.Demote(ctx, replica(1, 1)), storage.ErrNotFound)
	wants(t, "clone", d.Clone(ctx, clone("dev", "")), storage.ErrNotFound)
	must(t, d.Remove(ctx, "web-root"))
	list, err := d.List(ctx)
	must(t, err)
	if len(list) != 0 {
		t.Fatalf("an empty pool lists %v", list)
	}
}

func cancelledContext(t *testing.T, s *suite) {
	s.converged(t, 7)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := s.Driver()
	_, err := d.Inspect(ctx, "web-root")
	wants(t, "inspect", err, context.Canceled)
	wants(t, "receive", d.Receive(ctx, replica(2, 1)), context.Canceled)
	wants(t, "promote", d.Promote(ctx, replica(1, 1)), context.Canceled)
	wants(t, "clone", d.Clone(ctx, clone("dev", "")), context.Canceled)
	wants(t, "remove", d.Remove(ctx, "web-root"), context.Canceled)
	s.state(t, "web-root", pb.State_STATE_REPLICA)
	s.mirror(t, 1, 8)
}

func capacityPlausible(t *testing.T, s *suite) {
	c, err := s.Driver().Capacity(s.context(t))
	must(t, err)
	if c.SizeBytes == 0 || c.FreeBytes > c.SizeBytes {
		t.Fatalf("got %+v", c)
	}
}

func replicaSurvivesCrash(t *testing.T, s *suite) {
	s.converged(t, 7)
	before := point(s.inspect(t, "web-root"))
	s.Crash(t)
	if after := point(s.inspect(t, "web-root")); after != before {
		t.Fatalf("point before %s, after %s", before, after)
	}
	s.receive(t, 1, 1)
	got, err := s.Read(t, s.url(t, 1))
	must(t, err)
	if got != 7 {
		t.Fatalf("mirrored content is %d, want 7", got)
	}
	if s.inspect(t, "web-root").Status.GetDegradedSince() == nil {
		t.Fatal("mirrors end with what serves them: the replica must be degraded")
	}
	s.receive(t, 2, 1)
	if v := s.inspect(t, "web-root"); v.Status.GetDegradedSince() != nil {
		t.Fatalf("still degraded with a new synchronisation: %v", v.Status)
	}
	s.Crash(t)
	s.mirrorFails(t, 1)
	s.mirror(t, 2, 8)
}

func nothingLeft(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.receive(t, 2, 1)
	s.clone(t, "dev", "")
	must(t, s.Driver().Remove(s.context(t), "dev"))
	must(t, s.Driver().Remove(s.context(t), "web-root"))
	must(t, s.Driver().Remove(s.context(t), "web-root"))
	if r := s.Residue(t); len(r) != 0 {
		t.Fatalf("left behind: %v", r)
	}
	_, err := s.Driver().Inspect(s.context(t), "web-root")
	wants(t, "inspect", err, storage.ErrNotFound)
}
