package site

// Token is the bearer token of the trigger east-down.
const Token = "e2e-token"

// manifests is the site as an operator declares it. Each host has room for two virtual CPUs, which is what one VM of every
// kind takes, so that a lease on each host leaves none.
const manifests = `apiVersion: hotspare/v1
kind: Network
metadata: {name: prod-10}
spec:
  role: production
  bridge: br-prod10
  uplink: prod0
  subnet: 10.10.0.0/24
  hosts: [h1, h2]
  probeAddresses: [10.10.0.201/24, 10.10.0.202/24]
---
apiVersion: hotspare/v1
kind: Network
metadata: {name: lent}
spec:
  role: lent
  bridge: br-lent
  subnet: 10.20.0.0/24
  hosts: [h1, h2]
  probeAddresses: [10.20.0.201/24, 10.20.0.202/24]
---
apiVersion: hotspare/v1
kind: Pool
metadata: {name: west}
spec: {agent: store, exportAddress: "%[1]s:10809"}
---
apiVersion: hotspare/v1
kind: Pool
metadata: {name: east}
spec: {agent: east, exportAddress: "%[6]s:10809"}
---
apiVersion: hotspare/v1
kind: Image
metadata: {name: tiny}
spec: {kernel: %[2]s, initrd: %[3]s, cmdline: "%[4]s"}
---
apiVersion: hotspare/v1
kind: FenceTarget
metadata: {name: east-power}
spec: {agent: gw}
---
apiVersion: hotspare/v1
kind: Host
metadata: {name: h1}
spec: {failureDomain: rack1, overcommit: %[5]g}
---
apiVersion: hotspare/v1
kind: Host
metadata: {name: h2}
spec: {failureDomain: rack2, overcommit: %[5]g}
---
apiVersion: hotspare/v1
kind: Project
metadata: {name: web}
spec:
  quota: {vcpus: 8, memory: 4GiB, instances: 4}
  longestTerm: 7d
  longestGrace: 30s
  network: lent
`

// WebShop is the plan of the production VM, and the trigger that declares it.
const WebShop = `apiVersion: hotspare/v1
kind: Plan
metadata: {name: webshop, labels: {site: east}}
spec:
  rank: 10
  rtoTarget: 2m
  rpoTarget: 1m
  fencing:
  - {power: {target: east-power}, timeout: 20s}
  - {oath: {}}
  workloads:
  - name: db
    resources: {vcpus: 2, memory: 128MiB}
    image: tiny
    volumes:
    - {name: root, pool: west, replica: webshop-db-root, size: 64MiB, source: {agent: east, domain: prod-db, disk: vda, pool: east}}
    nics: [{network: prod-10, mac: "52:54:00:aa:00:01", address: 10.10.0.11/24}]
    healthy: {http: "http://{address}/health", within: 2m}
  endpoints:
  - dns: {zone: shop.example., name: www, type: A, values: [203.0.113.10], ttl: 30s, after: [db]}
---
# The token of this trigger is Token.
apiVersion: hotspare/v1
kind: Trigger
metadata: {name: east-down}
spec:
  plans: [webshop]
  match: {alertname: SiteDown}
  tokenSha256: cc318af2129b329b084ebdf17f2608bf3d8a7da6082f345cebf205833876fd88
`

// StaticPage is a plan without data: a VM that boots from its image.
const StaticPage = `apiVersion: hotspare/v1
kind: Plan
metadata: {name: static}
spec:
  rank: 20
  fencing:
  - {power: {target: east-power}, timeout: 20s}
  workloads:
  - name: page
    resources: {vcpus: 2, memory: 128MiB}
    image: tiny
    nics: [{network: prod-10, mac: "52:54:00:aa:00:02", address: 10.10.0.12/24}]
    healthy: {http: "http://{address}/health", within: 2m}
`

// PageTrigger is the trigger that declares the plan of StaticPage, with the same token.
const PageTrigger = `---
apiVersion: hotspare/v1
kind: Trigger
metadata: {name: page-down}
spec:
  plans: [static]
  match: {alertname: PageDown}
  tokenSha256: cc318af2129b329b084ebdf17f2608bf3d8a7da6082f345cebf205833876fd88
`
