package clustertest

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
	storagesim "github.com/hotspare/hotspare/internal/storage/sim"
)

var (
	cycles = flag.Int("cycles", 150, "failover cycles of TestCycles, each of a random seed")
	seed   = flag.Uint64("seed", 0, "the one seed that TestCycles runs; 0: new ones")
)

// TestCycles mixes everything: leases come and go, coordinators and agents die, links are cut, hosts lose
// their power, drivers fail and lie, failovers overlap; then all is repaired, everything goes back, and
// the invariants must hold. The order of goroutines is not part of the seed: a seed repeats the story,
// and nearly always the fault.
func TestCycles(t *testing.T) {
	seeds := []uint64{*seed}
	if *seed == 0 {
		seeds = nil
		source := rand.New(rand.NewPCG(freshSeed(), 0))
		for range *cycles {
			seeds = append(seeds, source.Uint64()>>1)
		}
	}
	for _, n := range seeds {
		ok := t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { (&cycle{site: newSite(t, 3), r: rand.New(rand.NewPCG(n, 0))}).run() })
		})
		if !ok {
			t.Fatalf("seed %d; again: go test ./internal/clustertest -run TestCycles -seed %d", n, n)
		}
	}
}

// cycle is one random story.
type cycle struct {
	*site
	r *rand.Rand
	// spoilt guests lost their RAM for a reason that is part of the story.
	spoilt map[string]bool
}

func (c *cycle) pause(limit time.Duration) { time.Sleep(time.Duration(c.r.Int64N(int64(limit)))) }

func (c *cycle) pick(names []string) string { return names[c.r.IntN(len(names))] }

func (c *cycle) run() {
	var leases []*pb.Lease
	for range 1 + c.r.IntN(4) {
		l, err := c.tryLease(uint32(1+c.r.IntN(2)), uint32(2+2*c.r.IntN(4)), uint64(4+4*c.r.IntN(6)), func(sp *pb.LeaseSpec) {
			if c.r.IntN(4) == 0 {
				sp.OnPreempt, sp.Grace = pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN, durationpb.New(5*time.Second)
			}
		})
		if status.Code(err) == codes.ResourceExhausted {
			continue // It does not fit any more.
		}
		c.must(err)
		leases = append(leases, l)
	}
	guests := c.guests(leases...)
	var runs []string
	at := c.r.IntN(4)
	for i := range 8 {
		if i == at {
			runs = append(runs, c.declare("webshop").GetName())
		}
		if i == at+2 && c.r.IntN(2) == 0 {
			runs = append(runs, c.declare("billing").GetName())
		}
		c.fault()
		c.pause(3 * time.Second)
	}
	c.repair()
	for _, f := range runs {
		c.ends(f)
	}
	if c.r.IntN(2) == 0 {
		slices.Reverse(runs)
	}
	wrote := map[string]uint64{}
	for _, f := range runs {
		discard := c.r.IntN(4) == 0
		if !discard {
			maps.Copy(wrote, c.write(f))
		}
		c.failback(f, discard)
		if c.r.IntN(2) == 0 {
			c.fault()
			c.pause(2 * time.Second)
			c.fault()
			c.pause(2 * time.Second)
			c.repair()
		}
	}
	for _, f := range runs {
		c.reaches(f, pb.RunPhase_RUN_PHASE_FAILED_BACK, 20*time.Minute)
	}
	c.carried(wrote)
	leases = slices.DeleteFunc(leases, func(l *pb.Lease) bool {
		return c.state().Lease(l.GetName()).GetPhase() == pb.LeasePhase_LEASE_PHASE_ENDED
	})
	c.kept(nil, leases)
	c.memory(guests, leases)
	c.finish()
}

// memory compares the RAM of guests that nobody had a reason to lose.
func (c *cycle) memory(before view, leases []*pb.Lease) {
	after := c.guests(leases...)
	var lead *member // The last fault may have cost the site its leader a moment ago.
	c.until("a leader that has heard from all hosts", time.Minute, func() bool {
		lead = c.leader()
		return lead != nil && !slices.ContainsFunc(leases, func(l *pb.Lease) bool {
			return slices.ContainsFunc(l.GetInstances(), func(i *pb.LeaseInstance) bool { return !lead.c.Live().Agent(i.GetHost()).Full })
		})
	})
	for _, l := range leases {
		if l.GetSpec().GetOnPreempt() != pb.ReclaimAction_RECLAIM_ACTION_SAVE && l.GetSpec().GetOnPreempt() != 0 {
			continue
		}
		for _, i := range l.GetInstances() {
			was, is := before[i.GetObject()], after[i.GetObject()]
			note := lead.c.Live().Raw(i.GetObject()).GetNote()
			if was.BootID != is.BootID && note == "" && !c.spoilt[i.GetHost()] {
				c.t.Errorf("invariant 6, leases: the RAM of %s was lost and nobody is told", i.GetObject())
			}
		}
	}
}

// ends waits for a run; a person retries what failed for good.
func (c *cycle) ends(name string) {
	c.t.Helper()
	for range 6 {
		if c.within(3*time.Minute, func() bool { return c.phase(name) == pb.RunPhase_RUN_PHASE_COMPLETED }) {
			return
		}
		// Nothing failed, or the run moved on meanwhile: the wait goes on.
		_ = c.control(name, pb.ControlAction_CONTROL_ACTION_RETRY, "")
	}
	c.reaches(name, pb.RunPhase_RUN_PHASE_COMPLETED, time.Minute)
}

// repair ends all cuts and faults and starts what is down.
func (c *cycle) repair() {
	for _, n := range c.names {
		c.heal(n)
	}
	for _, n := range c.world.agents() {
		c.healAgent(n)
	}
	c.world.zone.Clear()
	c.world.fence.Clear()
	for _, n := range c.world.nets {
		n.Clear()
	}
	c.world.forget()
	c.allUp()
}

// fault lets one thing go wrong.
func (c *cycle) fault() {
	agent := c.pick(c.world.agents())
	host := c.pick(c.world.names)
	member := c.pick(c.names)
	switch c.r.IntN(14) {
	case 0, 1:
		c.killMember(member)
	case 2:
		if l := c.leader(); l != nil {
			c.killMember(l.name)
		}
	case 3:
		c.crashAgent(agent)
		c.pause(4 * time.Second)
		if !c.agents[agent].up {
			c.startAgent(agent)
		}
	case 4:
		c.trap(agent)
	case 5:
		c.partition(member)
		c.pause(4 * time.Second)
		c.heal(member)
	case 6:
		c.cutAgent(agent)
		c.pause(30 * time.Second)
		c.healAgent(agent)
	case 7:
		c.wire.block(agent, member)
		c.pause(5 * time.Second)
		c.wire.unblock(agent, member)
	case 8:
		c.power(host)
	case 9:
		c.change()
	default:
		c.lie(host)
	}
}

// killMember kills a coordinator unless the others are no quorum, and starts it again.
func (c *cycle) killMember(name string) {
	for _, m := range c.members {
		if !m.up {
			return
		}
	}
	c.crash(name)
	c.pause(3 * time.Second)
	c.restart(name)
}

func (c *cycle) power(host string) {
	if !c.agents[host].up {
		return
	}
	if c.spoilt == nil {
		c.spoilt = map[string]bool{}
	}
	c.spoilt[host] = true
	c.powerCut(host)
	c.pause(20 * time.Second)
	c.startAgent(host)
}

// trap kills an agent at the next driver call of a kind that it makes.
func (c *cycle) trap(agent string) {
	methods := []string{"Save", "Define", "Start", "Restore", "Remove"}
	pattern := "instance/*"
	switch agent {
	case storeAgent:
		methods, pattern = []string{"Promote", "Demote", "Announce", "Withdraw"}, "*"
	case eastAgent:
		methods, pattern = []string{"Fence", "Lift"}, "*"
	}
	after := c.r.IntN(2) == 0
	down := time.Duration(c.r.Int64N(int64(10 * time.Second)))
	c.world.at(point{host: agent, method: c.pick(methods), object: pattern, after: after}, func(point) {
		c.crashAgent(agent)
		time.AfterFunc(down, func() {
			if !c.agents[agent].up {
				c.startAgent(agent)
			}
		})
	})
}

// change does what users do.
func (c *cycle) change() {
	var active []string
	for l := range c.state().Leases() {
		if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ENDED {
			active = append(active, l.GetName())
		}
	}
	if c.r.IntN(2) == 0 && len(active) > 0 {
		c.release(c.pick(active))
		return
	}
	req := &pb.CreateLeaseRequest{RequestId: c.request(), Project: "web", Spec: &pb.LeaseSpec{
		Count: 1, Resources: &pb.Resources{Vcpus: 2, MemoryBytes: 4 << 30}, Image: "debian-12",
	}}
	if err := c.try(func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewLeaseServiceClient(conn).CreateLease(ctx, req)
		return err
	}); err != nil {
		c.t.Logf("no lease now: %v", err)
	}
}

// lie lets the next call of a driver be answered wrongly.
func (c *cycle) lie(host string) {
	switch c.r.IntN(5) {
	case 0:
		c.world.pool.Inject(storagesim.Fault{
			Method: c.pick([]string{"Promote", "Demote", "Receive"}), Lie: fault.Lie(1 + c.r.IntN(3)), Later: 3 * time.Second, Count: 1,
		})
	case 1:
		c.world.zone.Inject(c.wrong("Announce", "Withdraw", "Read"))
	case 2:
		c.world.fence.Inject(c.wrong("Fence", "Lift"))
	case 3:
		c.world.nets[host].Inject(c.wrong("Ensure", "Remove"))
	default:
		c.world.hosts[host].Inject(sim.Fault{
			Method: c.pick([]string{"Save", "Define", "Start", "Restore", "Stop", "Remove"}), Object: "instance/*",
			Lie: fault.Lie(1 + c.r.IntN(3)), Later: 3 * time.Second, Count: 1,
		})
	}
}

// wrong is one call of one of the methods that goes wrong in any way.
func (c *cycle) wrong(methods ...string) fault.Fault {
	ways := fault.Ways(3 * time.Second)
	f := ways[c.pick(slices.Sorted(maps.Keys(ways)))]
	f.Method, f.Count = c.pick(methods), 1
	return f
}

// forget takes all traps away.
func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.traps = nil
}

// freshSeed returns where the seeds come from: what tools/test.sh derived from the commit, so that one
// commit has one verdict, or else chance.
func freshSeed() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("HOTSPARE_SEED"), 10, 64); err == nil {
		return n
	}
	return rand.Uint64()
}
