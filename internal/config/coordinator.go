package config

import (
	"fmt"
	"path/filepath"
	"slices"
)

// Coordinator is the configuration of one coordinator.
type Coordinator struct {
	// Name identifies this member for ever.
	Name string `yaml:"name"`
	// DataDir keeps the log of raft, the snapshots and the identity; default /var/lib/hotspare/coordinator.
	DataDir string `yaml:"data_dir"`
	// Listen is where the gRPC API is served, for users and agents; default ":7443".
	Listen string `yaml:"listen"`
	// HTTPListen is where JSON over HTTPS and the webhooks are served; default ":7444".
	HTTPListen string `yaml:"http_listen"`
	// RaftListen is where the other members connect; default ":7445".
	RaftListen string `yaml:"raft_listen"`
	// Socket is where root may use the API without a certificate; default /run/hotspare/coordinator.sock.
	Socket string `yaml:"socket"`
	// Members are all coordinators of the site, this one included.
	Members []Member `yaml:"members"`
	// Bootstrap makes a new site when the data directory is empty. Only one member may say so, once.
	Bootstrap bool `yaml:"bootstrap"`
	// IdentityFile holds key, certificate and authority; default pki/identity.pem below DataDir.
	IdentityFile string `yaml:"identity_file"`
	Log          Log    `yaml:"log"`
}

// Member is one coordinator of the site.
type Member struct {
	Name string `yaml:"name"`
	// Raft is where the other members reach it, API where agents and users do: "host:port".
	Raft string `yaml:"raft"`
	API  string `yaml:"api"`
}

// maxMembers bounds the coordinators: more than seven only make every commit slower.
const maxMembers = 7

// complete fills in defaults and checks everything.
func (k *Coordinator) complete(c *checker) {
	orDefault(&k.DataDir, "/var/lib/hotspare/coordinator")
	orDefault(&k.Listen, ":7443")
	orDefault(&k.HTTPListen, ":7444")
	orDefault(&k.RaftListen, ":7445")
	orDefault(&k.Socket, "/run/hotspare/coordinator.sock")
	c.dir(&k.DataDir)
	orDefault(&k.IdentityFile, filepath.Join(k.DataDir, "pki", "identity.pem"))
	c.dir(&k.IdentityFile)
	c.dir(&k.Socket)
	c.name("name", k.Name)
	c.listen("listen", k.Listen)
	c.listen("http_listen", k.HTTPListen)
	c.listen("raft_listen", k.RaftListen)
	c.log(&k.Log)
	k.members(c)
}

func (k *Coordinator) members(c *checker) {
	if len(k.Members) > maxMembers {
		c.add("members", "%d members, at most %d", len(k.Members), maxMembers)
	}
	used := map[string]bool{}
	for i, m := range k.Members {
		path := fmt.Sprintf("members[%d]", i)
		c.name(path+".name", m.Name)
		c.reach(path+".raft", m.Raft)
		c.reach(path+".api", m.API)
		for _, key := range []string{"name " + m.Name, "address " + m.Raft, "address " + m.API} {
			if used[key] {
				c.add(path, "%s is used twice", key)
			}
			used[key] = true
		}
	}
	if !slices.ContainsFunc(k.Members, func(m Member) bool { return m.Name == k.Name }) {
		c.add("members", "%q itself is missing: list every coordinator with name, raft and api address", k.Name)
	}
}
