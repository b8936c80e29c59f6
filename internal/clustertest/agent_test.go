package clustertest

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
	"github.com/hotspare/hotspare/internal/model"
)

// began lists the driver calls of an agent that began since a time, as "object from>to".
func (s *site) began(agent string, since time.Time) []string {
	var out []string
	for _, r := range s.book.since(since) {
		if r.process == agent && r.msg == "driver call began" {
			out = append(out, r.attrs["object"]+" "+r.attrs["from"]+">"+r.attrs["to"])
		}
	}
	return out
}

// seen waits until the leader has a full report of an agent.
func (s *site) seen(agent string) {
	s.until(agent+" is connected", time.Minute, func() bool {
		l := s.leader()
		return l != nil && l.c.Live().Agent(agent).Full
	})
}

// An agent was away while a failover came and went back. What it knew must not be acted on: neither when
// it is started without a link to anybody, nor when it hears of the present.
func TestAgentBackWithOldSpecs(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		f := s.declare("webshop")
		s.completes(f.GetName())
		// One on which nobody depends: the others are kept running until those that depend on them have stopped.
		p := f.GetPlacements()[slices.IndexFunc(f.GetPlacements(), func(p *pb.Placement) bool { return p.GetWorkload() == "web-1" })]
		host := p.GetHost()
		s.crashAgent(host)
		// The protected VM dies while nobody looks: by the old specs it would be started again.
		s.world.hosts[host].Kill(model.ObjectID(p.GetObject()))
		s.failback(f.GetName(), true)
		s.sleep(time.Minute)
		s.cutAgent(host)
		at := time.Now()
		s.startAgent(host)
		s.sleep(time.Minute)
		if calls := s.began(host, at); len(calls) > 0 {
			t.Errorf("alone with old specs: %q", calls)
		}
		s.healAgent(host)
		s.seen(host)
		s.reaches(f.GetName(), pb.RunPhase_RUN_PHASE_FAILED_BACK, runLimit)
		if calls := s.began(host, at); slices.ContainsFunc(calls, func(c string) bool {
			return strings.HasPrefix(c, p.GetObject()+" ") && strings.HasSuffix(c, ">RUNNING")
		}) {
			t.Errorf("an old order was acted on: %q", calls)
		}
		s.kept(guests, leases)
	})
}

func (s *site) readmit(host string) {
	s.t.Helper()
	s.call(func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewSiteServiceClient(c).UpdateHost(ctx, &pb.UpdateHostRequest{RequestId: s.request(), Name: host, Action: "readmit", Reason: "looked at it"})
		return err
	})
}

// An agent without its journal is a stranger: it reports, touches nothing, and goes on when an operator
// readmits it.
func TestLostJournalIsQuarantined(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		dead := make(chan string, 1)
		s.world.at(point{method: "Save", object: "*/*"}, func(p point) { // Set before: the agents act while the answer is on its way.
			s.crashAgent(p.host)
			dead <- p.host
		})
		f := s.declare("webshop")
		host := <-dead
		s.loseJournal(host)
		at := time.Now()
		s.startAgent(host)
		s.until("quarantine", time.Minute, func() bool { return s.state().Host(host).GetQuarantined() })
		s.sleep(time.Minute)
		if calls := s.began(host, at); len(calls) > 0 {
			t.Errorf("a stranger acted: %q", calls)
		}
		s.readmit(host)
		if !s.within(2*time.Minute, func() bool { return s.phase(f.GetName()) == pb.RunPhase_RUN_PHASE_COMPLETED }) {
			s.must(s.control(f.GetName(), pb.ControlAction_CONTROL_ACTION_RETRY, ""))
		}
		s.completes(f.GetName())
		s.over(f.GetName())
		s.kept(guests, leases)
	})
}

// An agent comes back with an older copy of its own journal, in which victims of a failover that is long
// over are to be saved, and the leader that saw it confirm more is gone. Nothing of that is acted on.
func TestOlderJournalIsQuarantined(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		f := s.declare("webshop")
		s.completes(f.GetName())
		host := f.GetPlacements()[0].GetHost()
		older, err := os.ReadFile(s.journalPath(host))
		s.must(err)
		s.over(f.GetName())
		s.kept(guests, leases)
		s.sleep(10 * time.Second) // What agents confirmed is kept every few seconds.
		s.crashAgent(host)
		<-s.agents[host].gone
		s.must(os.WriteFile(s.journalPath(host), older, 0o600))
		s.crashLeader()
		at := time.Now()
		s.startAgent(host)
		s.until("quarantine", time.Minute, func() bool { return s.state().Host(host).GetQuarantined() })
		s.sleep(time.Minute)
		s.crashAgent(host)
		s.startAgent(host)
		s.sleep(time.Minute)
		if calls := s.began(host, at); len(calls) > 0 {
			t.Errorf("an older journal acted: %q", calls)
		}
		s.readmit(host)
		s.seen(host)
		s.sleep(time.Minute)
		if s.state().Host(host).GetQuarantined() {
			t.Error("quarantined again after the readmission")
		}
		s.kept(guests, leases)
		g := s.declare("webshop")
		s.completes(g.GetName())
		s.over(g.GetName())
		s.kept(guests, leases)
	})
}

// A host loses its power in the middle of everything. Without a session nothing starts on it.
func TestPowerCut(t *testing.T) {
	for name, p := range map[string]point{
		"while saving":     {method: "Save", object: "*/*"},
		"while starting":   {method: "Start", object: "instance/webshop-*"},
		"while restoring":  {method: "Restore", object: "*/*"},
		"when it runs":     {method: "Announce", object: "*", after: true},
		"while it removes": {method: "Remove", object: "instance/webshop-*"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(s *site) {
				leases := s.fill()
				var lost string
				s.world.at(p, func(at point) {
					time.AfterFunc(10*time.Millisecond, func() {
						lost = at.host
						if !s.world.isHost(lost) {
							lost = s.state().Failover("fo-1").GetPlacements()[0].GetHost()
						}
						s.powerCut(lost)
					})
				})
				f := s.declare("webshop")
				back := func() {
					s.cutAgent(lost)
					at := time.Now()
					s.startAgent(lost)
					s.sleep(30 * time.Second)
					if calls := s.began(lost, at); slices.ContainsFunc(calls, func(c string) bool { return strings.HasSuffix(c, ">RUNNING") }) {
						t.Errorf("started without a session after a reboot: %q", calls)
					}
					s.healAgent(lost)
					s.seen(lost)
				}
				early := s.within(20*time.Second, func() bool { return lost != "" })
				if early {
					back()
					if !s.within(3*time.Minute, func() bool { return s.phase(f.GetName()) == pb.RunPhase_RUN_PHASE_COMPLETED }) {
						s.must(s.control(f.GetName(), pb.ControlAction_CONTROL_ACTION_RETRY, ""))
					}
				}
				s.completes(f.GetName())
				s.failback(f.GetName(), true)
				if !early {
					s.until("the power cut", time.Minute, func() bool { return lost != "" })
					back()
				}
				s.reaches(f.GetName(), pb.RunPhase_RUN_PHASE_FAILED_BACK, runLimit)
				s.kept(nil, leases) // RAM of what ran there is lost, nothing else.
			})
		})
	}
}

// A save that hangs: at its deadline the agent falls to the next action, and the disk is kept.
func TestSaveHangs(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		before := s.guests(leases...)
		release := map[string]func(){}
		for _, h := range s.world.names {
			release[h] = s.world.hosts[h].Inject(sim.Fault{Method: "Save", Hang: true, Count: 1})
		}
		f := s.declare("webshop")
		s.completes(f.GetName())
		for _, r := range release {
			r()
		}
		var lost []string
		for object := range before {
			st := s.leader().c.Live().Raw(object)
			if st.GetNote() != "" {
				t.Logf("%s: %v, %s", object, st.GetState(), st.GetNote())
				lost = append(lost, object)
			}
		}
		if len(lost) == 0 {
			t.Error("no save hung, or no owner is told")
		}
		s.over(f.GetName())
		s.kept(before, leases, lost...)
	})
}

func TestGuestIgnoresShutdown(t *testing.T) {
	bubble(t, 3, func(s *site) {
		stubborn := func(sp *pb.LeaseSpec) {
			sp.OnPreempt, sp.Grace = pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN, durationpb.New(10*time.Second)
		}
		leases := []*pb.Lease{s.lease(2, 8, 24, stubborn), s.lease(2, 8, 24, stubborn), s.lease(2, 8, 24, stubborn)}
		for object := range s.guests(leases...) {
			for _, h := range s.world.hosts {
				h.SetGuest(model.ObjectID(object), sim.GuestBehaviour{IgnoresShutdown: true})
			}
		}
		f := s.declare("webshop")
		s.completes(f.GetName())
		kills := 0
		for _, h := range s.world.hosts {
			for _, c := range h.History() {
				kills += c.Kills
			}
		}
		if kills != len(f.GetVictims()) {
			t.Errorf("%d kills of %d victims", kills, len(f.GetVictims()))
		}
		s.over(f.GetName())
		s.kept(nil, leases)
	})
}
