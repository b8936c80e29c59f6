package main

import (
	"context"
	"fmt"
	"net"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/actuate"
	fencesim "github.com/hotspare/hotspare/internal/fence/sim"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
	"github.com/hotspare/hotspare/internal/sdn"
	sdnsim "github.com/hotspare/hotspare/internal/sdn/sim"
	"github.com/hotspare/hotspare/internal/storage"
	storagesim "github.com/hotspare/hotspare/internal/storage/sim"
)

// Names of the agents of `hotspare dev` beside its hosts h1, h2, ...; dev_site.yaml uses the same.
const (
	devStorage = "store1" // the storage host, which also keeps the DNS zone
	devEast    = "east"   // the protected site
	devZone    = "shop.example."
	devKey     = "dev"
)

// Size of a simulated host and of the simulated pool.
const (
	devVCPUs       = 16
	devMemory      = 64 << 30
	devDisk        = 4 << 40
	devOverhead    = 256 << 20
	devPoolBytes   = 10 << 40
	devPoolAddress = "127.0.0.1:10809"
	devEastAddress = "127.0.0.1:10810"
	devDiskPath    = "/var/lib/libvirt/images/prod-db.qcow2"
	// devBoot is how long a simulated guest takes until it answers.
	devBoot = 800 * time.Millisecond
	// devSaveBandwidth is faster than real disks, so that trying out does not mean waiting.
	devSaveBandwidth = 20 << 30
	// devWrites is how often the production database writes a record.
	devWrites = 100 * time.Millisecond
)

// devWorld is everything that the simulated drivers drive.
type devWorld struct {
	hosts []*sim.Host
	names []string
	nets  map[string]*sdnsim.Networks
	pool  *storagesim.Pool
	east  *storagesim.Site
	home  *storagesim.Pool
	zone  *sdnsim.Zone
	fence *fencesim.Site
}

func newDevWorld(hosts int) *devWorld {
	w := &devWorld{nets: map[string]*sdnsim.Networks{}}
	costs := sim.RealisticCosts()
	costs.SaveBytesPerSecond = devSaveBandwidth
	for i := range hosts {
		name := fmt.Sprintf("h%d", i+1)
		w.names = append(w.names, name)
		w.hosts = append(w.hosts, sim.NewHost(sim.Options{
			Name: name,
			Capacity: &pb.Capacity{
				Vcpus: devVCPUs, MemoryBytes: devMemory, DiskBytes: devDisk, OverheadBytes: devOverhead, CpuClass: "sim", Devices: map[string]uint32{"gpu": 1},
				LocalDisksBytes: map[string]uint64{"ssd": devDisk / 2},
			},
			Costs: costs, Guest: sim.GuestBehaviour{HealthyAfter: devBoot},
		}))
		w.nets[name] = sdnsim.NewNetworks(w.answers)
	}
	storageWorld := storagesim.NewWorld()
	w.pool = storageWorld.NewPool(devPoolAddress, devPoolBytes)
	w.east = storageWorld.NewSite(devEast)
	w.home = storageWorld.NewPool(devEastAddress, devPoolBytes)
	w.east.AddDisk(storagesim.Disk{Domain: "prod-db", Disk: "vda", Path: devDiskPath, Every: devWrites})
	w.fence = fencesim.NewSite(func(string) { w.east.Stop("prod-db") }, "east-power")
	w.zone = sdnsim.NewZone(devKey, devZone)
	w.zone.SetByHand(&pb.DnsRecord{Zone: devZone, Name: "www", Type: "A", Values: []string{"198.51.100.10"}})
	return w
}

// answers says whether a running guest on any host answers at "ip:port".
func (w *devWorld) answers(address string) bool {
	ip, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	for _, h := range w.hosts {
		if h.Answers(ip) {
			return true
		}
	}
	return false
}

func (w *devWorld) agentNames() []string { return append([]string{devStorage, devEast}, w.names...) }

func (w *devWorld) drivers(name string) actuate.Drivers {
	switch name {
	case devStorage:
		return actuate.Drivers{
			Pools: map[string]storage.Driver{"west": w.pool}, Zones: map[string]sdn.Endpoints{devZone: w.zone.Endpoints(devKey)},
		}
	case devEast:
		return actuate.Drivers{
			Pools: map[string]storage.Driver{"east": w.home}, Source: w.east, Fence: devFence{w.fence, w.east, w.home},
		}
	default:
		for i, n := range w.names {
			if n == name {
				return actuate.Drivers{Hypervisor: w.hosts[i], Networks: w.nets[name]}
			}
		}
		return actuate.Drivers{}
	}
}

// devFence is the fence of the simulated protected site. Nobody is there to power the old side on again
// after a failback that discards, so lifting the fence does.
type devFence struct {
	*fencesim.Site
	east *storagesim.Site
	home *storagesim.Pool
}

// Lift lifts the fence, and starts the production VM unless its disk came back: then the agent does.
func (f devFence) Lift(ctx context.Context, spec *pb.FenceSpec) error {
	if err := f.Site.Lift(ctx, spec); err != nil {
		return err
	}
	f.SetAlive(spec.GetTarget(), true)
	if len(f.home.Names()) == 0 {
		f.east.Start("prod-db")
	}
	return nil
}
