package bridge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/sdn/bridge"
	"github.com/hotspare/hotspare/internal/sdn/conformance"
)

const (
	// privateEnv marks the test process that has mounts of its own.
	privateEnv = "HOTSPARE_TEST_PRIVATE_MOUNTS"
	// serveEnv makes the test binary an HTTP server on this address until its input ends.
	serveEnv = "HOTSPARE_TEST_SERVE"
)

// TestMain runs the tests in a mount namespace with an empty /run/netns, so that named namespaces are
// this process's own and vanish with it, whatever happens.
func TestMain(m *testing.M) {
	if address := os.Getenv(serveEnv); address != "" {
		serve(address)
		return
	}
	if os.Getenv(privateEnv) == "" && missing() == "" {
		script := `mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec "$@"`
		args := append([]string{"unshare", "-m", "sh", "-c", script, "sh", "/proc/self/exe"}, os.Args[1:]...)
		// The path of the test binary; /proc/self/exe would be the shell by then.
		if exe, err := os.Executable(); err == nil {
			args[6] = exe
		}
		path, err := exec.LookPath("unshare")
		if err == nil {
			err = syscall.Exec(path, args, append(os.Environ(), privateEnv+"=1"))
		}
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serve(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println("listen:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	io.Copy(io.Discard, os.Stdin)
}

// missing says what the tests need and this machine lacks.
func missing() string {
	if os.Getuid() != 0 {
		return "root is needed to make network namespaces"
	}
	for tool, pkg := range map[string]string{
		"ip": "iproute2", "nft": "nftables", "ping": "iputils-ping", "unshare": "util-linux",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is missing: install the Debian package " + pkg
		}
	}
	return ""
}

// need skips the test when the machine lacks something; in CI that is a failure.
func need(t *testing.T) {
	t.Helper()
	if what := missing(); what != "" {
		if os.Getenv("HOTSPARE_CI") != "" {
			t.Fatal(what)
		}
		t.Skip(what)
	}
}

// hosts numbers the simulated hosts of this process, for names and subnets.
var hosts atomic.Int32

// host is a network namespace that stands for a hypervisor host, with a driver.
type host struct {
	ns     string
	driver *bridge.Driver
	// subnets maps a network's name to the second number of its subnet 10.N.0.0/24.
	subnets map[string]int
	// machines numbers the machines, for names and addresses.
	machines int
}

func newHost(t *testing.T) *host {
	t.Helper()
	need(t)
	h := &host{ns: fmt.Sprintf("hs-t%d", hosts.Add(1)), subnets: map[string]int{}}
	run(t, "ip", "netns", "add", h.ns)
	t.Cleanup(func() { run(t, "ip", "netns", "del", h.ns) })
	run(t, "ip", "-n", h.ns, "link", "set", "lo", "up")
	d, err := bridge.New(bridge.Options{Namespace: "/run/netns/" + h.ns, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	h.driver = d
	t.Cleanup(h.sweep)
	return h
}

// sweep removes the probe namespaces that a failed test left.
func (h *host) sweep() {
	paths, _ := filepath.Glob("/run/netns/hs-probe-*")
	for _, p := range paths {
		exec.Command("ip", "netns", "del", filepath.Base(p)).Run()
	}
}

// spec makes a network without an uplink.
func (h *host) spec(name string, role pb.NetworkRole) *pb.NetworkSpec {
	if h.subnets[name] == 0 {
		h.subnets[name] = len(h.subnets) + 1
	}
	return &pb.NetworkSpec{
		Name: name, Role: role, Bridge: "br-" + name, ProbeAddress: fmt.Sprintf("10.%d.0.253/24", h.subnets[name]),
	}
}

// harness is the host as the conformance suite wants it.
func (h *host) harness() conformance.NetworkHarness {
	return conformance.NetworkHarness{
		Driver:    h.driver,
		Spec:      h.spec,
		Inventory: h.inventory,
		DeleteBridge: func(t *testing.T, s *pb.NetworkSpec) {
			run(t, "ip", "-n", h.ns, "link", "del", s.GetBridge())
		},
		AddForeign: func(t *testing.T, s *pb.NetworkSpec) {
			run(t, "ip", "-n", h.ns, "link", "add", s.GetBridge(), "type", "bridge")
		},
		Answer: func(t *testing.T, s *pb.NetworkSpec) string {
			m := h.plug(t, s)
			t.Cleanup(func() { m.unplug(t) })
			return m.serve(t)
		},
		Plug: func(t *testing.T, s *pb.NetworkSpec) conformance.Machine {
			m := h.plug(t, s)
			t.Cleanup(func() { m.unplug(t) })
			return conformance.Machine{Card: m.card(), Asks: func(*testing.T) bool { return m.connects(metadataService) }}
		},
		Traffic:     h.traffic,
		HostTraffic: h.hostTraffic,
	}
}

var volatile = regexp.MustCompile(
	`(?m)^\d+: |@if\d+|link-netnsid \d+|link-netns \S+|qlen \d+|link/\S+ \S+ brd \S+|NO-CARRIER,|,LOWER_UP|,M-DOWN|state \S+`)

// inventory lists links, rules and namespaces, without what differs from run to run.
func (h *host) inventory(t *testing.T) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(run(t, "ip", "-n", h.ns, "-o", "link")) {
		all = append(all, strings.Join(strings.Fields(volatile.ReplaceAllString(line, "")), " "))
	}
	// The order of tables is that of their making.
	all = append(all, strings.SplitAfter(run(t, "ip", "netns", "exec", h.ns, "nft", "-s", "list", "ruleset"), "\n}\n")...)
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, "netns "+e.Name())
	}
	slices.Sort(all)
	return all
}

// openWide makes the host the worst neighbour it can be: it routes everything, and has an address on
// every bridge and on its loopback.
func (h *host) openWide(t *testing.T) {
	t.Helper()
	run(t, "ip", "netns", "exec", h.ns, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	run(t, "ip", "-n", h.ns, "address", "replace", hostAddress+"/32", "dev", "lo")
	links := run(t, "ip", "-n", h.ns, "-br", "link")
	for name, n := range h.subnets {
		if !strings.Contains(links, "br-"+name+" ") {
			continue
		}
		run(t, "ip", "-n", h.ns, "address", "replace", fmt.Sprintf("10.%d.0.254/24", n), "dev", "br-"+name)
		run(t, "ip", "-n", h.ns, "address", "replace", fmt.Sprintf("fd00:%d::254/64", n), "dev", "br-"+name, "nodad")
	}
}

// hostAddress is an address of the host that is on no bridge.
const hostAddress = "10.99.0.1"

// traffic reports whether a machine on one network reaches a machine on another. TCP and ping must
// agree.
func (h *host) traffic(t *testing.T, from, to *pb.NetworkSpec) bool {
	t.Helper()
	h.openWide(t)
	a, b := h.plug(t, from), h.plug(t, to)
	defer a.unplug(t)
	defer b.unplug(t)
	tcp, ping := a.reaches(b.serve(t))
	if tcp != ping {
		t.Errorf("%s to %s: tcp %v, ping %v", from.GetName(), to.GetName(), tcp, ping)
	}
	return tcp || ping
}

// hostTraffic reports whether a machine reaches any address of the host.
func (h *host) hostTraffic(t *testing.T, from *pb.NetworkSpec) bool {
	t.Helper()
	h.openWide(t)
	m := h.plug(t, from)
	defer m.unplug(t)
	stop := serveIn(t, h.ns, ":8080")
	defer stop()
	addresses := []string{hostAddress}
	for _, n := range h.subnets {
		addresses = append(addresses, fmt.Sprintf("10.%d.0.254", n), fmt.Sprintf("fd00:%d::254", n))
	}
	var reached atomic.Bool
	var running sync.WaitGroup
	for _, a := range addresses {
		running.Go(func() {
			if tcp, ping := m.reaches(net.JoinHostPort(a, "8080")); tcp || ping {
				t.Logf("a machine on %s reaches %s of the host", from.GetName(), a)
				reached.Store(true)
			}
		})
	}
	running.Wait()
	return reached.Load()
}

// machine is a network namespace that stands for a virtual machine.
type machine struct {
	ns, port, address string
	mac               net.HardwareAddr
	host              *host
	stop              func()
}

func (m *machine) card() sdn.Card {
	return sdn.Card{MAC: m.mac, Address: netip.MustParseAddr(m.address)}
}

// metadataService is where machines of lent networks reach their host's agent.
const metadataService = "169.254.169.254:80"

// plug makes a machine with a port in the network's bridge and the host as its gateway.
func (h *host) plug(t *testing.T, s *pb.NetworkSpec) *machine {
	t.Helper()
	h.machines++
	subnet := h.subnets[s.GetName()]
	m := &machine{
		ns:      fmt.Sprintf("%s-m%d", h.ns, h.machines),
		address: fmt.Sprintf("10.%d.0.%d", subnet, h.machines),
		mac:     net.HardwareAddr{0x52, 0x54, 0, 0, byte(subnet), byte(h.machines)},
		host:    h,
		stop:    func() {},
	}
	m.port = model.PortName(s.GetName(), m.mac.String())
	run(t, "ip", "netns", "add", m.ns)
	// As libvirt does: the port has the card's address with FE in front.
	outer := slices.Clone(m.mac)
	outer[0] = 0xfe
	run(t, "ip", "-n", h.ns, "link", "add", m.port, "address", outer.String(), "type", "veth",
		"peer", "name", "eth0", "address", m.mac.String(), "netns", m.ns)
	run(t, "ip", "-n", h.ns, "link", "set", m.port, "master", s.GetBridge(), "up")
	run(t, "ip", "-n", m.ns, "address", "add", m.address+"/24", "dev", "eth0")
	run(t, "ip", "-n", m.ns, "address", "add", fmt.Sprintf("fd00:%d::%d/64", subnet, h.machines), "dev", "eth0", "nodad")
	run(t, "ip", "-n", m.ns, "link", "set", "eth0", "up")
	run(t, "ip", "-n", m.ns, "route", "add", "default", "via", fmt.Sprintf("10.%d.0.254", subnet))
	run(t, "ip", "-n", m.ns, "route", "add", "169.254.169.254", "dev", "eth0")
	return m
}

func (m *machine) unplug(t *testing.T) {
	t.Helper()
	m.stop()
	run(t, "ip", "netns", "del", m.ns)
	// The port goes with its namespace, but later.
	exec.Command("ip", "-n", m.host.ns, "link", "del", m.port).Run()
}

// serve starts an HTTP server in the machine and returns its address.
func (m *machine) serve(t *testing.T) string {
	t.Helper()
	m.stop = serveIn(t, m.ns, m.address+":8080")
	return m.address + ":8080"
}

// reaches tries TCP and ping at the same time: what is dropped takes the whole limit of each.
func (m *machine) reaches(address string) (tcp, ping bool) {
	var running sync.WaitGroup
	running.Go(func() { tcp = m.connects(address) })
	running.Go(func() { host, _, _ := net.SplitHostPort(address); ping = m.pings(host) })
	running.Wait()
	return tcp, ping
}

// connects reports whether a TCP connection is made within a second.
func (m *machine) connects(address string) bool {
	host, port, _ := net.SplitHostPort(address)
	script := "exec 3<>/dev/tcp/" + host + "/" + port
	return exec.Command("ip", "netns", "exec", m.ns, "timeout", "1", "bash", "-c", script).Run() == nil
}

func (m *machine) pings(address string) bool {
	return exec.Command("ip", "netns", "exec", m.ns, "ping", "-c", "1", "-W", "1", address).Run() == nil
}

// serveIn runs this test binary as a server in a namespace and returns what ends it.
func serveIn(t *testing.T, ns, address string) func() {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", ns, exe)
	cmd.Env = append(os.Environ(), serveEnv+"="+address)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	n, _ := out.Read(line)
	if !bytes.HasPrefix(line[:n], []byte("ready")) {
		t.Fatalf("server in %s says %q", ns, line[:n])
	}
	return func() {
		in.Close()
		cmd.Wait()
	}
}

// run runs a command that must succeed and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}
