package e2e

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
)

// testLimit bounds one test on a site; 2 minutes were seen on a busy machine.
const testLimit = 5 * time.Minute

// newSite builds the programs and makes a site that ends with the test.
func newSite(t *testing.T, name string) (context.Context, *site.Site) {
	t.Helper()
	return buildSite(t, name, testLimit)
}

// buildSite is newSite with another limit and flags for the build.
func buildSite(t *testing.T, name string, limit time.Duration, flags ...string) (context.Context, *site.Site) {
	t.Helper()
	lab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	bin := t.TempDir()
	for program, pkg := range map[string]string{"hotspare": "hotspare", "hotspare-coordinator": "coordinator", "hotspare-agent": "agent"} {
		args := append([]string{"build", "-buildvcs=false", "-o", filepath.Join(bin, program)}, flags...)
		cmd := exec.CommandContext(ctx, "go", append(args, "../cmd/"+pkg)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	s, err := site.New(ctx, site.Options{Name: name, Bin: bin, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%v", s.Logs())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, s
}

// run runs the command line tool.
func run(ctx context.Context, t *testing.T, s *site.Site, args ...string) string {
	t.Helper()
	begin := time.Now()
	out, err := s.Run(ctx, args...)
	t.Logf("$ hotspare %s (%v)\n%s", strings.Join(args, " "), time.Since(begin).Round(time.Millisecond), out)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// inventory lists everything that exists at the site.
func inventory(ctx context.Context, t *testing.T, s *site.Site) []string {
	t.Helper()
	lines, err := s.Inventory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// applyPlan declares a plan and waits until it is ready.
func applyPlan(ctx context.Context, t *testing.T, s *site.Site, name, manifests string) {
	t.Helper()
	if err := s.Apply(ctx, manifests); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitReady(ctx, name); err != nil {
		t.Fatal(err)
	}
}

// readLease reads the only lease of a test.
func readLease(ctx context.Context, t *testing.T, s *site.Site) site.Lease {
	t.Helper()
	lease, err := s.Lease(ctx, "web-1")
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

// pollEvery is the pause between two looks at a condition: short, so that a save under way is seen.
const pollEvery = 10 * time.Millisecond

// eventually waits until the condition holds.
func eventually(ctx context.Context, t *testing.T, limit time.Duration, what string, condition func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := condition(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("wait for %s: %v: %v", what, ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

// answers asks every instance of some leases.
func answers(ctx context.Context, t *testing.T, s *site.Site, leases ...site.Lease) map[string]site.Answer {
	t.Helper()
	a, err := s.Answers(ctx, leases...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestLeaseReturnsAfterFailover lends all room, takes some back for a plan and returns it: the guests' memory went on.
func TestLeaseReturnsAfterFailover(t *testing.T) {
	ctx, s := newSite(t, "e2elease")
	applyPlan(ctx, t, s, "static", site.StaticPage)
	run(ctx, t, s, "lease", "create", "-p", "web", "--vm", "2x2cpu,128MiB", "--image", "tiny", "--term", "1h", "--on-preempt", "save", "--grace", "1s", "--wait")
	lease := readLease(ctx, t, s)
	first := answers(ctx, t, s, lease)
	if _, err := s.AwaitProduction(ctx, site.ProductionAddress); err != nil {
		t.Fatal(err)
	}
	before := inventory(ctx, t, s)

	run(ctx, t, s, "failover", "declare", "static", "--reason", "test", "--yes", "--wait")
	if out := run(ctx, t, s, "failover", "describe", "fo-1"); strings.Count(out, "its room on ") != 1 || strings.Count(out, "preempted as a whole") != 1 {
		t.Errorf("one VM is in the way, the other only belongs to the same lease:\n%s", out)
	}
	if a, err := s.AwaitProduction(ctx, "10.10.0.12"); err != nil || a.BootID == "" {
		t.Errorf("the protected VM answered %+v, %v", a, err)
	}
	run(ctx, t, s, "status")
	if preempted, err := s.Lease(ctx, "web-1"); err != nil || preempted.Phase != "LEASE_PHASE_PREEMPTED" {
		t.Errorf("the lease is %+v, %v", preempted, err)
	}
	run(ctx, t, s, "failback", "static", "--reason", "test", "--yes", "--wait")

	// The plan's fence destroyed the production VM; its people start it again.
	if err := s.StartProduction(ctx); err != nil {
		t.Error(err)
	}
	back := readLease(ctx, t, s)
	if diff := cmp.Diff(lease.Instances, back.Instances); diff != "" {
		t.Errorf("the lease came back changed (-before +after):\n%s", diff)
	}
	for object, after := range answers(ctx, t, s, back) {
		if was := first[object]; after.BootID != was.BootID || after.Counter <= was.Counter {
			t.Errorf("%s was %+v and is %+v", object, was, after)
		}
	}
	if diff := cmp.Diff(before, inventory(ctx, t, s)); diff != "" {
		t.Errorf("the failover left something behind (-before +after):\n%s", diff)
	}
	starts, err := s.QEMUStarts()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"hs-web-1-0": 2, "hs-web-1-1": 2, "hs-static-page-e1": 1}, starts); diff != "" {
		t.Errorf("QEMU was started not as often as needed (-want +got):\n%s", diff)
	}
}
