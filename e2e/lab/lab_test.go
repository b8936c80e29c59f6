package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/e2e/guest"
	"github.com/hotspare/hotspare/e2e/lab"
)

// answer is what the test guest tells at GET /.
type answer struct {
	BootID  string `json:"boot_id"`
	Counter uint64 `json:"counter"`
	Disk    struct {
		Marker     string `json:"marker"`
		LastRecord uint64 `json:"last_record"`
	} `json:"disk"`
}

// TestLab takes a guest through its life on one of two hosts: start, save, restore, loss of libvirtd, polite shutdown,
// and a power cut.
func TestLab(t *testing.T) {
	lab.Require(t, lab.FeatureLibvirt)
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	l, h1, h2, client := twoHosts(ctx, t)
	before := inventory(ctx, t, l)

	definition := writeDomain(ctx, t, h1)
	virsh := func(args ...string) string {
		t.Helper()
		return run(ctx, t, h1, "virsh", append([]string{"--connect", "qemu:///system"}, args...)...)
	}
	web := l.HTTPClient(client)
	var first, saved answer
	ask := func(what string, into *answer) {
		t.Helper()
		took := eventually(ctx, t, what, func(ctx context.Context) error { return get(ctx, web, "http://10.20.0.5/", into) })
		t.Logf("%s: guest answered after %v", what, took.Round(10*time.Millisecond))
	}

	virsh("define", definition)
	begin := time.Now()
	virsh("start", "erp")
	t.Logf("start returned after %v", time.Since(begin).Round(10*time.Millisecond))
	ask("start", &first)
	if first.Disk.Marker != "production" || len(first.BootID) != 36 {
		t.Errorf("guest says %+v", first)
	}
	if out := run(ctx, t, h2, "virsh", "--connect", "qemu:///system", "list", "--all", "--name"); strings.TrimSpace(out) != "" {
		t.Errorf("the domain of h1 is seen on h2: %q", out)
	}
	if lines := inventory(ctx, t, l); !slices.Contains(lines, "h1 domain erp running") ||
		!slices.Contains(lines, "h1 process qemu-system-x86_64 guest=erp") {
		t.Errorf("running guest not in the inventory:\n%s", strings.Join(lines, "\n"))
	}

	begin = time.Now()
	virsh("managedsave", "erp")
	t.Logf("managed save took %v", time.Since(begin).Round(10*time.Millisecond))
	if lines := inventory(ctx, t, l); !slices.Contains(lines, "h1 domain erp saved") {
		t.Errorf("saved guest not in the inventory:\n%s", strings.Join(lines, "\n"))
	}
	virsh("start", "erp")
	ask("restore", &saved)
	if saved.BootID != first.BootID || saved.Counter <= first.Counter {
		t.Errorf("memory did not come back: first %+v, then %+v", first, saved)
	}

	if err := h1.KillLibvirt(ctx); err != nil {
		t.Fatal(err)
	}
	ask("libvirtd killed", &saved)
	if err := h1.StartLibvirt(ctx); err != nil {
		t.Fatal(err)
	}
	if state := strings.TrimSpace(virsh("domstate", "erp")); state != "running" {
		t.Errorf("after a restart of libvirtd the guest is %q", state)
	}

	virsh("shutdown", "erp")
	eventually(ctx, t, "shutdown", func(ctx context.Context) error { return expectState(ctx, h1, "shut off") })
	marker, rep, err := guest.ReadDisk(ctx, filepath.Join(h1.Dir, "data", "erp.qcow2"))
	if err != nil || marker != "production" || !rep.Unbroken || rep.Last < saved.Disk.LastRecord {
		t.Errorf("disk: marker %q, report %+v, error %v; the guest had said %d", marker, rep, err, saved.Disk.LastRecord)
	}
	virsh("undefine", "erp")
	if err := os.Remove(filepath.Join(h1.Dir, "data", "erp.qcow2")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, inventory(ctx, t, l)); diff != "" {
		t.Errorf("inventory before and after (-before +after):\n%s", diff)
	}
	virsh("define", writeDomain(ctx, t, h1))
	crash(ctx, t, h1)
}

// twoHosts makes two hosts with libvirt, each with a bridge br0 on the production network, and a client on that network.
func twoHosts(ctx context.Context, t *testing.T) (l *lab.Lab, h1, h2, client *lab.Host) {
	t.Helper()
	l = newLab(ctx, t, "labt")
	if err := l.AddSegment(ctx, "prod"); err != nil {
		t.Fatal(err)
	}
	h1 = addHost(ctx, t, l, lab.HostOptions{Name: "h1", Libvirt: true})
	h2 = addHost(ctx, t, l, lab.HostOptions{Name: "h2", Libvirt: true})
	for _, h := range []*lab.Host{h1, h2} {
		plugBridge(ctx, t, h)
	}
	client = addHost(ctx, t, l, lab.HostOptions{Name: "client"})
	if err := client.Attach(ctx, "prod", "eth1"); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, client, "ip", "addr", "add", "10.20.0.100/24", "dev", "eth1")
	return l, h1, h2, client
}

// crash starts the guest and cuts the host's power before the guest has booted.
func crash(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	run(ctx, t, h, "virsh", "--connect", "qemu:///system", "start", "erp")
	run(ctx, t, h, "nft", "add", "table", "inet", "rules")
	bootID := run(ctx, t, h, "cat", "/proc/sys/kernel/random/boot_id")
	if err := h.Crash(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(ctx, "virsh", "--connect", "qemu:///system", "list"); err == nil {
		t.Error("libvirtd answers after a crash of its host")
	}
	if again := run(ctx, t, h, "cat", "/proc/sys/kernel/random/boot_id"); again == bootID {
		t.Errorf("boot id is still %s", bootID)
	}
	if rules := run(ctx, t, h, "nft", "list", "ruleset"); rules != "" {
		t.Errorf("rules outlived the crash: %s", rules)
	}
	if links := run(ctx, t, h, "ip", "-brief", "link"); strings.Contains(links, "br0") || !strings.Contains(links, "up0") {
		t.Errorf("links after the crash: %s", links)
	}
	if err := h.StartLibvirt(ctx); err != nil {
		t.Fatal(err)
	}
	if err := expectState(ctx, h, "shut off"); err != nil {
		t.Error(err)
	}
}

func expectState(ctx context.Context, h *lab.Host, want string) error {
	out, err := h.Run(ctx, "virsh", "--connect", "qemu:///system", "domstate", "erp")
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(out); got != want {
		return &stateError{got, want}
	}
	return nil
}

// stateError says that the guest is in another state than expected.
type stateError struct{ got, want string }

func (e *stateError) Error() string { return "guest is " + e.got + ", want " + e.want }

// plugBridge gives a host an uplink to the production segment, in a bridge.
func plugBridge(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	if err := h.Attach(ctx, "prod", "up0"); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, h, "ip", "link", "add", "br0", "up", "type", "bridge")
	run(ctx, t, h, "ip", "link", "set", "up0", "master", "br0")
}

// writeDomain makes the guest's disk on the host and returns the path of its definition, outside of the host's directory.
func writeDomain(ctx context.Context, t *testing.T, h *lab.Host) string {
	t.Helper()
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	img, err := guest.Build(ctx, cache)
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(h.Dir, "data", "erp.qcow2")
	if err := guest.Disk(ctx, disk, 64<<20, "production"); err != nil {
		t.Fatal(err)
	}
	text, err := guest.Domain{Name: "erp", Image: img, Disk: disk, Bridges: []string{"br0"}, Params: guest.Params{
		Name: "erp", NICs: []guest.NIC{{MAC: "52:54:00:20:00:05", Address: "10.20.0.5/24"}}, RecordEvery: 100 * time.Millisecond,
	}}.XML("/var/log/libvirt")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "erp.xml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
