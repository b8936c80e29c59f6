package lab

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// port is one cable: an interface in the host and its peer in the fabric's bridge.
type port struct {
	segment, ifname, peer string
}

// cut is a pair of hosts that do not reach each other on a segment; a is the smaller name.
type cut struct {
	segment, a, b string
}

// bridgeName is the bridge of a segment, in the fabric namespace.
func bridgeName(segment string) string { return "s-" + segment }

// AddSegment makes another network: a bridge in the fabric. The name is 1 to 12 of a-z and 0-9.
func (l *Lab) AddSegment(ctx context.Context, name string) error {
	if !regexp.MustCompile(`^[a-z0-9]{1,12}$`).MatchString(name) {
		return fmt.Errorf("add segment %q: the name must be 1 to 12 of a-z and 0-9", name)
	}
	if _, err := l.fabric.Run(ctx, "ip", "link", "add", bridgeName(name), "up", "type", "bridge"); err != nil {
		return fmt.Errorf("add segment %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[name] = true
	return nil
}

// Attach plugs a cable from the host into a segment: the host gets the interface ifname, up and without an address.
func (h *Host) Attach(ctx context.Context, segment, ifname string) error {
	l := h.lab
	l.mu.Lock()
	known := l.segments[segment]
	l.nextPort++
	p := port{segment: segment, ifname: ifname, peer: fmt.Sprintf("p%d", l.nextPort)}
	l.mu.Unlock()
	if !known {
		return fmt.Errorf("attach %s to segment %s: no such segment", h.Name, segment)
	}
	script := `set -e
ip link add "$1" type veth peer name "$2" netns "/proc/$3/ns/net"
ip link set "$1" master "$4" up
ethtool -K "$1" tx off >/dev/null`
	// The cable is made inside the fabric's namespace, so that the machine's own never sees either end.
	if _, err := l.fabric.Run(ctx, "sh", "-c", script, "attach", p.peer, ifname, fmt.Sprint(h.holder.PID()), bridgeName(segment)); err != nil {
		return fmt.Errorf("attach %s to segment %s: %w", h.Name, segment, err)
	}
	// Without this a user-space switch in the host passes on packets with no checksum: ping works and TCP does not.
	if _, err := h.Run(ctx, "sh", "-c", `ethtool -K "$1" tx off >/dev/null && ip link set "$1" up`, "attach", ifname); err != nil {
		return fmt.Errorf("attach %s to segment %s: %w", h.Name, segment, err)
	}
	h.mu.Lock()
	h.ports = append(h.ports, p)
	h.mu.Unlock()
	return l.applyCuts(ctx)
}

// LinkDown pulls the cable of an interface: the host sees the loss of carrier at once.
func (h *Host) LinkDown(ctx context.Context, ifname string) error {
	return h.setLink(ctx, ifname, "down")
}

// LinkUp plugs it in again.
func (h *Host) LinkUp(ctx context.Context, ifname string) error {
	return h.setLink(ctx, ifname, "up")
}

func (h *Host) setLink(ctx context.Context, ifname, state string) error {
	for _, p := range h.portsOf() {
		if p.ifname == ifname {
			_, err := h.lab.fabric.Run(ctx, "ip", "link", "set", p.peer, state)
			return err
		}
	}
	return fmt.Errorf("set link %s of %s %s: no such cable", ifname, h.Name, state)
}

func (h *Host) portsOf() []port {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ports)
}

// Cut drops all frames between two hosts silently, in both directions, on the given segments; without segments on all. Links stay up: the
// hosts learn of it only by their own timeouts. The test process still reaches both.
func (l *Lab) Cut(ctx context.Context, a, b *Host, segments ...string) error {
	return l.changeCuts(ctx, a, b, segments, func(c cut) { l.cuts[c] = true })
}

// Heal undoes Cut for the given segments; without segments for all.
func (l *Lab) Heal(ctx context.Context, a, b *Host, segments ...string) error {
	return l.changeCuts(ctx, a, b, segments, func(c cut) { delete(l.cuts, c) })
}

func (l *Lab) changeCuts(ctx context.Context, a, b *Host, segments []string, change func(cut)) error {
	if a == b {
		return fmt.Errorf("cut or heal %s from itself", a.Name)
	}
	l.mu.Lock()
	if len(segments) == 0 {
		segments = slices.Sorted(maps.Keys(l.segments))
	}
	for _, s := range segments {
		if !l.segments[s] {
			l.mu.Unlock()
			return fmt.Errorf("cut or heal %s and %s on segment %s: no such segment", a.Name, b.Name, s)
		}
		change(cut{s, min(a.Name, b.Name), max(a.Name, b.Name)})
	}
	l.mu.Unlock()
	return l.applyCuts(ctx)
}

// applyCuts loads the whole set of drop rules in one transaction; it sits in the fabric, where no product code looks or writes.
func (l *Lab) applyCuts(ctx context.Context) error {
	l.mu.Lock()
	cuts := slices.Collect(maps.Keys(l.cuts))
	hosts := slices.Clone(l.hosts)
	l.mu.Unlock()
	ports := map[string][]string{} // "host segment" to the names of its ports in the fabric
	for _, h := range hosts {
		for _, p := range h.portsOf() {
			key := h.Name + " " + p.segment
			ports[key] = append(ports[key], p.peer)
		}
	}
	var b strings.Builder
	b.WriteString("table bridge lab\ndelete table bridge lab\ntable bridge lab {\n\tchain forward {\n" +
		"\t\ttype filter hook forward priority 0; policy accept;\n")
	for _, c := range cuts {
		for _, one := range ports[c.a+" "+c.segment] {
			for _, other := range ports[c.b+" "+c.segment] {
				fmt.Fprintf(&b, "\t\tiifname %s oifname %s drop\n\t\tiifname %s oifname %s drop\n", one, other, other, one)
			}
		}
	}
	b.WriteString("\t}\n}\n")
	cmd := l.fabric.Command(ctx, "nft", "--file", "-")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load drop rules: %w: %s", err, out)
	}
	return nil
}
