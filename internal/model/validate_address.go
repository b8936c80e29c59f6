package model

import (
	"encoding/hex"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// hostAddress checks a CIDR that names one machine: "10.10.0.11/24".
func (c *checker) hostAddress(path, s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		c.add(path, "%q is not an address with a prefix length, for example 10.10.0.11/24", s)
		return p, false
	}
	if p.Addr() == p.Masked().Addr() && p.Bits() < p.Addr().BitLen()-1 {
		c.add(path, "%q names a whole network, not a machine in it", s)
		return p, false
	}
	return p, true
}

// subnet checks a CIDR that names a network: "10.20.0.0/24".
func (c *checker) subnet(path, s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		c.add(path, "%q is not a network, for example 10.20.0.0/24", s)
		return p, false
	}
	if p != p.Masked() {
		c.add(path, "%q has bits set behind its prefix, did you mean %q?", s, p.Masked())
		return p, false
	}
	return p, true
}

// gateway checks an address that must lie in one of the prefixes; an empty one is no gateway.
func (c *checker) gateway(path, s string, in ...netip.Prefix) {
	if s == "" {
		return
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		c.add(path, "%q is not an address, for example 10.10.0.1", s)
		return
	}
	for _, p := range in {
		if p.IsValid() && !p.Contains(a) {
			c.add(path, "%s is not in %s", a, p.Masked())
		}
	}
}

// hostPort checks "host:port" with a numeric port.
func (c *checker) hostPort(path, s string) {
	colon := strings.LastIndexByte(s, ':')
	host, port := s[:max(0, colon)], s[colon+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	if err != nil || n == 0 || host == "" || !bracketed && strings.Contains(host, ":") || strings.ContainsAny(host, "/ \t\n") {
		c.add(path, "%q is not host:port with a port of 1 to 65535", s)
	}
}

// mac checks the address of a guest's card: six bytes, neither a group's nor zero.
func (c *checker) mac(path, s string) {
	raw, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	parts := strings.Split(s, ":")
	if err != nil || len(raw) != 6 || len(parts) != 6 || slices.ContainsFunc(parts, func(p string) bool { return len(p) != 2 }) {
		c.add(path, "%q is not a MAC address, for example 52:54:00:aa:00:01", s)
		return
	}
	if raw[0]&1 != 0 {
		c.add(path, "%q is a group address: the first byte must be even", s)
	}
}

// probeURL checks the address of an HTTP probe; "{address}" stands for the instance's own address.
func (c *checker) probeURL(path, s string) {
	u, err := url.Parse(strings.ReplaceAll(s, "{address}", "192.0.2.1"))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		c.add(path, "%q is not an http address, for example http://{address}:8080/health", s)
		return
	}
	if strings.ContainsAny(u.Path+u.Host, "{}") {
		c.add(path, "%q: only {address} is replaced", s)
	}
}
