package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/hotspare/hotspare/internal/sdn"
)

// bridgeType is what the kernel calls a bridge.
const bridgeType = "bridge"

// dumpTries bounds the readings of the list of links: the kernel reports one that was interrupted by
// a change, and several in a row mean that somebody changes links all the time.
const dumpTries = 10

// allLinks reads the host's links.
func (d *Driver) allLinks(ctx context.Context) ([]netlink.Link, error) {
	var links []netlink.Link
	var err error
	for range dumpTries {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		links, err = d.links.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

// link returns a link of the host, nil when there is none.
func (d *Driver) link(name string) (netlink.Link, error) {
	link, err := d.links.LinkByName(name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for link %s: %w", name, err)
	}
	return link, nil
}

// isOurs reports whether a link is part of the network: it carries the tag, or has a derived name.
func isOurs(link netlink.Link, n network) bool {
	a := link.Attrs()
	return a.Alias == n.alias || a.Name == n.draft || a.Name == n.port
}

// verify returns nil when the network is complete, and sdn.ErrNotFound with what is missing.
func (d *Driver) verify(ctx context.Context, n network) error {
	bridge, err := d.link(n.bridge)
	if err != nil {
		return err
	}
	switch {
	case bridge == nil:
		return incomplete("bridge %s is missing", n.bridge)
	case bridge.Type() != bridgeType || bridge.Attrs().Alias != n.alias:
		return incomplete("%s %s is not ours", bridge.Type(), n.bridge)
	case bridge.Attrs().Flags&net.FlagUp == 0:
		return incomplete("bridge %s is down", n.bridge)
	}
	if n.uplink != "" {
		uplink, err := d.link(n.uplink)
		if err != nil {
			return err
		}
		if uplink == nil || uplink.Attrs().MasterIndex != bridge.Attrs().Index {
			return incomplete("uplink %s is not in bridge %s", n.uplink, n.bridge)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.verifyProbe(n, bridge); err != nil {
		return err
	}
	if err := d.verifyIsolated(n); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.verifyGuard(n); err != nil {
		return err
	}
	return d.verifyFilter(n)
}

// refuseForeign looks for everything that would have to be taken from somebody else, before anything
// is changed.
func (d *Driver) refuseForeign(ctx context.Context, n network) error {
	links, err := d.allLinks(ctx)
	if err != nil {
		return err
	}
	var index int
	for _, link := range links {
		a := link.Attrs()
		switch {
		case a.Name == n.bridge && (a.Alias != n.alias || link.Type() != bridgeType):
			return fmt.Errorf("%s %s exists without our tag %q; remove or rename it: %w",
				link.Type(), n.bridge, n.alias, sdn.ErrConflict)
		case a.Name == n.bridge:
			index = a.Index
		case link.Type() == bridgeType && a.Alias == n.alias && a.Name != n.draft:
			return fmt.Errorf("the network has bridge %s already; remove the network first: %w",
				a.Name, sdn.ErrConflict)
		}
	}
	if n.uplink == "" {
		return nil
	}
	for _, link := range links {
		if link.Attrs().Name == n.uplink {
			return d.refuseUplink(link, index)
		}
	}
	return fmt.Errorf("uplink %s does not exist on this host", n.uplink)
}

// refuseUplink says why a link cannot become the uplink of the bridge with this index (0: none yet).
func (d *Driver) refuseUplink(link netlink.Link, bridge int) error {
	a := link.Attrs()
	if a.MasterIndex != 0 && a.MasterIndex != bridge {
		return fmt.Errorf("uplink %s is in another bridge or bond already: %w", a.Name, sdn.ErrConflict)
	}
	if a.Flags&net.FlagUp == 0 {
		return fmt.Errorf("uplink %s is down; set it up", a.Name)
	}
	addresses, err := d.links.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of uplink %s: %w", a.Name, err)
	}
	for _, address := range addresses {
		if !address.IP.IsLinkLocalUnicast() {
			return fmt.Errorf("uplink %s has address %s, which the host would lose: %w",
				a.Name, address.IPNet, sdn.ErrConflict)
		}
	}
	return nil
}

// buildBridge makes the bridge under a derived name, tags it and renames it, so that no crash leaves
// a bridge of ours without its tag.
func (d *Driver) buildBridge(_ context.Context, n network) error {
	bridge, err := d.link(n.bridge)
	if err != nil || bridge != nil {
		// Its tag was checked before.
		return err
	}
	if draft, err := d.link(n.draft); err != nil {
		return err
	} else if draft != nil {
		if err := d.deleteLink(draft); err != nil {
			return err
		}
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = n.draft
	bridge = &netlink.Bridge{LinkAttrs: attributes}
	if err := d.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make bridge %s: %w", n.draft, err)
	}
	if err := d.links.LinkSetAlias(bridge, n.alias); err != nil {
		return fmt.Errorf("tag bridge %s: %w", n.draft, err)
	}
	if err := d.links.LinkSetName(bridge, n.bridge); err != nil {
		return fmt.Errorf("rename bridge %s to %s: %w", n.draft, n.bridge, err)
	}
	return nil
}

// joinUplink makes the uplink a port of the bridge. Its state stays as the host set it.
func (d *Driver) joinUplink(_ context.Context, n network) error {
	if n.uplink == "" {
		return nil
	}
	bridge, err := d.link(n.bridge)
	if err != nil {
		return err
	}
	uplink, err := d.link(n.uplink)
	if err != nil {
		return err
	}
	if bridge == nil || uplink == nil {
		return fmt.Errorf("bridge %s or uplink %s vanished", n.bridge, n.uplink)
	}
	if uplink.Attrs().MasterIndex == bridge.Attrs().Index {
		return nil
	}
	if err := d.refuseUplink(uplink, bridge.Attrs().Index); err != nil {
		return err
	}
	if err := d.links.LinkSetMaster(uplink, bridge); err != nil {
		return fmt.Errorf("join uplink %s to bridge %s: %w", n.uplink, n.bridge, err)
	}
	return nil
}

func (d *Driver) bridgeUp(_ context.Context, n network) error {
	bridge, err := d.link(n.bridge)
	if err != nil {
		return err
	}
	if bridge == nil {
		return fmt.Errorf("bridge %s vanished", n.bridge)
	}
	if err := d.links.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set bridge %s up: %w", n.bridge, err)
	}
	return nil
}

// refusePorts says which virtual machines still have a port in a bridge of the network. Ports of
// other kinds are uplinks, which the kernel releases with the bridge.
func refusePorts(bridge netlink.Link, n network, links []netlink.Link) error {
	if bridge.Type() != bridgeType {
		return nil
	}
	var ports []string
	for _, link := range links {
		a := link.Attrs()
		if a.MasterIndex == bridge.Attrs().Index && link.Type() == "tuntap" && !isOurs(link, n) {
			ports = append(ports, a.Name)
		}
	}
	if len(ports) > 0 {
		return fmt.Errorf("bridge %s still has the machine ports %s", bridge.Attrs().Name, strings.Join(ports, ", "))
	}
	return nil
}

// deleteLink deletes a link; one that has gone meanwhile is fine. The ports of a bridge are released.
func (d *Driver) deleteLink(link netlink.Link) error {
	name := link.Attrs().Name
	if err := d.links.LinkDel(link); err != nil {
		if again, lookErr := d.link(name); lookErr == nil && again == nil {
			return nil
		}
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}
