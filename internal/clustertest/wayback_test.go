package clustertest

import (
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	storagesim "github.com/hotspare/hotspare/internal/storage/sim"
)

// wayBack fails over, writes here, lets things go wrong on the way back, and demands that everything is as
// before afterwards, with what was written here. It returns how long the way back took.
func wayBack(t *testing.T, arrange func(s *site)) (took time.Duration) {
	t.Helper()
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		f := s.declare("webshop")
		s.completes(f.GetName())
		wrote := s.write(f.GetName())
		if arrange != nil {
			arrange(s)
		}
		at := time.Now()
		s.failback(f.GetName(), false)
		s.reaches(f.GetName(), pb.RunPhase_RUN_PHASE_FAILED_BACK, runLimit)
		took = time.Since(at)
		s.allUp()
		s.carried(wrote)
		s.kept(guests, leases)
		s.ready() // Replication goes on by itself.
	})
	return took
}

// atSeal springs at the second order that the storage agent gives its pool: the first is the mirror.
func (s *site) atSeal(after bool, do func(at point)) {
	mirror := point{host: storeAgent, method: "Promote", object: "webshop-db-root", after: true}
	s.world.at(mirror, func(point) {
		s.world.at(point{host: storeAgent, method: "Promote", object: "webshop-db-root", after: after}, do)
	})
}

// agentAway is how long a killed agent stays away.
const agentAway = 2 * time.Second

// TestKilledOnTheWayBack kills the leader, the agent that is at work, or both, before and after each step
// of the way back. It costs time, and nothing else.
func TestKilledOnTheWayBack(t *testing.T) {
	undisturbed := wayBack(t, nil)
	steps := map[string]point{
		"receive back": {host: eastAgent, method: "Receive", object: "webshop-db-root-e1"},
		"mirror back":  {host: storeAgent, method: "Promote", object: "webshop-db-root"},
		"seal":         {},
		"hand over":    {host: eastAgent, method: "Promote", object: "webshop-db-root-e1"},
		"demote":       {host: storeAgent, method: "Demote", object: "webshop-db-root"},
		"start":        {host: eastAgent, method: "Run", object: "webshop-db-root"},
		"give back":    {host: eastAgent, method: "Demote", object: "webshop-db-root-e1"},
		"remove":       {host: eastAgent, method: "Remove", object: "webshop-db-root-e1"},
	}
	for name, p := range steps {
		for _, p.after = range []bool{false, true} {
			for _, who := range []string{"leader", "agent", "leader and agent"} {
				when := map[bool]string{false: " before ", true: " after "}[p.after]
				t.Run(who+when+name, func(t *testing.T) {
					kill := func(s *site) func(point) {
						return func(at point) {
							if who != "agent" {
								s.crashLeader()
							}
							if who != "leader" {
								s.crashAgent(at.host)
								time.AfterFunc(agentAway, func() { s.startAgent(at.host) })
							}
						}
					}
					took := wayBack(t, func(s *site) {
						if p.host == "" {
							s.atSeal(p.after, kill(s))
							return
						}
						s.world.at(p, kill(s))
					})
					if bound := killBound + agentAway; took-undisturbed > bound {
						t.Errorf("took %v, undisturbed %v: the kill added more than %v", took, undisturbed, bound)
					}
				})
			}
		}
	}
}

// TestMirrorBackBreaks ends the mirror on the way back, at either end and at any time.
func TestMirrorBackBreaks(t *testing.T) {
	mirror := point{host: storeAgent, method: "Promote", object: "webshop-db-root", after: true}
	for name, arrange := range map[string]func(s *site){
		"the target's daemon dies while it converges":  func(s *site) { s.world.at(mirror, func(point) { s.world.home.KillDaemon() }) },
		"the source's daemon dies while it converges":  func(s *site) { s.world.at(mirror, func(point) { s.world.pool.KillDaemon() }) },
		"the source's daemon dies right before a seal": func(s *site) { s.atSeal(false, func(point) { s.world.pool.KillDaemon() }) },
		"the target's daemon dies right before a seal": func(s *site) { s.atSeal(false, func(point) { s.world.home.KillDaemon() }) },
		"both daemons die right after a seal": func(s *site) {
			s.atSeal(true, func(point) { s.world.pool.KillDaemon(); s.world.home.KillDaemon() })
		},
		"the protected site is cut off while it converges": func(s *site) {
			s.world.at(mirror, func(point) {
				s.world.home.KillDaemon()
				s.cutAgent(eastAgent)
				time.AfterFunc(40*time.Second, func() { s.healAgent(eastAgent) })
			})
		},
		"the protected site is cut off before the hand over": func(s *site) {
			s.atSeal(true, func(point) {
				s.cutAgent(eastAgent)
				time.AfterFunc(40*time.Second, func() { s.healAgent(eastAgent) })
			})
		},
	} {
		t.Run(name, func(t *testing.T) { wayBack(t, arrange) })
	}
}

// TestDangerousAnswersOnTheWayBack: each order of the way back is answered falsely once.
func TestDangerousAnswersOnTheWayBack(t *testing.T) {
	for how, f := range map[string]storagesim.Fault{
		"fails":          {Err: fault.ErrInjected},
		"is not applied": {Lie: storagesim.LieNotApplied},
		"loses its word": {Lie: storagesim.LieApplied},
		"succeeds later": {Lie: storagesim.LieLater, Later: 3 * time.Second},
		"never answers":  {Hang: true},
	} {
		f.Count = 1
		at := func(method string) storagesim.Fault { f.Method = method; return f }
		for name, arrange := range map[string]func(s *site){
			"receive back": func(s *site) { s.world.home.Inject(at("Receive")) },
			"mirror back":  func(s *site) { s.world.pool.Inject(at("Promote")) },
			"seal":         func(s *site) { s.atSeal(false, func(point) { s.world.pool.Inject(at("Promote")) }) },
			"hand over":    func(s *site) { s.world.home.Inject(at("Promote")) },
			"demote":       func(s *site) { s.world.pool.Inject(at("Demote")) },
			"start":        func(s *site) { s.world.east.Inject(at("Run")) },
			"remove":       func(s *site) { s.world.home.Inject(at("Remove")) },
		} {
			t.Run(name+" "+how, func(t *testing.T) { wayBack(t, arrange) })
		}
	}
}

// TestProtectedSiteAway: a failback waits for the protected site, says so, and can be changed over.
func TestProtectedSiteAway(t *testing.T) {
	bubble(t, 3, func(s *site) {
		f := s.declare("webshop")
		s.completes(f.GetName())
		s.cutAgent(eastAgent)
		s.failback(f.GetName(), false)
		s.until("the wait is said", 2*time.Minute, func() bool {
			for _, st := range s.state().Failover(f.GetName()).GetSteps() {
				if st.GetId() == "receive back webshop-db-root" && st.GetMessage() == "agent east is not connected" {
					return true
				}
			}
			return false
		})
		s.failback(f.GetName(), true)
		s.sleep(30 * time.Second)
		s.healAgent(eastAgent)
		s.reaches(f.GetName(), pb.RunPhase_RUN_PHASE_FAILED_BACK, runLimit)
		if n := s.world.east.Starts(); n != 0 {
			t.Errorf("%d VMs were started at the old side", n)
		}
	})
}
