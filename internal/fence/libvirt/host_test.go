package libvirt_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/internal/fence/libvirt"
)

// oldSide is a protected site: one host of a lab with its own libvirtd, and a relay in front of it.
type oldSide struct {
	host  *lab.Host
	relay *relay
	// stateDir outlives the drivers of one test.
	stateDir string
}

// newHost makes the host that all tests of one parent share.
func newHost(t *testing.T) *lab.Host {
	t.Helper()
	lab.Require(t, lab.FeatureLibvirt)
	// t.TempDir is too long for libvirt's socket.
	dir, err := os.MkdirTemp("", "hs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	l, err := lab.New(t.Context(), lab.Options{Name: "fence", Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	h, err := l.AddHost(t.Context(), lab.HostOptions{Name: "east", Libvirt: true})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newSide(t *testing.T, h *lab.Host) *oldSide {
	t.Helper()
	return &oldSide{host: h, relay: startRelay(t, h.LibvirtSocket), stateDir: t.TempDir()}
}

// driver makes a driver for target "east" as a new agent process would.
func (s *oldSide) driver(t *testing.T, domains ...string) *libvirt.Driver {
	t.Helper()
	return newDriver(t, s.stateDir, libvirt.Target{Socket: s.relay.socket, Domains: domains})
}

func newDriver(t *testing.T, stateDir string, target libvirt.Target) *libvirt.Driver {
	t.Helper()
	d, err := libvirt.New(libvirt.Options{
		Targets:  map[string]libvirt.Target{"east": target},
		StateDir: stateDir,
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// virsh runs virsh on the host; it must succeed.
func (s *oldSide) virsh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := virsh(s.host, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func virsh(h *lab.Host, args ...string) (string, error) {
	// Also in clean-up, when the test's own context has ended.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return h.Run(ctx, "virsh", append([]string{"--connect", "qemu:///system"}, args...)...)
}

// domain defines a domain without an operating system and removes it when the test ends.
func (s *oldSide) domain(t *testing.T, name string) {
	t.Helper()
	s.virsh(t, "define", s.domainXML(t, name))
	t.Cleanup(func() {
		virsh(s.host, "destroy", name)
		if _, err := virsh(s.host, "undefine", name); err != nil {
			t.Errorf("undefine %s: %v", name, err)
		}
	})
}

// domainXML writes the definition and returns its path.
func (s *oldSide) domainXML(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(s.stateDir, name+".xml")
	xml := fmt.Sprintf(`<domain type='qemu'><name>%s</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><cpu mode='maximum'/>
<on_crash>destroy</on_crash><devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>`, name)
	if err := os.WriteFile(path, []byte(xml), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *oldSide) state(t *testing.T, name string) string {
	t.Helper()
	return s.virsh(t, "domstate", name)
}

// autostart reports whether virsh shows a domain's autostart enabled.
func (s *oldSide) autostart(t *testing.T, name string) bool {
	t.Helper()
	for line := range strings.Lines(s.virsh(t, "dominfo", name)) {
		if value, found := strings.CutPrefix(line, "Autostart:"); found {
			return strings.TrimSpace(value) == "enable"
		}
	}
	t.Fatalf("dominfo %s shows no autostart", name)
	return false
}

// relay carries bytes between the driver and libvirtd's socket, and can fall silent.
type relay struct {
	socket, tcp string
	// after is how many bytes of the driver still pass; negative: all. What comes later is swallowed.
	after atomic.Int64
}

func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	dir, err := os.MkdirTemp("", "hsr")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{socket: filepath.Join(dir, "sock")}
	r.after.Store(-1)
	unix, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.tcp = tcp.Addr().String()
	var running sync.WaitGroup
	t.Cleanup(func() {
		unix.Close()
		tcp.Close()
		running.Wait()
		os.RemoveAll(dir)
	})
	for _, l := range []net.Listener{unix, tcp} {
		running.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				running.Go(func() { r.serve(conn, target) })
			}
		})
	}
	return r
}

func (r *relay) serve(client net.Conn, target string) {
	defer client.Close()
	server, err := net.Dial("unix", target)
	if err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(client, server)
		client.Close()
	})
	buffer := make([]byte, 4096)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			break
		}
		if left := r.after.Load(); left >= 0 {
			n = min(n, int(left))
			r.after.Add(-int64(n))
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			break
		}
	}
	server.Close()
	back.Wait()
}
