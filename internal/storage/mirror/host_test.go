package mirror_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// host is a libvirtd of its own, with private folders, and one domain without an operating system:
// tests write to its disk through its monitor.
type host struct {
	dir string
	// holder keeps the mount namespace; libvirtd runs in it.
	holder *exec.Cmd
}

const (
	domainName   = "web"
	promotedName = "web-f1"
)

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

// setUp hides the machine's own libvirt behind private folders, then becomes libvirtd.
const setUp = `
set -e
mkdir -p run lib log etc
mount --make-rprivate /
for pair in run:/run/libvirt lib:/var/lib/libvirt log:/var/log/libvirt etc:/etc/libvirt; do
	mkdir -p "${pair#*:}"
	mount --bind "${pair%%:*}" "${pair#*:}"
done
mkdir -p etc/qemu
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nremember_owner = 0\nstdio_handler = "file"\nnamespaces = []\n' > etc/qemu.conf
printf 'unix_sock_group = "root"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n' > etc/libvirtd.conf
exec libvirtd -p "$PWD/libvirtd.pid" -f "$PWD/etc/libvirtd.conf"
`

func newHost(t *testing.T) *host {
	t.Helper()
	needs(t, "libvirtd", "libvirt-daemon-system")
	needs(t, "virsh", "libvirt-clients")
	needs(t, "qemu-system-x86_64", "qemu-system-x86")
	needs(t, "qemu-storage-daemon", "qemu-utils")
	if os.Geteuid() != 0 {
		if os.Getenv("HOTSPARE_CI") == "1" {
			t.Fatal("a private libvirtd needs root")
		}
		t.Skip("a private libvirtd needs root")
	}
	dir := t.TempDir()
	h := &host{dir: dir}
	t.Cleanup(func() { h.stop(t) })
	h.holder = exec.Command("unshare", "--mount", "sh", "-c", setUp)
	h.holder.Dir = dir
	log, err := os.Create(filepath.Join(dir, "libvirtd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	h.holder.Stdout, h.holder.Stderr = log, log
	if err := h.holder.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "libvirtd's socket", func() bool {
		conn, err := net.Dial("unix", h.socket())
		if err == nil {
			err = conn.Close()
		}
		return err == nil
	})
	return h
}

func (h *host) socket() string { return filepath.Join(h.dir, "run", "libvirt-sock") }

// stop ends the guests, which are not libvirtd's children, and libvirtd.
func (h *host) stop(t *testing.T) {
	for _, name := range []string{domainName, promotedName} {
		h.killGuest(t, name)
	}
	if h.holder == nil || h.holder.Process == nil {
		return
	}
	if err := h.holder.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	killer := time.AfterFunc(10*time.Second, func() { _ = h.holder.Process.Kill() })
	defer killer.Stop()
	_ = h.holder.Wait()
}

func (h *host) guestPID(name string) int {
	text, err := os.ReadFile(filepath.Join(h.dir, "run", "qemu", name+".pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || !strings.HasPrefix(string(comm), "qemu-system") {
		return 0
	}
	return pid
}

func (h *host) killGuest(t *testing.T, name string) {
	t.Helper()
	pid := h.guestPID(name)
	if pid == 0 {
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Error(err)
	}
	waitFor(t, "the end of the guest", func() bool { return gone(pid) })
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

// waitFor polls a condition that no event announces.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (h *host) virsh(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	arguments = append([]string{"-c", "qemu+unix:///system?socket=" + h.socket()}, arguments...)
	out, err := exec.CommandContext(ctx, "virsh", arguments...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("virsh %v: %w: %s", arguments[2:], err, out)
	}
	return string(out), nil
}

// run starts a domain on a disk, given as the XML of its source.
func (h *host) run(t *testing.T, name, source, format string) {
	t.Helper()
	kind := "file"
	if strings.Contains(source, "protocol") {
		kind = "network"
	}
	xml := fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <disk type='%s' device='disk'><driver name='qemu' type='%s'/>%s<target dev='hda' bus='ide'/></disk>
    <memballoon model='none'/>
  </devices>
</domain>`, name, kind, format, source)
	path := filepath.Join(h.dir, "domain.xml")
	if err := os.WriteFile(path, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arguments := range [][]string{{"define", path}, {"start", name}} {
		if _, err := h.virsh(t, arguments...); err != nil {
			t.Fatal(err)
		}
	}
}

// io runs a qemu-io command on the guest's disk, as the guest would: through its block device.
func (h *host) io(t *testing.T, name, command string) string {
	t.Helper()
	out, err := h.virsh(t, "qemu-monitor-command", name, "--hmp", fmt.Sprintf("qemu-io -d ide0-0-0 %q", command))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
