package sim_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/hypervisor/conformance"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
	"github.com/hotspare/hotspare/internal/model"
)

const mib = 1 << 20

func definition(name string) hypervisor.Definition {
	return hypervisor.Definition{
		ID: model.NewObjectID(pb.Kind_KIND_INSTANCE, name), Owner: "lease/" + name,
		Spec: &pb.InstanceSpec{
			Hostname: name, Vcpus: 1, MemoryBytes: 128 * mib,
			Nics: []*pb.Nic{{Network: "lent", Bridge: "br0", Mac: "52:54:00:00:00:01", Address: "10.0.0.2/24"}},
		},
	}
}

func newHost(o sim.Options) *sim.Host {
	o.Name = "h1"
	if o.Capacity == nil {
		o.Capacity = &pb.Capacity{Vcpus: 4, MemoryBytes: 1024 * mib, OverheadBytes: 112 * mib, CpuClass: "sim"}
	}
	return sim.NewHost(o)
}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Harness{Driver: "sim", New: func(t *testing.T) *conformance.Fixture {
		h := newHost(sim.Options{
			Costs: sim.Costs{Start: 5 * time.Millisecond, Save: 50 * time.Millisecond, Restore: 5 * time.Millisecond},
			Guest: sim.GuestBehaviour{ShutdownTakes: 10 * time.Millisecond},
		})
		return fixture(h)
	}})
}

func fixture(h *sim.Host) *conformance.Fixture {
	return &conformance.Fixture{
		Driver: h, Patience: 10 * time.Second, Define: definition, CancelSaveAfter: 10 * time.Millisecond,
		Stubborn: func(name string) hypervisor.Definition {
			d := definition(name)
			h.SetGuest(d.ID, sim.GuestBehaviour{IgnoresShutdown: true})
			return d
		},
		Guest: func(t *testing.T, id model.ObjectID) conformance.Guest {
			v, ok := h.Guest(id)
			if !ok || !v.Running {
				t.Fatalf("guest of %s does not run", id)
			}
			return conformance.Guest{BootID: v.BootID, Counter: v.Counter}
		},
		Starts: func(_ *testing.T, id model.ObjectID) int {
			c := h.History()[id]
			return c.Starts + c.Restores
		},
		Foreign: func(t *testing.T) conformance.Foreign {
			id := definition("alien").ID
			h.AddForeign(id, 2, 64*mib)
			t.Cleanup(func() { h.RemoveForeign(id) })
			return conformance.Foreign{ID: id, VCPUs: 2, MemoryBytes: 64 * mib, Running: func() bool { return h.Foreign(id) }}
		},
		Kill: func(_ *testing.T, id model.ObjectID) { h.Kill(id) },
		Inventory: func(t *testing.T) []string {
			ds, err := h.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			left := map[string]bool{}
			for _, d := range ds {
				left[fmt.Sprintf("%s %v", d.ID, d.State)] = true
			}
			return slices.Sorted(maps.Keys(left))
		},
		Reopen: func(*testing.T) hypervisor.Driver { return h },
	}
}
