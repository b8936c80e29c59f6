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
	"testing"
	"time"

	"github.com/hotspare/hotspare/e2e/guest"
	"github.com/hotspare/hotspare/e2e/lab"
	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/hypervisor/libvirt"
	"github.com/hotspare/hotspare/internal/model"
)

// bench is one driver on a host whose parts the tests break.
type bench struct {
	*site
	t   *testing.T
	dir string
	d   *libvirt.Driver
	// small is a state directory on a file system with room for disks and not for RAM.
	small string
}

// smallDisk mounts a file system of 8 MiB. The lab's hosts see only what was mounted before them.
func smallDisk(t *testing.T) string {
	t.Helper()
	lab.Require(t, lab.FeatureLibvirt)
	dir, err := os.MkdirTemp("", "hvbrk-small-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestBroken breaks libvirtd, QEMU, the disk and the agent, one at a time, and looks at what is left.
func TestBroken(t *testing.T) {
	small := smallDisk(t)
	s := newSite(t, "hvbrk")
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"save aborted", saveAborted},
		{"libvirtd killed in mid-save", libvirtdKilledInSave},
		{"libvirtd hangs", libvirtdHangs},
		{"disk full while saving", diskFull},
		{"qemu killed in mid-save", qemuKilledInSave},
		{"qemu hangs", qemuHangs},
		{"agent killed in mid-save", agentKilledInSave},
		{"agent killed in mid-restore", agentKilledInRestore},
		{"somebody starts a saved domain", startedByHand},
		{"image missing or cut", imageCut},
		{"nbd disk and its death", nbdDeath},
		{"libvirtd killed in mid-restore", libvirtdKilledInRestore},
		{"overhead", overhead},
		{"cloud-init seed", cloudInitSeed},
		{"host loses power in mid-save", powerLoss}, // the last one: it takes the bridge away
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			b := &bench{site: s, t: t, dir: s.stateDir(t), small: small}
			b.d = s.open(t, b.dir)
			t.Cleanup(b.cleanUp)
			c.run(b)
		})
	}
}

// cleanUp removes all domains with what is left of the bench.
func (b *bench) cleanUp() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.t.Context()), patience)
	defer cancel()
	defer b.d.Close()
	domains, err := b.d.List(ctx)
	if err != nil {
		b.t.Errorf("clean up: %v", err)
	}
	for _, dom := range domains {
		if err := b.d.Stop(ctx, dom.ID, hypervisor.StopOptions{}); err != nil {
			b.t.Errorf("clean up: %v", err)
		}
		if err := b.d.Remove(ctx, dom.ID); err != nil {
			b.t.Errorf("clean up: %v", err)
		}
	}
}

func (b *bench) ctx(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), d)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *bench) must(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// start runs a guest and waits for its first answer.
func (b *bench) start(name string) (model.ObjectID, answer) {
	b.t.Helper()
	// The guest keeps writing to its disk while it is saved and killed.
	def := b.definition(name, addressOf(name), guest.Params{RecordEvery: 50 * time.Millisecond})
	b.must("define", b.d.Define(b.ctx(patience), def))
	b.must("start", b.d.Start(b.ctx(patience), def.ID))
	return def.ID, b.awaitGuest(b.t, def.ID)
}

// wantState waits until the domain is in the state, without a problem.
func (b *bench) wantState(id model.ObjectID, want pb.State) {
	b.t.Helper()
	eventually(b.t, "state "+want.String(), func() error {
		d, err := b.d.Inspect(b.ctx(patience), id)
		if err != nil {
			return err
		}
		if d.State != want || d.Problem != "" {
			return fmt.Errorf("it is %v with problem %q", d.State, d.Problem)
		}
		return nil
	})
}

// wantGuest checks that the guest is the same one and its counter went on.
func (b *bench) wantGuest(id model.ObjectID, before answer) {
	b.t.Helper()
	eventually(b.t, "the guest goes on", func() error {
		a, err := b.ask(b.t.Context(), addressOf(id.Name()))
		if err != nil {
			return err
		}
		if a.BootID != before.BootID {
			b.t.Fatalf("boot id %s, want %s: the RAM was lost", a.BootID, before.BootID)
		}
		if a.Counter <= before.Counter {
			return fmt.Errorf("counter %d, before %d", a.Counter, before.Counter)
		}
		return nil
	})
}

func (b *bench) file(id model.ObjectID, name string) string {
	return filepath.Join(b.dir, domainOf(id), name)
}

// wantFiles checks which RAM images exist.
func (b *bench) wantFiles(id model.ObjectID, want ...string) {
	b.t.Helper()
	found, err := filepath.Glob(b.file(id, "ram.*"))
	b.must("list images", err)
	for i, f := range found {
		found[i] = filepath.Base(f)
	}
	if fmt.Sprint(found) != fmt.Sprint(want) {
		b.t.Errorf("images %q, want %q", found, want)
	}
}

// saving begins a save and returns once libvirt writes the image.
func (b *bench) saving(ctx context.Context, id model.ObjectID) <-chan error {
	b.t.Helper()
	result := make(chan error, 1)
	go func() { result <- b.d.Save(ctx, id) }()
	path := b.file(id, "ram.partial")
	deadline := time.Now().Add(patience)
	for {
		// Faster than eventually looks: the whole save takes less than a second.
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return result
		}
		if time.Now().After(deadline) {
			b.t.Fatal("libvirt does not begin to save")
		}
	}
}

func (b *bench) result(c <-chan error) error {
	b.t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		b.t.Fatal("the call does not return")
		return nil
	}
}

func (b *bench) libvirtdPID() int {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.host.Dir, "run", "libvirtd.pid"))
	b.must("read libvirtd's pid", err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	b.must("read libvirtd's pid", err)
	return pid
}

func saveAborted(b *bench) {
	id, before := b.start("a")
	ctx, cancel := context.WithCancel(b.ctx(patience))
	saved := b.saving(ctx, id)
	cancel()
	if err := b.result(saved); !errors.Is(err, context.Canceled) {
		b.t.Errorf("cancelled save: %v", err)
	}
	eventually(b.t, "the save has ended", func() error {
		if _, err := os.Stat(b.file(id, "ram.partial")); err == nil {
			return errors.New("the image is still there")
		}
		return nil
	})
	b.wantState(id, pb.State_STATE_RUNNING)
	b.wantFiles(id)
	b.wantGuest(id, before)
}

func libvirtdKilledInSave(b *bench) {
	id, before := b.start("a")
	events, err := b.d.Watch(b.t.Context())
	b.must("watch", err)
	saved := b.saving(b.ctx(patience), id)
	b.must("kill libvirtd", b.host.KillLibvirt(b.ctx(patience)))
	if err := b.result(saved); err == nil {
		b.t.Error("a save whose libvirtd was killed succeeded")
	}
	for range events {
	} // the watch ends with its connection
	if _, err := b.d.Inspect(b.ctx(500*time.Millisecond), id); err == nil {
		b.t.Error("inspect without libvirtd succeeded")
	}
	b.must("start libvirtd", b.host.StartLibvirt(b.ctx(patience)))
	d, err := b.d.Inspect(b.ctx(patience), id)
	b.must("inspect", err)
	b.t.Logf("after a kill of libvirtd in mid-save: %v, problem %q", d.State, d.Problem)
	b.wantState(id, pb.State_STATE_RUNNING)
	b.wantFiles(id)
	b.wantGuest(id, before)
	b.must("save", b.d.Save(b.ctx(patience), id))
	b.must("restore", b.d.Restore(b.ctx(patience), id))
	b.wantGuest(id, before)
}

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

func diskFull(b *bench) {
	b.d.Close()
	b.dir = b.small
	b.d = b.open(b.t, b.dir)
	id, before := b.start("a")
	err := b.d.Save(b.ctx(patience), id)
	b.t.Logf("save on a full disk: %v", err)
	if err == nil {
		b.t.Error("a save on a full disk succeeded")
	}
	b.wantFiles(id)
	b.wantState(id, pb.State_STATE_RUNNING)
	b.wantGuest(id, before)
	b.must("stop", b.d.Stop(b.ctx(patience), id, hypervisor.StopOptions{}))
	b.must("remove", b.d.Remove(b.ctx(patience), id))
}

func qemuKilledInSave(b *bench) {
	id, _ := b.start("a")
	pid := b.qemuPID(b.t, id)
	saved := b.saving(b.ctx(patience), id)
	b.must("kill qemu", syscall.Kill(pid, syscall.SIGKILL))
	if err := b.result(saved); err == nil {
		b.t.Log("the save had ended before the kill")
		return
	}
	b.wantState(id, pb.State_STATE_DEFINED)
	b.wantFiles(id)
	b.must("start", b.d.Start(b.ctx(patience), id))
	b.awaitGuest(b.t, id)
}

func qemuHangs(b *bench) {
	id, _ := b.start("a")
	other := b.definition("b", addressOf("b"), guest.Params{})
	b.must("define another", b.d.Define(b.ctx(patience), other))
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

func agentKilledInSave(b *bench) {
	id, before := b.start("a")
	saved := b.saving(b.ctx(patience), id)
	b.d.Close()
	_ = b.result(saved)
	b.d = b.open(b.t, b.dir)
	b.wantState(id, pb.State_STATE_SAVED) // libvirtd went on without us
	b.wantFiles(id, "ram.saved")
	b.must("restore", b.d.Restore(b.ctx(patience), id))
	b.wantGuest(id, before)
	b.wantFiles(id)
}

func agentKilledInRestore(b *bench) {
	id, before := b.start("a")
	b.must("save", b.d.Save(b.ctx(patience), id))
	saved, restoring, used := b.file(id, "ram.saved"), b.file(id, "ram.restoring"), b.file(id, "ram.used")
	load := func() { b.virsh(b.t, "restore", "--paused", restoring) }

	b.must("rename", os.Rename(saved, restoring)) // killed before QEMU was started
	b.wantState(id, pb.State_STATE_SAVED)
	b.wantFiles(id, "ram.saved")

	b.must("rename", os.Rename(saved, restoring)) // killed while the guest stands still
	load()
	b.wantState(id, pb.State_STATE_SAVED)
	b.wantFiles(id, "ram.saved")
	b.must("restore", b.d.Restore(b.ctx(patience), id))
	b.wantGuest(id, before)

	b.must("save", b.d.Save(b.ctx(patience), id))
	b.must("rename", os.Rename(saved, restoring)) // killed after the guest had the word to run
	load()
	b.must("rename", os.Rename(restoring, used))
	b.virsh(b.t, "resume", domainOf(id))
	b.wantState(id, pb.State_STATE_RUNNING)
	b.wantFiles(id)
	b.wantGuest(id, before)

	b.must("save", b.d.Save(b.ctx(patience), id))
	b.must("rename", os.Rename(saved, restoring)) // killed while the guest may or may not have run
	load()
	b.must("rename", os.Rename(restoring, used))
	b.wantState(id, pb.State_STATE_DEFINED)
	b.wantFiles(id)
	if err := b.d.Restore(b.ctx(patience), id); !errors.Is(err, hypervisor.ErrState) {
		b.t.Errorf("restore of a used image: %v, want ErrState", err)
	}
	b.must("start", b.d.Start(b.ctx(patience), id))
	if a := b.awaitGuest(b.t, id); a.BootID == before.BootID {
		b.t.Error("a used image was loaded again")
	}
}

func startedByHand(b *bench) {
	id, before := b.start("a")
	b.must("save", b.d.Save(b.ctx(patience), id))
	b.virsh(b.t, "start", domainOf(id))
	b.wantState(id, pb.State_STATE_RUNNING)
	b.wantFiles(id)
	if a := b.awaitGuest(b.t, id); a.BootID == before.BootID {
		b.t.Error("virsh start restored our image")
	}
}

func imageCut(b *bench) {
	id, _ := b.start("a")
	b.must("save", b.d.Save(b.ctx(patience), id))
	b.must("cut", os.Truncate(b.file(id, "ram.saved"), 1<<20))
	err := b.d.Restore(b.ctx(patience), id)
	b.t.Logf("restore of a cut image: %v", err)
	if err == nil {
		b.t.Error("a cut image was restored")
	}
	b.wantState(id, pb.State_STATE_SAVED)
	b.must("drop", b.d.DropSaved(b.ctx(patience), id))
	b.must("start", b.d.Start(b.ctx(patience), id))
}

func nbdDeath(b *bench) {
	export := filepath.Join(b.host.Dir, "data", "export.qcow2")
	b.must("make the export", guest.Disk(b.t.Context(), export, 64*mib, "replica"))
	b.t.Cleanup(func() { os.Remove(export) })
	server, err := b.host.Start("nbd", b.host.Command(context.Background(), "qemu-nbd", "--persistent", "--shared=4", "-f", "qcow2",
		"-b", "10.30.0.1", "-p", "10901", "-x", "db-root", export))
	b.must("start qemu-nbd", err)
	def := b.definition("a", addressOf("a"), guest.Params{RecordEvery: 100 * time.Millisecond})
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
}

func libvirtdKilledInRestore(b *bench) {
	id, before := b.start("a")
	b.must("save", b.d.Save(b.ctx(patience), id))
	restored := make(chan error, 1)
	go func() { restored <- b.d.Restore(b.ctx(patience), id) }()
	pidFile := filepath.Join(b.host.Dir, "run", "libvirt", "qemu", domainOf(id)+".pid")
	eventually(b.t, "QEMU loads the image", func() error { _, err := os.Stat(pidFile); return err })
	b.must("kill libvirtd", b.host.KillLibvirt(b.ctx(patience)))
	if err := b.result(restored); err == nil {
		b.t.Log("the restore had ended before the kill")
	}
	b.must("start libvirtd", b.host.StartLibvirt(b.ctx(patience)))
	var d hypervisor.Domain
	eventually(b.t, "the domain is settled", func() (err error) {
		d, err = b.d.Inspect(b.ctx(patience), id)
		if err == nil && d.Problem != "" {
			err = errors.New(d.Problem)
		}
		return err
	})
	b.t.Logf("after a kill of libvirtd in mid-restore: %v", d.State)
	if d.State == pb.State_STATE_SAVED {
		b.wantFiles(id, "ram.saved")
		b.must("restore", b.d.Restore(b.ctx(patience), id))
	}
	b.wantGuest(id, before)
	b.wantFiles(id)
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
	kept, before := b.start("b")
	b.must("save", b.d.Save(b.ctx(patience), kept))
	id, _ := b.start("a")
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
	def := b.definition("a", addressOf("a"), guest.Params{})
	def.Spec.UserData = []byte("#cloud-config\nhostname: web\n")
	def.Spec.SshKeys = []string{"ssh-ed25519 AAAA me"}
	b.must("define", b.d.Define(b.ctx(patience), def))
	image, err := os.ReadFile(b.file(def.ID, "seed.iso"))
	b.must("read the seed", err)
	// The volume name stands at a fixed place of the primary volume descriptor.
	if name := strings.TrimSpace(string(image[16*2048+40 : 16*2048+72])); name != "cidata" {
		b.t.Errorf("the seed's volume name is %q", name)
	}
	for _, want := range []string{"hostname: web", "ssh-ed25519 AAAA me", "local-hostname: \"a\""} {
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
}
