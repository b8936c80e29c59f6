package clustertest

import (
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	fencesim "github.com/hotspare/hotspare/internal/fence/sim"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
	sdnsim "github.com/hotspare/hotspare/internal/sdn/sim"
	storagesim "github.com/hotspare/hotspare/internal/storage/sim"
)

// The dangerous answers of real parts, from each driver, once in a failover and once on the way back: an
// error that passes, "yes" without an effect, an effect without an answer, an effect after the error, and
// no answer at all.
func TestDangerousAnswers(t *testing.T) {
	// A hypervisor's late effect comes within the run: one that comes after the way back finds its object
	// forgotten, and only an inventory of the host shows it.
	hypervisor := map[string]sim.Fault{
		"fails":          {Err: fault.ErrInjected},
		"is not applied": {Lie: sim.LieNotApplied},
		"loses its word": {Lie: sim.LieApplied},
		"succeeds later": {Lie: sim.LieLater, Later: time.Second},
		"is slow":        {Delay: 8 * time.Second},
	}
	for how, f := range hypervisor {
		for _, method := range []string{"Save", "Define", "Start", "Restore", "Stop", "Remove"} {
			t.Run("hypervisor "+method+" "+how, func(t *testing.T) {
				lied(t, func(s *site) {
					f.Method, f.Object, f.Count = method, "instance/*", 1
					for _, h := range s.world.hosts {
						h.Inject(f)
					}
				})
			})
		}
	}
	storage := map[string]storagesim.Fault{
		"fails":          {Err: fault.ErrInjected},
		"is not applied": {Lie: storagesim.LieNotApplied},
		"loses its word": {Lie: storagesim.LieApplied},
		"succeeds later": {Lie: storagesim.LieLater, Later: 3 * time.Second},
		"never answers":  {Hang: true},
	}
	for how, f := range storage {
		for _, method := range []string{"Promote", "Demote", "Receive"} {
			t.Run("storage "+method+" "+how, func(t *testing.T) {
				lied(t, func(s *site) {
					f.Method, f.Count = method, 1
					s.world.pool.Inject(f)
				})
			})
		}
	}
	ways := fault.Ways(3 * time.Second)
	delete(ways, "is slow")
	for how, f := range ways {
		for method, inject := range map[string]func(s *site, f fault.Fault){
			sdnsim.Ensure: everyNetwork, sdnsim.Remove: everyNetwork,
			sdnsim.Announce: theZone, sdnsim.Withdraw: theZone,
			fencesim.Fence: theFence, fencesim.Lift: theFence,
		} {
			t.Run(method+" "+how, func(t *testing.T) {
				lied(t, func(s *site) {
					f.Method, f.Count = method, 1
					inject(s, f)
				})
			})
		}
	}
}

func everyNetwork(s *site, f fault.Fault) {
	for _, n := range s.world.nets {
		n.Inject(f)
	}
}

func theZone(s *site, f fault.Fault)  { s.world.zone.Inject(f) }
func theFence(s *site, f fault.Fault) { s.world.fence.Inject(f) }

// lied runs a failover and its failback with a fault; a person retries what failed for good.
func lied(t *testing.T, inject func(s *site)) {
	t.Helper()
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		inject(s)
		f := s.declare("webshop")
		for try := 0; try < 5 && !s.within(4*time.Minute, func() bool { return s.phase(f.GetName()) == pb.RunPhase_RUN_PHASE_COMPLETED }); try++ {
			if err := s.control(f.GetName(), pb.ControlAction_CONTROL_ACTION_RETRY, ""); err != nil {
				t.Logf("retry: %v", err)
			}
		}
		s.completes(f.GetName())
		s.over(f.GetName())
		var told []string
		for object := range guests {
			if st := s.leader().c.Live().Raw(object); st.GetNote() != "" {
				t.Logf("%s: %s", object, st.GetNote())
				told = append(told, object)
			}
		}
		s.kept(guests, leases, told...)
	})
}
