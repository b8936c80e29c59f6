package libvirt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hotspare/hotspare/e2e/guest"
	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
)

func libvirtdHangs(b *bench) {
	id, before := b.start("a")
	pid := b.libvirtdPID()
	b.must("stop libvirtd", syscall.Kill(pid, syscall.SIGSTOP))
	defer syscall.Kill(pid, syscall.SIGCONT)
	calls := map[string]func(context.Context) error{
		"inspect":  func(ctx context.Context) error { _, err := b.d.Inspect(ctx, id); return err },
		"list":     func(ctx context.Context) error { _, err := b.d.List(ctx); return err },
		"capacity": func(ctx context.Context) error { _, err := b.d.Capacity(ctx); return err },
		"save":     func(ctx context.Context) error { return b.d.Save(ctx, id) },
		"watch":    func(ctx context.Context) error { _, err := b.d.Watch(ctx); return err },
		"stop":     func(ctx context.Context) error { return b.d.Stop(ctx, id, hypervisor.StopOptions{}) },
	}
	for range 3 { // more calls than slots
		for name, do := range calls {
			began := time.Now()
			if err := do(b.ctx(100 * time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
				b.t.Errorf("%s with a hanging libvirtd: %v", name, err)
			}
			if took := time.Since(began); took > time.Second {
				b.t.Errorf("%s with a hanging libvirtd took %v", name, took)
			}
		}
	}
	b.must("continue libvirtd", syscall.Kill(pid, syscall.SIGCONT))
	// The first save was accepted, and so aborted or done; it is never half done.
	eventually(b.t, "the domain is clean", func() error {
		d, err := b.d.Inspect(b.ctx(patience), id)
		if err != nil {
			return err
		}
		if d.State == pb.State_STATE_SAVED {
			return b.d.Restore(b.ctx(patience), id)
		}
		if d.State != pb.State_STATE_RUNNING || d.Problem != "" {
			return fmt.Errorf("it is %v with problem %q", d.State, d.Problem)
		}
		return nil
	})
	b.wantGuest(id, before)
}

func qemuHangs(b *bench) {
	id, _ := b.start("a")
	other := b.definition("b", addressOf("b"), guest.Params{})
	b.must("define another", b.d.Define(b.ctx(patience), other))
	defer b.remove(b.ctx(patience), other.ID)
	b.must("stop qemu", syscall.Kill(b.qemuPID(b.t, id), syscall.SIGSTOP))
	if err := b.d.Save(b.ctx(2*time.Second), id); !errors.Is(err, context.DeadlineExceeded) {
		b.t.Errorf("save of a hanging guest: %v", err)
	}
	for range 3 {
		if _, err := b.d.Inspect(b.ctx(2*time.Second), id); err != nil {
			b.t.Errorf("inspect a hanging guest: %v", err)
		}
	}
	b.must("start another", b.d.Start(b.ctx(20*time.Second), other.ID))
	if _, err := b.d.List(b.ctx(2 * time.Second)); err != nil {
		b.t.Errorf("list with a hanging guest: %v", err)
	}
	began := time.Now()
	b.must("kill", b.d.Stop(b.ctx(patience), id, hypervisor.StopOptions{}))
	b.t.Logf("kill of a hanging guest with a stuck save took %v", time.Since(began).Round(time.Millisecond))
	b.wantState(id, pb.State_STATE_DEFINED)
	b.wantFiles(id)
	b.wantState(other.ID, pb.State_STATE_RUNNING)
}

func nbdDeath(b *bench) {
	export := filepath.Join(b.host.Dir, "data", "export.qcow2")
	b.must("make the export", guest.Disk(b.t.Context(), export, 64*mib, "replica"))
	b.t.Cleanup(func() { os.Remove(export) })
	server, err := b.host.Start("nbd", b.host.Command(context.Background(), "qemu-nbd", "--persistent", "--shared=4", "-f", "qcow2",
		"-b", "10.30.0.1", "-p", "10901", "-x", "db-root", export))
	b.must("start qemu-nbd", err)
	def := b.definition("nbd", addressOf("nbd"), guest.Params{RecordEvery: 100 * time.Millisecond})
	def.Spec.Disks = []*pb.Disk{{Name: "root", Source: &pb.Disk_Nbd{Nbd: "nbd://10.30.0.1:10901/db-root"}}}
	b.must("define", b.d.Define(b.ctx(patience), def))
	eventually(b.t, "start", func() error { return b.d.Start(b.ctx(patience), def.ID) })
	if a := b.awaitGuest(b.t, def.ID); a.Disk.Marker != "replica" {
		b.t.Errorf("the guest's disk is %q, want the export", a.Disk.Marker)
	}
	if c, err := b.d.Console(b.ctx(patience), def.ID, 0, 1<<20); err != nil || !bytes.Contains(c.Text, []byte("hotspare-guest")) {
		b.t.Errorf("console: %q, %v", c.Text, err)
	}
	events, err := b.d.Watch(b.t.Context())
	b.must("watch", err)
	b.must("kill qemu-nbd", server.Kill(b.ctx(patience)))
	for {
		select {
		case <-events:
		case <-time.After(patience):
			b.t.Fatal("no event after the death of the disk")
		}
		d, err := b.d.Inspect(b.ctx(patience), def.ID)
		b.must("inspect", err)
		if d.Problem != "" {
			b.t.Logf("state %v, problem %q", d.State, d.Problem)
			if d.State != pb.State_STATE_RUNNING || !strings.Contains(d.Problem, "I/O error") {
				b.t.Errorf("state %v, problem %q", d.State, d.Problem)
			}
			break
		}
	}
	b.must("stop", b.d.Stop(b.ctx(patience), def.ID, hypervisor.StopOptions{Grace: patience}))
	b.wantState(def.ID, pb.State_STATE_DEFINED)
	b.remove(b.ctx(patience), def.ID)
}

// overhead compares what capacity counts for a guest with what QEMU takes.
func overhead(b *bench) {
	id, _ := b.start("a")
	c, err := b.d.Capacity(b.ctx(patience))
	b.must("capacity", err)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", b.qemuPID(b.t, id)))
	b.must("read QEMU's memory", err)
	var kib uint64
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Rss:" {
			kib, err = strconv.ParseUint(f[1], 10, 64)
			b.must("read QEMU's memory", err)
		}
	}
	b.t.Logf("a guest of 128 MiB takes %d MiB, capacity counts %d MiB", kib>>10, 128+c.GetOverheadBytes()>>20)
	if kib == 0 || kib<<10 > 128*mib+c.GetOverheadBytes() {
		b.t.Errorf("a guest of 128 MiB takes %d KiB, more than capacity counts", kib)
	}
}

func powerLoss(b *bench) {
	b.boot("kept")
	id, _ := b.start("a") // Both boot at once.
	kept, before := b.start("kept")
	b.must("save", b.d.Save(b.ctx(patience), kept))
	saved := b.saving(b.ctx(patience), id)
	b.must("cut the power", b.host.Crash(b.ctx(patience)))
	b.d.Close()
	err := b.result(saved)
	b.must("start libvirtd", b.host.StartLibvirt(b.ctx(patience)))
	b.d = b.open(b.t, b.dir)
	d, inspectErr := b.d.Inspect(b.ctx(patience), id)
	b.must("inspect", inspectErr)
	b.t.Logf("after a loss of power in mid-save: %v, the save said %v", d.State, err)
	if d.State == pb.State_STATE_RUNNING || err == nil && d.State != pb.State_STATE_SAVED {
		b.t.Errorf("state %v; the save said %v", d.State, err)
	}
	b.wantState(kept, pb.State_STATE_SAVED)
	b.run(b.t, "ip", "link", "add", "br0", "up", "type", "bridge")
	b.run(b.t, "ip", "addr", "add", "10.30.0.1/24", "dev", "br0")
	b.must("restore", b.d.Restore(b.ctx(patience), kept))
	b.wantGuest(kept, before)
}

func cloudInitSeed(b *bench) {
	if _, err := exec.LookPath("genisoimage"); err != nil && os.Getenv("HOTSPARE_CI") != "1" {
		b.t.Skip("package missing: genisoimage")
	}
	def := b.definition("cloud", addressOf("cloud"), guest.Params{})
	def.Spec.UserData = []byte("#cloud-config\nhostname: web\n")
	def.Spec.SshKeys = []string{"ssh-ed25519 AAAA me"}
	b.must("define", b.d.Define(b.ctx(patience), def))
	image, err := os.ReadFile(b.file(def.ID, "seed.iso"))
	b.must("read the seed", err)
	// The volume name stands at a fixed place of the primary volume descriptor.
	if name := strings.TrimSpace(string(image[16*2048+40 : 16*2048+72])); name != "cidata" {
		b.t.Errorf("the seed's volume name is %q", name)
	}
	for _, want := range []string{"hostname: web", "ssh-ed25519 AAAA me", "local-hostname: \"cloud\""} {
		if !bytes.Contains(image, []byte(want)) {
			b.t.Errorf("the seed lacks %q", want)
		}
	}
	b.must("start", b.d.Start(b.ctx(patience), def.ID))
	b.awaitGuest(b.t, def.ID)
	b.must("stop", b.d.Stop(b.ctx(patience), def.ID, hypervisor.StopOptions{Grace: patience}))
	def.Spec.UserData, def.Spec.SshKeys = nil, nil
	b.must("define without a seed", b.d.Define(b.ctx(patience), def))
	if _, err := os.Stat(b.file(def.ID, "seed.iso")); !os.IsNotExist(err) {
		b.t.Errorf("the seed is still there: %v", err)
	}
	b.remove(b.ctx(patience), def.ID)
}
