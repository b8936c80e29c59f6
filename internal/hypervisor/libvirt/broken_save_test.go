package libvirt_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
)

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

func diskFull(b *bench) {
	b.boot("a") // The next case's guest boots along.
	b.d.Close()
	b.dir = b.small
	b.d = b.open(b.t, b.dir)
	id, before := b.start("small")
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
	b.start("a")
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
