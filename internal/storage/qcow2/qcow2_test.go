package qcow2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

func TestDriverAdoptsTheDaemon(t *testing.T) {
	h := newHarness(t)
	pointOf7(t, h)
	before := h.daemonPID()
	h.restart(t)
	must(t, h.driver.Receive(t.Context(), rootSpec(1, 1)))
	if after := h.daemonPID(); before == 0 || after != before {
		t.Fatalf("daemon %d, after the driver's restart %d", before, after)
	}
	h.holds(t, "root@1", 7)
	if _, err := New(Options{Dir: h.dir, Address: h.address, Log: h.log}); err == nil {
		t.Fatal("two drivers have the same pool")
	}
}

func TestHungDaemonMeansUnknown(t *testing.T) {
	h := newHarness(t)
	pointOf7(t, h)
	pid := h.daemonPID()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := h.driver.Promote(ctx, rootSpec(1, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("promote: got %v", err)
	}
	if took := time.Since(began); took > time.Second+200*time.Millisecond {
		t.Fatalf("the call came back %v after it began", took)
	}
	h.restart(t)
	late, cancelLate := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancelLate()
	if _, err := h.driver.Inspect(late, "root"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("inspect: got %v", err)
	}
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	must(t, h.driver.Promote(t.Context(), rootSpec(1, 1)))
	if after := h.daemonPID(); after != pid {
		t.Fatalf("a second daemon was started beside a hung one: %d, was %d", after, pid)
	}
	h.holds(t, "root", 7)
}

// client is a qemu-io that stays connected to an export, as a mirror does.
type client struct {
	commands *os.File
	done     chan error
	log      string
}

func (h *harness) connect(t *testing.T, export string) *client {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	c := &client{commands: w, done: make(chan error, 1), log: filepath.Join(t.TempDir(), "qemu-io.log")}
	output, err := os.Create(c.log)
	must(t, err)
	// Line buffered, so that an acknowledgement can be seen while it is connected; writeback, because
	// qemu-io would flush after each write by itself.
	cmd := exec.CommandContext(t.Context(), "stdbuf", "-oL", "qemu-io", "-t", "writeback", "-f", "raw", h.url(export))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, output, output
	must(t, cmd.Start())
	must(t, errors.Join(r.Close(), output.Close()))
	go func() { c.done <- cmd.Wait() }()
	return c
}

func (c *client) output(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(c.log)
	must(t, err)
	return string(text)
}

// write waits until a write was acknowledged. Nothing is flushed.
func (c *client) write(t *testing.T, command string) {
	t.Helper()
	before := strings.Count(c.output(t), "wrote ")
	_, err := fmt.Fprintln(c.commands, command)
	must(t, err)
	waitFor(t, "the acknowledgement of a write", func() bool { return strings.Count(c.output(t), "wrote ") > before })
}

func TestPromoteCutsAnOpenMirror(t *testing.T) {
	h := newHarness(t)
	pointOf7(t, h)
	c := h.connect(t, "root@1")
	c.write(t, "write -P 8 0 512")
	must(t, h.driver.Promote(t.Context(), rootSpec(1, 1)))
	_, err := fmt.Fprintln(c.commands, "write -P 9 0 512\nquit")
	must(t, err)
	must(t, c.commands.Close())
	// It ends with an error or without, depending on where the cut met it.
	ended := <-c.done
	t.Log("the mirror's client ended:", ended)
	if out := c.output(t); !strings.Contains(out, "failed") {
		t.Fatalf("the mirror's write after the promotion went well: %s", out)
	}
	h.holds(t, "root", 8)
	must(t, h.driver.Clone(t.Context(), &pb.VolumeSpec{Name: "drill", CloneOf: "root"}))
	h.holds(t, "drill", 8)
}

func TestPortTaken(t *testing.T) {
	h := newHarness(t)
	listener, err := net.Listen("tcp", h.address)
	must(t, err)
	if err := h.driver.Receive(t.Context(), rootSpec(1, 0)); err == nil || !strings.Contains(err.Error(), h.address) {
		t.Fatalf("got %v", err)
	}
	must(t, listener.Close())
	must(t, h.driver.Receive(t.Context(), rootSpec(1, 0)))
}

func TestBrokenMetadataHidesNothingElse(t *testing.T) {
	h := newHarness(t)
	pointOf7(t, h)
	must(t, os.Mkdir(filepath.Join(h.dir, "bad"), 0o700))
	must(t, os.WriteFile(filepath.Join(h.dir, "bad", metadataFile), []byte(`{"version":2}`), 0o600))
	must(t, os.WriteFile(filepath.Join(h.dir, "bad", "1.qcow2"), []byte("kept"), 0o600))
	h.Crash(t)
	list, err := h.driver.List(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].Name != "root" {
		t.Fatalf("list: %v", list)
	}
	h.holds(t, "root@1", 7)
	spec := rootSpec(1, 0)
	spec.Name = "bad"
	if err := h.driver.Receive(t.Context(), spec); err == nil {
		t.Fatal("broken metadata was overwritten")
	}
	if err := h.driver.Remove(t.Context(), "bad"); err == nil {
		t.Fatal("a volume with broken metadata was removed")
	}
	if text, err := os.ReadFile(filepath.Join(h.dir, "bad", "1.qcow2")); err != nil || string(text) != "kept" {
		t.Fatalf("its layer: %q %v", text, err)
	}
}

func TestBadNames(t *testing.T) {
	h := newHarness(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".lock", "a@1", strings.Repeat("x", 129)} {
		spec := rootSpec(1, 0)
		spec.Name = name
		if err := h.driver.Receive(t.Context(), spec); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
	if r := h.Residue(t); len(r) != 0 {
		t.Fatalf("left behind: %v", r)
	}
}

func TestChainIsBounded(t *testing.T) {
	h := newHarness(t)
	pointOf7(t, h)
	for i := 1; i < maxDepth; i++ {
		must(t, h.driver.Clone(t.Context(), &pb.VolumeSpec{Name: fmt.Sprintf("dev-%d", i), CloneOf: "root"}))
	}
	over := &pb.VolumeSpec{Name: "dev-over", CloneOf: "root"}
	if err := h.driver.Clone(t.Context(), over); err == nil {
		t.Fatal("the chain has no bound")
	}
	// A stated point that is frozen already costs no layer, and a resync begins a new chain.
	must(t, h.driver.Clone(t.Context(), &pb.VolumeSpec{Name: "dev-old", CloneOf: "root", Point: "1"}))
	must(t, h.driver.Receive(t.Context(), rootSpec(2, 1)))
	must(t, h.driver.Receive(t.Context(), rootSpec(2, 2)))
	must(t, h.driver.Clone(t.Context(), over))
	h.holds(t, "dev-31", 7)
}

func (h *harness) diskHolds(t *testing.T, path string, want uint64) {
	t.Helper()
	got, err := h.ReadDisk(t, path)
	must(t, err)
	if got != want {
		t.Fatalf("%s holds %d, want %d", path, got, want)
	}
}

func TestHandOver(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		for crash := range 5 {
			t.Run(fmt.Sprintf("%s/crash at step %d", format, crash), func(t *testing.T) {
				handOver(t, format, crash)
			})
		}
	}
}

// handOver mirrors back to a disk file, cutting the promotion short at a step; 0: at none.
func handOver(t *testing.T, format string, crash int) {
	h := newHarness(t)
	path := h.disk(t, format, 5)
	spec := func(n, converged uint64) *pb.VolumeSpec {
		s := rootSpec(n, converged)
		s.Disk = path
		return s
	}
	must(t, h.driver.Receive(t.Context(), spec(1, 0)))
	must(t, h.Write(t, h.url("root@1"), 7))
	h.diskHolds(t, path, 5)
	if err := h.driver.Promote(t.Context(), spec(1, 0)); !errors.Is(err, storage.ErrNoPoint) {
		t.Fatalf("promote: got %v", err)
	}
	must(t, h.driver.Receive(t.Context(), spec(1, 1)))
	if err := h.driver.Clone(t.Context(), &pb.VolumeSpec{Name: "dev", CloneOf: "root"}); !errors.Is(err, storage.ErrNoPoint) {
		t.Fatalf("clone: got %v", err)
	}
	seen := 0
	h.driver.between = func(string) error {
		if seen++; seen == crash {
			return errCrash
		}
		return nil
	}
	if err := h.driver.Promote(t.Context(), spec(1, 1)); err != nil && !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	h.Crash(t)
	must(t, h.driver.Promote(t.Context(), spec(1, 1)))
	v, err := h.driver.Inspect(t.Context(), "root")
	must(t, err)
	if v.State != pb.State_STATE_PRIMARY || v.Status.GetPoint().GetLayer() == "" || v.Status.GetExport() != "" {
		t.Fatalf("got %v %v", v.State, v.Status)
	}
	h.diskHolds(t, path, 7)
	h.diskHolds(t, path+keptSuffix, 5)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Fatalf("mode %v %v", info.Mode(), err)
	}
	must(t, h.driver.Demote(t.Context(), spec(1, 1)))
	must(t, h.driver.Remove(t.Context(), "root"))
	h.diskHolds(t, path, 7)
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if r := h.Residue(t); len(entries) != 1 || len(r) != 0 {
		t.Fatalf("left behind: %v, beside the disk %v", r, entries)
	}
}

func FuzzDecodeVolume(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"root","state":"replica","next":3,"sync":2,"layers":[{"number":1,"size_bytes":4},{"number":2,"size_bytes":4,"base":1,"sync":2}],"top":2}`))
	f.Add([]byte(`{"version":1,"name":"dev","state":"clone","next":2,"layers":[{"number":1,"size_bytes":4}],"top":1,"of":"root","origin":7}`))
	f.Add([]byte(`{"version":1,"name":"../x","state":"replica","next":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := decodeVolume(text)
		if err != nil {
			return
		}
		// What was taken must be safe to use: every chain ends, and pruning keeps it whole.
		v.chain(v.Top)
		v.prune(nil)
		if err := v.check(); err != nil {
			t.Fatalf("after prune: %v", err)
		}
	})
}

// TestAcknowledgedWritesSurviveTheDaemon kills the daemon after a write that nobody flushed: QEMU's
// mirror does not pass the guest's flushes on to its target.
func TestAcknowledgedWritesSurviveTheDaemon(t *testing.T) {
	h := newHarness(t)
	pointOf7(t, h)
	c := h.connect(t, "root@1")
	c.write(t, "write -P 8 1M 512")
	h.Crash(t)
	must(t, c.commands.Close())
	t.Log("the mirror's client ended:", <-c.done)
	must(t, h.driver.Promote(t.Context(), rootSpec(1, 1)))
	out, err := qemuIO(t, "raw", h.url("root"), "read -P 8 1M 512")
	if err != nil || strings.Contains(out, "failed") {
		t.Fatalf("an acknowledged write is lost: %v %s", err, out)
	}
}
