package bridge_test

import (
	"errors"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var broadcast = []byte{255, 255, 255, 255, 255, 255}

// guardTable is the name of the only guard on the host.
func guardTable(t *testing.T, h *host) string {
	t.Helper()
	found := regexp.MustCompile(`table bridge (\S+)`).FindStringSubmatch(run(t, "ip", "netns", "exec", h.ns, "nft", "list", "tables"))
	if found == nil {
		t.Fatal("there is no guard")
	}
	return found[1]
}

// synTo is an IPv4 packet with the beginning of a connection to the metadata address.
func synTo(source [4]byte) []byte {
	p := []byte{
		0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, source[0], source[1], source[2], source[3], 169, 254, 169, 254,
		0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
	}
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(p[i])<<8 | uint32(p[i+1])
	}
	sum = sum>>16 + sum&0xffff
	p[10], p[11] = byte(^sum>>8), byte(^sum)
	return p
}

// arp is a frame that says that an address is at a MAC (gratuitous ARP, RFC 5227).
func arp(source, mac net.HardwareAddr, address netip.Addr) []byte {
	a := address.AsSlice()
	return slices.Concat(broadcast, source, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, mac, a, make([]byte, 6), a)
}

// packetSocket opens a socket for whole frames on a link of a namespace.
func packetSocket(t *testing.T, ns, link string, protocol uint16) (fd, index int) {
	t.Helper()
	type result struct {
		fd, index int
		err       error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // The thread ends in the namespace.
		made <- func() result {
			handle, err := netns.GetFromName(ns)
			if err != nil {
				return result{err: err}
			}
			defer handle.Close()
			if err := netns.Set(handle); err != nil {
				return result{err: err}
			}
			ifc, err := net.InterfaceByName(link)
			if err != nil {
				return result{err: err}
			}
			swapped := protocol>>8 | protocol<<8
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swapped))
			if err != nil {
				return result{err: err}
			}
			return result{fd, ifc.Index, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifc.Index, Protocol: swapped})}
		}()
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { unix.Close(r.fd) })
	return r.fd, r.index
}

// sends puts a frame on the machine's wire.
func (m *machine) sends(t *testing.T, frame []byte) {
	t.Helper()
	fd, index := packetSocket(t, m.ns, "eth0", 0)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
		t.Fatal(err)
	}
}

// sniffer sees the IPv4 packets that arrive on a link.
type sniffer struct{ fd int }

func sniff(t *testing.T, ns, link string) sniffer {
	t.Helper()
	fd, _ := packetSocket(t, ns, link, unix.ETH_P_IP)
	return sniffer{fd}
}

// within reports whether a packet from a source comes within the time that one would take, and forgets all others.
func (s sniffer) within(t *testing.T, source [4]byte) bool {
	t.Helper()
	limit := unix.NsecToTimeval(int64(200 * time.Millisecond))
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	found := false
	frame := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(s.fd, frame, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return found
		case err != nil:
			t.Fatal(err)
		}
		incoming := from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING
		if incoming && n >= 30 && [4]byte(frame[26:30]) == source {
			found = true
		}
	}
}
