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

// admit lets machines of a network in.
func (h *host) admit(t *testing.T, spec *pb.NetworkSpec, machines ...*machine) {
	t.Helper()
	var cards []sdn.Card
	for _, m := range machines {
		cards = append(cards, m.card())
	}
	if err := h.driver.Admit(t.Context(), spec.GetName(), cards); err != nil {
		t.Fatal(err)
	}
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

// twoTenants is a host with a served network and two machines on it that are not admitted yet.
func twoTenants(t *testing.T) (h *host, spec *pb.NetworkSpec, victim, thief *machine) {
	t.Helper()
	h = newHost(t)
	spec = h.spec("one", lent)
	h.ensure(t, spec)
	h.listen(t, spec)
	victim, thief = h.plug(t, spec), h.plug(t, spec)
	t.Cleanup(func() {
		victim.unplug(t)
		thief.unplug(t)
	})
	return h, spec, victim, thief
}

// One tenant never speaks for another on the same network, whatever it claims, and takes nothing from it.
func TestImpostor(t *testing.T) {
	h, spec, victim, thief := twoTenants(t)
	stranger := h.plug(t, spec)
	defer stranger.unplug(t)
	// The stranger is on the bridge and never admitted.
	if thief.connects(metadataService) {
		t.Error("who is not admitted connects")
	}
	h.admit(t, spec, victim, thief)
	if !victim.connects(metadataService) || !thief.connects(metadataService) {
		t.Fatal("who is admitted does not connect: the case cannot fail")
	}
	for _, m := range []*machine{thief, stranger} {
		for _, mac := range []bool{false, true} {
			// The victim is silent, as in its boot: nobody contradicts.
			run(t, "ip", "-n", victim.ns, "link", "set", "eth0", "down")
			run(t, "ip", "-n", probeNamespace(t), "neigh", "flush", "dev", "probe")
			m.becomes(t, victim, mac)
			if m.connects(metadataService) {
				t.Errorf("%s connects by the victim's address, its MAC too: %v", m.port, mac)
			}
			run(t, "ip", "-n", victim.ns, "link", "set", "eth0", "up")
			run(t, "ip", "-n", victim.ns, "route", "replace", "169.254.169.254", "dev", "eth0")
			if m == thief && !victim.connects(metadataService) {
				t.Errorf("the thief keeps the victim away, by its MAC too: %v", mac)
			}
			run(t, "ip", "-n", m.ns, "link", "set", "eth0", "down")
		}
	}
}

// By a frame with a tag, of which the probe's stack would take the packet out.
func TestImpostorInVLAN(t *testing.T) {
	h, spec, victim, thief := twoTenants(t)
	h.admit(t, spec, victim, thief)
	address := victim.card().Address.As4()
	sniffed := sniff(t, probeNamespace(t), "probe")
	for name, tags := range map[string][]byte{
		"no tag":         nil,
		"a priority tag": {0x81, 0, 0, 0},
		"two tags":       {0x81, 0, 0, 0, 0x81, 0, 0, 0},
		"a provider tag": {0x88, 0xa8, 0, 0},
		"both tags":      {0x88, 0xa8, 0, 0, 0x81, 0, 0, 0},
		"the other way":  {0x81, 0, 0, 0, 0x88, 0xa8, 0, 0},
	} {
		for _, source := range [][4]byte{address, {10, 1, 0, 200}} {
			thief.sends(t, slices.Concat(broadcast, thief.mac, tags, []byte{8, 0}, synTo(source)))
			if got := sniffed.within(t, source); got {
				t.Errorf("with %s, the probe gets a packet from %v by the thief", name, source)
			}
		}
		thief.sends(t, slices.Concat(broadcast, thief.mac, tags, []byte{8, 0}, synTo(thief.card().Address.As4())))
		if got := sniffed.within(t, thief.card().Address.As4()); len(tags) == 0 && !got {
			t.Error("the probe does not get the thief's own packets: the case cannot fail")
		}
	}
}

// What is answered to a machine leaves by its port only, whatever the kernel believes about its address and MAC.
func TestAnswersReachNobodyElse(t *testing.T) {
	h, spec, victim, thief := twoTenants(t)
	h.admit(t, spec, victim, thief)
	from := netip.MustParseAddr(sdn.MetadataAddress).As4()
	sniffed := sniff(t, thief.ns, "eth0")
	if !thief.connects(metadataService) || !sniffed.within(t, from) {
		t.Fatal("the thief does not see its own answers: the case cannot fail")
	}
	for name, spoil := range map[string]func(){
		"a forged neighbour": func() {
			run(t, "ip", "-n", probeNamespace(t), "neigh", "replace", victim.address, "lladdr", thief.mac.String(), "dev", "probe")
		},
		"a bridge that sends to the wrong port": func() {
			run(t, "ip", "-n", probeNamespace(t), "neigh", "replace", victim.address, "lladdr", victim.mac.String(), "dev", "probe")
			run(t, "bridge", "-n", h.ns, "fdb", "replace", victim.mac.String(), "dev", thief.port, "master", "static")
		},
		"a bridge that knows no port and floods": func() {
			run(t, "bridge", "-n", h.ns, "link", "set", "dev", victim.port, "learning", "off")
			run(t, "ip", "-n", h.ns, "link", "set", spec.GetBridge(), "type", "bridge", "fdb_flush")
		},
	} {
		spoil()
		victim.connects(metadataService)
		if sniffed.within(t, from) {
			t.Errorf("with %s, the thief gets an answer to the victim", name)
		}
		run(t, "ip", "-n", probeNamespace(t), "neigh", "flush", "all")
		run(t, "ip", "-n", h.ns, "link", "set", spec.GetBridge(), "type", "bridge", "fdb_flush")
	}
}

// What one machine says of another's address and card changes neither the probe's kernel nor the bridge.
func TestClaims(t *testing.T) {
	h, spec, victim, thief := twoTenants(t)
	neighbour := func() string {
		return run(t, "ip", "-n", probeNamespace(t), "neigh", "show", victim.address)
	}
	learned := func() string {
		return run(t, "sh", "-c", "bridge -n "+h.ns+" fdb show br "+spec.GetBridge()+" | grep -i "+victim.mac.String()+" || true")
	}
	claims := func() {
		t.Helper()
		h.admit(t, spec, victim)
		run(t, "ip", "-n", probeNamespace(t), "neigh", "flush", "dev", "probe")
		if !victim.connects(metadataService) {
			t.Fatal("the victim does not connect")
		}
		if !strings.Contains(neighbour(), victim.mac.String()) || !strings.Contains(learned(), victim.port) {
			t.Fatalf("the kernel does not know the victim: %s %s", neighbour(), learned())
		}
	}
	claims()
	// Not admitted, the thief is a stranger like one behind the uplink: here the claims work, else the case cannot fail.
	thief.sends(t, arp(thief.mac, thief.mac, victim.card().Address))
	thief.sends(t, arp(victim.mac, thief.mac, victim.card().Address))
	if !strings.Contains(neighbour(), thief.mac.String()) || !strings.Contains(learned(), thief.port) {
		t.Fatalf("a stranger's claim changes nothing: %s %s", neighbour(), learned())
	}
	claims()
	h.admit(t, spec, victim, thief)
	for name, frame := range map[string][]byte{
		"the victim's address":              arp(thief.mac, thief.mac, victim.card().Address),
		"the victim's address, by its card": arp(victim.mac, thief.mac, victim.card().Address),
		"the victim's card":                 slices.Concat(broadcast, victim.mac, []byte{8, 0}, synTo([4]byte{10, 1, 0, 200})),
	} {
		thief.sends(t, frame)
		if !strings.Contains(neighbour(), victim.mac.String()) || !strings.Contains(learned(), victim.port) {
			t.Errorf("a claim to have %s changes what the kernel knows: %s %s", name, neighbour(), learned())
		}
	}
}

// Somebody reloads the host's own firewall: nobody is known until the network is ensured and its machines admitted.
func TestGuardRepairs(t *testing.T) {
	h := newHost(t)
	spec := h.spec("one", lent)
	m := (*machine)(nil)
	for what, spoil := range map[string]func(){
		"all rules": func() { run(t, "ip", "netns", "exec", h.ns, "nft", "flush", "ruleset") },
		"a rule": func() {
			run(t, "ip", "netns", "exec", h.ns, "nft", "flush", "chain", "bridge", guardTable(t, h), "forward")
		},
		"a part's entry": func() {
			run(t, "ip", "netns", "exec", h.ns, "nft", "flush", "set", "bridge", guardTable(t, h), "cards")
		},
	} {
		h.ensure(t, spec)
		if m == nil {
			m = h.plug(t, spec)
			defer m.unplug(t)
		}
		h.listen(t, spec)
		h.admit(t, spec, m)
		if mac, err := h.driver.Machine(t.Context(), "one", m.card().Address); err != nil || !slices.Equal(mac, m.mac) {
			t.Fatalf("before: %v, %v", mac, err)
		}
		spoil()
		if mac, err := h.driver.Machine(t.Context(), "one", m.card().Address); !errors.Is(err, sdn.ErrConflict) {
			t.Errorf("without %s: %v, %v, want a conflict", what, mac, err)
		}
		if err := h.driver.Admit(t.Context(), "one", nil); !errors.Is(err, sdn.ErrNotFound) {
			t.Errorf("admit without %s: %v, want not found", what, err)
		}
		if _, err := h.driver.Inspect(t.Context(), spec); !errors.Is(err, sdn.ErrNotFound) {
			t.Errorf("inspect without %s: %v, want not found", what, err)
		}
		h.ensure(t, spec)
		if m.connects(metadataService) {
			t.Errorf("after %s was made anew, somebody listens and nobody was admitted", what)
		}
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
	one.admit(t, spec, here)
	two.admit(t, other, there)
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
	h.admit(t, spec, m)
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
