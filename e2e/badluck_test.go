package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
)

// TestBadLuck runs the same failover and failback again and again on one site, each time with another misfortune. The outcome must
// be as if nothing had happened, only later: who runs what is asked from the guests, starts are counted from libvirt's log.
func TestBadLuck(t *testing.T) {
	ctx, s := buildSite(t, "e2ebad", badLuckLimit, "-tags=failpoint")
	t.Run("strangers are refused", func(t *testing.T) { refuseStrangers(ctx, t, s) })
	applyPlan(ctx, t, s, "static", site.StaticPage+site.PageTrigger)
	t.Run("what fits nowhere is refused", func(t *testing.T) { refuseLeases(ctx, t, s) })
	t.Run("the guarantee is lost with its hosts", func(t *testing.T) { loseGuarantee(ctx, t, s) })
	run(ctx, t, s, "lease", "create", "-p", "web", "--vm", "2x2cpu,128MiB", "--image", "tiny", "--term", "1h",
		"--on-preempt", "save", "--grace", "1s", "--wait")
	r := &round{Site: s, before: readLease(ctx, t, s)}
	r.lent = answers(ctx, t, s, r.before)
	if _, err := s.AwaitProduction(ctx, site.ProductionAddress); err != nil {
		t.Fatal(err)
	}
	r.inventory = inventory(ctx, t, s)
	for _, misfortune := range []struct {
		name string
		play func(context.Context, *testing.T, *round)
	}{
		{"none but a hundred alerts", alerts},
		{"leader killed right after declare", sworn(killLeader)},
		{"agent killed in mid-save", sworn(killAgentInSave)},
		{"libvirtd restarted in mid-save", sworn(restartLibvirtInSave)},
		{"leader and agent killed at once, in mid-save", sworn(killBothInSave)},
		{"agents killed before and after every call", killAgentsAroundCalls},
		{"leader killed in the middle of a start", killLeaderInStart},
		{"host rebooted in the middle of a start", rebootInStart},
		{"agent killed while a VM boots on which another one depends", dependents},
		{"lent VMs that cannot be saved, and too little room", crowdOut}, // the last one: it ends the lease
	} {
		if !t.Run(misfortune.name, func(t *testing.T) { misfortune.play(ctx, t, r) }) {
			return // The next round would begin from a broken site.
		}
	}
}

// badLuckLimit bounds all rounds together; 3 minutes were seen on a busy machine.
const badLuckLimit = 8 * time.Minute

// swornPage is site.StaticPage with an oath instead of the power fence, so that no round has to wait for
// production to boot again.
var swornPage = strings.NewReplacer("static", "sworn", "power: {target: east-power}, timeout: 20s", "oath: {}").Replace(site.StaticPage)

// round is one failover and failback of a plan, and what must be true after it.
type round struct {
	*site.Site
	number int
	// again is how often the protected VM has to be started once more.
	again int
	// dust is what a power cut leaves behind that is nobody's of ours: parts of lines of the inventory.
	dust      []string
	before    site.Lease
	lent      map[string]site.Answer
	inventory []string
}

// acts are what one round does.
type acts struct {
	plan string
	// others are the workloads that it has besides "page".
	others []string
	// declare declares; nil: by the command line, and somebody swears that the old side is dead.
	declare func()
	// strike does the harm, right after that.
	strike func(context.Context, *testing.T, *site.Site)
	// look is called while the failover is complete, restore after the failback.
	look, restore func()
}

// sworn is a round with a misfortune while the oath is waited for, or right after it.
func sworn(strike func(context.Context, *testing.T, *site.Site)) func(context.Context, *testing.T, *round) {
	return func(ctx context.Context, t *testing.T, r *round) { r.play(ctx, t, acts{plan: "sworn", strike: strike}) }
}

func (r *round) play(ctx context.Context, t *testing.T, a acts) {
	r.connected(ctx, t)
	r.number++
	name := fmt.Sprintf("fo-%d", r.number)
	starts := r.starts(t)
	begin := time.Now()
	if a.declare == nil {
		run(ctx, t, r.Site, "failover", "declare", a.plan, "--reason", t.Name(), "--yes")
		run(ctx, t, r.Site, "failover", "swear", name, "--reason", "it burned down", "--yes")
	} else {
		a.declare()
	}
	if a.strike != nil {
		a.strike(ctx, t, r.Site)
	}
	r.awaitPhase(ctx, t, name, "completed")
	t.Logf("completed after %v", time.Since(begin).Round(10*time.Millisecond))
	if _, err := r.AwaitProduction(ctx, "10.10.0.12"); err != nil {
		t.Fatal(err)
	}
	if phase := readLease(ctx, t, r.Site).Phase; phase != "LEASE_PHASE_PREEMPTED" {
		t.Errorf("the lease is %s", phase)
	}
	if a.look != nil {
		a.look()
	}
	run(ctx, t, r.Site, "failback", a.plan, "--reason", t.Name(), "--yes")
	r.awaitPhase(ctx, t, name, "failed back")
	if a.restore != nil {
		a.restore()
	}
	starts["hs-web-1-0"]++
	starts["hs-web-1-1"]++
	starts[fmt.Sprintf("hs-%s-page-e%d", a.plan, r.number)] += 1 + r.again
	r.again = 0
	for _, w := range a.others {
		starts[fmt.Sprintf("hs-%s-%s-e%d", a.plan, w, r.number)]++
	}
	r.verify(ctx, t, starts)
}

// connected waits until all agents are back: nothing is placed on a host whose agent was killed just now.
func (r *round) connected(ctx context.Context, t *testing.T) {
	t.Helper()
	eventually(ctx, t, phaseLimit, "all agents to be connected", func(ctx context.Context) error {
		out, err := r.Run(ctx, "--timeout", "5s", "status")
		if err == nil && !strings.Contains(out, "5 of 5 connected") {
			err = fmt.Errorf("status says:\n%s", out)
		}
		return err
	})
}

// verify compares with the time before the round; starts is how often QEMU may have been started.
func (r *round) verify(ctx context.Context, t *testing.T, starts map[string]int) {
	t.Helper()
	back := readLease(ctx, t, r.Site)
	if back.EndsAt.Before(r.before.EndsAt) {
		t.Errorf("its term ended at %v and ends at %v: it should have stood still", r.before.EndsAt, back.EndsAt)
	}
	r.before.EndsAt = back.EndsAt
	if diff := cmp.Diff(r.before, back); diff != "" {
		t.Errorf("the lease came back changed (-before +after):\n%s", diff)
	}
	now := answers(ctx, t, r.Site, back)
	for object, a := range now {
		if was := r.lent[object]; a.BootID != was.BootID || a.Counter <= was.Counter {
			t.Errorf("%s was %+v and is %+v", object, was, a)
		}
	}
	r.lent = now
	if diff := cmp.Diff(r.swept(r.inventory), r.swept(inventory(ctx, t, r.Site))); diff != "" {
		t.Errorf("something was left behind (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(starts, r.starts(t)); diff != "" {
		t.Errorf("QEMU was started not as often as needed (-want +got):\n%s", diff)
	}
}

// swept leaves the dust out.
func (r *round) swept(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return slices.ContainsFunc(r.dust, func(part string) bool { return strings.Contains(line, part) })
	})
}

func (r *round) starts(t *testing.T) map[string]int {
	t.Helper()
	starts, err := r.QEMUStarts()
	if err != nil {
		t.Fatal(err)
	}
	return starts
}

// phaseLimit bounds a failover or a failback; with a killed leader 10 s were seen.
const phaseLimit = 2 * time.Minute

// awaitPhase waits until a failover is where it should be.
func (r *round) awaitPhase(ctx context.Context, t *testing.T, name, phase string) {
	t.Helper()
	eventually(ctx, t, phaseLimit, name+" "+phase, func(ctx context.Context) error {
		out, err := r.Run(ctx, "--timeout", "5s", "failover", "list")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if rest, found := strings.CutPrefix(line, name+" "); found && strings.HasPrefix(strings.TrimSpace(rest), phase) {
				return nil
			}
		}
		return fmt.Errorf("failover list says:\n%s", out)
	})
}

// killLeader kills the leading coordinator and starts it again when another one leads.
func killLeader(ctx context.Context, t *testing.T, s *site.Site) {
	t.Helper()
	leader := leading(ctx, t, s, nil)
	begin := time.Now()
	if err := s.Process(leader).Kill(ctx); err != nil {
		t.Fatal(err)
	}
	next := leading(ctx, t, s, leader)
	t.Logf("%s was killed, %s answers as leader after %v", leader.Name, next.Name, time.Since(begin).Round(10*time.Millisecond))
	if err := s.StartCoordinator(leader); err != nil {
		t.Fatal(err)
	}
}

// leading waits until a coordinator leads, other than the given one.
func leading(ctx context.Context, t *testing.T, s *site.Site, other *lab.Host) (leader *lab.Host) {
	t.Helper()
	eventually(ctx, t, phaseLimit, "a leader", func(ctx context.Context) error {
		out, err := s.Run(ctx, "--timeout", "5s", "status")
		if err != nil {
			return err
		}
		for _, c := range s.Coordinators {
			if c != other && strings.Contains(out, "leader "+c.Name) {
				leader = c
				return nil
			}
		}
		return fmt.Errorf("status says:\n%s", out)
	})
	return leader
}

// saving waits until a save is under way on some host, and returns the host.
func saving(ctx context.Context, t *testing.T, s *site.Site) (host *lab.Host) {
	t.Helper()
	eventually(ctx, t, phaseLimit, "a save", func(context.Context) error {
		for _, h := range []*lab.Host{s.H1, s.H2} {
			found, err := filepath.Glob(filepath.Join(h.Dir, "data", "instances", "*", "ram.partial"))
			if err != nil {
				return err
			}
			if len(found) > 0 {
				host = h
				return nil
			}
		}
		return fmt.Errorf("no ram.partial on any host")
	})
	return host
}

func killAgentInSave(ctx context.Context, t *testing.T, s *site.Site) {
	t.Helper()
	h := saving(ctx, t, s)
	if err := s.Process(h).Kill(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("the agent of %s was killed in mid-save", h.Name)
	if err := s.StartAgent(h); err != nil {
		t.Fatal(err)
	}
}

// killBothInSave kills the leader and an agent that saves, before either comes back.
func killBothInSave(ctx context.Context, t *testing.T, s *site.Site) {
	t.Helper()
	leader := leading(ctx, t, s, nil)
	h := saving(ctx, t, s)
	if err := errors.Join(s.Process(h).Kill(ctx), s.Process(leader).Kill(ctx)); err != nil {
		t.Fatal(err)
	}
	next := leading(ctx, t, s, leader)
	t.Logf("%s and the agent of %s were killed in mid-save, %s leads", leader.Name, h.Name, next.Name)
	if err := errors.Join(s.StartAgent(h), s.StartCoordinator(leader)); err != nil {
		t.Fatal(err)
	}
}

func restartLibvirtInSave(ctx context.Context, t *testing.T, s *site.Site) {
	t.Helper()
	h := saving(ctx, t, s)
	if err := h.KillLibvirt(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("libvirtd of %s was killed in mid-save", h.Name)
	if err := h.StartLibvirt(ctx); err != nil {
		t.Fatal(err)
	}
}
