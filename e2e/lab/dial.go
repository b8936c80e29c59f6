package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread inside the host's network namespace, for example to open a listener there. Sockets stay in the namespace
// in which they were made, so f should only make them; goroutines that f starts are outside.
func (h *Host) Do(f func() error) error {
	return onNewThread(func() error { return h.doHere(f) })
}

// onNewThread runs f on a thread that is thrown away afterwards, so that nothing else can inherit what f did to it. It must not
// be the main thread: that one cannot end, and it is the one that /proc/self shows to everybody.
func onNewThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While the main thread is locked here, the second try gets another one.
			defer runtime.UnlockOSThread()
			result <- onNewThread(f)
			return
		}
		result <- f() // never unlocked: the thread ends with this goroutine
	}()
	return <-result
}

func (h *Host) doHere(f func() error) error {
	fd, err := unix.Open(filepath.Join(netnsRoot, h.NetNS), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("enter network of %s: %w", h.Name, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network of %s: %w", h.Name, err)
	}
	return f()
}

// DialContext connects from inside the host. The address must be numeric: a name would be looked up outside.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", address, h.Name, err)
	}
	var conn net.Conn
	err := h.Do(func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.Name, err)
	}
	return conn, nil
}

// DialContext connects from the lab's own place on the management network (10.77.0.1), which no Cut affects. It fits
// grpc.WithContextDialer and http.Transport.
func (l *Lab) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return l.fabric.DialContext(ctx, network, address)
}

// HTTPClient returns a client that connects from the given host, or from the lab's own place when it is nil. Each request has a
// connection of its own, so that an answer always shows the network as it is now.
func (l *Lab) HTTPClient(from *Host) *http.Client {
	if from == nil {
		from = l.fabric
	}
	return &http.Client{Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}}
}
