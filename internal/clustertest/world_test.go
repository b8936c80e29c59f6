package clustertest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
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

// Names of the agents beside the hosts h1, h2, ...: the storage host and the protected site.
const (
	storeAgent = "store1"
	eastAgent  = "east"
)

const (
	dnsZone     = "shop.example."
	dnsKey      = "cluster"
	poolAddress = "10.77.0.9:10809"
	homeAddress = "10.88.0.9:10809"
	hostVCPUs   = 16
	hostMemory  = 64 << 30
	overhead    = 256 << 20
	guestBoot   = 800 * time.Millisecond
	saveSpeed   = 20 << 30
	writesEvery = 100 * time.Millisecond
)

// world is everything outside hotspare: what the drivers drive. It outlives all processes.
type world struct {
	// ctx ends with the test: what killed processes began ends then at the latest.
	ctx   context.Context //nolint:containedctx // The world is the test's lifetime.
	names []string
	hosts map[string]*sim.Host
	nets  map[string]*sdnsim.Networks
	store *storagesim.World
	pool  *storagesim.Pool
	// home is the pool at the protected site that the way back ends in.
	home  *storagesim.Pool
	east  *storagesim.Site
	zone  *sdnsim.Zone
	fence *fencesim.Site
	watch *watch

	mu    sync.Mutex // guards traps
	traps []*trap
}

// domains maps each fence target to the production VM behind it.
func domains() map[string]string {
	return map[string]string{"east-power": "prod-db", "east-bill": "prod-bill"}
}

func newWorld(ctx context.Context, hosts int) *world {
	w := &world{ctx: ctx, hosts: map[string]*sim.Host{}, nets: map[string]*sdnsim.Networks{}}
	for i := range hosts {
		name := fmt.Sprintf("h%d", i+1)
		w.names = append(w.names, name)
		w.install(name)
	}
	st := storagesim.NewWorld()
	w.store, w.pool, w.home = st, st.NewPool(poolAddress, 10<<40), st.NewPool(homeAddress, 10<<40)
	w.east = st.NewSite(eastAgent)
	w.fence = fencesim.NewSite(func(target string) { w.east.Stop(domains()[target]) }, "east-power", "east-bill")
	for _, d := range domains() {
		w.east.AddDisk(storagesim.Disk{Domain: d, Disk: "vda", Path: "/images/" + d, Every: writesEvery})
	}
	w.zone = sdnsim.NewZone(dnsKey, dnsZone)
	w.zone.SetByHand(&pb.DnsRecord{Zone: dnsZone, Name: "www", Type: "A", Values: []string{"198.51.100.10"}})
	w.zone.SetByHand(&pb.DnsRecord{Zone: dnsZone, Name: "bill", Type: "A", Values: []string{"198.51.100.11"}})
	w.watch = newWatch(w)
	return w
}

// install makes a host with nothing on it, also in place of one that had something.
func (w *world) install(name string) {
	costs := sim.RealisticCosts()
	costs.SaveBytesPerSecond = saveSpeed
	w.hosts[name] = sim.NewHost(sim.Options{
		Name:     name,
		Capacity: &pb.Capacity{Vcpus: hostVCPUs, MemoryBytes: hostMemory, DiskBytes: 4 << 40, OverheadBytes: overhead, CpuClass: "sim", Devices: map[string]uint32{"gpu": 1}, LocalDisksBytes: map[string]uint64{"ssd": 1 << 40}},
		Costs:    costs, Guest: sim.GuestBehaviour{HealthyAfter: guestBoot, ShutdownTakes: time.Second},
	})
	w.nets[name] = sdnsim.NewNetworks(w.answers)
}

// answers says whether a running guest on any host answers at "ip:port".
func (w *world) answers(address string) bool {
	ip, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	for _, n := range w.names {
		if w.hosts[n].Answers(ip) {
			return true
		}
	}
	return false
}

func (w *world) agents() []string { return append([]string{storeAgent, eastAgent}, w.names...) }

func (w *world) isHost(agent string) bool { return slices.Contains(w.names, agent) }

func (w *world) drivers(agent string) actuate.Drivers {
	switch agent {
	case storeAgent:
		return actuate.Drivers{
			Pools: map[string]storage.Driver{"west": w.pool}, Zones: map[string]sdn.Endpoints{dnsZone: w.zone.Endpoints(dnsKey)},
		}
	case eastAgent:
		return actuate.Drivers{Pools: map[string]storage.Driver{"east": w.home}, Source: w.east, Fence: w.fence}
	default:
		return actuate.Drivers{Hypervisor: w.hosts[agent], Networks: w.nets[agent]}
	}
}

// powerOn is what the people at the old site do: once no fence holds a target down they power it on. They
// start what ran there, too, unless its disk comes back: then its agent does.
func (w *world) powerOn() {
	for target, domain := range domains() {
		if w.fence.Fences(target) == 0 && !w.fence.Alive(target) {
			w.fence.SetAlive(target, true)
			if len(w.home.Names()) == 0 {
				w.east.Start(domain)
			}
		}
	}
}

// inventory lists what is there outside, for comparison before and after.
func (w *world) inventory() []string {
	var out []string
	for _, n := range w.names {
		for _, line := range w.nets[n].Inventory() {
			out = append(out, n+" "+line)
		}
		domains, err := w.hosts[n].List(w.ctx)
		if err != nil {
			out = append(out, n+" not listed: "+err.Error())
		}
		for _, d := range domains {
			out = append(out, fmt.Sprintf("%s %s %v", n, d.ID, d.State))
		}
	}
	for _, v := range w.home.Names() {
		out = append(out, "volume at home "+v)
	}
	for _, v := range w.pool.Names() {
		vol, err := w.pool.Inspect(w.ctx, v)
		if err != nil {
			out = append(out, "volume "+v+": "+err.Error())
		}
		out = append(out, fmt.Sprintf("volume %s %v", v, vol.State))
	}
	for _, name := range []string{"www", "bill"} {
		out = append(out, fmt.Sprintf("dns %s %v", name, w.zone.Lookup(dnsZone, name, "A").GetValues()))
	}
	for _, t := range w.fence.Targets() {
		out = append(out, fmt.Sprintf("fence %s alive=%v fences=%d", t, w.fence.Alive(t), w.fence.Fences(t)))
	}
	return out
}

// siteManifest is what every test begins with; billing and its parts are in it, too.
const siteManifest = `
apiVersion: hotspare/v1
kind: Network
metadata: {name: prod-10}
spec: {role: production, bridge: br-prod10, subnet: 10.10.0.0/24}
---
apiVersion: hotspare/v1
kind: Network
metadata: {name: lent}
spec: {role: lent, bridge: br-lent, subnet: 10.20.0.0/24, gateway: 10.20.0.1}
---
apiVersion: hotspare/v1
kind: Pool
metadata: {name: west}
spec: {agent: store1, exportAddress: "10.77.0.9:10809"}
---
apiVersion: hotspare/v1
kind: Pool
metadata: {name: east}
spec: {agent: east, exportAddress: "10.88.0.9:10809"}
---
apiVersion: hotspare/v1
kind: Image
metadata: {name: debian-12}
spec: {disk: /var/lib/hotspare/images/debian-12.qcow2}
---
apiVersion: hotspare/v1
kind: FenceTarget
metadata: {name: east-power}
spec: {agent: east}
---
apiVersion: hotspare/v1
kind: FenceTarget
metadata: {name: east-bill}
spec: {agent: east}
---
apiVersion: hotspare/v1
kind: Project
metadata: {name: web}
spec:
  quota: {vcpus: 64, memory: 256GiB, instances: 20}
  longestTerm: 7d
  longestGrace: 30s
  clones: [webshop/db]
  network: lent
---
apiVersion: hotspare/v1
kind: Plan
metadata: {name: webshop, labels: {site: east}}
spec:
  rank: 10
  fencing:
  - {power: {target: east-power}, timeout: 60s}
  - {oath: {}}
  workloads:
  - name: db
    resources: {vcpus: 8, memory: 32GiB}
    volumes:
    - {name: root, pool: west, replica: webshop-db-root, size: 64MiB, source: {agent: east, domain: prod-db, disk: vda, pool: east}}
    nics: [{network: prod-10, address: 10.10.0.11/24}]
    healthy: {tcp: "10.10.0.11:5432", within: 60s}
  - name: web
    replicas: 2
    resources: {vcpus: 4, memory: 8GiB}
    image: debian-12
    nics: [{network: prod-10, addresses: [10.10.0.21/24, 10.10.0.22/24]}]
    antiAffinity: host
    dependsOn: [db]
    healthy: {http: "http://{address}:8080/health", within: 90s}
  endpoints:
  - dns: {zone: shop.example., name: www, type: A, values: [203.0.113.10], ttl: 30s, after: [web]}
---
apiVersion: hotspare/v1
kind: Plan
metadata: {name: billing, labels: {site: east}}
spec:
  rank: 20
  fencing:
  - {power: {target: east-bill}, timeout: 60s}
  - {oath: {}}
  workloads:
  - name: app
    resources: {vcpus: 4, memory: 16GiB}
    volumes:
    - {name: root, pool: west, replica: billing-app-root, size: 64MiB, source: {agent: east, domain: prod-bill, disk: vda, pool: east}}
    nics: [{network: prod-10, address: 10.10.0.31/24}]
    healthy: {tcp: "10.10.0.31:8443", within: 60s}
  endpoints:
  - dns: {zone: shop.example., name: bill, type: A, values: [203.0.113.11], ttl: 30s, after: [app]}
---
# The token of this trigger is the word "dev-token".
apiVersion: hotspare/v1
kind: Trigger
metadata: {name: east-down}
spec:
  plans: [webshop]
  match: {alertname: SiteDown}
  tokenSha256: c91cbbedf8c712e8e2b7517ddeca8fe4fde839ebd8339e0b2001363002b37712
`
