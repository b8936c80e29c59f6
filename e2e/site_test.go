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

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
)

// testLimit bounds one test on a site; 2 minutes were seen on a busy machine.
const testLimit = 8 * time.Minute

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
