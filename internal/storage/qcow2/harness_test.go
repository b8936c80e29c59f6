package qcow2

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/storage"
	"github.com/hotspare/hotspare/internal/storage/conformance"
)

// imagesDir is where the tests keep production disks: on the pool's file system, and hidden from it.
const imagesDir = ".images"

// harness is a pool directory with a real storage daemon.
type harness struct {
	dir     string
	address string
	driver  *Driver
	log     *slog.Logger
	// other is the pool of the other site, where a test has one.
	other *harness
}

// needs skips the test when a program is missing, and fails it in CI.
func needs(t *testing.T, program, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	message := fmt.Sprintf("%s is missing: install package %s", program, debianPackage)
	if os.Getenv("HOTSPARE_CI") == "1" {
		t.Fatal(message)
	}
	t.Skip(message)
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	for _, program := range []string{"qemu-storage-daemon", "qemu-img", "qemu-io"} {
		needs(t, program, "qemu-utils")
	}
	dir, err := os.MkdirTemp("", "pool")
	if err != nil {
		t.Fatal(err)
	}
	// A loopback address of its own: a port of 127.0.0.1 could be some client's by the time it is used.
	listener, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:10809", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{dir: dir, address: listener.Addr().String(), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	t.Cleanup(func() {
		h.killDaemon(t)
		if err := h.driver.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *harness) start(t *testing.T) {
	t.Helper()
	d, err := New(Options{Dir: h.dir, Address: h.address, Log: h.log})
	if err != nil {
		t.Fatal(err)
	}
	h.driver = d
}

// restart ends the driver only; its daemon goes on.
func (h *harness) restart(t *testing.T) {
	t.Helper()
	if err := h.driver.Close(); err != nil {
		t.Fatal(err)
	}
	h.start(t)
}

func (h *harness) daemonPID() int {
	text, err := os.ReadFile(filepath.Join(h.dir, daemonDir, pidFile))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || !strings.HasPrefix(string(comm), "qemu-storage") {
		return 0
	}
	return pid
}

// gone says whether a process ended; one that nobody has waited for yet counts as ended.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

func (h *harness) killDaemon(t *testing.T) {
	t.Helper()
	pid := h.daemonPID()
	if pid == 0 || gone(pid) {
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the storage daemon", func() bool { return gone(pid) })
}

// waitFor polls a condition that no event announces, for at most ten seconds.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (h *harness) Driver() storage.Driver { return h.driver }

func (h *harness) Crash(t *testing.T) {
	t.Helper()
	h.killDaemon(t)
	h.restart(t)
}

// Write writes the low byte of the value to the first sector and the high byte to the second.
func (h *harness) Write(t *testing.T, export string, value uint64) error {
	t.Helper()
	return h.write(t, "raw", export, value)
}

func (h *harness) write(t *testing.T, format, image string, value uint64) error {
	t.Helper()
	_, err := qemuIO(t, format, image, fmt.Sprintf("write -P %d 0 512", value&0xff), fmt.Sprintf("write -P %d 512 512", value>>8), "flush")
	return err
}

func (h *harness) Read(t *testing.T, export string) (uint64, error) {
	t.Helper()
	return h.read(t, "raw", export)
}

func (h *harness) read(t *testing.T, format, image string) (uint64, error) {
	t.Helper()
	out, err := qemuIO(t, format, image, "read -v 0 1", "read -v 512 1")
	if err != nil {
		return 0, err
	}
	var value uint64
	for _, prefix := range []string{"00000200:", "00000000:"} {
		_, rest, found := strings.Cut(out, prefix)
		if !found {
			return 0, fmt.Errorf("read %s: unexpected output %q", image, out)
		}
		b, err := strconv.ParseUint(strings.Fields(rest)[0], 16, 8)
		if err != nil {
			return 0, err
		}
		value = value<<8 | b
	}
	return value, nil
}

// Disk makes a raw disk file of the suite's size.
func (h *harness) Disk(t *testing.T, value uint64) string {
	t.Helper()
	return h.disk(t, "raw", value)
}

func (h *harness) disk(t *testing.T, format string, value uint64) string {
	t.Helper()
	path := filepath.Join(h.dir, imagesDir, "web."+format)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", format, path, "4M").CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v: %s", path, err, out)
	}
	if err := h.write(t, format, path, value); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

// ReadDisk reads a disk file in the format that its name tells.
func (h *harness) ReadDisk(t *testing.T, path string) (uint64, error) {
	t.Helper()
	return h.read(t, strings.TrimPrefix(filepath.Ext(strings.TrimSuffix(path, keptSuffix)), "."), path)
}

func qemuIO(t *testing.T, format, image string, commands ...string) (string, error) {
	t.Helper()
	arguments := []string{"-f", format}
	for _, c := range commands {
		arguments = append(arguments, "-c", c)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "qemu-io", append(arguments, image)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("qemu-io %v %s: %w: %s", commands, image, err, out.String())
	}
	return out.String(), nil
}

// Residue lists the pool's folder, its lock aside, and the daemon if it runs.
func (h *harness) Residue(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.Name() != ".lock" && e.Name() != daemonDir && e.Name() != imagesDir {
			out = append(out, e.Name())
		}
	}
	if pid := h.daemonPID(); len(out) == 0 && pid != 0 && !gone(pid) {
		out = append(out, "storage daemon")
	}
	return out
}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Harness{Driver: "qcow2", New: func(t *testing.T) *conformance.Fixture {
		f := newHarness(t).fixture()
		f.Other = func(t *testing.T) *conformance.Fixture { return newHarness(t).fixture() }
		return f
	}})
}

func (h *harness) fixture() *conformance.Fixture {
	return &conformance.Fixture{
		Driver: h.Driver, Crash: h.Crash, Write: h.Write, Read: h.Read,
		Disk: h.Disk, ReadDisk: h.ReadDisk, Residue: h.Residue,
	}
}
