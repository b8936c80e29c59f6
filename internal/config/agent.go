package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/model"
)

// Agent is the configuration of one agent. What is left out it does not offer: an agent without libvirt
// runs no VMs, one without pools holds no volumes.
type Agent struct {
	// Name of the host, as the coordinators know it.
	Name string `yaml:"name"`
	// DataDir keeps the journal, the identity and the drivers' notes; default /var/lib/hotspare/agent.
	DataDir string `yaml:"data_dir"`
	// Coordinators are the API addresses of all coordinators: "host:port".
	Coordinators []string `yaml:"coordinators"`
	// Journal is the journal's file; default journal.db below DataDir.
	Journal string `yaml:"journal"`
	// IdentityFile holds key, certificate and authority; default pki/identity.pem below DataDir.
	IdentityFile string `yaml:"identity_file"`
	// TokenFile holds the join token with which the agent gets its first certificate; default join-token
	// below DataDir. It need not exist once the agent has one.
	TokenFile string `yaml:"token_file"`
	// Libvirt runs the VMs of this host.
	Libvirt Libvirt `yaml:"libvirt"`
	// Networks: the agent makes bridges and probe ports on this host.
	Networks bool `yaml:"networks"`
	// NetworkNamespace is the path of the network namespace in which it makes them; empty: its own.
	NetworkNamespace string `yaml:"network_namespace"`
	// Pools are the storage pools behind this agent.
	Pools []Pool `yaml:"pools"`
	// Source is the libvirt of a protected site whose disks are replicated.
	Source Source `yaml:"source"`
	// Zones are the DNS zones in which this agent changes records.
	Zones []Zone `yaml:"zones"`
	// FenceTargets are what this agent can prove dead.
	FenceTargets []FenceTarget `yaml:"fence_targets"`
	Log          Log           `yaml:"log"`
}

// Libvirt says how the VMs of a host are run.
type Libvirt struct {
	// Socket of libvirtd, for example /run/libvirt/libvirt-sock; empty: this agent runs no VMs.
	Socket string `yaml:"socket"`
	// DomainType is kvm or qemu (emulation); empty: kvm where the host has it.
	DomainType string `yaml:"domain_type"`
	// StateDir keeps private disks and saved memory; default /var/lib/hotspare/instances.
	StateDir string `yaml:"state_dir"`
	// LocalPools are directories for empty disks on other file systems of this host, by name ("ssd: /srv/ssd/hotspare"). A
	// VM that has a disk in one that is taken out again is neither changed nor removed until it is back.
	LocalPools map[string]string `yaml:"local_pools"`
}

// Pool is a directory of volumes that is exported over NBD.
type Pool struct {
	Name string `yaml:"name"`
	// Dir must exist and belongs to the agent alone.
	Dir string `yaml:"dir"`
	// ExportAddress is the "ip:port" on which the volumes are exported.
	ExportAddress string `yaml:"export_address"`
}

// Source says where replicated disks come from.
type Source struct {
	// Socket of the protected site's libvirtd; empty: this agent does not stand there.
	Socket string `yaml:"socket"`
	// StateFile keeps which mirrors were started; default mirrors.json below DataDir.
	StateFile string `yaml:"state_file"`
}

// Zone is one DNS zone with the key for its dynamic updates.
type Zone struct {
	// Name with the final dot.
	Name string `yaml:"name"`
	// Server is the zone's primary server, "host:port".
	Server  string `yaml:"server"`
	KeyName string `yaml:"key_name"`
	// KeyFile holds the TSIG key in base64.
	KeyFile string `yaml:"key_file"`
	// Algorithm is hmac-sha256 (the default), hmac-sha384 or hmac-sha512.
	Algorithm string `yaml:"algorithm"`
}

// FenceTarget is an old hypervisor whose domains can be destroyed and observed off.
type FenceTarget struct {
	Name string `yaml:"name"`
	// Socket of its libvirtd, or TCP, its "host:port" (which belongs into a tunnel); exactly one.
	Socket string `yaml:"socket"`
	TCP    string `yaml:"tcp"`
	// Domains that are fenced; empty: all.
	Domains []string `yaml:"domains"`
}

// FenceDir is where the fence driver keeps what outlives the process.
func (a *Agent) FenceDir() string { return filepath.Join(a.DataDir, "fence") }

// complete fills in defaults and checks everything.
func (a *Agent) complete(c *checker) {
	orDefault(&a.DataDir, "/var/lib/hotspare/agent")
	c.dir(&a.DataDir)
	orDefault(&a.Journal, filepath.Join(a.DataDir, "journal.db"))
	orDefault(&a.IdentityFile, filepath.Join(a.DataDir, "pki", "identity.pem"))
	orDefault(&a.TokenFile, filepath.Join(a.DataDir, "join-token"))
	for _, p := range []*string{&a.Journal, &a.IdentityFile, &a.TokenFile, &a.NetworkNamespace, &a.Libvirt.Socket, &a.Source.Socket} {
		c.dir(p)
	}
	c.name("name", a.Name)
	if len(a.Coordinators) == 0 {
		c.add("coordinators", "list the API addresses of all coordinators")
	}
	for i, s := range a.Coordinators {
		c.reach(indexed(c, "coordinators", i), s)
	}
	c.log(&a.Log)
	a.hypervisor(c)
	a.pools(c)
	a.zones(c)
	a.fences(c)
}

// indexed names an item of a list, or the list when the environment set all of it.
func indexed(c *checker, list string, i int) string {
	if c.fromEnv[list] != "" {
		return list
	}
	return fmt.Sprintf("%s[%d]", list, i)
}

func (l *Libvirt) localPools(c *checker) {
	if len(l.LocalPools) > model.MaxLocalPools {
		c.add("libvirt.local_pools", "%d pools, at most %d", len(l.LocalPools), model.MaxLocalPools)
	}
	for _, pool := range slices.Sorted(maps.Keys(l.LocalPools)) {
		at := "libvirt.local_pools." + pool
		if !model.ValidLocalPool(pool) {
			c.add(at, "%q is no name of a local pool: want 1 to 32 of a-z, 0-9 and '-', and not %q, which is state_dir", pool, model.LocalDisk)
		}
		dir := l.LocalPools[pool]
		c.dir(&dir)
		if l.LocalPools[pool] = dir; dir == "" {
			c.add(at, "names no directory")
		}
	}
}

func (a *Agent) hypervisor(c *checker) {
	l := &a.Libvirt
	switch {
	case l.Socket == "" && (l.DomainType != "" || l.StateDir != "" || len(l.LocalPools) > 0):
		c.add("libvirt.socket", "is missing")
	case l.Socket != "":
		orDefault(&l.StateDir, "/var/lib/hotspare/instances")
		c.dir(&l.StateDir)
		l.localPools(c)
		if l.DomainType != "" {
			c.word("libvirt.domain_type", l.DomainType, "kvm", "qemu")
		}
	}
	if a.NetworkNamespace != "" && !a.Networks {
		c.add("network_namespace", "has no effect without networks: true")
	}
	switch {
	case a.Source.Socket == "" && a.Source.StateFile != "":
		c.add("source.socket", "is missing")
	case a.Source.Socket != "":
		orDefault(&a.Source.StateFile, filepath.Join(a.DataDir, "mirrors.json"))
		c.dir(&a.Source.StateFile)
	}
}

// once refuses a second use of a name, directory or address.
func once(c *checker, used map[string]bool, setting, s string) {
	if used[s] {
		c.add(setting, "%q is used twice", s)
	}
	used[s] = true
}

func (a *Agent) pools(c *checker) {
	used := map[string]bool{}
	for i := range a.Pools {
		p, path := &a.Pools[i], fmt.Sprintf("pools[%d]", i)
		c.name(path+".name", p.Name)
		once(c, used, path+".name", p.Name)
		if p.Dir == "" {
			c.add(path, "dir is missing")
		} else {
			c.dir(&p.Dir)
			once(c, used, path+".dir", p.Dir)
		}
		c.reach(path+".export_address", p.ExportAddress)
		once(c, used, path+".export_address", p.ExportAddress)
	}
}

func (a *Agent) zones(c *checker) {
	used := map[string]bool{}
	for i := range a.Zones {
		z, path := &a.Zones[i], fmt.Sprintf("zones[%d]", i)
		if len(z.Name) < 2 || !strings.HasSuffix(z.Name, ".") {
			c.add(path+".name", "%q is not a zone with its final dot, for example shop.example.", z.Name)
		}
		once(c, used, path+".name", z.Name)
		c.reach(path+".server", z.Server)
		orDefault(&z.Algorithm, "hmac-sha256")
		c.word(path+".algorithm", z.Algorithm, "hmac-sha256", "hmac-sha384", "hmac-sha512")
		if z.KeyName == "" {
			c.add(path, "key_name is missing")
		}
		if z.KeyFile == "" {
			c.add(path, "key_file is missing: the TSIG key stands in a file of its own")
			continue
		}
		c.dir(&z.KeyFile)
		c.secret(path+".key_file", z.KeyFile)
	}
}

func (a *Agent) fences(c *checker) {
	used := map[string]bool{}
	for i := range a.FenceTargets {
		f, path := &a.FenceTargets[i], fmt.Sprintf("fence_targets[%d]", i)
		c.name(path+".name", f.Name)
		once(c, used, path+".name", f.Name)
		if (f.Socket == "") == (f.TCP == "") {
			c.add(path, "needs socket or tcp, and only one of them")
		}
		c.dir(&f.Socket)
		if f.TCP != "" {
			c.reach(path+".tcp", f.TCP)
		}
	}
}
