package e2e

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
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
	ctx, s := newSite(t, "e2ebad")
	applyPlan(ctx, t, s, "static", site.StaticPage)
	run(ctx, t, s, "lease", "create", "-p", "web", "--vm", "2x2cpu,128MiB", "--image", "tiny", "--term", "1h",
		"--on-preempt", "save", "--grace", "1s", "--wait")
	r := &round{Site: s, before: readLease(ctx, t, s)}
	r.lent = answers(ctx, t, s, r.before)
	if _, err := s.AwaitProduction(ctx, site.ProductionAddress); err != nil {
		t.Fatal(err)
	}
	r.inventory = inventory(ctx, t, s)
	for _, misfortune := range []struct {
		name   string
		strike func(context.Context, *testing.T, *site.Site)
	}{
		{"none", func(context.Context, *testing.T, *site.Site) {}},
		{"leader killed right after declare", killLeader},
		{"agent killed in mid-save", killAgentInSave},
		{"libvirtd restarted in mid-save", restartLibvirtInSave},
		{"leader and agent killed at once", func(ctx context.Context, t *testing.T, s *site.Site) {
			killAgentInSave(ctx, t, s)
			killLeader(ctx, t, s)
		}},
	} {
		if !t.Run(misfortune.name, func(t *testing.T) { r.play(ctx, t, misfortune.strike) }) {
			return // The next round would begin from a broken site.
		}
	}
}

// round is one failover and failback of the plan "static", and what must be true after it.
type round struct {
	*site.Site
	number    int
	before    site.Lease
	lent      map[string]site.Answer
	inventory []string
}

func (r *round) play(ctx context.Context, t *testing.T, strike func(context.Context, *testing.T, *site.Site)) {
	r.number++
	name := fmt.Sprintf("fo-%d", r.number)
	starts := r.starts(t)
	begin := time.Now()
	run(ctx, t, r.Site, "failover", "declare", "static", "--reason", t.Name(), "--yes")
	strike(ctx, t, r.Site)
	r.awaitPhase(ctx, t, name, "completed")
	t.Logf("completed after %v", time.Since(begin).Round(10*time.Millisecond))
	if _, err := r.AwaitProduction(ctx, "10.10.0.12"); err != nil {
		t.Fatal(err)
	}
	if phase := readLease(ctx, t, r.Site).Phase; phase != "LEASE_PHASE_PREEMPTED" {
		t.Errorf("the lease is %s", phase)
	}
	run(ctx, t, r.Site, "failback", "static", "--reason", t.Name(), "--yes")
	r.awaitPhase(ctx, t, name, "failed back")
	// The plan's fence destroyed the production VM; its people start it again.
	if err := r.StartProduction(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.AwaitProduction(ctx, site.ProductionAddress); err != nil {
		t.Fatal(err)
	}
	r.verify(ctx, t, starts)
}

// verify compares with the time before the round.
func (r *round) verify(ctx context.Context, t *testing.T, starts map[string]int) {
	t.Helper()
	back := readLease(ctx, t, r.Site)
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
	if diff := cmp.Diff(r.inventory, inventory(ctx, t, r.Site)); diff != "" {
		t.Errorf("something was left behind (-before +after):\n%s", diff)
	}
	want := maps.Clone(starts)
	want["hs-web-1-0"]++
	want["hs-web-1-1"]++
	want[fmt.Sprintf("hs-static-page-e%d", r.number)]++
	if diff := cmp.Diff(want, r.starts(t)); diff != "" {
		t.Errorf("QEMU was started not as often as needed (-want +got):\n%s", diff)
	}
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
