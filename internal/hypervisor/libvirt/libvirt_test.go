package libvirt_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
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
	"github.com/hotspare/hotspare/internal/hypervisor/conformance"
	"github.com/hotspare/hotspare/internal/hypervisor/libvirt"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	mib = 1 << 20
	// patience covers a boot under emulation on a loaded machine; 12 s was seen at load 13.
	patience = 90 * time.Second
)

// site is one lab host with libvirt, a bridge and the test guest's image.
type site struct {
	lab   *lab.Lab
	host  *lab.Host
	image guest.Image
	base  string // disk image that the guests' disks are layers of
	ssd   string // the directory of another local pool, on a file system of its own
	dirs  int
}

// newSite makes the lab; the test is skipped, or fails in CI, where libvirt is missing.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	lab.Require(t, lab.FeatureLibvirt)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	l, err := lab.New(ctx, lab.Options{Name: name, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	h, err := l.AddHost(ctx, lab.HostOptions{Name: "h1", Libvirt: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{lab: l, host: h, base: filepath.Join(h.Dir, "data", "base.qcow2")}
	if s.ssd, err = os.MkdirTemp("/dev/shm", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(s.ssd) })
	s.run(t, "ip", "link", "add", "br0", "up", "type", "bridge")
	s.run(t, "ip", "addr", "add", "10.30.0.1/24", "dev", "br0")
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if s.image, err = guest.Build(ctx, cache); err != nil {
		t.Fatal(err)
	}
	if err := guest.Disk(ctx, s.base, 64*mib, "base"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	out, err := s.host.Run(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *site) virsh(t *testing.T, args ...string) string {
	t.Helper()
	return s.run(t, "virsh", append([]string{"--connect", "qemu:///system"}, args...)...)
}

// open makes a driver; the caller closes it.
func (s *site) open(t *testing.T, stateDir string) *libvirt.Driver {
	t.Helper()
	d, err := libvirt.New(libvirt.Options{
		Socket: s.host.LibvirtSocket, StateDir: stateDir, LocalPools: map[string]string{"ssd": s.ssd}, DomainType: "qemu", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *site) stateDir(t *testing.T) string {
	t.Helper()
	s.dirs++
	dir := filepath.Join(s.host.Dir, "data", fmt.Sprintf("state%d", s.dirs))
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// definition is a guest that answers at address, with a layered disk and a blank one in each local pool.
func (s *site) definition(name, address string, p guest.Params) hypervisor.Definition {
	p.Name = ""
	return hypervisor.Definition{
		ID: model.NewObjectID(pb.Kind_KIND_INSTANCE, name), Owner: "lease/<" + name + ">",
		Spec: &pb.InstanceSpec{
			Hostname: name, Vcpus: 1, MemoryBytes: 128 * mib,
			Disks: []*pb.Disk{
				{Name: "root", Source: &pb.Disk_Image{Image: s.base}},
				{Name: "scratch", Source: &pb.Disk_BlankBytes{BlankBytes: 16 * mib}},
				{Name: "local-ssd", LocalPool: "ssd", Source: &pb.Disk_BlankBytes{BlankBytes: 16 * mib}},
			},
			Nics: []*pb.Nic{{Network: "lent", Bridge: "br0", Mac: "52:54:00:30:00:" + address[len(address)-2:], Address: address + "/24"}},
			Boot: &pb.Boot{Kernel: s.image.Kernel, Initrd: s.image.Initrd, Cmdline: p.CommandLine()},
		},
	}
}

// domainOf is the name of an instance's domain, as the driver must choose it.
func domainOf(id model.ObjectID) string { return "hs-" + id.Name() }

// answer is what the guest says at GET /.
type answer struct {
	Hostname string `json:"hostname"`
	BootID   string `json:"boot_id"`
	Counter  uint64 `json:"counter"`
	Disk     struct {
		Marker string `json:"marker"`
	} `json:"disk"`
}

// ask reads a guest once.
func (s *site) ask(ctx context.Context, address string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return answer{}, err
	}
	client := s.lab.HTTPClient(s.host)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var a answer
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// eventually waits until the function succeeds.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

// addressOf gives the guests of one host different addresses.
func addressOf(name string) string {
	sum := 0
	for _, c := range name {
		sum += int(c)
	}
	return fmt.Sprintf("10.30.0.%d", 10+sum%80)
}

func (s *site) awaitGuest(t *testing.T, id model.ObjectID) answer {
	t.Helper()
	var a answer
	eventually(t, "guest "+string(id)+" answers", func() (err error) {
		a, err = s.ask(t.Context(), addressOf(id.Name()))
		return err
	})
	return a
}

// qemuPID is the process of a running domain, as libvirt noted it.
func (s *site) qemuPID(t *testing.T, id model.ObjectID) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.host.Dir, "run", "libvirt", "qemu", domainOf(id)+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// starts counts the starts of QEMU in libvirt's log of the domain.
func (s *site) starts(t *testing.T, id model.ObjectID) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.host.Dir, "log", "qemu", domainOf(id)+".log"))
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), ": starting up libvirt version")
}

func (s *site) inventory(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	lines, err := s.lab.Inventory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestConformance(t *testing.T) {
	s := newSite(t, "hvconf")
	conformance.Run(t, conformance.Harness{Driver: "libvirt", New: func(t *testing.T) *conformance.Fixture {
		return s.fixture(t)
	}})
}

func (s *site) fixture(t *testing.T) *conformance.Fixture {
	// The starts are counted from here.
	logs, err := filepath.Glob(filepath.Join(s.host.Dir, "log", "qemu", "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		if err := os.Remove(l); err != nil {
			t.Fatal(err)
		}
	}
	dir := s.stateDir(t)
	t.Cleanup(func() {
		for _, line := range s.inventory(t) {
			if strings.Contains(line, "hs-") {
				t.Errorf("left behind: %s", line)
			}
		}
		if left, err := os.ReadDir(s.ssd); err != nil || len(left) > 0 {
			t.Errorf("left behind in the local pool: %v, %v", left, err)
		}
	})
	define := func(name string) hypervisor.Definition {
		return s.definition(name, addressOf(name), guest.Params{})
	}
	driver := s.open(t, dir)
	t.Cleanup(func() { driver.Close() })
	return &conformance.Fixture{
		Driver: driver, Patience: patience, Define: define, CancelSaveAfter: 150 * time.Millisecond,
		Stubborn: func(name string) hypervisor.Definition {
			return s.definition(name, addressOf(name), guest.Params{IgnoreShutdown: true})
		},
		Ready: func(t *testing.T, id model.ObjectID) { s.awaitGuest(t, id) },
		Guest: func(t *testing.T, id model.ObjectID) conformance.Guest {
			a := s.awaitGuest(t, id)
			return conformance.Guest{BootID: a.BootID, Counter: a.Counter}
		},
		Starts:  s.starts,
		Foreign: s.foreign,
		Kill: func(t *testing.T, id model.ObjectID) {
			if err := syscall.Kill(s.qemuPID(t, id), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		Inventory: s.inventory,
		Disks: func(t *testing.T, id model.ObjectID) []string {
			var paths []string
			for _, dir := range []string{dir, s.ssd} {
				some, err := filepath.Glob(filepath.Join(dir, domainOf(id), "disk-*"))
				if err != nil {
					t.Fatal(err)
				}
				paths = append(paths, some...)
			}
			for i, p := range paths {
				info, err := os.Stat(p)
				if err != nil {
					t.Fatal(err)
				}
				paths[i] = fmt.Sprintf("%s inode %d", p, info.Sys().(*syscall.Stat_t).Ino)
			}
			return paths
		},
		Reopen: func(t *testing.T) hypervisor.Driver {
			driver.Close()
			driver = s.open(t, dir)
			return driver
		},
	}
}

// foreign runs a domain without our metadata under the name that a domain of ours would have.
func (s *site) foreign(t *testing.T) conformance.Foreign {
	t.Helper()
	id := model.NewObjectID(pb.Kind_KIND_INSTANCE, "alien")
	text, err := guest.Domain{Name: domainOf(id), Image: s.image}.XML("")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "alien.xml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s.virsh(t, "define", path)
	t.Cleanup(func() {
		s.virsh(t, "destroy", domainOf(id))
		s.virsh(t, "undefine", domainOf(id))
	})
	s.virsh(t, "start", domainOf(id))
	return conformance.Foreign{ID: id, VCPUs: 1, MemoryBytes: guest.MemoryMiB * mib, Running: func() bool {
		return strings.TrimSpace(s.virsh(t, "domstate", domainOf(id))) == "running"
	}}
}
