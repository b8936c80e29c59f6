package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/e2e/guest"
	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
)

// deafImage is a guest that ignores the power button and writes records to a disk of its own.
const deafImage = `apiVersion: hotspare/v1
kind: Image
metadata: {name: deaf}
spec: {kernel: %s, initrd: %s, cmdline: "%s", disk: %s}
`

// crowd is a plan that needs one host more than there is.
func crowd() string {
	plan := strings.Replace(swornPage, "name: sworn", "name: crowd", 1)
	head, workload, _ := strings.Cut(plan, "  - name: page\n")
	for i := range 3 {
		next := strings.NewReplacer("52:54:00:aa:00:02", fmt.Sprintf("52:54:00:aa:00:2%d", i), "10.10.0.12", fmt.Sprintf("10.10.0.2%d", i)).Replace(workload)
		head += fmt.Sprintf("  - name: page%d\n%s", i, next)
	}
	return head
}

// crowdOut fails over a plan that does not fit, onto hosts whose lent VMs cannot be saved: one ignores the power button, the other's
// file system is too small for its memory. What fits starts, the rest is listed, the disk is kept. Meanwhile a lease is released.
func crowdOut(ctx context.Context, t *testing.T, r *round) {
	s := r.Site
	r.connected(ctx, t)
	run(ctx, t, s, "lease", "release", "web-1")
	base := filepath.Join(s.H1.Dir, "services", "deaf.qcow2")
	if err := guest.Disk(ctx, base, 1<<20, "deaf"); err != nil {
		t.Fatal(err)
	}
	cmdline := guest.Params{IgnoreShutdown: true, RecordEvery: pollEvery}.CommandLine()
	if err := s.Apply(ctx, fmt.Sprintf(deafImage, s.Image.Kernel, s.Image.Initrd, cmdline, base)); err != nil {
		t.Fatal(err)
	}
	deaf := r.lend(ctx, t, "web-2", "deaf", "shutdown")
	full := r.lend(ctx, t, "web-3", "tiny", "save")
	before := answers(ctx, t, s, deaf, full)
	r.fill(ctx, t, full)
	path := filepath.Join(s.Client.Dir, "services", "crowd.yaml")
	if err := os.WriteFile(path, []byte(crowd()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, s, "apply", "--accept-unproven", "-f", path)
	starts, things := r.starts(t), inventory(ctx, t, s)
	r.number++
	name := fmt.Sprintf("fo-%d", r.number)
	run(ctx, t, s, "failover", "declare", "crowd", "--reason", t.Name(), "--yes")
	run(ctx, t, s, "failover", "swear", name, "--reason", "it burned down", "--yes")
	r.awaitPhase(ctx, t, name, "incomplete")
	out := run(ctx, t, s, "failover", "describe", name)
	for _, want := range []string{"crowd/page2  2 vcpus, 128MiB fit on no host", "save failed: save instance/web-3-0"} {
		if !strings.Contains(out, want) {
			t.Errorf("nobody is told %q", want)
		}
	}
	run(ctx, t, s, "lease", "release", "web-3")
	run(ctx, t, s, "failback", "crowd", "--reason", t.Name(), "--yes")
	r.awaitPhase(ctx, t, name, "failed back")
	after := answers(ctx, t, s, deaf)
	starts["hs-web-2-0"]++
	starts[fmt.Sprintf("hs-crowd-page0-e%d", r.number)]++
	starts[fmt.Sprintf("hs-crowd-page1-e%d", r.number)]++
	if diff := cmp.Diff(starts, r.starts(t)); diff != "" {
		t.Errorf("QEMU was started not as often as needed, the released VM included (-want +got):\n%s", diff)
	}
	run(ctx, t, s, "lease", "undelete", "web-3")
	maps.Copy(after, answers(ctx, t, s, full))
	for object, a := range after {
		if was := before[object]; a.BootID == was.BootID || a.Disk.Marker != was.Disk.Marker || a.Disk.LastRecord < was.Disk.LastRecord {
			t.Errorf("%s was %+v and is %+v: want a cold boot from the same disk", object, was, a)
		}
	}
	if was := before["instance/web-2-0"]; was.Disk.Marker != "deaf" || was.Disk.LastRecord == 0 {
		t.Errorf("the deaf guest wrote nothing to its disk: %+v", was)
	}
	if diff := cmp.Diff(r.swept(things), r.swept(inventory(ctx, t, s))); diff != "" {
		t.Errorf("something was left behind (-before +after):\n%s", diff)
	}
}

// lend creates a lease of one VM that fills a host.
func (r *round) lend(ctx context.Context, t *testing.T, name, image, action string) site.Lease {
	t.Helper()
	run(ctx, t, r.Site, "lease", "create", "-p", "web", "--vm", "2cpu,128MiB", "--image", image, "--term", "1h",
		"--on-preempt", action, "--grace", "1s", "--wait")
	l, err := r.Lease(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fill puts a small file system where the lease's VM would be saved to.
func (r *round) fill(ctx context.Context, t *testing.T, l site.Lease) {
	t.Helper()
	h, err := r.Host(l.Instances[0].Host)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.Dir, "data", "instances", "hs-"+l.Name+"-0")
	if _, err := h.Run(ctx, "mount", "-t", "tmpfs", "-o", "size=8m", "none", dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, h, dir) })
}

func unmount(t *testing.T, h *lab.Host, dir string) {
	t.Helper()
	if _, err := h.Run(context.WithoutCancel(t.Context()), "umount", "--lazy", dir); err != nil {
		t.Error(err)
	}
}
