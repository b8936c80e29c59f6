package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hotspare/hotspare/internal/sdn"
)

func metadataPrefix() netip.Prefix { return netip.MustParsePrefix(sdn.MetadataAddress + "/32") }

// isolatedPorts are the probe port of a lent network and its uplink, which do not see each other: the metadata
// address is the same on every host, and a machine must reach its own host's.
func (d *Driver) isolatedPorts(n network) ([]netlink.Link, error) {
	if !n.metadata {
		return nil, nil
	}
	var out []netlink.Link
	for _, name := range []string{n.port, n.uplink} {
		if name == "" {
			continue
		}
		link, err := d.link(name)
		if err != nil {
			return nil, err
		}
		if link == nil {
			return nil, incomplete("port %s is missing", name)
		}
		out = append(out, link)
	}
	return out, nil
}

func (d *Driver) verifyIsolated(n network) error {
	ports, err := d.isolatedPorts(n)
	if err != nil {
		return err
	}
	for _, link := range ports {
		info, err := d.links.LinkGetProtinfo(link)
		if err != nil {
			return fmt.Errorf("read the bridge flags of %s: %w", link.Attrs().Name, err)
		}
		if !info.Isolated {
			return incomplete("probe and uplink see each other by port %s", link.Attrs().Name)
		}
	}
	return nil
}

// isolate keeps probe and uplink apart. The flag leaves with the port.
func (d *Driver) isolate(_ context.Context, n network) error {
	ports, err := d.isolatedPorts(n)
	if err != nil {
		return err
	}
	for _, link := range ports {
		if err := d.links.LinkSetIsolated(link, true); err != nil {
			return fmt.Errorf("isolate port %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// listeners are the open metadata listeners by network.
type listeners struct {
	mu   sync.Mutex
	open map[string]*listener
}

// listener leaves the list when it is closed.
type listener struct {
	net.Listener
	closed func()
}

// Close closes the port.
func (l *listener) Close() error {
	l.closed()
	return l.Listener.Close()
}

// closeListener ends the listener of a network that is removed or made anew; its socket would keep the old
// namespace.
func (d *Driver) closeListener(name string) {
	d.listeners.mu.Lock()
	l := d.listeners.open[name]
	delete(d.listeners.open, name)
	d.listeners.mu.Unlock()
	if l != nil {
		if err := l.Listener.Close(); err != nil {
			d.log.Debug("metadata listener not closed", "network", name, "error", err)
		}
	}
}

// ListenMetadata implements sdn.Metadata.
func (d *Driver) ListenMetadata(ctx context.Context, name string) (net.Listener, error) {
	done, err := d.begin(ctx) // No Ensure or Remove meanwhile.
	if err != nil {
		return nil, fmt.Errorf("listen on network %s: %w", name, err)
	}
	defer done()
	ns, err := openNamespace(d.namespace(named(name)))
	if err != nil {
		return nil, fmt.Errorf("listen on network %s: %w", name, err)
	}
	defer ns.Close()
	address := netip.AddrPortFrom(metadataPrefix().Addr(), sdn.MetadataPort).String()
	inner, err := within(ns, func() (net.Listener, error) {
		var lc net.ListenConfig
		return lc.Listen(ctx, "tcp4", address)
	})
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil, fmt.Errorf("listen on network %s: it has no metadata address: %w", name, sdn.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on network %s: %w", name, err)
	}
	l := &listener{Listener: inner}
	l.closed = func() {
		d.listeners.mu.Lock()
		defer d.listeners.mu.Unlock()
		if d.listeners.open[name] == l {
			delete(d.listeners.open, name)
		}
	}
	d.listeners.mu.Lock()
	defer d.listeners.mu.Unlock()
	d.listeners.open[name] = l
	return l, nil
}

// Machine implements sdn.Metadata. Three things must agree: the MAC that the address has on the wire, the port
// that libvirt made for a card with this MAC, and the port to which the bridge sends frames for it. The entry of
// the bridge is then pinned to that port, so that what is answered reaches nobody else, whoever sends with that
// MAC from now on; it leaves with the port.
func (d *Driver) Machine(ctx context.Context, name string, address netip.Addr) (net.HardwareAddr, error) {
	mac, err := d.machine(ctx, named(name), address)
	if err != nil {
		return nil, fmt.Errorf("look for the machine with address %s on network %s: %w", address, name, err)
	}
	return mac, nil
}

func (d *Driver) machine(ctx context.Context, n network, address netip.Addr) (net.HardwareAddr, error) {
	mac, err := d.neighbour(n, address)
	if err != nil {
		return nil, err
	}
	links, err := d.allLinks(ctx)
	if err != nil {
		return nil, err
	}
	var bridge, port int
	for _, link := range links {
		if link.Type() == bridgeType && link.Attrs().Alias == n.alias {
			bridge = link.Attrs().Index
		}
	}
	for _, link := range links {
		a := link.Attrs()
		if a.MasterIndex == bridge && bytes.Equal(a.HardwareAddr, portMAC(mac)) && !isOurs(link, n) {
			port = a.Index
		}
	}
	if bridge == 0 || port == 0 {
		return nil, fmt.Errorf("no machine of this host has a card with MAC %s: %w", mac, sdn.ErrNotFound)
	}
	if err := d.pinned(mac, bridge, port, false); err != nil {
		return nil, err
	}
	pin := &netlink.Neigh{
		LinkIndex: port, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER | netlink.NTF_STICKY,
		HardwareAddr: mac,
	}
	if err := d.links.NeighSet(pin); err != nil {
		return nil, fmt.Errorf("pin MAC %s to its port: %w", mac, err)
	}
	return mac, d.pinned(mac, bridge, port, true)
}

// neighbour reads which MAC an address has on the wire of a network.
func (d *Driver) neighbour(n network, address netip.Addr) (net.HardwareAddr, error) {
	ns, err := openNamespace(d.namespace(n))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink of the probe namespace: %w", err)
	}
	defer inside.Close()
	all, err := inside.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, e := range all {
		if got, ok := netip.AddrFromSlice(e.IP.To4()); ok && got == address.Unmap() && len(e.HardwareAddr) == macBytes {
			return e.HardwareAddr, nil
		}
	}
	return nil, fmt.Errorf("nobody has the address: %w", sdn.ErrNotFound)
}

// macBytes is the length of a MAC address.
const macBytes = 6

// portMAC is the address of the tap device that libvirt makes for a card: the card's with FE in front, or FA for a
// card that begins with FE itself.
func portMAC(mac net.HardwareAddr) net.HardwareAddr {
	out := bytes.Clone(mac)
	out[0] = 0xfe
	if mac[0] == 0xfe {
		out[0] = 0xfa
	}
	return out
}

// pinned checks that a bridge sends frames for a MAC to this port and to no other; sticky: and will not learn
// anything else.
func (d *Driver) pinned(mac net.HardwareAddr, bridge, port int, sticky bool) error {
	all, err := d.links.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("list the entries of the bridge: %w", err)
	}
	found := !sticky // One that has aged is no conflict.
	for _, e := range all {
		if e.MasterIndex != bridge || !strings.EqualFold(e.HardwareAddr.String(), mac.String()) {
			continue
		}
		if e.LinkIndex != port {
			return fmt.Errorf("somebody else's port speaks with MAC %s: %w", mac, sdn.ErrConflict)
		}
		found = found || e.Flags&netlink.NTF_STICKY != 0
	}
	if !found {
		return fmt.Errorf("pin MAC %s to its port: accepted and not applied", mac)
	}
	return nil
}
