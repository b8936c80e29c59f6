package clustertest

import "testing"

// sharedManifest is a plan whose old side hangs on webshop's power switch.
const sharedManifest = `
apiVersion: hotspare/v1
kind: Plan
metadata: {name: mail}
spec:
  rank: 30
  fencing: [{power: {target: east-power}, timeout: 60s}]
  workloads:
  - {name: relay, resources: {vcpus: 1, memory: 1GiB}, image: debian-12}
`

// Two runs share a power switch: each is fenced for itself, and the switch is given back by the last,
// also when the leader dies between the two.
func TestTwoRunsShareAFenceTarget(t *testing.T) {
	bubble(t, 3, func(s *site) {
		s.apply(sharedManifest)
		s.ready()
		a := s.declare("webshop")
		s.completes(a.GetName())
		if n := s.world.fence.Fences("east-power"); n != 1 {
			t.Fatalf("fenced for %d runs", n)
		}
		s.world.at(point{method: "Fence", object: "*", after: true}, func(point) { s.crashLeader() })
		b := s.declare("mail")
		s.completes(b.GetName())
		s.allUp()
		if n := s.world.fence.Fences("east-power"); n != 2 {
			t.Errorf("fenced for %d runs, want each for itself", n)
		}
		s.over(b.GetName())
		if n := s.world.fence.Fences("east-power"); n == 0 {
			t.Error("the first run to go back lifted the fence of the other")
		}
		s.over(a.GetName())
		if n := s.world.fence.Fences("east-power"); n != 0 {
			t.Errorf("%d fences are left", n)
		}
	})
}
