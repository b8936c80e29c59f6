package libvirt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fence"
	"github.com/hotspare/hotspare/internal/fence/conformance"
	"github.com/hotspare/hotspare/internal/fence/libvirt"
)

// TestRealLibvirt runs everything that needs a libvirtd on one host.
func TestRealLibvirt(t *testing.T) {
	h := newHost(t)
	t.Run("conformance", func(t *testing.T) {
		conformance.Run(t, func(t *testing.T) conformance.Harness { return harness(t, newSide(t, h)) })
	})
	for name, run := range map[string]func(t *testing.T, s *oldSide){
		"every domain, whatever its state":      everyDomain,
		"autostart is given back":               autostartGivenBack,
		"a restart of libvirtd starts nothing":  daemonRestart,
		"an unknown domain is no evidence":      unknownDomain,
		"no domain at all is no evidence":       noDomain,
		"a new domain opens a target of all":    newDomain,
		"evidence is void once a domain ran":    voidEvidence,
		"libvirtd falls silent in the middle":   silence,
		"over tcp":                              overTCP,
		"a fence that was not observed is open": unobserved,
	} {
		t.Run(name, func(t *testing.T) { run(t, newSide(t, h)) })
	}
	t.Run("libvirtd is dead", func(t *testing.T) { deadDaemon(t, newSide(t, h)) })
}

func harness(t *testing.T, s *oldSide) conformance.Harness {
	s.domain(t, "db")
	s.virsh(t, "start", "db")
	return conformance.Harness{
		Driver:  s.driver(t, "db"),
		Target:  "east",
		Alive:   func(t *testing.T) bool { return s.state(t, "db") != "shut off" },
		Start:   func(t *testing.T) { s.virsh(t, "start", "db") },
		Stop:    func(t *testing.T) { s.virsh(t, "destroy", "db") },
		Away:    func(*testing.T) { s.relay.after.Store(0) },
		Restart: func(t *testing.T) fence.Driver { return s.driver(t, "db") },
	}
}

func spec(epoch uint64) *pb.FenceSpec {
	return &pb.FenceSpec{Target: "east", Method: pb.FenceMethod_FENCE_METHOD_POWER, Epoch: epoch}
}

func doFence(t *testing.T, d *libvirt.Driver, epoch uint64) {
	t.Helper()
	if err := d.Fence(t.Context(), spec(epoch)); err != nil {
		t.Fatalf("fence: %v", err)
	}
}

func wantState(t *testing.T, d *libvirt.Driver, epoch uint64, want pb.State) *pb.FenceStatus {
	t.Helper()
	got, status, err := d.Inspect(t.Context(), spec(epoch))
	if err != nil {
		t.Fatalf("inspect: %v", err)
	}
	if got != want {
		t.Errorf("epoch %d is %v (%s), want %v", epoch, got, status.GetEvidence(), want)
	}
	return status
}

func everyDomain(t *testing.T, s *oldSide) {
	for _, name := range []string{"running", "paused", "off"} {
		s.domain(t, name)
	}
	s.virsh(t, "start", "running")
	s.virsh(t, "start", "paused")
	s.virsh(t, "suspend", "paused")
	// A transient domain: it vanishes with its process.
	s.virsh(t, "create", s.domainXML(t, "passing"))
	t.Cleanup(func() { virsh(s.host, "destroy", "passing") })
	d := s.driver(t)
	doFence(t, d, 7)
	if left := s.virsh(t, "list", "--name"); left != "" {
		t.Errorf("virsh still shows %q", left)
	}
	status := wantState(t, d, 7, pb.State_STATE_FENCED)
	for _, want := range []string{"running shut off", "paused shut off", "off shut off", "passing gone", "observed at"} {
		if !strings.Contains(status.GetEvidence(), want) {
			t.Errorf("evidence %q lacks %q", status.GetEvidence(), want)
		}
	}
	// Only this fence explains why the transient domain is unknown.
	doFence(t, s.driver(t), 8)
	wantState(t, d, 8, pb.State_STATE_FENCED)
}

func autostartGivenBack(t *testing.T, s *oldSide) {
	s.domain(t, "db")
	s.domain(t, "web")
	s.virsh(t, "autostart", "db")
	s.virsh(t, "start", "db")
	d := s.driver(t, "db", "web")
	doFence(t, d, 7)
	doFence(t, d, 8)
	if s.autostart(t, "db") {
		t.Error("a fenced domain is on autostart")
	}
	if err := d.Lift(t.Context(), spec(7)); err != nil {
		t.Fatal(err)
	}
	if s.autostart(t, "db") {
		t.Error("autostart is back while another epoch fences")
	}
	if err := d.Lift(t.Context(), spec(8)); err != nil {
		t.Fatal(err)
	}
	if !s.autostart(t, "db") || s.autostart(t, "web") {
		t.Error("autostart is not as it was")
	}
	if state := s.state(t, "db"); state != "shut off" {
		t.Errorf("lift left db %s", state)
	}
	marks, err := filepath.Glob(filepath.Join(s.stateDir, "fence-*"))
	if err != nil || len(marks) != 0 {
		t.Errorf("left behind: %v, %v", marks, err)
	}
	s.virsh(t, "autostart", "--disable", "db")
	// Autostart switched on behind the fence's back: it would start with libvirtd.
	doFence(t, d, 9)
	s.virsh(t, "autostart", "db")
	wantState(t, d, 9, pb.State_STATE_OPEN)
	s.virsh(t, "autostart", "--disable", "db")
}

func daemonRestart(t *testing.T, s *oldSide) {
	s.domain(t, "db")
	s.virsh(t, "autostart", "db")
	s.virsh(t, "start", "db")
	d := s.driver(t, "db")
	doFence(t, d, 7)
	if err := s.host.KillLibvirt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state, _, err := d.Inspect(t.Context(), spec(7)); err == nil {
		t.Errorf("inspect without libvirtd: %v", state)
	}
	if err := s.host.StartLibvirt(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantState(t, d, 7, pb.State_STATE_FENCED)
	if state := s.state(t, "db"); state != "shut off" {
		t.Errorf("after a restart of libvirtd db is %s", state)
	}
}

func unknownDomain(t *testing.T, s *oldSide) {
	s.domain(t, "db")
	s.virsh(t, "start", "db")
	d := s.driver(t, "db", "wbe")
	if err := d.Fence(t.Context(), spec(7)); err == nil || !strings.Contains(err.Error(), "wbe") {
		t.Errorf("fence with a misspelt domain: %v", err)
	}
	wantState(t, d, 7, pb.State_STATE_OPEN)
}

func noDomain(t *testing.T, s *oldSide) {
	d := s.driver(t)
	if err := d.Fence(t.Context(), spec(7)); err == nil || !strings.Contains(err.Error(), "no domain") {
		t.Errorf("fence of an empty host: %v", err)
	}
	wantState(t, d, 7, pb.State_STATE_OPEN)
}

func newDomain(t *testing.T, s *oldSide) {
	s.domain(t, "db")
	d := s.driver(t)
	doFence(t, d, 7)
	s.domain(t, "late")
	wantState(t, d, 7, pb.State_STATE_FENCED)
	s.virsh(t, "start", "late")
	if status := wantState(t, d, 7, pb.State_STATE_OPEN); !strings.Contains(status.GetEvidence(), "late running") {
		t.Errorf("it does not say what runs: %q", status.GetEvidence())
	}
}

func voidEvidence(t *testing.T, s *oldSide) {
	s.domain(t, "db")
	d := s.driver(t, "db")
	doFence(t, d, 7)
	s.virsh(t, "start", "db")
	wantState(t, d, 7, pb.State_STATE_OPEN)
	s.virsh(t, "destroy", "db")
	wantState(t, d, 7, pb.State_STATE_OPEN)
	doFence(t, d, 7)
	wantState(t, d, 7, pb.State_STATE_FENCED)
}

func silence(t *testing.T, s *oldSide) {
	s.domain(t, "db")
	s.virsh(t, "start", "db")
	d := s.driver(t, "db")
	// Somewhere between the greeting and the last request, whichever that is.
	for _, bytes := range []int64{0, 30, 100, 200, 400} {
		s.relay.after.Store(bytes)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := d.Fence(ctx, spec(7))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("fence with silence after %d bytes: %v", bytes, err)
		}
		s.relay.after.Store(-1)
		wantState(t, d, 7, pb.State_STATE_OPEN)
	}
	doFence(t, d, 7)
	wantState(t, d, 7, pb.State_STATE_FENCED)
}

func overTCP(t *testing.T, s *oldSide) {
	s.domain(t, "db")
	s.virsh(t, "start", "db")
	d := newDriver(t, s.stateDir, libvirt.Target{TCP: s.relay.tcp, Domains: []string{"db"}})
	doFence(t, d, 7)
	wantState(t, d, 7, pb.State_STATE_FENCED)
	if state := s.state(t, "db"); state != "shut off" {
		t.Errorf("db is %s", state)
	}
}

// unobserved starts from what a crash between the note and the last look leaves.
func unobserved(t *testing.T, s *oldSide) {
	s.domain(t, "db")
	d := s.driver(t, "db")
	path := filepath.Join(s.stateDir, "fence-east.json")
	write(t, path, `{"target":"east","autostart":["db"],"seen":["db"],"fences":{"7":{}}}`)
	wantState(t, d, 7, pb.State_STATE_OPEN)
	doFence(t, d, 7)
	wantState(t, d, 7, pb.State_STATE_FENCED)
	if err := d.Lift(t.Context(), spec(7)); err != nil {
		t.Fatal(err)
	}
	if !s.autostart(t, "db") {
		t.Error("autostart that was noted before the crash is not given back")
	}
}

func deadDaemon(t *testing.T, s *oldSide) {
	d := s.driver(t, "db")
	if err := s.host.KillLibvirt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Fence(t.Context(), spec(7)); err == nil {
		t.Error("fence without libvirtd succeeded")
	}
	gone := newDriver(t, t.TempDir(), libvirt.Target{Socket: filepath.Join(t.TempDir(), "sock")})
	if err := gone.Fence(t.Context(), spec(7)); err == nil {
		t.Error("fence through a socket that does not exist succeeded")
	}
}

func TestBadMarks(t *testing.T) {
	for name, content := range map[string]string{
		"not json":       "{",
		"another target": `{"target":"west","fences":{"7":{"since":"2026-01-01T00:00:00Z"}}}`,
		"empty":          "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "fence-east.json"), content)
			d := newDriver(t, dir, libvirt.Target{Socket: "/nowhere"})
			if state, _, err := d.Inspect(t.Context(), spec(7)); err == nil || state != pb.State_STATE_UNSPECIFIED {
				t.Errorf("inspect: %v, %v", state, err)
			}
			for call, err := range map[string]error{
				"fence": d.Fence(t.Context(), spec(7)), "lift": d.Lift(t.Context(), spec(7)),
			} {
				if err == nil {
					t.Errorf("%s over a mark that cannot be read succeeded", call)
				}
			}
		})
	}
}

func TestBadSpecs(t *testing.T) {
	d := newDriver(t, t.TempDir(), libvirt.Target{Socket: "/nowhere"})
	power := pb.FenceMethod_FENCE_METHOD_POWER
	for name, s := range map[string]*pb.FenceSpec{
		"unknown target": {Target: "west", Method: power, Epoch: 7},
		"an oath":        {Target: "east", Method: pb.FenceMethod_FENCE_METHOD_OATH, Epoch: 7},
		"no method":      {Target: "east", Epoch: 7},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := d.Inspect(t.Context(), s); err == nil {
				t.Error("inspect succeeded")
			}
			if err := d.Lift(t.Context(), s); err == nil {
				t.Error("lift succeeded")
			}
		})
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	_, err := libvirt.New(libvirt.Options{StateDir: "here", Targets: map[string]libvirt.Target{
		"../up":    {Socket: "/run/libvirt/libvirt-sock"},
		"neither":  {},
		"both":     {Socket: "/run/x", TCP: "127.0.0.1:16509"},
		"relative": {Socket: "sock"},
		"noport":   {TCP: "127.0.0.1"},
		"unnamed":  {Socket: "/run/x", Domains: []string{""}},
	}})
	if err == nil {
		t.Fatal("bad options were accepted")
	}
	for _, want := range []string{`"here"`, `"../up"`, "target neither", "target both", "target relative", "target noport", "target unnamed"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
