package bench

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// BenchmarkDevReady measures from the start of the process `hotspare dev` to its line that says ready. The
// program is built as `make build` does it.
func BenchmarkDevReady(b *testing.B) {
	program := filepath.Join(b.TempDir(), "hotspare")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "../cmd/hotspare")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build hotspare: %v\n%s", err, out)
	}
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), program, "dev", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
		cmd.Env = append(os.Environ(), "TMPDIR="+b.TempDir())
		out := must(cmd.StdoutPipe())(b)
		var complaint strings.Builder
		cmd.Stderr = &complaint
		must(0, cmd.Start())(b)
		line, err := bufio.NewReader(out).ReadString('\n')
		b.StopTimer()
		if err != nil || !strings.HasPrefix(line, "ready after ") {
			b.Errorf("it said %q, %v\n%s", line, err, complaint.String())
		}
		must(0, cmd.Process.Signal(syscall.SIGTERM))(b)
		must(io.Copy(io.Discard, out))(b)
		must(0, cmd.Wait())(b)
		b.StartTimer()
	}
}
