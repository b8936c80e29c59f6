package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nicWait bounds the wait for an interface: virtio probes devices asynchronously, and slowly under emulation.
const nicWait = 30 * time.Second

// configureNetwork gives every NIC its address and returns the addresses as text. The metadata service is on the
// link of the first.
func configureNetwork(nics []nic, metadata bool) ([]string, error) {
	// A guest that appears at another switch port announces itself, or switches keep sending to the old one.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/default/arp_notify", []byte("1"), 0o644); err != nil {
		return nil, fmt.Errorf("turn on gratuitous ARP: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	defer unix.Close(fd)
	if err := setUp(fd, "lo"); err != nil {
		return nil, err
	}
	var addresses []string
	for i, n := range nics {
		if err := configureNIC(fd, n, metadata && i == 0); err != nil {
			return nil, fmt.Errorf("configure nic %s: %w", n.mac, err)
		}
		addresses = append(addresses, n.address.Addr().String())
	}
	return addresses, nil
}

// configureNIC waits for the interface, brings it up and sets address and routes.
func configureNIC(fd int, n nic, metadata bool) error {
	name, err := waitForMAC(n.mac)
	if err != nil {
		return err
	}
	arpNotify := "/proc/sys/net/ipv4/conf/" + name + "/arp_notify"
	if err := os.WriteFile(arpNotify, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("turn on gratuitous ARP: %w", err)
	}
	mask := net.CIDRMask(n.address.Bits(), 32)
	maskAddr, _ := netip.AddrFromSlice(mask)
	if err := setAddress(fd, unix.SIOCSIFADDR, name, n.address.Addr()); err != nil {
		return err
	}
	if err := setAddress(fd, unix.SIOCSIFNETMASK, name, maskAddr); err != nil {
		return err
	}
	if err := setUp(fd, name); err != nil {
		return err
	}
	if metadata {
		if err := addLinkRoute(fd, netip.MustParseAddr(metadataAddress), name); err != nil {
			return err
		}
	}
	if !n.gateway.IsValid() {
		return nil
	}
	return addDefaultRoute(fd, n.gateway)
}

// waitForMAC returns the interface with this hardware address.
func waitForMAC(mac net.HardwareAddr) (string, error) {
	for deadline := time.Now().Add(nicWait); ; time.Sleep(10 * time.Millisecond) {
		interfaces, err := net.Interfaces()
		if err != nil {
			return "", fmt.Errorf("list interfaces: %w", err)
		}
		for _, i := range interfaces {
			if bytes.Equal(i.HardwareAddr, mac) {
				return i.Name, nil
			}
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("no interface within %v", nicWait)
		}
	}
}

// setAddress does one of the SIOCSIF* calls that carry an address.
func setAddress(fd int, request uintptr, name string, addr netip.Addr) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface name %s: %w", name, err)
	}
	ip := addr.As4()
	if err := ifr.SetInet4Addr(ip[:]); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	return ioctl(fd, request, unsafe.Pointer(ifr), fmt.Sprintf("set %s on %s", addr, name))
}

// setUp brings an interface up.
func setUp(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface name %s: %w", name, err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return ioctl(fd, unix.SIOCSIFFLAGS, unsafe.Pointer(ifr), "bring up "+name)
}

// rtentry is the kernel's struct rtentry on amd64 (linux/route.h).
type rtentry struct {
	_       uint64
	dst     [16]byte
	gateway [16]byte
	genmask [16]byte
	flags   uint16
	_       [2]byte
	_       [4]byte
	_       [2]uint64
	metric  int16
	_       [6]byte
	device  uintptr
	_       [3]uint64
}

// inet is the kernel's struct sockaddr_in.
func inet(ip [4]byte) (sa [16]byte) {
	binary.NativeEndian.PutUint16(sa[:], unix.AF_INET)
	copy(sa[4:], ip[:])
	return sa
}

// addLinkRoute adds the route to one address that is on an interface's own link.
func addLinkRoute(fd int, to netip.Addr, name string) error {
	device := append([]byte(name), 0)
	rt := rtentry{
		dst: inet(to.As4()), genmask: inet([4]byte{255, 255, 255, 255}), flags: unix.RTF_UP | unix.RTF_HOST,
		device: uintptr(unsafe.Pointer(&device[0])),
	}
	err := ioctl(fd, unix.SIOCADDRT, unsafe.Pointer(&rt), fmt.Sprintf("add route to %s on %s", to, name))
	runtime.KeepAlive(device) // The kernel has read it by now.
	return err
}

// addDefaultRoute adds the route 0.0.0.0/0 by way of gateway.
func addDefaultRoute(fd int, gateway netip.Addr) error {
	rt := rtentry{dst: inet([4]byte{}), genmask: inet([4]byte{}), gateway: inet(gateway.As4()), flags: unix.RTF_UP | unix.RTF_GATEWAY}
	return ioctl(fd, unix.SIOCADDRT, unsafe.Pointer(&rt), "add default route by "+gateway.String())
}

// ioctl makes the call and names it in the error.
func ioctl(fd int, request uintptr, arg unsafe.Pointer, what string) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return nil
}
