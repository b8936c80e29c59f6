package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/journal"
	fencesim "github.com/hotspare/hotspare/internal/fence/sim"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
	sdnsim "github.com/hotspare/hotspare/internal/sdn/sim"
	"github.com/hotspare/hotspare/internal/storage"
	storagesim "github.com/hotspare/hotspare/internal/storage/sim"
)

// noScript is a hook runner for scripts that do nothing.
type noScript struct{}

func (noScript) Run(context.Context, []string, map[string]string) error { return nil }

func ordered(generation uint64, id model.ObjectID, spec *pb.Spec) *pb.Order {
	return &pb.Order{Object: string(id), Kind: id.Kind(), Generation: generation, Spec: spec, Owner: "webshop", Epoch: 3}
}

func volumeSpec(s pb.State, v *pb.VolumeSpec) *pb.Spec {
	return &pb.Spec{State: s, Parameters: &pb.Spec_Volume{Volume: v}}
}

// TestAgentGoesThereAndBack lets one agent do everything but the VMs of a failover and its failback,
// with simulated drivers, and looks for what is left.
func TestAgentGoesThereAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		c := s.members[0]
		world := storagesim.NewWorld()
		pool, east := world.NewPool("10.66.0.1:10809", 1<<40), world.NewSite("east")
		east.AddDisk(storagesim.Disk{Domain: "web", Disk: "root", Records: 100, Every: time.Second})
		zone := sdnsim.NewZone("key", "shop.example.")
		before := &pb.DnsRecord{Zone: "shop.example.", Name: "www", Type: "A", Values: []string{"192.0.2.1"}, Ttl: durationpb.New(time.Minute)}
		zone.SetByHand(before)
		old := fencesim.NewSite(func(string) { east.KillSite() }, "east-power")
		d := &s.options.Drivers
		d.Pools, d.Source = map[string]storage.Driver{"west": pool}, east
		d.Zones = map[string]sdn.Endpoints{"shop.example.": zone.Endpoints("key")}
		d.Fence, d.Hooks = old, noScript{}

		replica := func(converged uint64) *pb.VolumeSpec {
			return &pb.VolumeSpec{Pool: "west", Name: "web-root", SizeBytes: 1 << 30, Resync: 1, Converged: converged, DropPromoted: true}
		}
		source := &pb.VolumeSpec{
			Name: "web-root", SizeBytes: 1 << 30, Domain: "web", Disk: "root", Resync: 1,
			MirrorTo: "nbd://10.66.0.1:10809/web-root",
		}
		c.order(
			ordered(1, "volume/west", volumeSpec(pb.State_STATE_REPLICA, replica(0))),
			ordered(1, "volume/east", volumeSpec(pb.State_STATE_PRIMARY, source)))
		s.start()
		s.status(0, "volume/east", func(st *pb.Status) bool { return st.GetVolume().GetInSync() })
		c.order(ordered(2, "volume/west", volumeSpec(pb.State_STATE_REPLICA, replica(1))))
		s.status(0, "volume/west", func(st *pb.Status) bool { return st.GetVolume().GetPoint() != nil })

		www := &pb.EndpointSpec{
			Dns: &pb.DnsRecord{
				Zone: "shop.example.", Name: "www", Type: "A", Values: []string{"203.0.113.10"},
				Ttl: durationpb.New(30 * time.Second),
			},
			Preimage: &pb.EndpointValue{Values: before.GetValues(), Ttl: before.GetTtl()},
		}
		endpoint := func(s pb.State) *pb.Spec {
			return &pb.Spec{State: s, Parameters: &pb.Spec_Endpoint{Endpoint: www}}
		}
		fence := func(s pb.State) *pb.Spec {
			return &pb.Spec{State: s, Parameters: &pb.Spec_Fence{Fence: &pb.FenceSpec{
				Target: "east-power", Method: pb.FenceMethod_FENCE_METHOD_POWER, Epoch: 3,
			}}}
		}
		network := func(s pb.State) *pb.Spec {
			return &pb.Spec{State: s, Parameters: &pb.Spec_Network{Network: &pb.NetworkSpec{
				Name: "prod", Bridge: "br-prod", Role: pb.NetworkRole_NETWORK_ROLE_PRODUCTION,
			}}}
		}
		hook := func(s pb.State) *pb.Spec {
			return &pb.Spec{State: s, Parameters: &pb.Spec_Hook{Hook: &pb.HookSpec{Apply: []string{"up"}, Revert: []string{"down"}}}}
		}
		there := map[model.ObjectID]*pb.Spec{
			"fence/east": fence(pb.State_STATE_FENCED), "network/prod": network(pb.State_STATE_PRESENT),
			"volume/west": volumeSpec(pb.State_STATE_PRIMARY, replica(1)), "hook/lb": hook(pb.State_STATE_APPLIED),
			"endpoint/www": endpoint(pb.State_STATE_ANNOUNCED),
		}
		for id, spec := range there {
			c.order(ordered(3, id, spec))
		}
		for id, spec := range there {
			s.settled(0, string(id), spec.GetState(), 3)
		}
		if n := len(pool.Promotions()); n != 1 || old.Alive("east-power") || zone.Lookup("shop.example.", "www", "A").GetValues()[0] != "203.0.113.10" {
			t.Errorf("%d promotions, alive %v", n, old.Alive("east-power"))
		}
		if st := c.status("fence/east"); st.GetFence().GetEvidence() == "" || st.GetFence().GetEpoch() != 3 {
			t.Errorf("evidence %v", st.GetFence())
		}

		east.ReviveSite()
		back := map[model.ObjectID]*pb.Spec{
			"fence/east": fence(pb.State_STATE_OPEN), "network/prod": network(pb.State_STATE_ABSENT),
			"volume/west": volumeSpec(pb.State_STATE_ABSENT, replica(1)), "volume/east": volumeSpec(pb.State_STATE_ABSENT, source),
			"hook/lb": hook(pb.State_STATE_REVERTED), "endpoint/www": endpoint(pb.State_STATE_WITHDRAWN),
		}
		for id, spec := range back {
			c.order(ordered(4, id, spec))
		}
		for id, spec := range back {
			s.settled(0, string(id), spec.GetState(), 4)
		}
		if st := c.status("endpoint/www"); st.GetEndpoint().GetObserved().GetValues()[0] != "192.0.2.1" || st.GetEndpoint().GetConflict() {
			t.Errorf("endpoint %v", st.GetEndpoint())
		}
		if len(pool.Names()) != 0 || old.Fences("east-power") != 0 {
			t.Errorf("left: volumes %v, %d fences", pool.Names(), old.Fences("east-power"))
		}
		s.kill()
		j, content, err := journal.Open(s.options.JournalPath, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if len(content.Ledger) != 0 {
			t.Errorf("left in the ledger: %v", content.Ledger)
		}
	})
}
