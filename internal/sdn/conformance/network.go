package conformance

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
)

// callLimit bounds each driver call of the suites: far above what any takes on a loaded machine.
const callLimit = 30 * time.Second

// shortLimit is the deadline given to calls that cannot succeed; they must return soon after it.
const shortLimit = 500 * time.Millisecond

// NetworkHarness is one host with a driver, fresh for each case. What it does and sees shares no code
// with the driver. Clean-up is registered with the test that it was opened for.
type NetworkHarness struct {
	Driver sdn.Driver
	// Spec makes a network that fits this host. The same name gives the same spec; networks of
	// different names have different bridges and subnets.
	Spec func(name string, role pb.NetworkRole) *pb.NetworkSpec
	// Inventory lists everything network-like on the host: links, namespaces, filter rules.
	Inventory func(t *testing.T) []string
	// DeleteBridge is somebody's hand: it deletes the network's bridge only.
	DeleteBridge func(t *testing.T, spec *pb.NetworkSpec)
	// AddForeign is somebody's hand: it makes a bridge with the spec's bridge name that is not ours.
	AddForeign func(t *testing.T, spec *pb.NetworkSpec)
	// Answer starts something on the network that answers HTTP requests and returns its "host:port".
	Answer func(t *testing.T, spec *pb.NetworkSpec) string
	// Plug attaches a machine to a network.
	Plug func(t *testing.T, spec *pb.NetworkSpec) Machine
	// Traffic attaches a machine to each of two networks of this host and reports whether the first
	// reaches the second: by TCP and by ping. Nil: the driver moves no frames, and the traffic cases
	// are not run.
	Traffic func(t *testing.T, from, to *pb.NetworkSpec) bool
	// HostTraffic attaches a machine to a network and reports whether it reaches any address of the
	// host itself. Nil together with Traffic.
	HostTraffic func(t *testing.T, from *pb.NetworkSpec) bool
}

// Machine is one that the harness attached.
type Machine struct {
	Card sdn.Card
	// Asks connects to the metadata address and port, and reports whether that was accepted.
	Asks func(t *testing.T) bool
}

type networkCase struct {
	name    string
	traffic bool
	run     func(t *testing.T, h NetworkHarness)
}

const (
	production = pb.NetworkRole_NETWORK_ROLE_PRODUCTION
	lent       = pb.NetworkRole_NETWORK_ROLE_LENT
	bubble     = pb.NetworkRole_NETWORK_ROLE_BUBBLE
)

func networkCases() []networkCase {
	return []networkCase{
		{"ensure makes it, inspect and list show it", false, ensureShows},
		{"ensure twice changes nothing", false, ensureTwice},
		{"inspect of a missing network is not found", false, inspectMissing},
		{"remove leaves nothing", false, removeLeavesNothing},
		{"remove twice, and of nothing, succeeds", false, removeTwice},
		{"remove leaves the other networks", false, removeLeavesOthers},
		{"a deleted bridge is not found and ensure repairs it", false, repairs},
		{"remove after a deleted bridge leaves nothing", false, removeDamaged},
		{"somebody else's bridge is refused and kept", false, foreignKept},
		{"a cancelled context is obeyed", false, networkCancelled},
		{"dial reaches what answers on the network", false, dialAnswers},
		{"dial to nothing ends with its context", false, dialNothing},
		{"dial from a missing network is not found", false, dialMissing},
		{"an admitted machine of a lent network reaches the metadata service and is known", false, metadataServed},
		{"who is not admitted does not reach the metadata service", false, metadataAdmits},
		{"only a lent network has the metadata service", false, metadataOnlyLent},
		{"the metadata listener ends with its network", false, metadataEnds},
		{"machines of one network reach each other", true, sameNetwork},
		{"lent never reaches production, nor the other way", true, lentProduction},
		{"a bubble never reaches production or lent", true, bubbleClosed},
		{"lent and bubble machines never reach the host", true, hostClosed},
		{"isolation survives the removal of a neighbour", true, isolationKept},
	}
}

// NetworkCases lists the names of all cases of RunNetworks, in order.
func NetworkCases() []string {
	var names []string
	for _, c := range networkCases() {
		names = append(names, c.name)
	}
	return names
}

// RunNetworks runs every case as a subtest against a host of its own.
func RunNetworks(t *testing.T, open func(t *testing.T) NetworkHarness) {
	for _, c := range networkCases() {
		t.Run(c.name, func(t *testing.T) {
			h := open(t)
			if c.traffic && h.Traffic == nil {
				t.Skip("this driver moves no frames")
			}
			c.run(t, h)
		})
	}
}

func ensureShows(t *testing.T, h NetworkHarness) {
	spec := h.Spec("one", production)
	ensure(t, h, spec)
	got, err := h.Driver.Inspect(limit(t, callLimit), spec)
	if err != nil {
		t.Fatalf("inspect: %v", err)
	}
	if got.GetBridge() != spec.GetBridge() {
		t.Errorf("bridge %q, want %q", got.GetBridge(), spec.GetBridge())
	}
	wantList(t, h, spec.GetName())
}

func ensureTwice(t *testing.T, h NetworkHarness) {
	spec := h.Spec("one", lent)
	ensure(t, h, spec)
	before := h.Inventory(t)
	ensure(t, h, spec)
	if diff := cmp.Diff(before, h.Inventory(t)); diff != "" {
		t.Errorf("the second ensure changed the host (-before +after):\n%s", diff)
	}
}

func inspectMissing(t *testing.T, h NetworkHarness) {
	wantMissing(t, h, h.Spec("one", lent))
	wantList(t, h)
}

func removeLeavesNothing(t *testing.T, h NetworkHarness) {
	before := h.Inventory(t)
	specs := []*pb.NetworkSpec{h.Spec("one", production), h.Spec("two", lent), h.Spec("three", bubble)}
	for _, spec := range specs {
		ensure(t, h, spec)
	}
	if cmp.Equal(before, h.Inventory(t)) {
		t.Fatal("the inventory does not see what ensure made")
	}
	for _, spec := range specs {
		remove(t, h, spec)
		wantMissing(t, h, spec)
	}
	if diff := cmp.Diff(before, h.Inventory(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

func removeTwice(t *testing.T, h NetworkHarness) {
	spec := h.Spec("one", production)
	remove(t, h, spec)
	ensure(t, h, spec)
	remove(t, h, spec)
	remove(t, h, spec)
	wantList(t, h)
}

func removeLeavesOthers(t *testing.T, h NetworkHarness) {
	one, two := h.Spec("one", production), h.Spec("two", lent)
	ensure(t, h, one)
	before := h.Inventory(t)
	ensure(t, h, two)
	remove(t, h, two)
	if diff := cmp.Diff(before, h.Inventory(t)); diff != "" {
		t.Errorf("the neighbour changed (-before +after):\n%s", diff)
	}
	if _, err := h.Driver.Inspect(limit(t, callLimit), one); err != nil {
		t.Errorf("inspect the neighbour: %v", err)
	}
	wantList(t, h, one.GetName())
}

func repairs(t *testing.T, h NetworkHarness) {
	spec := h.Spec("one", lent)
	ensure(t, h, spec)
	before := h.Inventory(t)
	h.DeleteBridge(t, spec)
	wantMissing(t, h, spec)
	ensure(t, h, spec)
	if _, err := h.Driver.Inspect(limit(t, callLimit), spec); err != nil {
		t.Errorf("inspect after the repair: %v", err)
	}
	if diff := cmp.Diff(before, h.Inventory(t)); diff != "" {
		t.Errorf("the repair made something else (-before +after):\n%s", diff)
	}
}

func removeDamaged(t *testing.T, h NetworkHarness) {
	before := h.Inventory(t)
	spec := h.Spec("one", bubble)
	ensure(t, h, spec)
	h.DeleteBridge(t, spec)
	remove(t, h, spec)
	if diff := cmp.Diff(before, h.Inventory(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

func foreignKept(t *testing.T, h NetworkHarness) {
	spec := h.Spec("one", production)
	h.AddForeign(t, spec)
	before := h.Inventory(t)
	if err := h.Driver.Ensure(limit(t, callLimit), spec); !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("ensure over a foreign bridge: %v, want a conflict", err)
	}
	wantMissing(t, h, spec)
	remove(t, h, spec)
	if diff := cmp.Diff(before, h.Inventory(t)); diff != "" {
		t.Errorf("what is not ours changed (-before +after):\n%s", diff)
	}
	wantList(t, h)
}

func networkCancelled(t *testing.T, h NetworkHarness) {
	spec := h.Spec("one", lent)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := h.Inventory(t)
	if err := h.Driver.Ensure(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("ensure with a cancelled context: %v", err)
	}
	if diff := cmp.Diff(before, h.Inventory(t)); diff != "" {
		t.Errorf("a call that was cancelled before it began changed the host:\n%s", diff)
	}
	ensure(t, h, spec)
	if err := h.Driver.Remove(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("remove with a cancelled context: %v", err)
	}
	if _, err := h.Driver.Inspect(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("inspect with a cancelled context: %v", err)
	}
	if _, err := h.Driver.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("list with a cancelled context: %v", err)
	}
	if conn, err := h.Driver.Dial(ctx, spec.GetName(), h.Answer(t, spec)); !errors.Is(err, context.Canceled) {
		t.Errorf("dial with a cancelled context: %v, %v", conn, err)
	}
}

func dialAnswers(t *testing.T, h NetworkHarness) {
	for _, spec := range []*pb.NetworkSpec{h.Spec("one", production), h.Spec("two", lent), h.Spec("three", bubble)} {
		ensure(t, h, spec)
		ctx := limit(t, callLimit)
		conn, err := h.Driver.Dial(ctx, spec.GetName(), h.Answer(t, spec))
		if err != nil {
			t.Fatalf("dial on %s: %v", spec.GetName(), err)
		}
		defer conn.Close()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://probe/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := request.Write(conn); err != nil {
			t.Fatalf("write the request: %v", err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), request)
		if err != nil {
			t.Fatalf("read the answer: %v", err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d, want 200", spec.GetName(), response.StatusCode)
		}
	}
}

func dialNothing(t *testing.T, h NetworkHarness) {
	spec := h.Spec("one", production)
	ensure(t, h, spec)
	began := time.Now()
	// TEST-NET-2: nobody has this address.
	conn, err := h.Driver.Dial(limit(t, shortLimit), spec.GetName(), "198.51.100.1:80")
	if err == nil {
		conn.Close()
		t.Fatal("dial to nothing succeeded")
	}
	if took := time.Since(began); took > callLimit {
		t.Errorf("dial to nothing took %v with a deadline of %v", took, shortLimit)
	}
}

func dialMissing(t *testing.T, h NetworkHarness) {
	conn, err := h.Driver.Dial(limit(t, callLimit), "missing", "198.51.100.1:80")
	if !errors.Is(err, sdn.ErrNotFound) {
		t.Errorf("dial from a missing network: %v, %v, want not found", conn, err)
	}
}

func sameNetwork(t *testing.T, h NetworkHarness) {
	for _, spec := range []*pb.NetworkSpec{h.Spec("one", production), h.Spec("two", lent), h.Spec("three", bubble)} {
		ensure(t, h, spec)
		if !h.Traffic(t, spec, spec) {
			t.Errorf("machines of %s do not reach each other", spec.GetName())
		}
	}
}

func lentProduction(t *testing.T, h NetworkHarness) {
	one, two := h.Spec("one", production), h.Spec("two", lent)
	ensure(t, h, one)
	ensure(t, h, two)
	wantClosed(t, h, one, two)
}

func bubbleClosed(t *testing.T, h NetworkHarness) {
	one, two, three := h.Spec("one", production), h.Spec("two", lent), h.Spec("three", bubble)
	for _, spec := range []*pb.NetworkSpec{three, one, two} {
		ensure(t, h, spec)
	}
	wantClosed(t, h, three, one)
	wantClosed(t, h, three, two)
}

func hostClosed(t *testing.T, h NetworkHarness) {
	ensure(t, h, h.Spec("one", production))
	for _, spec := range []*pb.NetworkSpec{h.Spec("two", lent), h.Spec("three", bubble)} {
		ensure(t, h, spec)
		if h.HostTraffic(t, spec) {
			t.Errorf("a machine on %s reaches the host", spec.GetName())
		}
	}
}

func isolationKept(t *testing.T, h NetworkHarness) {
	one, two, three := h.Spec("one", production), h.Spec("two", lent), h.Spec("three", lent)
	for _, spec := range []*pb.NetworkSpec{one, two, three} {
		ensure(t, h, spec)
	}
	remove(t, h, three)
	wantClosed(t, h, one, two)
	if h.HostTraffic(t, two) {
		t.Error("a machine on a lent network reaches the host after the removal of another")
	}
}

func wantClosed(t *testing.T, h NetworkHarness, a, b *pb.NetworkSpec) {
	t.Helper()
	if h.Traffic(t, a, b) {
		t.Errorf("%s reaches %s", a.GetName(), b.GetName())
	}
	if h.Traffic(t, b, a) {
		t.Errorf("%s reaches %s", b.GetName(), a.GetName())
	}
}

func ensure(t *testing.T, h NetworkHarness, spec *pb.NetworkSpec) {
	t.Helper()
	if err := h.Driver.Ensure(limit(t, callLimit), spec); err != nil {
		t.Fatalf("ensure %s: %v", spec.GetName(), err)
	}
}

func remove(t *testing.T, h NetworkHarness, spec *pb.NetworkSpec) {
	t.Helper()
	if err := h.Driver.Remove(limit(t, callLimit), spec); err != nil {
		t.Fatalf("remove %s: %v", spec.GetName(), err)
	}
}

func wantMissing(t *testing.T, h NetworkHarness, spec *pb.NetworkSpec) {
	t.Helper()
	if got, err := h.Driver.Inspect(limit(t, callLimit), spec); !errors.Is(err, sdn.ErrNotFound) {
		t.Errorf("inspect %s: %v, %v, want not found", spec.GetName(), got, err)
	}
}

func wantList(t *testing.T, h NetworkHarness, want ...string) {
	t.Helper()
	got, err := h.Driver.List(limit(t, callLimit))
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("list %q, want %q", got, want)
	}
}

// limit makes a context that ends with the test, or after d.
func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
