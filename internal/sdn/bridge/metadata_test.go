package bridge_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
)

// listen opens the metadata port of a network and takes what comes.
func (h *host) listen(t *testing.T, spec *pb.NetworkSpec) net.Listener {
	t.Helper()
	l, err := h.driver.ListenMetadata(t.Context(), spec.GetName())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l
}

// becomes gives a machine the address of another, and its MAC too.
func (m *machine) becomes(t *testing.T, other *machine, mac bool) {
	t.Helper()
	run(t, "ip", "-n", m.ns, "link", "set", "eth0", "down")
	run(t, "ip", "-n", m.ns, "address", "flush", "dev", "eth0")
	if mac {
		run(t, "ip", "-n", m.ns, "link", "set", "eth0", "address", other.mac.String())
	}
	run(t, "ip", "-n", m.ns, "address", "add", other.address+"/24", "dev", "eth0")
	run(t, "ip", "-n", m.ns, "link", "set", "eth0", "up")
	run(t, "ip", "-n", m.ns, "route", "replace", "169.254.169.254", "dev", "eth0")
}

// One tenant is never taken for another on the same network, whatever it claims.
func TestImpostor(t *testing.T) {
	h := newHost(t)
	spec := h.spec("one", lent)
	h.ensure(t, spec)
	h.listen(t, spec)
	victim, thief := h.plug(t, spec), h.plug(t, spec)
	defer victim.unplug(t)
	defer thief.unplug(t)
	address := netip.MustParseAddr(victim.address)
	who := func() (net.HardwareAddr, error) { return h.driver.Machine(t.Context(), "one", address) }

	// By the victim's address, with a card of its own: known as who it is.
	thief.becomes(t, victim, false)
	if !thief.connects(metadataService) {
		t.Fatal("a machine with another's address does not connect: the case cannot fail")
	}
	if mac, err := who(); err != nil || slices.Equal(mac, victim.mac) {
		t.Errorf("the thief is taken for %v, %v", mac, err)
	}
	// By the victim's MAC too, before the victim was ever seen: the port is not the victim's.
	thief.becomes(t, victim, true)
	run(t, "ip", "-n", victim.ns, "link", "set", "eth0", "down")
	run(t, "ip", "-n", probeNamespace(t), "neigh", "flush", "dev", "probe")
	if !thief.connects(metadataService) {
		t.Fatal("a machine with another's MAC does not connect: the case cannot fail")
	}
	if mac, err := who(); !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("the thief is taken for %v, %v, want a conflict", mac, err)
	}
	// Once the victim is known, nothing that is sent to it can reach the thief.
	run(t, "ip", "-n", thief.ns, "link", "set", "eth0", "down")
	run(t, "ip", "-n", victim.ns, "link", "set", "eth0", "up")
	run(t, "ip", "-n", victim.ns, "route", "replace", "169.254.169.254", "dev", "eth0")
	if !victim.connects(metadataService) {
		t.Fatal("the victim does not connect")
	}
	if mac, err := who(); err != nil || !slices.Equal(mac, victim.mac) {
		t.Fatalf("the victim is %v, %v", mac, err)
	}
	run(t, "ip", "-n", thief.ns, "link", "set", "eth0", "up")
	run(t, "ip", "-n", thief.ns, "route", "replace", "169.254.169.254", "dev", "eth0")
	if thief.connects(metadataService) {
		t.Error("the thief got an answer that was for the victim")
	}
	if mac, err := who(); err != nil || !slices.Equal(mac, victim.mac) {
		t.Errorf("after the thief tried, the victim is %v, %v", mac, err)
	}
}

// A machine whose port nobody made for its card is nobody's.
func TestMachineWithoutAPortOfItsOwn(t *testing.T) {
	h := newHost(t)
	spec := h.spec("one", lent)
	h.ensure(t, spec)
	h.listen(t, spec)
	m := h.plug(t, spec)
	defer m.unplug(t)
	run(t, "ip", "-n", h.ns, "link", "set", m.port, "address", "fe:54:00:99:99:99")
	if !m.connects(metadataService) {
		t.Fatal("it does not connect")
	}
	if mac, err := h.driver.Machine(t.Context(), "one", netip.MustParseAddr(m.address)); !errors.Is(err, sdn.ErrNotFound) {
		t.Errorf("it is %v, %v, want not found", mac, err)
	}
}

// Two hosts share a lent network by their uplinks, and each has the metadata address: a machine reaches its own.
func TestMetadataStaysOnItsHost(t *testing.T) {
	one, two := newHost(t), newHost(t)
	run(t, "ip", "-n", one.ns, "link", "add", "eth9", "type", "veth", "peer", "name", "eth9", "netns", two.ns)
	spec := one.spec("shared", lent)
	spec.Uplink = "eth9"
	two.subnets["shared"] = one.subnets["shared"]
	other := two.spec("shared", lent)
	other.Uplink, other.ProbeAddress = "eth9", "10.1.0.252/24"
	run(t, "ip", "-n", one.ns, "link", "set", "eth9", "up")
	run(t, "ip", "-n", two.ns, "link", "set", "eth9", "up")
	one.ensure(t, spec)
	two.ensure(t, other)
	two.machines = 100
	here, there := one.plug(t, spec), two.plug(t, other)
	defer here.unplug(t)
	defer there.unplug(t)
	if !here.pings(there.address) {
		t.Fatal("the machines of the two hosts do not see each other: the case cannot fail")
	}
	l := two.listen(t, other)
	if here.connects(metadataService) {
		t.Error("a machine of one host reaches the agent of another")
	}
	if !there.connects(metadataService) {
		t.Error("a machine does not reach its own host's agent")
	}
	l.Close()
	one.listen(t, spec)
	if !here.connects(metadataService) || there.connects(metadataService) {
		t.Error("the listener of the other host does not answer its own machines only")
	}
	// The uplink is given back as it was.
	one.remove(t, spec)
	if flags := run(t, "ip", "-n", one.ns, "-d", "link", "show", "eth9"); strings.Contains(flags, "isolated on") {
		t.Errorf("the uplink stays isolated: %s", flags)
	}
}

// Nothing but the one port answers at the metadata address, whatever the host itself serves.
func TestMetadataIsOnePort(t *testing.T) {
	h := newHost(t)
	spec := h.spec("one", lent)
	h.ensure(t, spec)
	h.listen(t, spec)
	m := h.plug(t, spec)
	defer m.unplug(t)
	stop := serveIn(t, h.ns, ":8080")
	defer stop()
	if !m.connects(metadataService) {
		t.Fatal("the one port does not answer")
	}
	for _, address := range []string{"169.254.169.254:8080", "10.1.0.253:80", "10.1.0.253:8080"} {
		if m.connects(address) {
			t.Errorf("%s answers", address)
		}
	}
}

func TestMetadataRepairs(t *testing.T) {
	h := newHost(t)
	one := h.spec("one", lent)
	h.ensure(t, one)
	for what, spoil := range map[string]func(){
		"its address":   func() { run(t, "ip", "-n", probeNamespace(t), "address", "del", "169.254.169.254/32", "dev", "probe") },
		"its isolation": func() { run(t, "bridge", "-n", h.ns, "link", "set", "dev", probePort(t, h), "isolated", "off") },
	} {
		spoil()
		if _, err := h.driver.Inspect(t.Context(), one); !errors.Is(err, sdn.ErrNotFound) {
			t.Errorf("without %s: %v, want not found", what, err)
		}
		h.ensure(t, one)
	}
}
