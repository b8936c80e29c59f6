package conformance

import (
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

func promotionCases() []namedCase {
	return []namedCase{
		{"promote-exports-the-point-and-cuts-the-mirror", promoteExports},
		{"promote-again-changes-nothing", promoteAgain},
		{"promote-leaves-the-point-as-it-was", promoteLeavesPoint},
		{"promote-takes-the-older-point-while-a-resync-runs", promoteTakesOlder},
		{"promote-without-a-point-needs-an-oath", promoteNeedsOath},
		{"promoted-content-survives-a-crash", promotedSurvivesCrash},
		{"receive-on-a-promoted-volume-is-refused", receivePromotedRefused},
		{"remove-of-a-promoted-volume-is-refused", removePromotedRefused},
		{"demote-without-the-word-is-refused", demoteRefused},
		{"demote-goes-back-to-the-point", demoteGoesBack},
		{"a-used-up-number-cannot-write-after-demote", demoteUsedUp},
	}
}

func promoteExports(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.mirror(t, 1, 8)
	s.promote(t)
	s.state(t, "web-root", pb.State_STATE_PRIMARY)
	s.holds(t, "web-root", 8)
	s.mirrorFails(t, 1)
	s.write(t, "web-root", 9)
	s.holds(t, "web-root", 9)
	if v := s.inspect(t, "web-root"); point(v) == "" {
		t.Fatal("a promoted volume must say from which point")
	}
}

func promoteAgain(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.promote(t)
	s.write(t, "web-root", 9)
	before := s.inspect(t, "web-root")
	s.promote(t)
	s.Crash(t)
	s.promote(t)
	after := s.inspect(t, "web-root")
	if point(before) != point(after) || before.Status.GetLayers() != after.Status.GetLayers() {
		t.Fatalf("before %v\nafter  %v", before.Status, after.Status)
	}
	s.holds(t, "web-root", 9)
}

func promoteLeavesPoint(t *testing.T, s *suite) {
	s.converged(t, 7)
	before := point(s.inspect(t, "web-root"))
	s.promote(t)
	s.write(t, "web-root", 9)
	if after := point(s.inspect(t, "web-root")); after != before {
		t.Fatalf("point before %s, after %s", before, after)
	}
	s.clone(t, "drill", "")
	s.holds(t, "drill", 7)
	s.holds(t, "web-root", 9)
}

func promoteTakesOlder(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.receive(t, 2, 1)
	s.mirror(t, 2, 8)
	s.promote(t)
	s.holds(t, "web-root", 7)
	s.mirrorFails(t, 2)
}

func promoteNeedsOath(t *testing.T, s *suite) {
	s.receive(t, 1, 0)
	s.mirror(t, 1, 7)
	spec := replica(1, 0)
	wants(t, "promote", s.Driver().Promote(s.context(t), spec), storage.ErrNoPoint)
	spec.AcceptUnconverged = true
	must(t, s.Driver().Promote(s.context(t), spec))
	s.state(t, "web-root", pb.State_STATE_PRIMARY)
	s.holds(t, "web-root", 7)
	if p := point(s.inspect(t, "web-root")); p != "" {
		t.Fatalf("an oath makes no consistent point, got %s", p)
	}
}

func promotedSurvivesCrash(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.promote(t)
	s.write(t, "web-root", 9)
	s.Crash(t)
	s.state(t, "web-root", pb.State_STATE_PRIMARY)
	s.holds(t, "web-root", 9)
	s.mirrorFails(t, 1)
}

func receivePromotedRefused(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.promote(t)
	wants(t, "receive", s.Driver().Receive(s.context(t), replica(2, 1)), storage.ErrInUse)
	s.state(t, "web-root", pb.State_STATE_PRIMARY)
	s.holds(t, "web-root", 7)
}

func removePromotedRefused(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.promote(t)
	wants(t, "remove", s.Driver().Remove(s.context(t), "web-root"), storage.ErrInUse)
	s.holds(t, "web-root", 7)
}

func demoteRefused(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.promote(t)
	s.write(t, "web-root", 9)
	wants(t, "demote", s.Driver().Demote(s.context(t), replica(2, 1)), storage.ErrWouldDrop)
	s.state(t, "web-root", pb.State_STATE_PRIMARY)
	s.holds(t, "web-root", 9)
}

func demoteGoesBack(t *testing.T, s *suite) {
	s.converged(t, 7)
	before := point(s.inspect(t, "web-root"))
	s.promote(t)
	s.write(t, "web-root", 9)
	spec := replica(2, 1)
	spec.DropPromoted = true
	must(t, s.Driver().Demote(s.context(t), spec))
	must(t, s.Driver().Demote(s.context(t), spec))
	s.state(t, "web-root", pb.State_STATE_REPLICA)
	if after := point(s.inspect(t, "web-root")); after != before {
		t.Fatalf("point before %s, after %s", before, after)
	}
	s.mirror(t, 2, 10)
	s.promote(t)
	s.holds(t, "web-root", 7)
}

func demoteUsedUp(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.promote(t)
	spec := replica(1, 1)
	spec.DropPromoted = true
	must(t, s.Driver().Demote(s.context(t), spec))
	s.receive(t, 1, 1)
	s.mirrorFails(t, 1)
	if v := s.inspect(t, "web-root"); v.Status.GetDegradedSince() == nil || point(v) == "" {
		t.Fatalf("a replica that waits for a new number must be degraded and keep its point, got %v", v.Status)
	}
	s.Crash(t)
	s.mirrorFails(t, 1)
	s.receive(t, 2, 1)
	s.mirror(t, 2, 8)
	s.receive(t, 2, 2)
	if v := s.inspect(t, "web-root"); v.Status.GetDegradedSince() != nil {
		t.Fatalf("still degraded: %v", v.Status)
	}
}
