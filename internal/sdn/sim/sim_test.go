package sim_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/sdn/conformance"
	"github.com/hotspare/hotspare/internal/sdn/sim"
)

func TestNetworksConform(t *testing.T) {
	conformance.RunNetworks(t, func(t *testing.T) conformance.NetworkHarness {
		answering := map[string]bool{}
		var machines byte
		host := sim.NewNetworks(func(address string) bool { return answering[address] })
		return conformance.NetworkHarness{
			Driver:       host,
			Spec:         spec,
			Inventory:    func(*testing.T) []string { return host.Inventory() },
			DeleteBridge: func(_ *testing.T, s *pb.NetworkSpec) { host.DeleteBridge(s.GetName()) },
			AddForeign:   func(_ *testing.T, s *pb.NetworkSpec) { host.AddForeign(s.GetBridge()) },
			Answer: func(_ *testing.T, s *pb.NetworkSpec) string {
				address := s.GetName() + ".test:80"
				answering[address] = true
				return address
			},
			Plug: func(_ *testing.T, s *pb.NetworkSpec) conformance.Machine {
				machines++
				card := sdn.Card{
					MAC: net.HardwareAddr{0x52, 0x54, 0, 0, 0, machines}, Address: netip.AddrFrom4([4]byte{10, 1, 0, machines}),
				}
				return conformance.Machine{Card: card, Asks: func(t *testing.T) bool {
					conn, err := host.Connect(t.Context(), s.GetName(), card.MAC, card.Address)
					if err == nil {
						conn.Close()
					}
					return err == nil
				}}
			},
		}
	})
}

func TestEndpointsConform(t *testing.T) {
	conformance.RunEndpoints(t, func(t *testing.T) conformance.EndpointHarness {
		zone := sim.NewZone("right", "shop.example.")
		return conformance.EndpointHarness{
			Driver:    zone.Endpoints("right"),
			WrongKey:  zone.Endpoints("wrong"),
			Zone:      "shop.example.",
			SetByHand: func(_ *testing.T, r *pb.DnsRecord) { zone.SetByHand(r) },
			Lookup: func(_ *testing.T, r *pb.DnsRecord) *pb.EndpointValue {
				return zone.Lookup(r.GetZone(), r.GetName(), r.GetType())
			},
			LoseReply: func(*testing.T) {
				zone.Inject(sim.Fault{Method: sim.Announce, Lie: fault.LieApplied, Count: 1})
				zone.Inject(sim.Fault{Method: sim.Withdraw, Lie: fault.LieApplied, Count: 1})
			},
			Away: func(t *testing.T) { zone.SetAway(true) },
		}
	})
}

func spec(name string, role pb.NetworkRole) *pb.NetworkSpec {
	return &pb.NetworkSpec{Name: name, Role: role, Bridge: "br-" + name, ProbeAddress: "10.0.0.2/24"}
}

func TestFaults(t *testing.T) {
	lost := errors.New("lost")
	for name, c := range map[string]struct {
		fault   sim.Fault
		wantErr error
		// present is whether the network is there when the call returned, and later an hour on.
		present, later bool
		took           time.Duration
	}{
		"none":       {sim.Fault{}, nil, true, true, 0},
		"fail":       {sim.Fault{Err: fault.ErrInjected}, fault.ErrInjected, false, false, 0},
		"fail with":  {sim.Fault{Err: lost}, lost, false, false, 0},
		"hang":       {sim.Fault{Hang: true}, context.DeadlineExceeded, false, false, time.Minute},
		"slow":       {sim.Fault{Delay: time.Second}, nil, true, true, time.Second},
		"too slow":   {sim.Fault{Delay: time.Hour}, context.DeadlineExceeded, false, false, time.Minute},
		"lie":        {sim.Fault{Lie: fault.LieNotApplied}, nil, false, false, 0},
		"lose reply": {sim.Fault{Lie: fault.LieApplied, Err: lost}, lost, true, true, 0},
		"late":       {sim.Fault{Hang: true, Lie: fault.LieLater, Later: 2 * time.Minute}, context.DeadlineExceeded, false, true, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := sim.NewNetworks(nil)
				one := spec("one", pb.NetworkRole_NETWORK_ROLE_LENT)
				c.fault.Method, c.fault.Object, c.fault.Count = sim.Ensure, "one", 1
				host.Inject(c.fault)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				if err := host.Ensure(ctx, one); !errors.Is(err, c.wantErr) {
					t.Errorf("ensure: %v, want %v", err, c.wantErr)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				wantPresent(t, host, one, c.present)
				time.Sleep(time.Hour)
				wantPresent(t, host, one, c.later)
				// The fault is used up, and meant one network only.
				if err := host.Ensure(t.Context(), one); err != nil {
					t.Errorf("ensure after the fault: %v", err)
				}
			})
		})
	}
}

func wantPresent(t *testing.T, host *sim.Networks, spec *pb.NetworkSpec, want bool) {
	t.Helper()
	_, err := host.Inspect(t.Context(), spec)
	if got := !errors.Is(err, sdn.ErrNotFound); got != want {
		t.Errorf("present %v (%v), want %v", got, err, want)
	}
}

func TestFaultsMeanOneObjectAndCount(t *testing.T) {
	host := sim.NewNetworks(nil)
	one, two := spec("one", pb.NetworkRole_NETWORK_ROLE_LENT), spec("two", pb.NetworkRole_NETWORK_ROLE_LENT)
	host.Inject(sim.Fault{Method: sim.Ensure, Object: "one", Err: fault.ErrInjected, Count: 2})
	host.Inject(sim.Fault{Method: sim.Remove, Err: fault.ErrInjected})
	var got []string
	for range 3 {
		got = append(got, fmt.Sprint(host.Ensure(t.Context(), one) == nil, host.Ensure(t.Context(), two) == nil,
			host.Remove(t.Context(), two) == nil))
	}
	want := "[false true false false true false true true false]"
	if fmt.Sprint(got) != want {
		t.Errorf("succeeded %v, want %v", got, want)
	}
	if calls, effects := host.Calls(sim.Ensure, "one"), host.Effects(sim.Ensure, "one"); calls != 3 || effects != 1 {
		t.Errorf("%d calls, %d effects, want 3 and 1", calls, effects)
	}
	host.Clear()
	if err := host.Remove(t.Context(), two); err != nil {
		t.Errorf("remove after clear: %v", err)
	}
}

func TestServerComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := sim.NewZone("k", "shop.example.")
		record := &pb.DnsRecord{
			Zone: "shop.example.", Name: "www.shop.example.", Type: "A",
			Values: []string{"203.0.113.10"}, Ttl: durationpb.New(time.Second),
		}
		zone.SetAway(true)
		time.AfterFunc(time.Minute, func() { zone.SetAway(false) })
		err := zone.Endpoints("k").Announce(t.Context(), &pb.EndpointSpec{Dns: record, Preimage: &pb.EndpointValue{}})
		if err != nil {
			t.Errorf("announce: %v", err)
		}
		if got := zone.Lookup(record.GetZone(), record.GetName(), "A"); len(got.GetValues()) != 1 {
			t.Errorf("served %v", got)
		}
	})
}
