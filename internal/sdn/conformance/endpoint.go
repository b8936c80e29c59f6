package conformance

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
)

// EndpointHarness is one DNS server with a zone and a driver, fresh for each case. What it does and
// sees shares no code with the driver.
type EndpointHarness struct {
	Driver sdn.Endpoints
	// WrongKey is a driver for the same server whose key the server does not accept for changes.
	WrongKey sdn.Endpoints
	// Zone is the served zone with its final dot. It has no records but its own.
	Zone string
	// SetByHand is somebody else's hand: it sets a record whatever it was; no values delete it.
	SetByHand func(t *testing.T, record *pb.DnsRecord)
	// Lookup asks the server; no values: the record does not exist.
	Lookup func(t *testing.T, record *pb.DnsRecord) *pb.EndpointValue
	// LoseReply makes the server apply the next change and lose its answer.
	LoseReply func(t *testing.T)
	// Away makes the server unreachable: it neither answers nor refuses.
	Away func(t *testing.T)
}

type endpointCase struct {
	name string
	run  func(t *testing.T, h EndpointHarness)
}

func endpointCases() []endpointCase {
	return []endpointCase{
		{"read shows the pre-image", readPreimage},
		{"read of a missing record shows no values", readMissing},
		{"announce replaces the pre-image", announceReplaces},
		{"announce makes a record that did not exist", announceNew},
		{"announce twice succeeds", announceTwice},
		{"announce after a lost reply succeeds", announceLostReply},
		{"announce never overwrites somebody else's value", announceConflict},
		{"announce never makes again what somebody deleted", announceDeleted},
		{"announce without a committed pre-image is refused", announceUncommitted},
		{"announce sets several values and other types", announceTypes},
		{"withdraw restores the pre-image", withdrawRestores},
		{"withdraw deletes what did not exist before", withdrawDeletes},
		{"withdraw twice, and of nothing, succeeds", withdrawTwice},
		{"withdraw after a lost reply succeeds", withdrawLostReply},
		{"withdraw never overwrites somebody else's value", withdrawConflict},
		{"a wrong key is a clear error and changes nothing", wrongKey},
		{"a zone that is not served is an error", unknownZone},
		{"a server that is away is an error within the deadline", serverAway},
		{"a cancelled context is obeyed", endpointCancelled},
	}
}

// EndpointCases lists the names of all cases of RunEndpoints, in order.
func EndpointCases() []string {
	var names []string
	for _, c := range endpointCases() {
		names = append(names, c.name)
	}
	return names
}

// RunEndpoints runs every case as a subtest against a server of its own.
func RunEndpoints(t *testing.T, open func(t *testing.T) EndpointHarness) {
	for _, c := range endpointCases() {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// www is an address record whose value the endpoint should take.
func www(h EndpointHarness, preimage *pb.EndpointValue) *pb.EndpointSpec {
	return &pb.EndpointSpec{Dns: record(h, "A", 5*time.Second, "203.0.113.10"), Preimage: preimage}
}

func record(h EndpointHarness, kind string, ttl time.Duration, values ...string) *pb.DnsRecord {
	return &pb.DnsRecord{
		Zone: h.Zone, Name: "www." + h.Zone, Type: kind, Values: values, Ttl: durationpb.New(ttl),
	}
}

func before() *pb.EndpointValue { return val(time.Minute, "192.0.2.1", "192.0.2.2") }

func val(ttl time.Duration, values ...string) *pb.EndpointValue {
	return &pb.EndpointValue{Values: values, Ttl: durationpb.New(ttl)}
}

// given sets the record to the pre-image by hand.
func given(t *testing.T, h EndpointHarness, spec *pb.EndpointSpec) {
	t.Helper()
	pre := spec.GetPreimage()
	h.SetByHand(t, record(h, spec.GetDns().GetType(), pre.GetTtl().AsDuration(), pre.GetValues()...))
}

func readPreimage(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	got, err := h.Driver.Read(limit(t, callLimit), spec)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	wantValue(t, got, before())
}

func readMissing(t *testing.T, h EndpointHarness) {
	got, err := h.Driver.Read(limit(t, callLimit), www(h, nil))
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	wantValue(t, got, &pb.EndpointValue{})
}

func announceReplaces(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	announce(t, h, spec)
	wantServed(t, h, spec, val(5*time.Second, "203.0.113.10"))
}

func announceNew(t *testing.T, h EndpointHarness) {
	spec := www(h, &pb.EndpointValue{})
	announce(t, h, spec)
	wantServed(t, h, spec, val(5*time.Second, "203.0.113.10"))
}

func announceTwice(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	announce(t, h, spec)
	announce(t, h, spec)
	wantServed(t, h, spec, val(5*time.Second, "203.0.113.10"))
}

func announceLostReply(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	h.LoseReply(t)
	// Unknown, not failed: a driver may report an error here, or find out by itself.
	if err := h.Driver.Announce(limit(t, shortLimit), spec); errors.Is(err, sdn.ErrConflict) {
		t.Errorf("a lost reply was taken for a conflict: %v", err)
	}
	announce(t, h, spec)
	wantServed(t, h, spec, val(5*time.Second, "203.0.113.10"))
}

func announceConflict(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	theirs := record(h, "A", time.Minute, "198.51.100.7")
	h.SetByHand(t, theirs)
	wantConflict(t, h.Driver.Announce(limit(t, callLimit), spec))
	wantServed(t, h, spec, val(time.Minute, "198.51.100.7"))

	spec.Preimage = &pb.EndpointValue{}
	wantConflict(t, h.Driver.Announce(limit(t, callLimit), spec))
	wantServed(t, h, spec, val(time.Minute, "198.51.100.7"))
}

func announceDeleted(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	wantConflict(t, h.Driver.Announce(limit(t, callLimit), spec))
	wantServed(t, h, spec, &pb.EndpointValue{})
}

func announceUncommitted(t *testing.T, h EndpointHarness) {
	spec := www(h, nil)
	if err := h.Driver.Announce(limit(t, callLimit), spec); err == nil {
		t.Error("announce without a committed pre-image succeeded")
	}
	wantServed(t, h, spec, &pb.EndpointValue{})
}

func announceTypes(t *testing.T, h EndpointHarness) {
	for _, r := range []*pb.DnsRecord{
		record(h, "A", time.Minute, "203.0.113.11", "203.0.113.12"),
		record(h, "AAAA", time.Minute, "2001:db8::11"),
		record(h, "TXT", time.Minute, "site=west"),
	} {
		spec := &pb.EndpointSpec{Dns: r, Preimage: &pb.EndpointValue{}}
		announce(t, h, spec)
		wantServed(t, h, spec, val(time.Minute, r.GetValues()...))
	}
}

func withdrawRestores(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	announce(t, h, spec)
	withdraw(t, h, spec)
	wantServed(t, h, spec, before())
}

func withdrawDeletes(t *testing.T, h EndpointHarness) {
	spec := www(h, &pb.EndpointValue{})
	announce(t, h, spec)
	withdraw(t, h, spec)
	wantServed(t, h, spec, &pb.EndpointValue{})
}

func withdrawTwice(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	withdraw(t, h, spec)
	announce(t, h, spec)
	withdraw(t, h, spec)
	withdraw(t, h, spec)
	wantServed(t, h, spec, before())
	// Nothing was ever committed or announced: nothing to do.
	withdraw(t, h, www(h, nil))
	wantServed(t, h, spec, before())
}

func withdrawLostReply(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	announce(t, h, spec)
	h.LoseReply(t)
	if err := h.Driver.Withdraw(limit(t, shortLimit), spec); errors.Is(err, sdn.ErrConflict) {
		t.Errorf("a lost reply was taken for a conflict: %v", err)
	}
	withdraw(t, h, spec)
	wantServed(t, h, spec, before())
}

func withdrawConflict(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	announce(t, h, spec)
	h.SetByHand(t, record(h, "A", time.Minute, "198.51.100.7"))
	wantConflict(t, h.Driver.Withdraw(limit(t, callLimit), spec))
	wantServed(t, h, spec, val(time.Minute, "198.51.100.7"))
	// Deleted by hand is somebody's decision too.
	h.SetByHand(t, record(h, "A", time.Minute))
	wantConflict(t, h.Driver.Withdraw(limit(t, callLimit), spec))
	wantServed(t, h, spec, &pb.EndpointValue{})
}

func wrongKey(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	err := h.WrongKey.Announce(limit(t, callLimit), spec)
	if err == nil || errors.Is(err, sdn.ErrConflict) {
		t.Errorf("announce with a wrong key: %v, want an error that is no conflict", err)
	}
	wantServed(t, h, spec, before())
}

func unknownZone(t *testing.T, h EndpointHarness) {
	spec := &pb.EndpointSpec{
		Dns: &pb.DnsRecord{
			Zone: "nowhere.invalid.", Name: "www.nowhere.invalid.", Type: "A",
			Values: []string{"203.0.113.10"}, Ttl: durationpb.New(time.Second),
		},
		Preimage: &pb.EndpointValue{},
	}
	if _, err := h.Driver.Read(limit(t, callLimit), spec); err == nil {
		t.Error("read in a zone that is not served succeeded")
	}
	if err := h.Driver.Announce(limit(t, callLimit), spec); err == nil {
		t.Error("announce in a zone that is not served succeeded")
	}
}

func serverAway(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	h.Away(t)
	for name, call := range map[string]func(context.Context) error{
		"read":     func(ctx context.Context) error { _, err := h.Driver.Read(ctx, spec); return err },
		"announce": func(ctx context.Context) error { return h.Driver.Announce(ctx, spec) },
		"withdraw": func(ctx context.Context) error { return h.Driver.Withdraw(ctx, spec) },
	} {
		began := time.Now()
		err := call(limit(t, shortLimit))
		if err == nil || errors.Is(err, sdn.ErrConflict) {
			t.Errorf("%s without a server: %v, want an error that is no conflict", name, err)
		}
		if took := time.Since(began); took > callLimit {
			t.Errorf("%s without a server took %v with a deadline of %v", name, took, shortLimit)
		}
	}
}

func endpointCancelled(t *testing.T, h EndpointHarness) {
	spec := www(h, before())
	given(t, h, spec)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Driver.Read(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("read with a cancelled context: %v", err)
	}
	if err := h.Driver.Announce(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("announce with a cancelled context: %v", err)
	}
	if err := h.Driver.Withdraw(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("withdraw with a cancelled context: %v", err)
	}
	wantServed(t, h, spec, before())
}

func announce(t *testing.T, h EndpointHarness, spec *pb.EndpointSpec) {
	t.Helper()
	if err := h.Driver.Announce(limit(t, callLimit), spec); err != nil {
		t.Fatalf("announce: %v", err)
	}
}

func withdraw(t *testing.T, h EndpointHarness, spec *pb.EndpointSpec) {
	t.Helper()
	if err := h.Driver.Withdraw(limit(t, callLimit), spec); err != nil {
		t.Fatalf("withdraw: %v", err)
	}
}

func wantConflict(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, sdn.ErrConflict) {
		t.Errorf("%v, want a conflict", err)
	}
}

func wantServed(t *testing.T, h EndpointHarness, spec *pb.EndpointSpec, want *pb.EndpointValue) {
	t.Helper()
	wantValue(t, h.Lookup(t, spec.GetDns()), want)
}

func wantValue(t *testing.T, got, want *pb.EndpointValue) {
	t.Helper()
	if !sdn.SameValues(got, want) {
		t.Errorf("values %q, want %q", got.GetValues(), want.GetValues())
	}
	if len(want.GetValues()) > 0 && got.GetTtl().AsDuration() != want.GetTtl().AsDuration() {
		t.Errorf("ttl %v, want %v", got.GetTtl().AsDuration(), want.GetTtl().AsDuration())
	}
}
