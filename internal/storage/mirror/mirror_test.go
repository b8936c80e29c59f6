package mirror_test

import (
	"context"
	"errors"
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

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
	"github.com/hotspare/hotspare/internal/storage/mirror"
	"github.com/hotspare/hotspare/internal/storage/qcow2"
)

const diskBytes = 64 << 20

// chain is a production VM whose disk is mirrored into a pool.
type chain struct {
	*host
	pool    *qcow2.Driver
	address string
	source  *mirror.Source
	state   string
	log     *slog.Logger
}

func newChain(t *testing.T) *chain {
	t.Helper()
	c := &chain{host: newHost(t), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	c.pool, c.address = newPool(t, filepath.Join(c.dir, "pool"), c.log)
	c.state = filepath.Join(c.dir, "mirrors.json")
	c.newSource(t)
	return c
}

// newPool makes a pool that is served on a loopback address of its own: a port of 127.0.0.1 could be
// some client's by the time it is used.
func newPool(t *testing.T, dir string, log *slog.Logger) (*qcow2.Driver, string) {
	t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:10809", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close())
	must(t, os.Mkdir(dir, 0o700))
	pool, err := qcow2.New(qcow2.Options{Dir: dir, Address: address, Log: log})
	must(t, err)
	t.Cleanup(func() {
		killDaemon(t, dir)
		must(t, pool.Close())
	})
	return pool, address
}

// newSource starts the agent's side again.
func (c *chain) newSource(t *testing.T) {
	t.Helper()
	var err error
	c.source, err = mirror.New(mirror.Options{Socket: c.socket(), StateFile: c.state, Log: c.log})
	must(t, err)
}

func killDaemon(t *testing.T, poolDir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(poolDir, ".daemon", "qsd.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	must(t, err)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	waitFor(t, "the end of the storage daemon", func() bool { return gone(pid) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (c *chain) sourceSpec(n uint64) *pb.VolumeSpec {
	return &pb.VolumeSpec{
		Name: "web-root", Domain: domainName, Disk: "hda", Resync: n,
		MirrorTo: "nbd://" + c.address + "/web-root",
	}
}

func targetSpec(n, converged uint64) *pb.VolumeSpec {
	return &pb.VolumeSpec{Name: "web-root", SizeBytes: diskBytes, Resync: n, Converged: converged}
}

// production starts the VM on a new disk of 64 MiB that holds 1 in its first sector.
func (c *chain) production(t *testing.T, format string) string {
	t.Helper()
	disk := filepath.Join(c.dir, "web."+format)
	out, err := exec.Command("qemu-img", "create", "-q", "-f", format, disk, strconv.Itoa(diskBytes)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.run(t, domainName, "<source file='"+disk+"'/>", format)
	c.io(t, domainName, "write -P 1 0 512")
	return disk
}

func (c *chain) status(t *testing.T, n uint64) *pb.VolumeStatus {
	t.Helper()
	v, err := c.source.Inspect(within(t), c.sourceSpec(n))
	must(t, err)
	if v.State != pb.State_STATE_PRIMARY {
		t.Fatalf("state %v", v.State)
	}
	return v.Status
}

// converge mirrors under a number until the pool has it as a consistent point.
func (c *chain) converge(t *testing.T, n, converged uint64) {
	t.Helper()
	must(t, c.pool.Receive(within(t), targetSpec(n, converged)))
	must(t, c.source.Mirror(within(t), c.sourceSpec(n)))
	waitFor(t, fmt.Sprintf("synchronisation %d to converge", n), func() bool {
		st := c.status(t, n)
		return st.GetInSync() && st.GetResync() == n && st.GetDegradedSince() == nil
	})
	must(t, c.pool.Receive(within(t), targetSpec(n, n)))
}

// holds checks the first sector of an export or a file.
func holds(t *testing.T, format, image string, want int) {
	t.Helper()
	out, err := exec.Command("qemu-io", "-r", "-f", format, "-c", fmt.Sprintf("read -P %d 0 512", want), image).CombinedOutput()
	if err != nil || strings.Contains(string(out), "failed") {
		t.Fatalf("%s does not hold %d: %v: %s", image, want, err, out)
	}
}

func TestSynchronousMirrorLosesNothing(t *testing.T) {
	c := newChain(t)
	c.production(t, "qcow2")
	if c.source.Mirror(within(t), c.sourceSpec(1)) == nil {
		t.Fatal("a mirror without a target started")
	}
	c.converge(t, 1, 0)
	c.io(t, domainName, "write -P 2 0 512")
	must(t, c.pool.Clone(within(t), &pb.VolumeSpec{Name: "dev", CloneOf: "web-root"}))
	c.io(t, domainName, "write -P 3 0 512")
	if st := c.status(t, 1); !st.GetInSync() {
		t.Fatalf("the clone disturbed the mirror: %v", st)
	}
	holds(t, "raw", "nbd://"+c.address+"/dev", 2)
	c.killGuest(t, domainName)
	must(t, c.pool.Promote(within(t), targetSpec(1, 1)))
	holds(t, "raw", "nbd://"+c.address+"/web-root", 3)
	waitFor(t, "libvirt to see the end of the VM", func() bool { return c.status(t, 1).GetDegradedSince() != nil })
	if reason := c.status(t, 1).GetDegradedReason(); reason != "production VM is not running" {
		t.Fatalf("degraded because %q", reason)
	}
}

func TestDeadMirrorIsNotStartedAgain(t *testing.T) {
	c := newChain(t)
	c.production(t, "qcow2")
	c.converge(t, 1, 0)
	c.io(t, domainName, "write -P 2 0 512")
	killDaemon(t, filepath.Join(c.dir, "pool"))
	c.io(t, domainName, "write -P 3 0 512")
	waitFor(t, "the mirror's end to show", func() bool { return c.status(t, 1).GetDegradedSince() != nil })
	since := c.status(t, 1).GetDegradedSince().AsTime()
	c.newSource(t)
	must(t, c.pool.Receive(within(t), targetSpec(1, 1)))
	must(t, c.source.Mirror(within(t), c.sourceSpec(1)))
	st := c.status(t, 1)
	if st.GetInSync() || !st.GetDegradedSince().AsTime().Equal(since) {
		t.Fatalf("after the agent's restart: %v, was degraded since %v", st, since)
	}
	// The layer of the dead mirror is a point still, and holds what was written before it died.
	must(t, c.pool.Receive(within(t), targetSpec(2, 1)))
	must(t, c.pool.Clone(within(t), &pb.VolumeSpec{Name: "drill", CloneOf: "web-root"}))
	holds(t, "raw", "nbd://"+c.address+"/drill", 2)
	c.converge(t, 2, 1)
	if st := c.status(t, 2); st.GetDegradedSince() != nil || st.GetDegradedReason() != "" {
		t.Fatalf("after the resync: %v", st)
	}
	c.killGuest(t, domainName)
	must(t, c.pool.Promote(within(t), targetSpec(2, 2)))
	holds(t, "raw", "nbd://"+c.address+"/web-root", 3)
}

func TestUnmirror(t *testing.T) {
	c := newChain(t)
	c.production(t, "raw")
	c.converge(t, 1, 0)
	must(t, c.source.Unmirror(within(t), c.sourceSpec(1)))
	must(t, c.source.Unmirror(within(t), c.sourceSpec(1)))
	waitFor(t, "the mirror to end", func() bool { return !c.status(t, 1).GetInSync() })
	must(t, c.source.Mirror(within(t), c.sourceSpec(1)))
	if st := c.status(t, 1); st.GetInSync() || st.GetDegradedReason() == "" {
		t.Fatalf("a number was used twice: %v", st)
	}
}

func TestUnknownDomainAndDisk(t *testing.T) {
	c := newChain(t)
	c.production(t, "qcow2")
	for _, spec := range []*pb.VolumeSpec{{Domain: "none", Disk: "hda"}, {Domain: domainName, Disk: "vdb"}} {
		if _, err := c.source.Inspect(within(t), spec); !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("inspect %v: got %v", spec, err)
		}
		spec.Resync, spec.MirrorTo = 1, "nbd://127.0.0.1:1/x"
		if err := c.source.Mirror(within(t), spec); !errors.Is(err, storage.ErrNotFound) {
			t.Fatalf("mirror %v: got %v", spec, err)
		}
	}
	if v, err := c.source.Inspect(within(t), &pb.VolumeSpec{Domain: domainName, Disk: "hda"}); err != nil || v.Status.GetDegradedSince() != nil {
		t.Fatalf("a disk that is to be mirrored nowhere: %v %v", v.Status, err)
	}
}

// TestIdleMirrorHidesItsDeath shows why the target's end must be watched as well: until the VM writes
// again libvirt says that all is well, even after the target is back. The write that fails ends the
// mirror and is not in the layer.
func TestIdleMirrorHidesItsDeath(t *testing.T) {
	c := newChain(t)
	c.production(t, "qcow2")
	c.converge(t, 1, 0)
	c.io(t, domainName, "write -P 2 0 512")
	killDaemon(t, filepath.Join(c.dir, "pool"))
	v, err := c.pool.Inspect(within(t), "web-root")
	must(t, err)
	if v.Status.GetDegradedSince() == nil || v.Status.GetPoint() == nil {
		t.Fatalf("the pool must tell that mirrors ended with its daemon, and keep its point: %v", v.Status)
	}
	if st := c.status(t, 1); !st.GetInSync() {
		t.Fatalf("libvirt saw the target's death before a write: %v", st)
	}
	c.io(t, domainName, "write -P 3 0 512")
	waitFor(t, "the mirror's end to show", func() bool { return c.status(t, 1).GetDegradedSince() != nil })
	c.killGuest(t, domainName)
	must(t, c.pool.Promote(within(t), targetSpec(1, 1)))
	holds(t, "raw", "nbd://"+c.address+"/web-root", 2)
}

// await looks at the promoted volume until it is as wanted.
func (c *chain) await(t *testing.T, what string, done func(*pb.VolumeStatus) bool) {
	t.Helper()
	waitFor(t, "the way back to be "+what, func() bool {
		v, err := c.pool.Inspect(within(t), "web-root")
		must(t, err)
		return done(v.Status)
	})
}

// TestWayBack promotes, mirrors the promoted volume back into the protected site's own pool while a VM
// writes to it, and starts the old VM from the disk that was handed over.
func TestWayBack(t *testing.T) {
	c := newChain(t)
	disk := c.production(t, "qcow2")
	c.converge(t, 1, 0)
	c.io(t, domainName, "write -P 2 0 512")
	// QEMU keeps qcow2's tables in memory until the guest flushes; here the old disk is looked at later.
	c.io(t, domainName, "flush")
	c.killGuest(t, domainName)
	must(t, c.pool.Promote(within(t), targetSpec(1, 1)))

	address, port, err := net.SplitHostPort(c.address)
	must(t, err)
	c.run(t, promotedName, fmt.Sprintf("<source protocol='nbd' name='web-root'><host name='%s' port='%s'/></source>", address, port), "raw")
	c.io(t, promotedName, "write -P 3 0 512")
	old, oldAddress := newPool(t, filepath.Join(c.dir, "old-pool"), c.log)
	var v storage.Volume
	waitFor(t, "libvirt to see that the VM has ended", func() bool {
		v, err = c.source.Inspect(within(t), c.sourceSpec(1))
		must(t, err)
		return !v.Status.GetWriterRunning()
	})
	if v.Status.GetDiskPath() != disk {
		t.Fatalf("the old side: %v, want disk %s", v.Status, disk)
	}
	receive := targetSpec(1, 0)
	receive.Disk = v.Status.GetDiskPath()
	must(t, old.Receive(within(t), receive))
	back := targetSpec(1, 1)
	back.MirrorTo = "nbd://" + oldAddress + "/web-root"
	must(t, c.pool.Promote(within(t), back))
	c.await(t, "in sync", (*pb.VolumeStatus).GetInSync)
	c.io(t, promotedName, "write -P 4 0 512")
	c.killGuest(t, promotedName)
	back.Sealed = true
	// Refused while the mirror is behind; an agent asks again, too.
	waitFor(t, "the mirror to catch up", func() bool { return c.pool.Promote(within(t), back) == nil })
	c.await(t, "sealed", (*pb.VolumeStatus).GetSealed)
	receive.Converged = 1
	must(t, old.Promote(within(t), receive))
	holds(t, "qcow2", disk, 4)
	holds(t, "qcow2", disk+".hotspare-before", 2)
	must(t, c.source.Run(within(t), c.sourceSpec(1)))
	must(t, c.source.Run(within(t), c.sourceSpec(1)))
	if v, err := c.source.Inspect(within(t), c.sourceSpec(1)); err != nil || !v.Status.GetWriterRunning() {
		t.Fatalf("the old VM does not run: %v %v", v.Status, err)
	}
	c.io(t, domainName, "write -P 5 0 512")

	receive.Resync = 0
	must(t, old.Demote(within(t), receive))
	must(t, old.Remove(within(t), "web-root"))
	again := targetSpec(2, 1)
	again.DropPromoted = true
	must(t, c.pool.Demote(within(t), again))
	must(t, c.pool.Clone(within(t), &pb.VolumeSpec{Name: "drill", CloneOf: "web-root"}))
	holds(t, "raw", "nbd://"+c.address+"/drill", 2)
	c.converge(t, 2, 1)
	c.io(t, domainName, "write -P 6 0 512")
	must(t, c.pool.Clone(within(t), &pb.VolumeSpec{Name: "drill-2", CloneOf: "web-root"}))
	holds(t, "raw", "nbd://"+c.address+"/drill-2", 6)
}
