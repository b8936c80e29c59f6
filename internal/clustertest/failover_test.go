package clustertest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHappyPath(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		before, guests := s.world.inventory(), s.guests(leases...)
		at := time.Now()
		f := s.declare("webshop")
		s.completes(f.GetName())
		t.Logf("completed %v after the declaration; %d victims", time.Since(at), len(f.GetVictims()))
		if len(f.GetVictims()) == 0 {
			t.Error("nobody was preempted: the scenario shows nothing")
		}
		if v := s.world.zone.Lookup(dnsZone, "www", "A").GetValues(); len(v) != 1 || v[0] != "203.0.113.10" {
			t.Errorf("www is %v", v)
		}
		s.over(f.GetName())
		s.kept(guests, leases)
		s.settled()
		if d := cmp.Diff(before, s.world.inventory()); d != "" {
			t.Errorf("invariant 5, failback: not as before (-before +after):\n%s", d)
		}
	})
}
