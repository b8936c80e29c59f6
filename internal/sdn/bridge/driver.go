package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
)

// Options configure the driver.
type Options struct {
	// Namespace is the path of the host's network namespace; empty: the process's own.
	Namespace string
	// Log gets one line for each network that is made or removed.
	Log *slog.Logger
}

// Driver keeps the networks of one host. It keeps no state of its own: what exists is read from the
// kernel in every call.
type Driver struct {
	log *slog.Logger
	// host is the host's network namespace, and links the way to its links.
	host  netns.NsHandle
	links *netlink.Handle
	// hostID tells hosts apart that share the directory of named namespaces, as in tests.
	hostID string
	// turn holds one token: changes of one host are made one after the other.
	turn      chan struct{}
	listeners listeners
}

var (
	_ sdn.Driver   = (*Driver)(nil)
	_ sdn.Metadata = (*Driver)(nil)
)

// New opens the host's network namespace. It changes nothing.
func New(o Options) (*Driver, error) {
	host, err := openHost(o.Namespace)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %q of the host: %w", o.Namespace, err)
	}
	links, err := netlink.NewHandleAt(host, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink of the host: %w", err), host.Close())
	}
	d := &Driver{log: o.Log, host: host, links: links, hostID: host.UniqueId(), turn: make(chan struct{}, 1)}
	d.listeners.open = map[string]*listener{}
	d.turn <- struct{}{}
	return d, nil
}

func openHost(path string) (netns.NsHandle, error) {
	if path == "" {
		// The process's own, whichever thread this is.
		path = "/proc/self/ns/net"
	}
	return netns.GetFromPath(path)
}

// Close gives the namespace back. Networks stay.
func (d *Driver) Close() error {
	d.links.Close()
	return d.host.Close()
}

// List implements sdn.Driver. A network of which only parts are left is listed too.
func (d *Driver) List(ctx context.Context) ([]string, error) {
	done, err := d.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	defer done()
	links, err := d.allLinks(ctx)
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var names []string
	for _, link := range links {
		if name, ours := strings.CutPrefix(link.Attrs().Alias, aliasPrefix); ours {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Inspect implements sdn.Driver.
func (d *Driver) Inspect(ctx context.Context, spec *pb.NetworkSpec) (*pb.NetworkStatus, error) {
	n, err := newNetwork(spec)
	if err != nil {
		return nil, fmt.Errorf("inspect network %s: %w", spec.GetName(), err)
	}
	done, err := d.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("inspect network %s: %w", n.name, err)
	}
	defer done()
	if err := d.verify(ctx, n); err != nil {
		return nil, fmt.Errorf("inspect network %s: %w", n.name, err)
	}
	return &pb.NetworkStatus{Bridge: n.bridge}, nil
}

// Ensure implements sdn.Driver. What is right already is left alone.
func (d *Driver) Ensure(ctx context.Context, spec *pb.NetworkSpec) error {
	n, err := newNetwork(spec)
	if err != nil {
		return fmt.Errorf("ensure network %s: %w", spec.GetName(), err)
	}
	done, err := d.begin(ctx)
	if err != nil {
		return fmt.Errorf("ensure network %s: %w", n.name, err)
	}
	defer done()
	err = d.verify(ctx, n)
	if err == nil {
		return nil
	}
	if !errors.Is(err, sdn.ErrNotFound) {
		return fmt.Errorf("ensure network %s: %w", n.name, err)
	}
	if err := d.build(ctx, n); err != nil {
		return fmt.Errorf("ensure network %s: %w", n.name, err)
	}
	if err := d.verify(ctx, n); err != nil {
		return fmt.Errorf("ensure network %s: read back: %w", n.name, err)
	}
	d.log.Info("network present", "network", n.name, "bridge", n.bridge, "role", spec.GetRole().String())
	return nil
}

// build makes what is missing, the isolation first.
func (d *Driver) build(ctx context.Context, n network) error {
	if err := d.refuseForeign(ctx, n); err != nil {
		return err
	}
	for _, step := range []func(context.Context, network) error{
		d.filter, d.guard, d.buildBridge, d.joinUplink, d.buildProbe, d.isolate, d.bridgeUp,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// Remove implements sdn.Driver. A bridge that still has ports of others is an error: their machines
// are stopped first.
func (d *Driver) Remove(ctx context.Context, spec *pb.NetworkSpec) error {
	n := named(spec.GetName())
	n.bridge = spec.GetBridge()
	done, err := d.begin(ctx)
	if err != nil {
		return fmt.Errorf("remove network %s: %w", n.name, err)
	}
	defer done()
	removed, err := d.demolish(ctx, n)
	if err != nil {
		return fmt.Errorf("remove network %s: %w", n.name, err)
	}
	if removed {
		d.log.Info("network removed", "network", n.name, "bridge", n.bridge)
	}
	return nil
}

// demolish takes everything of a network away, the isolation last, and reports whether there was
// anything. Bridges are found by their tag, so one that the spec names differently goes too.
func (d *Driver) demolish(ctx context.Context, n network) (bool, error) {
	links, err := d.allLinks(ctx)
	if err != nil {
		return false, err
	}
	ours := slices.DeleteFunc(slices.Clone(links), func(link netlink.Link) bool { return !isOurs(link, n) })
	for _, link := range ours {
		if err := refusePorts(link, n, links); err != nil {
			return false, err
		}
	}
	d.closeListener(n.name)
	removed, err := d.removeNamespace(n)
	if err != nil {
		return removed, err
	}
	// A closed mark may be left of a bridge that somebody deleted.
	bridges := []string{n.bridge}
	for _, link := range ours {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		removed = true
		bridges = append(bridges, link.Attrs().Name)
		if err := d.deleteLink(link); err != nil {
			return removed, err
		}
	}
	unguarded, err := d.removeGuard(n)
	removed = removed || unguarded
	if err != nil {
		return removed, err
	}
	for _, name := range bridges {
		if otherNetwork(links, name, n) {
			continue
		}
		if err := d.setClosed(name, false); err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// otherNetwork reports whether a link of this name carries the tag of another network of ours.
func otherNetwork(links []netlink.Link, name string, n network) bool {
	return slices.ContainsFunc(links, func(link netlink.Link) bool {
		a := link.Attrs()
		return a.Name == name && a.Alias != n.alias && strings.HasPrefix(a.Alias, aliasPrefix)
	})
}

// begin waits for the caller's turn; the caller ends it with the function returned.
func (d *Driver) begin(ctx context.Context) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-d.turn:
		return func() { d.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// incomplete says what of a network is not as it should be.
func incomplete(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), sdn.ErrNotFound)
}
