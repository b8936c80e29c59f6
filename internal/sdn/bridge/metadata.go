package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
