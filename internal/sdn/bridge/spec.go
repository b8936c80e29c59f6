package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

const (
	// maxLinkName is the longest name of a link in Linux (IFNAMSIZ without the final zero).
	maxLinkName = 15
	// maxNetworkName keeps the alias far below the kernel's 255 bytes.
	maxNetworkName = 128
	// aliasPrefix tags every link of ours; the network's name follows.
	aliasPrefix = "hotspare:"
	// probeLink is the probe port's name inside its namespace.
	probeLink = "probe"
)

// network is a spec, checked, with the names derived from it.
type network struct {
	name   string
	closed bool
	bridge string
	uplink string
	probe  netip.Prefix
	// metadata: its machines reach the agent's metadata service.
	metadata bool

	alias string
	// draft is the bridge's name until it carries the alias.
	draft string
	// port is the end of the probe's veth pair that is in the bridge.
	port string
}

func newNetwork(spec *pb.NetworkSpec) (network, error) {
	n := named(spec.GetName())
	n.bridge, n.uplink = spec.GetBridge(), spec.GetUplink()
	var faults []error
	if n.name == "" || len(n.name) > maxNetworkName {
		faults = append(faults, fmt.Errorf("network name %q has not 1 to %d characters", n.name, maxNetworkName))
	}
	if err := checkLinkName(n.bridge); err != nil {
		faults = append(faults, fmt.Errorf("bridge name %q: %w", n.bridge, err))
	}
	if n.uplink != "" {
		if err := checkLinkName(n.uplink); err != nil {
			faults = append(faults, fmt.Errorf("uplink name %q: %w", n.uplink, err))
		}
	}
	switch spec.GetRole() {
	case pb.NetworkRole_NETWORK_ROLE_PRODUCTION:
	case pb.NetworkRole_NETWORK_ROLE_LENT:
		n.closed, n.metadata = true, true
	case pb.NetworkRole_NETWORK_ROLE_BUBBLE:
		n.closed = true
		if n.uplink != "" {
			faults = append(faults, errors.New("a bubble network has no uplink"))
		}
	default:
		faults = append(faults, fmt.Errorf("role %v is none of production, lent, bubble", spec.GetRole()))
	}
	var err error
	if n.probe, err = netip.ParsePrefix(spec.GetProbeAddress()); err != nil {
		faults = append(faults, fmt.Errorf("probe address: %w", err))
	}
	return n, errors.Join(faults...)
}

// named returns the names that derive from a network's name alone.
func named(name string) network {
	hash := shortHash(name)
	return network{name: name, alias: aliasPrefix + name, draft: "hsb-" + hash, port: "hsp-" + hash}
}

// shortHash is short enough for the name of a link.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:5])
}

// checkLinkName accepts what the kernel and nftables both take without quoting.
func checkLinkName(s string) error {
	if s == "" || len(s) > maxLinkName {
		return errors.New("not 1 to " + strconv.Itoa(maxLinkName) + " characters")
	}
	for _, c := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", c) {
			return fmt.Errorf("character %q is not a letter, digit, dash, underscore or dot", c)
		}
	}
	if strings.Trim(s, ".") == "" {
		return errors.New("only dots")
	}
	return nil
}
