package agent

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/hypervisor"
	hvsim "github.com/hotspare/hotspare/internal/hypervisor/sim"
	"github.com/hotspare/hotspare/internal/model"
	sdnsim "github.com/hotspare/hotspare/internal/sdn/sim"
)

const (
	vmA = "instance/a"
	vmB = "instance/b"
)

// site is one host with its agent and coordinators, in a synctest bubble.
type site struct {
	t       *testing.T
	host    *hvsim.Host
	members []*coordinator
	options Options
	booted  time.Time
	kill    func()
}

func newSite(t *testing.T, members int) *site {
	t.Helper()
	s := &site{t: t, host: hvsim.NewHost(hvsim.Options{
		Capacity: &pb.Capacity{MemoryBytes: 4 << 30, Vcpus: 8}, Costs: hvsim.RealisticCosts(),
	})}
	for i := range members {
		s.members = append(s.members, newCoordinator(t, string(rune('x'+i)), 1))
	}
	s.members[0].leads = true
	s.booted = time.Now().Add(-time.Hour)
	var names []string
	for _, m := range s.members {
		names = append(names, "passthrough:///"+m.name)
	}
	s.options = Options{
		Name: "h1", Version: "test", Coordinators: names, DialOptions: insecurely(s.members...),
		Drivers:     actuate.Drivers{Hypervisor: s.host, Networks: sdnsim.NewNetworks(s.answers)},
		JournalPath: filepath.Join(t.TempDir(), "journal"), BootID: "boot-1",
		Wall: time.Now, Boot: func() time.Duration { return time.Since(s.booted) },
		NewID: func() string { return "journal-1" }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	t.Cleanup(func() {
		if s.kill != nil {
			s.kill()
		}
	})
	return s
}

// answers says whether a guest behind host and port answers.
func (s *site) answers(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && s.host.Answers(host)
}

// start runs the agent until kill.
func (s *site) start() {
	s.t.Helper()
	a, err := New(s.options)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	s.kill = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		s.kill = nil
	}
}

// settled waits until a member has a status of this order that says so.
func (s *site) settled(m int, object string, state pb.State, generation uint64) *pb.Status {
	s.t.Helper()
	return s.status(m, object, func(st *pb.Status) bool {
		return st.GetState() == state && st.GetPhase() == pb.Phase_PHASE_SETTLED && st.GetGeneration() == generation
	})
}

// status waits for a status, for at most a virtual minute.
func (s *site) status(m int, object string, want func(*pb.Status) bool) *pb.Status {
	s.t.Helper()
	for range 6000 {
		if st := s.members[m].status(object); want(st) {
			return st
		}
		<-time.After(10 * time.Millisecond)
	}
	s.t.Fatalf("member %d has no such status of %s, but %v", m, object, s.members[m].status(object))
	return nil
}

func instance(generation uint64, id string, state pb.State, change ...func(*pb.Order)) *pb.Order {
	o := &pb.Order{
		Object: id, Kind: pb.Kind_KIND_INSTANCE, Generation: generation, Owner: "web",
		Spec: &pb.Spec{State: state, Parameters: &pb.Spec_Instance{Instance: &pb.InstanceSpec{
			Hostname: model.ObjectID(id).Name(), Vcpus: 1, MemoryBytes: 3 << 30,
			Reclaim: &pb.Reclaim{
				Action: pb.ReclaimAction_RECLAIM_ACTION_SAVE, Grace: durationpb.New(5 * time.Second),
				Deadline: durationpb.New(30 * time.Second),
			},
		}}},
	}
	for _, f := range change {
		f(o)
	}
	return o
}

func TestAgentStartsSavesAndRestores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		c.order(instance(2, vmA, pb.State_STATE_RUNNING))
		s.start()
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
		before, _ := s.host.Guest(vmA)

		// One message saves a victim and starts what needs its memory: the agent does it alone.
		c.order(
			instance(5, vmA, pb.State_STATE_SAVED, func(o *pb.Order) { o.Epoch = 3 }),
			instance(5, vmB, pb.State_STATE_RUNNING, func(o *pb.Order) {
				o.Epoch = 3
				o.Spec.After = []*pb.LocalGate{{Object: vmA, States: model.MemoryFree()}}
			}))
		s.settled(0, vmB, pb.State_STATE_RUNNING, 5)
		s.settled(0, vmA, pb.State_STATE_SAVED, 5)

		c.order(instance(8, vmB, pb.State_STATE_ABSENT), instance(8, vmA, pb.State_STATE_RUNNING))
		st := s.settled(0, vmA, pb.State_STATE_RUNNING, 8)
		s.settled(0, vmB, pb.State_STATE_ABSENT, 8)
		after, _ := s.host.Guest(vmA)
		if after.BootID != before.BootID || st.GetInstance().GetColdBoot() {
			t.Errorf("the guest lost its RAM: %v, then %v", before, after)
		}
		if n := s.host.History()[vmA]; n.Saves != 1 || n.Restores != 1 || n.Starts != 1 {
			t.Errorf("the host counted %+v", n)
		}
	})
}

// A console needs no permit, and each question gets one answer.
func TestAgentReadsConsoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		c.order(instance(2, vmA, pb.State_STATE_RUNNING))
		s.start()
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
		c.setPermit(0, false)
		all := c.console(1, vmA, 0, 1<<30)
		if all.GetError() != "" || !strings.HasPrefix(string(all.GetText()), "a: booted") || all.GetEnd() != uint64(len(all.GetText())) {
			t.Fatalf("%v", all)
		}
		if rest := c.console(2, vmA, all.GetEnd()-3, 100); string(rest.GetText()) != string(all.GetText()[all.GetEnd()-3:]) {
			t.Errorf("%v", rest)
		}
		c.order(instance(3, vmA, pb.State_STATE_SAVED))
		s.settled(0, vmA, pb.State_STATE_SAVED, 3)
		if off := c.console(3, vmA, 0, 100); string(off.GetText()) != string(all.GetText()) {
			t.Errorf("of a guest that is off: %v", off)
		}
		if none := c.console(4, vmB, 0, 100); !strings.Contains(none.GetError(), "does not exist") {
			t.Errorf("of nothing: %v", none)
		}
		release := s.host.Inject(hvsim.Fault{Method: "Console", Hang: true})
		defer release()
		for id := range uint64(maxConsoles) {
			c.ask(10+id, vmA, 0, 100)
		}
		if more := c.console(30, vmA, 0, 100); !strings.Contains(more.GetError(), "try again") {
			t.Errorf("one more than are read at once: %v", more)
		}
		if late := c.answer(10); !strings.Contains(late.GetError(), "deadline") {
			t.Errorf("of a driver that hangs: %v", late)
		}
	})
}

func TestAgentStartsNothingWithoutAPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		c.setPermit(0, false)
		c.order(instance(2, vmA, pb.State_STATE_RUNNING))
		s.start()
		s.status(0, vmA, func(st *pb.Status) bool {
			return st.GetState() == pb.State_STATE_DEFINED && strings.Contains(st.GetMessage(), "permit")
		})
		time.Sleep(time.Minute)
		if n := s.host.History()[vmA].Starts; n != 0 {
			t.Fatalf("started %d times without a permit", n)
		}
		c.setPermit(10*time.Second, false)
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
	})
}

func TestAgentCompletesWhatReleasesWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		small := func(o *pb.Order) { o.Spec.GetInstance().MemoryBytes = 1 << 30 }
		c.order(instance(2, vmA, pb.State_STATE_RUNNING, small))
		s.start()
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
		release := s.host.Inject(hvsim.Fault{Method: "Save", Delay: 2 * time.Second})
		c.order(instance(3, vmA, pb.State_STATE_SAVED, small))
		time.Sleep(time.Second)
		// Killed in the middle of the save, and cut off from then on.
		s.kill()
		release()
		c.down()
		s.start()
		time.Sleep(time.Minute)
		d, err := s.host.Inspect(context.Background(), vmA)
		if err != nil || d.State != pb.State_STATE_SAVED {
			t.Fatalf("the victim is %v, %v", d.State, err)
		}
		c.up()
		s.settled(0, vmA, pb.State_STATE_SAVED, 3)
	})
}

func TestAgentAfterAReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		c.order(instance(2, vmA, pb.State_STATE_RUNNING))
		s.start()
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
		s.kill()
		s.host.Crash()
		c.down()
		s.options.BootID = s.host.BootID()
		s.booted = time.Now()
		s.start()
		time.Sleep(time.Minute)
		if n := s.host.History()[vmA].Starts; n != 1 {
			t.Fatalf("started %d times; after a reboot nothing starts without a session", n)
		}
		c.up()
		s.status(0, vmA, func(st *pb.Status) bool {
			return st.GetBootId() == s.options.BootID && st.GetState() == pb.State_STATE_RUNNING &&
				st.GetPhase() == pb.Phase_PHASE_SETTLED
		})
	})
}

func TestAgentFollowsTheNewestLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3)
		s.members[0].order(instance(2, vmA, pb.State_STATE_STOPPED))
		s.start()
		s.settled(0, vmA, pb.State_STATE_DEFINED, 2)
		// Another member is elected while the old leader does not know it yet.
		s.members[1].order(instance(4, vmA, pb.State_STATE_RUNNING))
		s.members[1].lead(true, 2)
		s.settled(1, vmA, pb.State_STATE_RUNNING, 4)
		s.members[0].order(instance(9, vmA, pb.State_STATE_ABSENT))
		time.Sleep(10 * time.Second)
		if g, _ := s.host.Guest(vmA); !g.Running {
			t.Fatal("an order of the old leader was obeyed")
		}
		// After a restart the term is still known.
		s.kill()
		s.start()
		s.settled(1, vmA, pb.State_STATE_RUNNING, 4)
		time.Sleep(10 * time.Second)
		if g, _ := s.host.Guest(vmA); !g.Running {
			t.Fatal("an order of the old leader was obeyed after a restart")
		}
		hello := s.members[1].lastHello()
		want := model.OrdersDigest([]model.OrderKey{{Object: vmA, Generation: 4}})
		if string(hello.GetOrdersDigest()) != string(want) || hello.GetTerm() != 2 || hello.GetGeneration() != 4 {
			t.Errorf("hello %v does not describe the orders held", hello)
		}
	})
}

func TestAgentLeavesALeaderThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		s.start()
		time.Sleep(5 * time.Second)
		hellos, fulls := s.members[0].counts()
		if hellos != 1 || fulls != 1 {
			t.Fatalf("%d sessions with %d full reports", hellos, fulls)
		}
		s.members[0].setPermit(0, true)
		time.Sleep(10 * time.Second)
		if hellos, _ = s.members[0].counts(); hellos < 2 {
			t.Error("a leader that answers no heartbeat is kept")
		}
	})
}

func TestAgentReconnectsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		s.start()
		time.Sleep(time.Second)
		s.members[0].down()
		time.Sleep(time.Minute)
		s.members[0].up()
		time.Sleep(2 * time.Second)
		if hellos, _ := s.members[0].counts(); hellos != 2 {
			t.Errorf("%d sessions two seconds after the coordinator came back", hellos)
		}
	})
}

func TestAgentKeepsIdleSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2)
		s.start()
		time.Sleep(20 * time.Minute)
		for i, m := range s.members {
			if hellos, _ := m.counts(); hellos != 1 {
				t.Errorf("member %d saw %d sessions: idle streams must not be ended", i, hellos)
			}
		}
	})
}

func TestAHangingObjectBlocksNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		small := func(o *pb.Order) { o.Spec.GetInstance().MemoryBytes = 1 << 30 }
		release := s.host.Inject(hvsim.Fault{Object: vmA, Hang: true})
		defer release()
		c.order(instance(2, vmA, pb.State_STATE_RUNNING, small), instance(2, vmB, pb.State_STATE_RUNNING, small))
		s.start()
		s.settled(0, vmB, pb.State_STATE_RUNNING, 2)
		s.status(0, vmA, func(st *pb.Status) bool { return st.GetPhase() == pb.Phase_PHASE_UNKNOWN })
		release()
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
	})
}

func TestAgentEndsATermLocally(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		c.order(instance(2, vmA, pb.State_STATE_RUNNING, func(o *pb.Order) {
			o.Spec.GetInstance().TermEnd = timestamppb.New(time.Now().Add(5 * time.Minute))
		}))
		s.start()
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
		c.down()
		time.Sleep(6 * time.Minute)
		c.up()
		st := s.status(0, vmA, func(st *pb.Status) bool { return st.GetState() == pb.State_STATE_SAVED })
		if st.GetNote() != "term ended locally" {
			t.Errorf("note %q", st.GetNote())
		}
	})
}

func TestAgentProbesHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		network := &pb.Order{Object: "network/n", Kind: pb.Kind_KIND_NETWORK, Generation: 2, Spec: &pb.Spec{
			State: pb.State_STATE_PRESENT, Parameters: &pb.Spec_Network{Network: &pb.NetworkSpec{
				Name: "prod", Bridge: "br-prod", Role: pb.NetworkRole_NETWORK_ROLE_PRODUCTION, ProbeAddress: "10.10.0.2/24",
			}},
		}}
		s.host.SetGuest(vmA, hvsim.GuestBehaviour{HealthyAfter: 2 * time.Second})
		c.order(network, instance(2, vmA, pb.State_STATE_RUNNING, func(o *pb.Order) {
			i := o.Spec.GetInstance()
			i.Nics = []*pb.Nic{{Network: "prod", Bridge: "br-prod", Mac: "52:54:00:aa:00:01", Address: "10.10.0.11/24"}}
			i.Health = &pb.Health{Http: "http://{address}:8080/health", Within: durationpb.New(time.Minute)}
		}))
		s.start()
		health := func(want pb.HealthState) func(*pb.Status) bool {
			return func(st *pb.Status) bool { return st.GetInstance().GetHealth() == want }
		}
		s.status(0, vmA, health(pb.HealthState_HEALTH_STATE_PENDING))
		s.status(0, vmA, health(pb.HealthState_HEALTH_STATE_HEALTHY))
		s.host.SetGuest(vmA, hvsim.GuestBehaviour{NeverHealthy: true})
		s.status(0, vmA, health(pb.HealthState_HEALTH_STATE_UNHEALTHY))
	})
}

func TestNewRefusesMissingOptions(t *testing.T) {
	_, err := New(Options{})
	if err == nil || !strings.Contains(err.Error(), "journal") || !strings.Contains(err.Error(), "boot id") {
		t.Errorf("not all that is missing is named: %v", err)
	}
}

// TestAgentTakesAHugeOrder: an order as large as a message can be must not make the journal fail,
// because an agent without a journal ends.
func TestAgentTakesAHugeOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		s.members[0].order(instance(2, vmA, pb.State_STATE_RUNNING, func(o *pb.Order) {
			o.Spec.GetInstance().UserData = make([]byte, 31<<20)
		}))
		s.start()
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
		s.kill()
		s.start()
		s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
	})
}

// TestAgentIsHeld: a coordinator that leads and holds the agent gets its statuses and gives nothing.
func TestAgentIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		c.held = "the agent has another journal"
		c.setPermit(0, false)
		id := model.ObjectID(vmA)
		spec := &pb.InstanceSpec{Vcpus: 1, MemoryBytes: 1 << 30}
		if err := s.host.Define(t.Context(), hypervisor.Definition{ID: id, Owner: "web", Spec: spec}); err != nil {
			t.Fatal(err)
		}
		if err := s.host.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		s.start()
		st := s.status(0, vmA, func(st *pb.Status) bool { return st.GetState() == pb.State_STATE_RUNNING })
		if st.GetPhase() != pb.Phase_PHASE_WAITING || st.GetGeneration() != 0 {
			t.Errorf("status %v", st)
		}
		time.Sleep(time.Minute)
		if n := s.host.History()[id]; n.Stops+n.Kills+n.Removes+n.Saves != 0 {
			t.Errorf("a held agent touched what it found: %+v", n)
		}
	})
}
