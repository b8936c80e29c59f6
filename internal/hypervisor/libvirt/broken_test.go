package libvirt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// TestBroken breaks libvirtd, QEMU, the disk and the agent, one at a time, and looks at what is left. A guest takes ten
// seconds to boot, so a case takes over the guest that the case before left, in whatever state.
func TestBroken(t *testing.T) {
	small := smallDisk(t)
	s := newSite(t, "hvbrk")
	shared := &bench{site: s, t: t, dir: s.stateDir(t), small: small}
	for _, c := range []struct {
		name string
		run  func(*bench)
	}{
		{"disk full while saving", diskFull},
		{"save aborted", saveAborted},
		{"libvirtd killed in mid-save", libvirtdKilledInSave},
		{"libvirtd hangs", libvirtdHangs},
		{"overhead", overhead},
		{"agent killed in mid-save", agentKilledInSave},
		{"libvirtd killed in mid-restore", libvirtdKilledInRestore},
		{"agent killed in mid-restore", agentKilledInRestore},
		{"nbd disk and its death", nbdDeath},
		{"somebody starts a saved domain", startedByHand},
		{"image missing or cut", imageCut},
		{"qemu killed in mid-save", qemuKilledInSave},
		{"qemu hangs", qemuHangs},
		{"cloud-init seed", cloudInitSeed},
		{"host loses power in mid-save", powerLoss}, // the last one: it takes the bridge away
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			b := *shared
			b.t, b.d = t, s.open(t, b.dir)
			t.Cleanup(func() {
				if t.Failed() {
					b.cleanUp() // The next case shall not suffer for it.
				}
				b.d.Close()
			})
			c.run(&b)
		})
	}
	shared.d = s.open(t, shared.dir)
	defer shared.d.Close()
	shared.cleanUp()
}

// cleanUp removes all domains.
func (b *bench) cleanUp() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.t.Context()), patience)
	defer cancel()
	domains, err := b.d.List(ctx)
	if err != nil {
		b.t.Errorf("clean up: %v", err)
	}
	for _, dom := range domains {
		b.remove(ctx, dom.ID)
	}
}

// remove ends a domain and removes it.
func (b *bench) remove(ctx context.Context, id model.ObjectID) {
	b.t.Helper()
	if err := errors.Join(b.d.Stop(ctx, id, hypervisor.StopOptions{}), b.d.Remove(ctx, id)); err != nil {
		b.t.Errorf("clean up %s: %v", id, err)
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

// boot defines and starts a guest and does not wait for it.
func (b *bench) boot(name string) model.ObjectID {
	b.t.Helper()
	// The guest keeps writing to its disk while it is saved and killed.
	def := b.definition(name, addressOf(name), guest.Params{RecordEvery: 50 * time.Millisecond})
	b.must("define", b.d.Define(b.ctx(patience), def))
	b.must("start", b.d.Start(b.ctx(patience), def.ID))
	return def.ID
}

// start runs the guest that the cases share, or takes it over, and waits for its answer.
func (b *bench) start(name string) (model.ObjectID, answer) {
	b.t.Helper()
	id := model.NewObjectID(pb.Kind_KIND_INSTANCE, name)
	d, err := b.d.Inspect(b.ctx(patience), id)
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		b.boot(name)
	case err != nil:
		b.t.Fatalf("inspect: %v", err)
	case d.State == pb.State_STATE_SAVED:
		b.must("restore", b.d.Restore(b.ctx(patience), id))
	case d.State != pb.State_STATE_RUNNING:
		b.must("start", b.d.Start(b.ctx(patience), id))
	}
	return id, b.awaitGuest(b.t, id)
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
