package byhand

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// probePort and probeLink are the two ends of the port that health is probed from.
	probePort, probeLink = "byhand0", "byhand1"
	// probeEvery is short enough to notice a healthy guest at once, and long enough to leave the guest the machine while it boots.
	probeEvery = 50 * time.Millisecond
	// dialLimit is for a guest that has just come up and loses the first packet, which TCP repeats after a second.
	dialLimit  = 200 * time.Millisecond
	probeLimit = time.Second
	// neighbourRetry is how soon the kernel asks again for the guest's MAC. Its default of a second
	// would decide how soon a guest that has just booted is noticed.
	neighbourRetry = "50"
)

// Network is the production network on one host: a bridge with the uplink as a port, and a port to
// probe from in a network namespace of its own. Such a network is open, so no rule of nftables
// changes, on neither side.
type Network struct {
	// Namespace is the path of the host's network namespace.
	Namespace      string
	Bridge, Uplink string
	// Probe is the probe port's address with its prefix length.
	Probe string

	// probe is the namespace of the probe port while there is one.
	probe *netns.NsHandle
}

// make makes it all.
func (n *Network) make() error {
	host, err := netns.GetFromPath(n.Namespace)
	if err != nil {
		return err
	}
	defer host.Close()
	links, err := netlink.NewHandleAt(host, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer links.Close()
	probe, err := newNamespace()
	if err != nil {
		return err
	}
	n.probe = &probe
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.Bridge}}
	if err := links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make bridge %s: %w", n.Bridge, err)
	}
	uplink, err := links.LinkByName(n.Uplink)
	if err != nil {
		return fmt.Errorf("find uplink %s: %w", n.Uplink, err)
	}
	port := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: probePort, MasterIndex: bridge.Index}, PeerName: probeLink, PeerNamespace: netlink.NsFd(probe),
	}
	for _, step := range []func() error{
		func() error { return links.LinkSetMaster(uplink, bridge) },
		func() error { return links.LinkAdd(port) },
		func() error { return links.LinkSetUp(port) },
		func() error { return links.LinkSetUp(bridge) },
		func() error { return n.address(probe) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// address sets the far end of the probe port up.
func (n *Network) address(probe netns.NsHandle) error {
	inside, err := netlink.NewHandleAt(probe, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(probeLink)
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(n.Probe)
	if err != nil {
		return err
	}
	loopback, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	return errors.Join(inside.AddrAdd(link, address), inside.LinkSetUp(link), inside.LinkSetUp(loopback), within(probe, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/neigh/"+probeLink+"/retrans_time_ms", []byte(neighbourRetry), 0)
	}))
}

// remove takes it all away; what was never made is no error.
func (n *Network) remove() error {
	host, err := netns.GetFromPath(n.Namespace)
	if err != nil {
		return err
	}
	defer host.Close()
	links, err := netlink.NewHandleAt(host, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer links.Close()
	for _, name := range []string{probePort, n.Bridge} {
		link, err := links.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err == nil {
			err = links.LinkDel(link)
		}
		if err != nil {
			return fmt.Errorf("remove link %s: %w", name, err)
		}
	}
	if n.probe == nil {
		return nil
	}
	err = n.probe.Close() // the last handle: the namespace is gone
	n.probe = nil
	return err
}

// awaitHealthy probes the guest until it answers 200.
func (n *Network) awaitHealthy(ctx context.Context, url string) error {
	client := &http.Client{Timeout: probeLimit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = within(*n.probe, func() error {
				dialer := net.Dialer{Timeout: dialLimit}
				conn, err = dialer.DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	for {
		if healthy(ctx, client, url) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(probeEvery):
		}
	}
}

func healthy(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// newNamespace makes a network namespace that lives as long as its handle.
func newNamespace() (ns netns.NsHandle, err error) {
	err = onNewThread(func() error {
		ns, err = netns.New()
		return err
	})
	return ns, err
}

// within calls do on a thread inside of a network namespace; sockets stay where they were made.
func within(ns netns.NsHandle, do func() error) error {
	return onNewThread(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		return do()
	})
}

// onNewThread calls do on a thread that ends with it. The main thread cannot end: when it is the one
// that is locked here, the second try gets another.
func onNewThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onNewThread(do)
			return
		}
		done <- do()
	}()
	return <-done
}
