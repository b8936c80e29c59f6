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

// listen opens the metadata port of a network, and takes what comes until the test ends.
func listen(t *testing.T, m sdn.Metadata, spec *pb.NetworkSpec) (first <-chan netip.Addr, ended <-chan error) {
	t.Helper()
	l, err := m.ListenMetadata(limit(t, callLimit), spec.GetName())
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return accepted(l)
}

func admit(t *testing.T, m sdn.Metadata, spec *pb.NetworkSpec, machines ...Machine) {
	t.Helper()
	var cards []sdn.Card
	for _, machine := range machines {
		cards = append(cards, machine.Card)
	}
	if err := m.Admit(limit(t, callLimit), spec.GetName(), cards); err != nil {
		t.Fatalf("admit: %v", err)
	}
}

// known says whose MAC a network has for an address: "" for nobody.
func known(t *testing.T, m sdn.Metadata, spec *pb.NetworkSpec, address netip.Addr) string {
	t.Helper()
	mac, err := m.Machine(limit(t, callLimit), spec.GetName(), address)
	if err != nil && !errors.Is(err, sdn.ErrNotFound) {
		t.Errorf("machine: %v", err)
	}
	return mac.String()
}

func metadataServed(t *testing.T, h NetworkHarness) {
	m := metadata(t, h)
	spec, other := h.Spec("one", lent), h.Spec("two", lent)
	ensure(t, h, spec)
	ensure(t, h, other)
	here, there := h.Plug(t, spec), h.Plug(t, other)
	l, err := m.ListenMetadata(limit(t, callLimit), spec.GetName())
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer l.Close()
	first, _ := accepted(l)
	admit(t, m, spec, here)
	admit(t, m, other, there)
	if there.Asks(t) {
		t.Error("a machine of one network reaches the listener of another")
	}
	if !here.Asks(t) {
		t.Fatal("the machine does not reach the metadata address")
	}
	if from := <-first; from != here.Card.Address {
		t.Errorf("it comes from %s, want %s", from, here.Card.Address)
	}
	if got, want := known(t, m, spec, here.Card.Address), here.Card.MAC.String(); got != want {
		t.Errorf("the machine is %s, want %s", got, want)
	}
	if err := l.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if here.Asks(t) {
		t.Error("the port is open after the listener was closed")
	}
}

func metadataAdmits(t *testing.T, h NetworkHarness) {
	m := metadata(t, h)
	spec := h.Spec("one", lent)
	ensure(t, h, spec)
	one, two := h.Plug(t, spec), h.Plug(t, spec)
	listen(t, m, spec)
	check := func(when string, want ...bool) {
		t.Helper()
		for i, machine := range []Machine{one, two} {
			mac := ""
			if want[i] {
				mac = machine.Card.MAC.String()
			}
			if got := known(t, m, spec, machine.Card.Address); got != mac {
				t.Errorf("%s, machine %d is %q, want %q", when, i+1, got, mac)
			}
			if got := machine.Asks(t); got != want[i] {
				t.Errorf("%s, machine %d reaches it: %v, want %v", when, i+1, got, want[i])
			}
		}
	}
	check("with nobody admitted", false, false)
	admit(t, m, spec, one)
	check("with the first admitted", true, false)
	admit(t, m, spec, one, two)
	ensure(t, h, spec) // It changes nothing.
	check("with both admitted", true, true)
	admit(t, m, spec, two)
	check("with the second admitted", false, true)
	// The second gets the address of the first: neither is who is admitted.
	moved := Machine{Card: sdn.Card{MAC: two.Card.MAC, Address: one.Card.Address}}
	admit(t, m, spec, moved)
	if one.Asks(t) || two.Asks(t) {
		t.Error("by an address alone, or a MAC alone, a machine reaches it")
	}
	admit(t, m, spec, one, moved)
	if mac, err := m.Machine(limit(t, callLimit), spec.GetName(), one.Card.Address); !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("an address that two have: %v, %v, want a conflict", mac, err)
	}
	admit(t, m, spec)
	check("with nobody admitted any more", false, false)
}

func metadataOnlyLent(t *testing.T, h NetworkHarness) {
	m := metadata(t, h)
	refused := func(name string) {
		t.Helper()
		if l, err := m.ListenMetadata(limit(t, callLimit), name); !errors.Is(err, sdn.ErrNotFound) {
			t.Errorf("listen on %s: %v, %v, want not found", name, l, err)
		}
		if err := m.Admit(limit(t, callLimit), name, nil); !errors.Is(err, sdn.ErrNotFound) {
			t.Errorf("admit on %s: %v, want not found", name, err)
		}
	}
	for _, spec := range []*pb.NetworkSpec{h.Spec("one", production), h.Spec("three", bubble)} {
		ensure(t, h, spec)
		refused(spec.GetName())
		if h.Plug(t, spec).Asks(t) {
			t.Errorf("a machine of %s reaches the metadata address", spec.GetName())
		}
	}
	refused("missing")
	spec := h.Spec("two", lent)
	ensure(t, h, spec)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := m.ListenMetadata(ctx, spec.GetName()); !errors.Is(err, context.Canceled) {
		t.Errorf("listen with a cancelled context: %v, %v", l, err)
	}
	if err := m.Admit(ctx, spec.GetName(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("admit with a cancelled context: %v", err)
	}
	if mac, err := m.Machine(ctx, spec.GetName(), netip.MustParseAddr("203.0.113.77")); !errors.Is(err, context.Canceled) {
		t.Errorf("machine with a cancelled context: %v, %v", mac, err)
	}
}

func metadataEnds(t *testing.T, h NetworkHarness) {
	m := metadata(t, h)
	spec := h.Spec("one", lent)
	before := h.Inventory(t)
	for range 2 { // The second network has nothing of the first.
		ensure(t, h, spec)
		_, ended := listen(t, m, spec)
		admit(t, m, spec, Machine{Card: sdn.Card{MAC: net.HardwareAddr{0x52, 0x54, 0, 0, 0, 77}, Address: netip.MustParseAddr("10.1.0.77")}})
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
	_, ended := listen(t, m, spec)
	h.DeleteBridge(t, spec)
	ensure(t, h, spec)
	select {
	case <-ended: //nolint:errcheck // As above.
	case <-limit(t, callLimit).Done():
		t.Fatal("the listener outlives what its network was")
	}
	machine := h.Plug(t, spec)
	first, _ := listen(t, m, spec)
	admit(t, m, spec, machine)
	if !machine.Asks(t) || <-first != machine.Card.Address {
		t.Error("after the repair the metadata address is not reached")
	}
}
