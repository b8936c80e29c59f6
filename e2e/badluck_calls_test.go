package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
)

// failpoints are where the agents of the recovery hosts die, each once (cmd/agent, built with the tag failpoint): between
// the journal's intent and the driver's call, and between the call's end and the agent's knowing of it.
var failpoints = []string{"before Save", "after Save", "before Start", "after Start", "before Restore", "after Restore"}

// killAgentsAroundCalls kills both agents at every one of these points in one failover and failback.
func killAgentsAroundCalls(ctx context.Context, t *testing.T, r *round) {
	hosts := []*lab.Host{r.H1, r.H2}
	for _, h := range hosts {
		if err := os.WriteFile(failpointsOf(h), []byte(strings.Join(failpoints, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	supervisor, stop := context.WithCancel(ctx)
	defer stop()
	restarted := make(chan error, 1)
	go func() { restarted <- supervise(supervisor, r.Site, hosts) }()
	sworn(nil)(ctx, t, r)
	stop()
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, h := range hosts {
		text, err := os.ReadFile(failpointsOf(h))
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, strings.Fields(strings.ReplaceAll(string(text), " ", "-"))...)
		if err := os.Remove(failpointsOf(h)); err != nil {
			t.Fatal(err)
		}
	}
	// The protected VM starts on one of them only.
	if slices.Sort(left); !slices.Equal(left, []string{"after-Start", "before-Start"}) {
		t.Errorf("nobody died at %q", left)
	}
}

func failpointsOf(h *lab.Host) string { return filepath.Join(h.Dir, "services", "agent", "failpoints") }

// supervise starts agents again that have died, as systemd does, until the context ends.
func supervise(ctx context.Context, s *site.Site, hosts []*lab.Host) error {
	for {
		var dead *lab.Host
		select {
		case <-ctx.Done():
			return nil
		case <-s.Process(hosts[0]).Done():
			dead = hosts[0]
		case <-s.Process(hosts[1]).Done():
			dead = hosts[1]
		}
		if err := s.StartAgent(dead); err != nil {
			return err
		}
	}
}

// started waits until QEMU was started for the protected VM of a round, and returns its host.
func (r *round) started(ctx context.Context, t *testing.T) (host *lab.Host) {
	t.Helper()
	eventually(ctx, t, phaseLimit, "a start", func(context.Context) error {
		for _, h := range []*lab.Host{r.H1, r.H2} {
			starts, err := site.QEMUStartsOn(h)
			if err != nil {
				return err
			}
			if starts[fmt.Sprintf("hs-sworn-page-e%d", r.number)] > 0 {
				host = h
				return nil
			}
		}
		return errors.New("libvirt has logged no start")
	})
	return host
}

// killLeaderInStart kills the leader while the protected VM boots. Meanwhile the owner of the preempted lease extends it.
func killLeaderInStart(ctx context.Context, t *testing.T, r *round) {
	sworn(func(ctx context.Context, t *testing.T, s *site.Site) {
		r.started(ctx, t)
		killLeader(ctx, t, s)
		run(ctx, t, s, "lease", "extend", "web-1", "--by", "1h")
	})(ctx, t, r)
}

// rebootInStart takes the power of the host on which the protected VM boots. When the host is back, its agent reaches nobody at
// first: then nothing may start. What was saved there is on its disk.
func rebootInStart(ctx context.Context, t *testing.T, r *round) {
	sworn(func(ctx context.Context, t *testing.T, s *site.Site) {
		h := r.started(ctx, t)
		if err := h.Crash(ctx); err != nil {
			t.Fatal(err)
		}
		before := r.starts(t)
		if err := errors.Join(h.LinkDown(ctx, "mgmt0"), h.StartLibvirt(ctx)); err != nil {
			t.Fatal(err)
		}
		log := s.Process(h).Log()
		tries := coordinatorNotReached(t, log)
		if err := s.StartAgent(h); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, phaseLimit, "the agent looks for a coordinator", func(context.Context) error {
			if n := coordinatorNotReached(t, log) - tries; n < 3*len(s.Coordinators) {
				return fmt.Errorf("it has tried %d times", n)
			}
			return nil
		})
		if now := r.starts(t); fmt.Sprint(now) != fmt.Sprint(before) {
			t.Errorf("QEMU was started without a session after a reboot: %v, before %v", now, before)
		}
		if err := h.LinkUp(ctx, "mgmt0"); err != nil {
			t.Fatal(err)
		}
		// libvirt does not clean up behind a QEMU that it has not seen end; the rest a boot makes anew.
		r.again, r.dust = 1, []string{" file lib/qemu/", " file run/mount/"}
	})(ctx, t, r)
}

func coordinatorNotReached(t *testing.T, log string) int {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "coordinator not reached")
}
