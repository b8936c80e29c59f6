package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// settings is what the kernel command line asks for.
type settings struct {
	name           string
	nics           []nic
	port           int
	recordEvery    time.Duration
	unhealthy      bool
	ignoreShutdown bool
	// metadataEvery is how often the host's metadata service is asked; readyAfter is how long after a notice the
	// guest says that it may be taken, negative: never.
	metadataEvery, readyAfter time.Duration
}

// nic is one address on the interface with this MAC.
type nic struct {
	mac     net.HardwareAddr
	address netip.Prefix
	gateway netip.Addr // the zero Addr when there is none
}

// parseSettings reads the hs.* arguments. An unknown one is an error: a misspelt argument
// would otherwise make a test pass for the wrong reason.
func parseSettings(cmdline string) (settings, error) {
	s := settings{name: "guest", readyAfter: -1}
	for arg := range strings.FieldsSeq(cmdline) {
		if !strings.HasPrefix(arg, "hs.") {
			continue
		}
		key, value, _ := strings.Cut(arg, "=")
		var err error
		switch key {
		case "hs.name":
			s.name = value
		case "hs.nic":
			var n nic
			n, err = parseNIC(value)
			s.nics = append(s.nics, n)
		case "hs.port":
			s.port, err = strconv.Atoi(value)
		case "hs.records":
			s.recordEvery, err = time.ParseDuration(value)
		case "hs.unhealthy":
			s.unhealthy = value == "1"
		case "hs.ignore-shutdown":
			s.ignoreShutdown = value == "1"
		case "hs.metadata":
			s.metadataEvery, err = time.ParseDuration(value)
		case "hs.ready":
			s.readyAfter, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("unknown argument")
		}
		if err != nil {
			return settings{}, fmt.Errorf("kernel argument %s: %w", arg, err)
		}
	}
	return s, nil
}

// parseNIC reads "<mac>,<ip/prefix>[,<gateway>]"; only IPv4.
func parseNIC(value string) (nic, error) {
	parts := strings.Split(value, ",")
	if len(parts) != 2 && len(parts) != 3 {
		return nic{}, fmt.Errorf("want <mac>,<ip/prefix>[,<gateway>]")
	}
	var n nic
	var err error
	if n.mac, err = net.ParseMAC(parts[0]); err != nil {
		return nic{}, err
	}
	if n.address, err = netip.ParsePrefix(parts[1]); err != nil {
		return nic{}, err
	}
	if len(parts) == 3 {
		if n.gateway, err = netip.ParseAddr(parts[2]); err != nil {
			return nic{}, err
		}
	}
	if !n.address.Addr().Is4() || (n.gateway.IsValid() && !n.gateway.Is4()) {
		return nic{}, fmt.Errorf("only IPv4 addresses are known here")
	}
	return n, nil
}
