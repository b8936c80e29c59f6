package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/e2e/lab"
)

const (
	// testWait bounds one test; the longest took 15 s on an idle machine.
	testWait = 4 * time.Minute
	// answerWait bounds the wait for a guest or a service to answer.
	answerWait = 90 * time.Second
)

// newLab makes a lab that is removed when the test ends, and fails the test when something of it stays.
func newLab(ctx context.Context, t *testing.T, name string) *lab.Lab {
	t.Helper()
	links := machineLinks(t)
	l, err := lab.New(ctx, lab.Options{Name: name, Dir: shortDir(t), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, l.Dir())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if left := leftovers(t, name, l.Dir()); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, "\n"))
		}
		if after := machineLinks(t); after != links {
			t.Errorf("the machine's own interfaces changed from\n%sto\n%s", links, after)
		}
	})
	return l
}

// shortDir makes a directory with a short path: t.TempDir is too long for libvirt's socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("lab directory not empty: %v", err)
		}
	})
	return dir
}

// leftovers looks for anything that carries the lab's name or lives in its directories.
func leftovers(t *testing.T, name, dir string) []string {
	t.Helper()
	var left []string
	namespaces, err := filepath.Glob("/run/netns/" + name + "-*")
	if err != nil {
		t.Fatal(err)
	}
	left = append(left, namespaces...)
	for _, path := range []string{dir, "/run/hotspare-lab/" + name} {
		if _, err := os.Lstat(path); err == nil {
			left = append(left, path)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		// A process of a host sees the host's directories in its mounts; one that ended cannot be read.
		mounts, _ := os.ReadFile(p + "/mountinfo")
		cmdline, _ := os.ReadFile(p + "/cmdline")
		if strings.Contains(string(mounts)+string(cmdline), dir+"/") {
			left = append(left, fmt.Sprintf("process %s: %q", p, cmdline))
		}
	}
	return left
}

// machineLinks lists the interfaces of the machine's own network namespace.
func machineLinks(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("ip", "-brief", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// showLogs prints the logs of a failed test before the lab is removed.
func showLogs(t *testing.T, dir string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*", "log", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range logs {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			t.Logf("%s:\n%s", path, text[max(0, len(text)-2000):])
		}
	}
}

// addHost makes a host or fails the test.
func addHost(ctx context.Context, t *testing.T, l *lab.Lab, o lab.HostOptions) *lab.Host {
	t.Helper()
	h, err := l.AddHost(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// run runs a program in a host or fails the test.
func run(ctx context.Context, t *testing.T, h *lab.Host, name string, args ...string) string {
	t.Helper()
	out, err := h.Run(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually tries until there is no error.
func eventually(ctx context.Context, t *testing.T, what string, try func(context.Context) error) time.Duration {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return time.Since(begin)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// get asks once and reads JSON, with a short limit so that a caller can try again.
func get(ctx context.Context, client *http.Client, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// inventory takes one or fails the test.
func inventory(ctx context.Context, t *testing.T, l *lab.Lab) []string {
	t.Helper()
	lines, err := l.Inventory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
