package mirror

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func open(t *testing.T, path string) *Source {
	t.Helper()
	s, err := New(Options{StateFile: path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDegradedSinceTheLastTimeItWasWell(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mirrors.json")
	s := open(t, path)
	spec := &pb.VolumeSpec{Domain: "web", Disk: "vda"}
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	steps := []struct {
		reason string
		at     time.Duration
		// since is when it counts as degraded; negative: it does not.
		since time.Duration
		again bool
	}{
		{"not mirrored", 0, 0, false},
		{"", 10 * time.Second, -1, false},
		{"", 15 * time.Second, -1, false},
		{"ended", 20 * time.Second, 15 * time.Second, false},
		{"ended", 30 * time.Second, 15 * time.Second, true},
		{"", 40 * time.Second, -1, false},
		{"", 45 * time.Second, -1, false},
		// What was only seen in memory is forgotten by a restart: earlier, never later.
		{"ended", 50 * time.Second, 40 * time.Second, true},
	}
	for _, step := range steps {
		if step.again {
			s = open(t, path)
		}
		n, err := s.observed(spec, step.reason, start.Add(step.at))
		if err != nil {
			t.Fatal(err)
		}
		want := time.Time{}
		if step.since >= 0 {
			want = start.Add(step.since)
		}
		if !n.Since.Equal(want) {
			t.Fatalf("at %v: degraded since %v, want %v", step.at, n.Since, want)
		}
	}
}

func TestStateFileThatCannotBeWritten(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "gone")
	s := open(t, filepath.Join(folder, "mirrors.json"))
	if _, err := s.note(&pb.VolumeSpec{Domain: "web", Disk: "vda"}, func(n *note) { n.Started = 1 }); err == nil {
		t.Fatal("a number was taken without a note on disk")
	}
	if s.started(&pb.VolumeSpec{Domain: "web", Disk: "vda"}) != 0 {
		t.Fatal("memory is ahead of the disk")
	}
}

func TestStateFileOfAnotherVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mirrors.json")
	if err := os.WriteFile(path, []byte(`{"version":2,"disks":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{StateFile: path, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Fatal("a file of the future was read")
	}
}

func FuzzNotes(f *testing.F) {
	f.Add([]byte(`{"version":1,"disks":{"web/vda":{"started":3,"well":"2026-11-20T10:00:00Z"}}}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := &notes{}
		if err := n.decode(text); err == nil && (n.Version != notesVersion || n.Disks == nil) {
			t.Fatalf("decoded %+v", n)
		}
	})
}

func TestDestination(t *testing.T) {
	for _, bad := range []string{"", "nbd://", "nbd://10.0.0.1/web", "nbd://10.0.0.1:10809", "http://10.0.0.1:10809/web", "nbd://%zz"} {
		if _, err := destinationXML(bad, 1); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
