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
	"slices"
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
	return verifyAddresses(n, inside, link)
}

// verifyAddresses checks the far end's addresses.
func verifyAddresses(n network, inside *netlink.Handle, link netlink.Link) error {
	addresses, err := inside.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the probe's addresses: %w", err)
	}
	wanted := []string{n.probe.String()}
	if n.metadata {
		wanted = append(wanted, metadataPrefix().String())
	}
	for _, w := range wanted {
		if !slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IPNet.String() == w }) {
			return incomplete("probe link has not address %s", w)
		}
	}
	return nil
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
	d.closeListener(n.name)
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
	prefixes := []netip.Prefix{n.probe}
	if n.metadata {
		prefixes = append(prefixes, metadataPrefix())
	}
	for _, p := range prefixes {
		address := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			// The address is needed now, and nobody else answers for it.
			address.Flags = unix.IFA_F_NODAD
		}
		if err := inside.AddrAdd(link, address); err != nil {
			return fmt.Errorf("give the probe address %s: %w", p, err)
		}
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
	_, err := within(ns, func() (struct{}, error) {
		return struct{}{}, os.WriteFile(path, []byte(strconv.Itoa(neighbourRetryMillis)), 0)
	})
	return err
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
	conn, err := within(ns, func() (net.Conn, error) {
		// With a literal address the dialer makes the socket on this thread.
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", address)
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s from network %s: %w", address, name, err)
	}
	return conn, nil
}

// within runs a function in a network namespace: a socket belongs to the one in which it was made.
func within[T any](ns netns.NsHandle, do func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		// As in makeNamespace, the thread ends with this goroutine.
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- result{err: fmt.Errorf("enter the probe namespace: %w", err)}
			return
		}
		v, err := do()
		done <- result{v, err}
	}()
	// What is done obeys a context, so this ends with it.
	r := <-done
	return r.v, r.err
}
