package model

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
)

// DeriveMAC returns a locally administered unicast address in QEMU's range (52:54:00) that follows
// from a name.
func DeriveMAC(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", sum[0], sum[1], sum[2])
}

// PortName is the name of the port (tap device) of a VM's network card on its host. It follows from the network's
// name and the card's MAC address, so that the network driver can say what may come through the port before the
// VM is started. At most 15 characters, as Linux wants; libvirt keeps names that do not begin like its own.
func PortName(network, mac string) string {
	sum := sha256.Sum256([]byte(network + "/" + strings.ToLower(mac)))
	return fmt.Sprintf("hst-%x", sum[:5])
}

// FreeAddress returns the lowest host address of a subnet that is neither the network's first
// address, the gateway, nor taken, as a CIDR; false when none is left.
func FreeAddress(subnet, gateway string, taken map[string]bool) (string, bool) {
	p, err := netip.ParsePrefix(subnet)
	if err != nil {
		return "", false
	}
	p = p.Masked()
	for a := p.Addr().Next(); p.Contains(a) && p.Contains(a.Next()); a = a.Next() {
		cidr := netip.PrefixFrom(a, p.Bits()).String()
		if a.String() != gateway && !taken[cidr] {
			return cidr, true
		}
	}
	return "", false
}
