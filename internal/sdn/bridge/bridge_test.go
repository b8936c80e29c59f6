package bridge_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/sdn/conformance"
)

const (
	production = pb.NetworkRole_NETWORK_ROLE_PRODUCTION
	lent       = pb.NetworkRole_NETWORK_ROLE_LENT
	bubble     = pb.NetworkRole_NETWORK_ROLE_BUBBLE
)

func TestConforms(t *testing.T) {
	conformance.RunNetworks(t, func(t *testing.T) conformance.NetworkHarness { return newHost(t).harness() })
}

// TestFlushedRules is the control of the traffic cases, too: without the rules the same machines reach
// each other, so the cases can fail.
func TestFlushedRules(t *testing.T) {
	h := newHost(t)
	one, two := h.spec("one", production), h.spec("two", lent)
	h.ensure(t, one)
	h.ensure(t, two)
	if h.traffic(t, two, one) {
		t.Fatal("lent reaches production")
	}
	counters := run(t, "ip", "netns", "exec", h.ns, "nft", "list", "table", "inet", "hotspare")
	if !strings.Contains(counters, "counter packets") || !strings.Contains(counters, `"br-two"`) {
		t.Errorf("the table shows no counters or no bridge:\n%s", counters)
	}
	// What `systemctl restart nftables` does.
	run(t, "ip", "netns", "exec", h.ns, "nft", "flush", "ruleset")
	if !h.traffic(t, two, one) || !h.hostTraffic(t, two) {
		t.Error("without the rules lent does not reach production: the test cannot fail")
	}
	h.wantMissing(t, two)
	if _, err := h.driver.Inspect(t.Context(), one); err != nil {
		t.Errorf("production needs no rules: %v", err)
	}
	h.ensure(t, two)
	if h.traffic(t, two, one) || h.hostTraffic(t, two) {
		t.Error("lent reaches production or the host after the repair")
	}
}

// TestEachRuleAlone counts the pings that arrive, not the answers: an answer that is dropped would hide
// a rule that lets the question through.
func TestEachRuleAlone(t *testing.T) {
	h := newHost(t)
	one, two := h.spec("one", production), h.spec("two", lent)
	h.ensure(t, one)
	h.ensure(t, two)
	h.openWide(t)
	prod, guest, self := h.plug(t, one), h.plug(t, two), &machine{ns: h.ns, address: hostAddress}
	defer prod.unplug(t)
	defer guest.unplug(t)
	for _, c := range []struct {
		name     string
		from, to *machine
		arrives  bool
	}{
		{"lent to the host", guest, self, false},
		{"the host to lent", self, guest, false},
		{"lent to production", guest, prod, false},
		{"production to lent", prod, guest, false},
		// The control: this counts what arrives.
		{"production to the host", prod, self, true},
	} {
		before := echoes(t, c.to.ns)
		c.from.pings(c.to.address)
		if arrived := echoes(t, c.to.ns) > before; arrived != c.arrives {
			t.Errorf("%s: arrived %v, want %v", c.name, arrived, c.arrives)
		}
	}
}

// echoes counts the pings that a namespace received.
func echoes(t *testing.T, ns string) int {
	t.Helper()
	var names []string
	for line := range strings.Lines(run(t, "ip", "netns", "exec", ns, "cat", "/proc/net/snmp")) {
		fields := strings.Fields(line)
		if fields[0] != "Icmp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		n, err := strconv.Atoi(fields[slices.Index(names, "InEchos")])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatal("no ICMP counters")
	return 0
}

func TestRepairs(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, h *host){
		"bridge down": func(t *testing.T, h *host) { run(t, "ip", "-n", h.ns, "link", "set", "br-one", "down") },
		"probe port deleted": func(t *testing.T, h *host) {
			run(t, "ip", "-n", h.ns, "link", "del", probePort(t, h))
		},
		"probe port moved out": func(t *testing.T, h *host) {
			run(t, "ip", "-n", h.ns, "link", "set", probePort(t, h), "nomaster")
		},
		"probe namespace deleted": func(t *testing.T, h *host) {
			run(t, "ip", "netns", "del", probeNamespace(t))
		},
		"probe namespace lost its mount": func(t *testing.T, h *host) {
			run(t, "umount", "/run/netns/"+probeNamespace(t))
		},
		"probe address removed": func(t *testing.T, h *host) {
			run(t, "ip", "-n", probeNamespace(t), "address", "flush", "dev", "probe")
		},
		"element deleted": func(t *testing.T, h *host) {
			nft(t, h, "delete element inet hotspare closed { br-one }")
		},
		"pair deleted": func(t *testing.T, h *host) {
			nft(t, h, "delete element inet hotspare self { br-one . br-one }")
		},
		"rules of a chain flushed": func(t *testing.T, h *host) { nft(t, h, "flush chain inet hotspare input") },
		"rule added":               func(t *testing.T, h *host) { nft(t, h, "insert rule inet hotspare forward accept") },
		"chain deleted": func(t *testing.T, h *host) {
			nft(t, h, "flush chain inet hotspare output; delete chain inet hotspare output")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			one, other := h.spec("one", lent), h.spec("other", bubble)
			empty := h.inventory(t)
			h.ensure(t, other)
			h.ensure(t, one)
			before := h.inventory(t)
			spoil(t, h)
			h.wantMissing(t, one)
			h.ensure(t, one)
			h.ensure(t, other)
			if diff := cmp.Diff(before, h.inventory(t)); diff != "" {
				t.Errorf("the repair made something else (-before +after):\n%s", diff)
			}
			spoil(t, h)
			h.remove(t, one)
			h.remove(t, other)
			if diff := cmp.Diff(empty, h.inventory(t)); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

func TestCrashLeavesADraft(t *testing.T) {
	h := newHost(t)
	one := h.spec("one", lent)
	empty := h.inventory(t)
	// As a crash between making, tagging and renaming the bridge leaves it. The name derives from "one".
	draft := "hsb-" + probePortHash(t, h, one)
	if left := h.inventory(t); !cmp.Equal(left, empty) {
		t.Fatalf("not empty: %v", left)
	}
	run(t, "ip", "-n", h.ns, "link", "add", draft, "type", "bridge")
	h.ensure(t, one)
	if strings.Contains(strings.Join(h.inventory(t), "\n"), draft) {
		t.Error("the draft is still there")
	}
	h.remove(t, one)
	run(t, "ip", "-n", h.ns, "link", "add", draft, "type", "bridge")
	h.remove(t, one)
	if diff := cmp.Diff(empty, h.inventory(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

func TestUplink(t *testing.T) {
	h := newHost(t)
	run(t, "ip", "-n", h.ns, "link", "add", "eth9", "type", "veth", "peer", "name", "fabric9")
	one := h.spec("one", production)
	one.Uplink = "eth9"
	if err := h.driver.Ensure(t.Context(), one); err == nil || !strings.Contains(err.Error(), "down") {
		t.Errorf("ensure with an uplink that is down: %v", err)
	}
	run(t, "ip", "-n", h.ns, "link", "set", "eth9", "up")
	run(t, "ip", "-n", h.ns, "link", "set", "fabric9", "up")
	before := h.inventory(t)

	run(t, "ip", "-n", h.ns, "address", "add", "10.50.0.1/24", "dev", "eth9")
	if err := h.driver.Ensure(t.Context(), one); !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("ensure with an uplink that has an address: %v", err)
	}
	run(t, "ip", "-n", h.ns, "address", "flush", "dev", "eth9")

	h.ensure(t, one)
	if got := run(t, "ip", "-n", h.ns, "-o", "link", "show", "master", "br-one"); !strings.Contains(got, "eth9") {
		t.Errorf("ports are %s", got)
	}
	// Another network does not steal it.
	two := h.spec("two", lent)
	two.Uplink = "eth9"
	if err := h.driver.Ensure(t.Context(), two); !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("ensure with the uplink of another network: %v", err)
	}
	// Taken out by hand: not found, repaired.
	run(t, "ip", "-n", h.ns, "link", "set", "eth9", "nomaster")
	h.wantMissing(t, one)
	h.ensure(t, one)
	h.remove(t, one)
	if diff := cmp.Diff(before, h.inventory(t)); diff != "" {
		t.Errorf("the uplink was not given back as it was (-before +after):\n%s", diff)
	}
}

// TestAbsentMachine: who is not there is known soon. A kernel's own patience of three seconds would also be the longest time for
// which a machine that has just come up is not noticed.
func TestAbsentMachine(t *testing.T) {
	h := newHost(t)
	spec := h.spec("one", lent)
	h.ensure(t, spec)
	absent := net.JoinHostPort(netip.MustParsePrefix(spec.GetProbeAddress()).Addr().Next().String(), "80")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := h.driver.Dial(ctx, "one", absent); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("dial %s, which nobody has: %v", absent, err)
	}
}

func TestForeignUplinkIsNotStolen(t *testing.T) {
	h := newHost(t)
	run(t, "ip", "-n", h.ns, "link", "add", "eth9", "type", "veth", "peer", "name", "fabric9")
	run(t, "ip", "-n", h.ns, "link", "add", "br0", "type", "bridge")
	run(t, "ip", "-n", h.ns, "link", "set", "eth9", "master", "br0", "up")
	nft(t, h, "add table inet theirs; add set inet theirs closed { type ifname; }; add element inet theirs closed { br0 }")
	before := h.inventory(t)
	one := h.spec("one", production)
	one.Uplink = "eth9"
	if err := h.driver.Ensure(t.Context(), one); !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("ensure: %v, want a conflict", err)
	}
	two := h.spec("two", lent)
	h.ensure(t, two)
	h.remove(t, two)
	if diff := cmp.Diff(before, h.inventory(t)); diff != "" {
		t.Errorf("what is not ours changed (-before +after):\n%s", diff)
	}
}

func TestMachinePortKeepsTheBridge(t *testing.T) {
	h := newHost(t)
	one := h.spec("one", lent)
	h.ensure(t, one)
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no tap devices on this machine: %v", err)
	}
	run(t, "ip", "-n", h.ns, "tuntap", "add", "vnet3", "mode", "tap")
	run(t, "ip", "-n", h.ns, "link", "set", "vnet3", "master", "br-one")
	if err := h.driver.Remove(t.Context(), one); err == nil || !strings.Contains(err.Error(), "vnet3") {
		t.Errorf("remove under a running machine: %v", err)
	}
	if _, err := h.driver.Inspect(t.Context(), one); err != nil {
		t.Errorf("a refused remove damaged the network: %v", err)
	}
	run(t, "ip", "-n", h.ns, "link", "del", "vnet3")
	h.remove(t, one)
}

func TestSameBridgeNameKeepsTheOtherClosed(t *testing.T) {
	h := newHost(t)
	one, two := h.spec("one", lent), h.spec("two", lent)
	h.ensure(t, one)
	two.Bridge = one.GetBridge()
	if err := h.driver.Ensure(t.Context(), two); !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("two networks on one bridge: %v", err)
	}
	h.remove(t, two)
	if _, err := h.driver.Inspect(t.Context(), one); err != nil {
		t.Errorf("the other network lost its isolation: %v", err)
	}
	// A network that changes its bridge is removed first.
	one.Bridge = "br-new"
	if err := h.driver.Ensure(t.Context(), one); !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("a second bridge for one network: %v", err)
	}
	h.remove(t, one)
	h.ensure(t, one)
}

func TestBadSpecs(t *testing.T) {
	h := newHost(t)
	before := h.inventory(t)
	for name, spoil := range map[string]func(*pb.NetworkSpec){
		"no name":           func(s *pb.NetworkSpec) { s.Name = "" },
		"long bridge":       func(s *pb.NetworkSpec) { s.Bridge = "sixteen-letters-" },
		"no bridge":         func(s *pb.NetworkSpec) { s.Bridge = "" },
		"odd bridge":        func(s *pb.NetworkSpec) { s.Bridge = "br 0" },
		"dots":              func(s *pb.NetworkSpec) { s.Bridge = ".." },
		"no role":           func(s *pb.NetworkSpec) { s.Role = 0 },
		"bubble and uplink": func(s *pb.NetworkSpec) { s.Role, s.Uplink = bubble, "eth0" },
		"no probe":          func(s *pb.NetworkSpec) { s.ProbeAddress = "" },
		"no such uplink":    func(s *pb.NetworkSpec) { s.Uplink = "eth77" },
	} {
		t.Run(name, func(t *testing.T) {
			spec := h.spec("one", lent)
			spoil(spec)
			if err := h.driver.Ensure(t.Context(), spec); err == nil {
				t.Error("ensure succeeded")
			}
			if diff := cmp.Diff(before, h.inventory(t)); diff != "" {
				t.Errorf("a refused spec changed the host:\n%s", diff)
			}
		})
	}
}

func (h *host) ensure(t *testing.T, spec *pb.NetworkSpec) {
	t.Helper()
	if err := h.driver.Ensure(t.Context(), spec); err != nil {
		t.Fatalf("ensure %s: %v", spec.GetName(), err)
	}
}

func (h *host) remove(t *testing.T, spec *pb.NetworkSpec) {
	t.Helper()
	if err := h.driver.Remove(t.Context(), spec); err != nil {
		t.Fatalf("remove %s: %v", spec.GetName(), err)
	}
}

func (h *host) wantMissing(t *testing.T, spec *pb.NetworkSpec) {
	t.Helper()
	if _, err := h.driver.Inspect(t.Context(), spec); !errors.Is(err, sdn.ErrNotFound) {
		t.Errorf("inspect %s: %v, want not found", spec.GetName(), err)
	}
}

func nft(t *testing.T, h *host, command string) {
	t.Helper()
	run(t, "ip", "netns", "exec", h.ns, "nft", command)
}

// probePort finds the probe port in br-one.
func probePort(t *testing.T, h *host) string {
	t.Helper()
	for line := range strings.Lines(run(t, "ip", "-n", h.ns, "-br", "link", "show", "master", "br-one")) {
		if name, _, _ := strings.Cut(strings.Fields(line)[0], "@"); strings.HasPrefix(name, "hsp-") {
			return name
		}
	}
	t.Fatal("br-one has no probe port")
	return ""
}

// probePortHash makes the network once to learn the hash in its derived names.
func probePortHash(t *testing.T, h *host, spec *pb.NetworkSpec) string {
	t.Helper()
	h.ensure(t, spec)
	hash := strings.TrimPrefix(probePort(t, h), "hsp-")
	h.remove(t, spec)
	return hash
}

// probeNamespace finds the probe namespace whose link has an address of br-one's subnet.
func probeNamespace(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "hs-probe-") &&
			strings.Contains(run(t, "ip", "-n", e.Name(), "-br", "address"), "10.1.0.253/24") {
			return e.Name()
		}
	}
	t.Fatal("no probe namespace")
	return ""
}
