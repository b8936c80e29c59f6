package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hotspare/hotspare/internal/sdn"
)

// namespaceDir is where named network namespaces are mounted, by convention of ip(8).
const namespaceDir = "/run/netns"

// neighbourRetryMillis is how soon the probe's kernel asks again who has an address. Its default of a
// second would decide how soon a guest that has just booted is noticed.
const neighbourRetryMillis = 100

// namespace is the path of a network's probe namespace on this host.
func (d *Driver) namespace(n network) string {
	return filepath.Join(namespaceDir, "hs-probe-"+shortHash(d.hostID+" "+n.name))
}

// openNamespace opens the probe namespace. A file without a namespace behind it, which another mount
// namespace leaves, is missing too.
func openNamespace(path string) (netns.NsHandle, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return netns.None(), incomplete("probe namespace %s is missing", path)
		}
		return netns.None(), fmt.Errorf("look for probe namespace %s: %w", path, err)
	}
	if stat.Type != unix.NSFS_MAGIC {
		return netns.None(), incomplete("probe namespace %s is empty", path)
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return netns.None(), fmt.Errorf("open probe namespace %s: %w", path, err)
	}
	return ns, nil
}

// verifyProbe checks both ends of the probe port.
func (d *Driver) verifyProbe(n network, bridge netlink.Link) error {
	port, err := d.link(n.port)
	if err != nil {
		return err
	}
	if port == nil || port.Attrs().MasterIndex != bridge.Attrs().Index || port.Attrs().Alias != n.alias ||
		port.Attrs().Flags&net.FlagUp == 0 {
		return incomplete("probe port %s is missing, untagged, down or in another bridge", n.port)
	}
	ns, err := openNamespace(d.namespace(n))
	if err != nil {
		return err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink of the probe namespace: %w", err)
	}
	defer inside.Close()
	link, err := inside.LinkByName(probeLink)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return incomplete("probe link is missing in its namespace")
	} else if err != nil {
		return fmt.Errorf("look for the probe link: %w", err)
	}
	if link.Attrs().Flags&net.FlagUp == 0 || link.Attrs().ParentIndex != port.Attrs().Index {
		return incomplete("probe link is down or not the other end of %s", n.port)
	}
	addresses, err := inside.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the probe's addresses: %w", err)
	}
	for _, a := range addresses {
		if a.IPNet.String() == n.probe.String() {
			return nil
		}
	}
	return incomplete("probe link has not address %s", n.probe)
}

// buildProbe makes the probe port anew, unless it is complete.
func (d *Driver) buildProbe(_ context.Context, n network) error {
	bridge, err := d.link(n.bridge)
	if err != nil {
		return err
	}
	if bridge == nil {
		return fmt.Errorf("bridge %s vanished", n.bridge)
	}
	if err := d.verifyProbe(n, bridge); err == nil || !errors.Is(err, sdn.ErrNotFound) {
		return err
	}
	if port, err := d.link(n.port); err != nil {
		return err
	} else if port != nil {
		if err := d.deleteLink(port); err != nil {
			return err
		}
	}
	if _, err := d.removeNamespace(n); err != nil {
		return err
	}
	ns, err := makeNamespace(d.namespace(n))
	if err != nil {
		return fmt.Errorf("make the probe namespace: %w", err)
	}
	defer ns.Close()
	if err := d.plugProbe(n, bridge, ns); err != nil {
		return err
	}
	if err := addressProbe(n, ns); err != nil {
		return err
	}
	if err := hurryProbe(n, ns); err != nil {
		d.log.Warn("the probe notices new guests up to a second late", "network", n.name, "error", err)
	}
	return nil
}

// plugProbe makes the veth pair with its far end in the probe namespace.
func (d *Driver) plugProbe(n network, bridge netlink.Link, ns netns.NsHandle) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = n.port
	attributes.MasterIndex = bridge.Attrs().Index
	port := &netlink.Veth{LinkAttrs: attributes, PeerName: probeLink, PeerNamespace: netlink.NsFd(ns)}
	if err := d.links.LinkAdd(port); err != nil {
		return fmt.Errorf("make probe port %s: %w", n.port, err)
	}
	if err := d.links.LinkSetAlias(port, n.alias); err != nil {
		return fmt.Errorf("tag probe port %s: %w", n.port, err)
	}
	if err := d.links.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("join probe port %s to bridge %s: %w", n.port, n.bridge, err)
	}
	if err := d.links.LinkSetUp(port); err != nil {
		return fmt.Errorf("set probe port %s up: %w", n.port, err)
	}
	return nil
}

// addressProbe gives the far end its address and sets it up.
func addressProbe(n network, ns netns.NsHandle) error {
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink of the probe namespace: %w", err)
	}
	defer inside.Close()
	link, err := inside.LinkByName(probeLink)
	if err != nil {
		return fmt.Errorf("look for the probe link: %w", err)
	}
	address := &netlink.Addr{
		IPNet: &net.IPNet{
			IP:   n.probe.Addr().AsSlice(),
			Mask: net.CIDRMask(n.probe.Bits(), n.probe.Addr().BitLen()),
		},
	}
	if n.probe.Addr().Is6() {
		// The address is needed now, and nobody else answers for it.
		address.Flags = unix.IFA_F_NODAD
	}
	if err := inside.AddrAdd(link, address); err != nil {
		return fmt.Errorf("give the probe address %s: %w", n.probe, err)
	}
	if err := inside.LinkSetUp(link); err != nil {
		return fmt.Errorf("set the probe link up: %w", err)
	}
	// The kernel tells itself over the loopback link that a machine is not there; else a dial never learns it.
	loopback, err := inside.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("look for the probe's loopback link: %w", err)
	}
	if err := inside.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("set the probe's loopback link up: %w", err)
	}
	return nil
}

// hurryProbe makes the probe's kernel look for neighbours faster.
func hurryProbe(n network, ns netns.NsHandle) error {
	family := "ipv4"
	if n.probe.Addr().Is6() {
		family = "ipv6"
	}
	path := filepath.Join("/proc/sys/net", family, "neigh", probeLink, "retrans_time_ms")
	return within(ns, func() error {
		return os.WriteFile(path, []byte(strconv.Itoa(neighbourRetryMillis)), 0)
	})
}

// within calls do on a thread inside of a network namespace. Sockets stay in the namespace in which
// they were made.
func within(ns netns.NsHandle, do func() error) error {
	done := make(chan error, 1)
	go func() {
		// As in makeNamespace, the thread ends with this goroutine.
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter the probe namespace: %w", err)
			return
		}
		done <- do()
	}()
	return <-done
}

// makeNamespace makes a named network namespace and returns it open.
func makeNamespace(path string) (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	made := make(chan result, 1)
	go func() {
		// The thread moves to the new namespace and is never unlocked, so it ends with this goroutine.
		runtime.LockOSThread()
		ns, err := netns.NewNamed(filepath.Base(path))
		made <- result{ns, err}
	}()
	r := <-made
	return r.ns, r.err
}

// removeNamespace removes the probe namespace and reports whether there was anything.
func (d *Driver) removeNamespace(n network) (bool, error) {
	path := d.namespace(n)
	// EINVAL: nothing is mounted there in our mount namespace.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil &&
		!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("unmount probe namespace %s: %w", path, err)
	}
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove probe namespace: %w", err)
	}
	return true, nil
}

// Dial implements sdn.Driver. The address is "IP:port": there is no resolver on a network that a
// failover has just made.
func (d *Driver) Dial(ctx context.Context, name, address string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dial %s from network %s: %w", address, name, err)
	}
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial from network %s: %w", name, err)
	}
	ns, err := openNamespace(d.namespace(named(name)))
	if err != nil {
		return nil, fmt.Errorf("dial %s from network %s: %w", address, name, err)
	}
	defer ns.Close()
	var conn net.Conn
	// The dialer obeys the context, and with a literal address it makes the socket on the thread that it is called on.
	err = within(ns, func() error {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s from network %s: %w", address, name, err)
	}
	return conn, nil
}
