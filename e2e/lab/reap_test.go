package lab_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hotspare/hotspare/e2e/lab"
)

// TestOrphansAreReaped: what detaches itself in a host is this process's child, and leaves the process table when it has ended.
func TestOrphansAreReaped(t *testing.T) {
	lab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	l := newLab(ctx, t, "lreap")
	h, err := l.AddNode(ctx, "n1")
	if err != nil {
		t.Fatal(err)
	}
	// The shell ends at once; the sleeper waits until its fifo is opened.
	fifo := h.Dir + "/fifo"
	run(ctx, t, h, "mkfifo", fifo)
	pid := strings.TrimSpace(run(ctx, t, h, "sh", "-c", `setsid sh -c 'read x <"$1"' sleeper "$1" >/dev/null 2>&1 & echo $!`, "sh", fifo))
	status := "/proc/" + pid + "/status"
	eventually(ctx, t, "the orphan to be ours", func(context.Context) error {
		text, err := os.ReadFile(status)
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("PPid:\t%d\n", os.Getpid())) {
			return fmt.Errorf("%w, status\n%s", err, text)
		}
		return nil
	})
	run(ctx, t, h, "sh", "-c", `echo >"$1"`, "sh", fifo)
	eventually(ctx, t, "the orphan to be reaped", func(context.Context) error {
		if _, err := os.Stat(status); !os.IsNotExist(err) {
			return fmt.Errorf("it is there still: %w", err)
		}
		return nil
	})
}
