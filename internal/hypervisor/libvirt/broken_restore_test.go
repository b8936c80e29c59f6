package libvirt_test

import (
	"errors"
	"os"
	"path/filepath"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
)

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
