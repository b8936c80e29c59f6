package clustertest

import (
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Two of three hosts cannot be reached when the failover is declared: what fits starts, the rest is placed
// when they are back, also when the leader dies over it, and the endpoint waits for it.
func TestPlacedWhenHostsComeBack(t *testing.T) {
	for name, crash := range map[string]bool{"one leader": false, "the leader dies": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(s *site) {
				leases := s.fill()
				guests := s.guests(leases...)
				away := []string{"h2", "h3"}
				for _, h := range away {
					s.cutAgent(h)
				}
				s.until("the leader notices", time.Minute, func() bool {
					v := s.leader().c.Live()
					return !v.Agent("h2").Connected && !v.Agent("h3").Connected
				})
				f := s.declare("webshop")
				if len(f.GetUnplaced()) == 0 {
					t.Fatal("everything was placed: the scenario shows nothing")
				}
				s.reaches(f.GetName(), pb.RunPhase_RUN_PHASE_INCOMPLETE, runLimit)
				if crash {
					s.world.at(point{method: "Define", object: "instance/webshop-web-*"}, func(point) { s.crashLeader() })
				}
				for _, h := range away {
					s.healAgent(h)
				}
				s.completes(f.GetName())
				s.allUp()
				if now := s.state().Failover(f.GetName()); len(now.GetUnplaced()) > 0 || len(now.GetPlacements()) != 3 {
					t.Errorf("placed %v, left %v", now.GetPlacements(), now.GetUnplaced())
				}
				s.over(f.GetName())
				s.kept(guests, leases)
			})
		})
	}
}
