package conformance

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
)

// metadata returns the optional part of the driver; a driver without it has no lent machines that are told.
func metadata(t *testing.T, h NetworkHarness) sdn.Metadata {
	t.Helper()
	m, ok := h.Driver.(sdn.Metadata)
	if !ok {
		t.Skip("this driver has no metadata service")
	}
	return m
}

// accepted takes connections until the listener ends, and gives where the first comes from and how it ended.
func accepted(l net.Listener) (first <-chan netip.Addr, ended <-chan error) {
	from, end := make(chan netip.Addr, 1), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				end <- err
				return
			}
			select {
			case from <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap():
			default:
			}
			c.Close()
		}
	}()
	return from, end
}

func metadataServed(t *testing.T, h NetworkHarness) {
	m := metadata(t, h)
	spec, other := h.Spec("one", lent), h.Spec("two", lent)
	ensure(t, h, spec)
	ensure(t, h, other)
	l, err := m.ListenMetadata(limit(t, callLimit), spec.GetName())
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer l.Close()
	first, _ := accepted(l)
	if _, _, ok := h.Connect(t, other); ok {
		t.Error("a machine of one network reaches the listener of another")
	}
	address, mac, ok := h.Connect(t, spec)
	if !ok {
		t.Fatal("the machine does not reach the metadata address")
	}
	if from := <-first; from != address {
		t.Errorf("it comes from %s, want %s", from, address)
	}
	got, err := m.Machine(limit(t, callLimit), spec.GetName(), address)
	if err != nil || got.String() != mac.String() {
		t.Errorf("the machine is %s, %v, want %s", got, err, mac)
	}
	nobody := netip.MustParseAddr("203.0.113.77")
	if got, err := m.Machine(limit(t, callLimit), spec.GetName(), nobody); !errors.Is(err, sdn.ErrNotFound) {
		t.Errorf("a machine that is none: %s, %v, want not found", got, err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, _, ok := h.Connect(t, spec); ok {
		t.Error("the port is open after the listener was closed")
	}
}

func metadataOnlyLent(t *testing.T, h NetworkHarness) {
	m := metadata(t, h)
	for _, spec := range []*pb.NetworkSpec{h.Spec("one", production), h.Spec("three", bubble)} {
		ensure(t, h, spec)
		if l, err := m.ListenMetadata(limit(t, callLimit), spec.GetName()); !errors.Is(err, sdn.ErrNotFound) {
			t.Errorf("listen on %s: %v, %v, want not found", spec.GetName(), l, err)
		}
		if _, _, ok := h.Connect(t, spec); ok {
			t.Errorf("a machine of %s reaches the metadata address", spec.GetName())
		}
	}
	if l, err := m.ListenMetadata(limit(t, callLimit), "missing"); !errors.Is(err, sdn.ErrNotFound) {
		t.Errorf("listen on a missing network: %v, %v, want not found", l, err)
	}
	spec := h.Spec("two", lent)
	ensure(t, h, spec)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := m.ListenMetadata(ctx, spec.GetName()); !errors.Is(err, context.Canceled) {
		t.Errorf("listen with a cancelled context: %v, %v", l, err)
	}
}

func metadataEnds(t *testing.T, h NetworkHarness) {
	m := metadata(t, h)
	spec := h.Spec("one", lent)
	before := h.Inventory(t)
	for range 2 { // The second network has nothing of the first.
		ensure(t, h, spec)
		l, err := m.ListenMetadata(limit(t, callLimit), spec.GetName())
		if err != nil {
			t.Fatalf("listen: %v", err)
		}
		_, ended := accepted(l)
		ensure(t, h, spec)
		select {
		case err := <-ended:
			t.Errorf("an ensure that changes nothing ended the listener: %v", err)
		default:
		}
		remove(t, h, spec)
		select {
		case <-ended: //nolint:errcheck // How it ended does not matter.
		case <-limit(t, callLimit).Done():
			t.Fatal("the listener outlives its network")
		}
	}
	if diff := cmp.Diff(before, h.Inventory(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
	// What is made anew is listened on anew.
	ensure(t, h, spec)
	l, err := m.ListenMetadata(limit(t, callLimit), spec.GetName())
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	_, ended := accepted(l)
	h.DeleteBridge(t, spec)
	ensure(t, h, spec)
	select {
	case <-ended: //nolint:errcheck // As above.
	case <-limit(t, callLimit).Done():
		t.Fatal("the listener outlives what its network was")
	}
	l, err = m.ListenMetadata(limit(t, callLimit), spec.GetName())
	if err != nil {
		t.Fatalf("listen again: %v", err)
	}
	first, _ := accepted(l)
	defer l.Close()
	if address, _, ok := h.Connect(t, spec); !ok || <-first != address {
		t.Error("after the repair the metadata address is not reached")
	}
}
