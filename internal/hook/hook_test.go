package hook

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func script(t *testing.T, text string) (*Runner, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hook"), []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r, dir
}

func TestRun(t *testing.T) {
	r, dir := script(t, `test "$HOTSPARE_EPOCH" = 7 && test -z "$HOME" && echo "$1" > done`)
	if err := r.Run(t.Context(), []string{"hook", "web"}, map[string]string{"HOTSPARE_EPOCH": "7"}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "done")); err != nil || string(b) != "web\n" {
		t.Errorf("it wrote %q, %v", b, err)
	}
	if err := r.Run(t.Context(), []string{filepath.Join(dir, "hook"), "web"}, map[string]string{"HOTSPARE_EPOCH": "7"}); err != nil {
		t.Error(err)
	}
}

func TestRunRefusesProgramsElsewhere(t *testing.T) {
	r, dir := script(t, "exit 0")
	for _, argv := range [][]string{{"/bin/true"}, {"../hook"}, {dir}, {"."}, {}, {dir + "/../" + "x"}} {
		if err := r.Run(t.Context(), argv, nil); err == nil {
			t.Errorf("%q was run", argv)
		}
	}
	if _, err := New("hooks"); err == nil {
		t.Error("a relative directory is taken")
	}
}

func TestRunSaysWhatFailed(t *testing.T) {
	r, _ := script(t, `head -c 5000 /dev/zero | tr '\0' x; echo " no such load balancer" >&2; exit 3`)
	err := r.Run(t.Context(), []string{"hook"}, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") ||
		!strings.HasSuffix(err.Error(), "no such load balancer") || len(err.Error()) > maxOutputBytes+200 {
		t.Errorf("error %v", err)
	}
}

func TestRunKillsAllProcessesAtTheEnd(t *testing.T) {
	r, _ := script(t, "sleep 60 & sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := r.Run(ctx, []string{"hook"}, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > killWait {
		t.Errorf("it took %v: a child holds the output open", took)
	}
}
