package conformance

import (
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

func cloneCases() []namedCase {
	return []namedCase{
		{"clone-while-the-mirror-goes-on", cloneWhileMirrored},
		{"a-clone-is-isolated-from-its-source", cloneIsolated},
		{"clone-again-changes-nothing", cloneAgain},
		{"clone-of-a-stated-point", cloneOfPoint},
		{"clone-of-a-clone-is-refused", cloneOfClone},
		{"a-clone-keeps-its-point-through-resyncs", cloneKeepsPoint},
		{"remove-is-refused-while-cloned", removeWhileCloned},
		{"a-clone-survives-promotion-of-its-source", cloneSurvivesPromotion},
		{"a-clone-survives-a-crash", cloneSurvivesCrash},
	}
}

func cloneWhileMirrored(t *testing.T, s *suite) {
	s.converged(t, 7)
	url := s.url(t, 1)
	s.clone(t, "dev", "")
	s.state(t, "dev", pb.State_STATE_CLONE)
	must(t, s.Write(t, url, 8))
	s.holds(t, "dev", 7)
	s.promote(t)
	s.holds(t, "web-root", 8)
	s.holds(t, "dev", 7)
}

func cloneIsolated(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.clone(t, "dev-1", "")
	s.mirror(t, 1, 8)
	s.clone(t, "dev-2", "")
	s.write(t, "dev-1", 100)
	s.holds(t, "dev-2", 8)
	s.write(t, "dev-2", 200)
	s.holds(t, "dev-1", 100)
	s.promote(t)
	s.holds(t, "web-root", 8)
	s.write(t, "web-root", 300)
	s.holds(t, "dev-1", 100)
	s.holds(t, "dev-2", 200)
}

func cloneAgain(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.clone(t, "dev", "")
	s.write(t, "dev", 100)
	s.mirror(t, 1, 8)
	before := s.inspect(t, "web-root").Status.GetLayers()
	s.clone(t, "dev", "")
	s.holds(t, "dev", 100)
	if after := s.inspect(t, "web-root").Status.GetLayers(); after != before {
		t.Fatalf("the repeated clone froze again: %d layers, then %d", before, after)
	}
	wants(t, "clone over a replica", s.Driver().Clone(s.context(t), clone("web-root", "")), storage.ErrInUse)
}

func cloneOfPoint(t *testing.T, s *suite) {
	s.converged(t, 7)
	p := s.inspect(t, "web-root").Status.GetPoint().GetLayer()
	s.clone(t, "dev-1", p)
	s.mirror(t, 1, 8)
	s.clone(t, "dev-2", p)
	s.clone(t, "dev-3", "")
	s.holds(t, "dev-1", 7)
	s.holds(t, "dev-2", 7)
	s.holds(t, "dev-3", 8)
	wants(t, "clone of an unknown point", s.Driver().Clone(s.context(t), clone("dev-4", "none")), storage.ErrNoPoint)
}

func cloneOfClone(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.clone(t, "dev", "")
	spec := clone("dev-2", "")
	spec.CloneOf = "dev"
	if s.Driver().Clone(s.context(t), spec) == nil {
		t.Fatal("a clone of a clone was made")
	}
	wants(t, "promote a clone", s.Driver().Promote(s.context(t), clone("dev", "")), storage.ErrInUse)
}

func cloneKeepsPoint(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.clone(t, "dev", "")
	for n := uint64(2); n <= 3; n++ {
		s.receive(t, n, n-1)
		s.mirror(t, n, 10*n)
		s.receive(t, n, n)
	}
	s.holds(t, "dev", 7)
	held := s.inspect(t, "web-root").Status.GetLayers()
	must(t, s.Driver().Remove(s.context(t), "dev"))
	if now := s.inspect(t, "web-root").Status.GetLayers(); now >= held {
		t.Fatalf("%d layers with the clone, %d without", held, now)
	}
	s.promote(t)
	s.holds(t, "web-root", 30)
}

func removeWhileCloned(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.clone(t, "dev", "")
	wants(t, "remove", s.Driver().Remove(s.context(t), "web-root"), storage.ErrInUse)
	s.holds(t, "dev", 7)
	s.mirror(t, 1, 8)
	must(t, s.Driver().Remove(s.context(t), "dev"))
	must(t, s.Driver().Remove(s.context(t), "web-root"))
}

func cloneSurvivesPromotion(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.clone(t, "dev", "")
	s.mirror(t, 1, 8)
	s.promote(t)
	s.write(t, "web-root", 9)
	s.holds(t, "dev", 7)
	spec := replica(2, 1)
	spec.DropPromoted = true
	must(t, s.Driver().Demote(s.context(t), spec))
	s.holds(t, "dev", 7)
	s.promote(t)
	s.holds(t, "web-root", 8)
}

func cloneSurvivesCrash(t *testing.T, s *suite) {
	s.converged(t, 7)
	s.clone(t, "dev", "")
	s.write(t, "dev", 100)
	s.mirror(t, 1, 8)
	s.Crash(t)
	s.holds(t, "dev", 100)
	s.mirror(t, 1, 9)
	wants(t, "remove", s.Driver().Remove(s.context(t), "web-root"), storage.ErrInUse)
	s.promote(t)
	s.holds(t, "web-root", 9)
}
