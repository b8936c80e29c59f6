package lab_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/e2e/lab"
)

func TestKnot(t *testing.T) {
	lab.Require(t, lab.FeatureKnot)
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	l := newLab(ctx, t, "labk")
	dns := addHost(ctx, t, l, lab.HostOptions{Name: "dns"})
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMw=="
	s, err := l.StartKnot(ctx, dns, lab.KnotOptions{Zone: "corp.example", Records: []string{"erp A 10.1.0.5"}, KeyName: "hs", KeySecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr != dns.MgmtAddr+":53" {
		t.Errorf("address %s", s.Addr)
	}
	before := inventory(ctx, t, l)
	update := func(key, lines string) error {
		cmd := dns.Command(ctx, "knsupdate", "-y", "hmac-sha256:"+key)
		cmd.Stdin = strings.NewReader("server " + dns.MgmtAddr + "\nzone corp.example\n" + lines + "\nsend\n")
		return cmd.Run()
	}
	if err := update("hs:d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3I=", "add web.corp.example 30 A 10.1.0.9"); err == nil {
		t.Error("an update with a wrong key was accepted")
	}
	if diff := cmp.Diff(before, inventory(ctx, t, l)); diff != "" {
		t.Errorf("a refused update changed something:\n%s", diff)
	}
	if err := update("hs:"+secret, "add web.corp.example 30 A 10.1.0.9"); err != nil {
		t.Fatal(err)
	}
	if lines := inventory(ctx, t, l); !slices.Contains(lines, "dns corp.example web.corp.example. 30 IN A 10.1.0.9") {
		t.Errorf("new record not in the inventory:\n%s", strings.Join(lines, "\n"))
	}
	if err := update("hs:"+secret, "del web.corp.example A"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, inventory(ctx, t, l)); diff != "" {
		t.Errorf("inventory before and after (-before +after):\n%s", diff)
	}
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestMonitoring(t *testing.T) {
	lab.Require(t, lab.FeaturePrometheus)
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	l := newLab(ctx, t, "labm")
	mon := addHost(ctx, t, l, lab.HostOptions{Name: "mon"})
	am, err := l.StartAlertmanager(ctx, mon, "route: {receiver: none}\nreceivers: [{name: none}]\n")
	if err != nil {
		t.Fatal(err)
	}
	config := "global: {scrape_interval: 1s}\nalerting: {alertmanagers: [{static_configs: [{targets: ['" + am.Addr + "']}]}]}\n"
	prom, err := l.StartPrometheus(ctx, mon, config)
	if err != nil {
		t.Fatal(err)
	}
	var found struct {
		Data struct {
			Active []struct {
				URL string `json:"url"`
			} `json:"activeAlertmanagers"`
		} `json:"data"`
	}
	eventually(ctx, t, "prometheus finds its alertmanager", func(ctx context.Context) error {
		if err := get(ctx, l.HTTPClient(nil), "http://"+prom.Addr+"/api/v1/alertmanagers", &found); err != nil {
			return err
		}
		if len(found.Data.Active) != 1 || !strings.Contains(found.Data.Active[0].URL, am.Addr) {
			return errors.New("not yet")
		}
		return nil
	})
	if _, err := l.StartPrometheus(ctx, mon, config); err == nil {
		t.Error("a second prometheus started at the same address")
	}
	if err := prom.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.StartPrometheus(ctx, mon, "nonsense: true\n"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("prometheus with a broken configuration: %v", err)
	}
}

// TestCleanStale kills a test process that holds a lab and removes what it left.
func TestCleanStale(t *testing.T) {
	lab.Require(t)
	const name = "labs"
	if dir := os.Getenv("LAB_TEST_DIE_IN"); dir != "" {
		holdLab(t, name, dir)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	if err := lab.CleanStale(ctx, "labnone"); err != nil {
		t.Errorf("clean a lab that never was: %v", err)
	}
	dir := shortDir(t)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCleanStale$")
	cmd.Env = append(os.Environ(), "LAB_TEST_DIE_IN="+dir)
	out, err := cmd.CombinedOutput()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("helper ended with %v: %s", err, out)
	}
	if left := leftovers(t, name, dir+"/lab-"+name); len(left) < 5 {
		t.Errorf("the dead lab left only %q: the check for leftovers sees nothing", left)
	}
	if err := lab.CleanStale(ctx, name); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, name, dir+"/lab-"+name); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, "\n"))
	}
}

// holdLab makes a lab, checks that nobody else can take it, and dies.
func holdLab(t *testing.T, name, dir string) {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Options{Name: name, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := addHost(t.Context(), t, l, lab.HostOptions{Name: "h1"})
	if _, err := h.Start("sleeper", h.Command(context.Background(), "sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	if err := lab.CleanStale(t.Context(), name); !errors.Is(err, lab.ErrInUse) {
		t.Fatalf("clean a lab in use: %v", err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestMissing(t *testing.T) {
	lab.Require(t)
	t.Setenv("PATH", "")
	missing := lab.Missing(lab.FeatureKnot)
	if !slices.Contains(missing, "package: knot") || !slices.Contains(missing, "package: nftables") {
		t.Errorf("missing without any program: %q", missing)
	}
	if slices.Contains(missing, "package: prometheus") {
		t.Errorf("a feature that was not asked for is missing: %q", missing)
	}
}
