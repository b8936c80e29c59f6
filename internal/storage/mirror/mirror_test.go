package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	poolDir string
	address string
	source  *mirror.Source
	state   string
	log     *slog.Logger
}

func newChain(t *testing.T) *chain {
	t.Helper()
	c := &chain{host: newHost(t), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	c.poolDir = filepath.Join(c.dir, "pool")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c.address = listener.Addr().String()
	must(t, listener.Close())
	must(t, os.Mkdir(c.poolDir, 0o700))
	c.pool, err = qcow2.New(qcow2.Options{Dir: c.poolDir, Address: c.address, Log: c.log})
	must(t, err)
	t.Cleanup(func() {
		c.killDaemon(t)
		must(t, c.pool.Close())
	})
	c.state = filepath.Join(c.dir, "mirrors.json")
	c.newSource(t)
	return c
}

// newSource starts the agent's side again.
func (c *chain) newSource(t *testing.T) {
	t.Helper()
	var err error
	c.source, err = mirror.New(mirror.Options{Socket: c.socket(), StateFile: c.state, Log: c.log})
	must(t, err)
}

func (c *chain) killDaemon(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.poolDir, ".daemon", "qsd.pid"))
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
	c.run(t, disk, format)
	c.io(t, "write -P 1 0 512")
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
	c.io(t, "write -P 2 0 512")
	must(t, c.pool.Clone(within(t), &pb.VolumeSpec{Name: "dev", CloneOf: "web-root"}))
	c.io(t, "write -P 3 0 512")
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
	c.io(t, "write -P 2 0 512")
	c.killDaemon(t)
	c.io(t, "write -P 3 0 512")
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
