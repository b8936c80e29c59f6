// Package memnet connects raft members within one process, with links that can be cut. Tests of the
// coordinator use it, also inside testing/synctest bubbles; it must never be part of a daemon.
package memnet

import (
	"sync"

	"github.com/hashicorp/raft"

	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
)

// Network is a switch between members. The zero value is not usable; call New. It is safe for
// concurrent use.
type Network struct {
	mu sync.Mutex
	// members and cut are guarded by mu.
	members map[string]*raft.InmemTransport
	cut     map[link]bool
}

// link is one direction between two addresses.
type link struct{ from, to string }

// New returns a network without members.
func New() *Network {
	return &Network{members: make(map[string]*raft.InmemTransport), cut: make(map[link]bool)}
}

// Transport plugs a member in. A second call with the same address replaces the first, as a restart of
// the member does; links that were cut stay cut.
func (n *Network) Transport(address string) raftnode.Transport {
	_, t := raft.NewInmemTransport(raft.ServerAddress(address))
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.members {
		n.disconnect(other, address)
	}
	n.members[address] = t
	for other := range n.members {
		n.connect(address, other)
		n.connect(other, address)
	}
	return t
}

// Cut stops all messages between two members.
func (n *Network) Cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[link{a, b}], n.cut[link{b, a}] = true, true
	n.disconnect(a, b)
	n.disconnect(b, a)
}

// Heal lets messages pass between two members again.
func (n *Network) Heal(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, link{a, b})
	delete(n.cut, link{b, a})
	n.connect(a, b)
	n.connect(b, a)
}

// Isolate cuts a member off from all others.
func (n *Network) Isolate(address string) { n.each(address, n.Cut) }

// Rejoin heals all links of a member.
func (n *Network) Rejoin(address string) { n.each(address, n.Heal) }

func (n *Network) each(address string, do func(a, b string)) {
	n.mu.Lock()
	var others []string
	for other := range n.members {
		if other != address {
			others = append(others, other)
		}
	}
	n.mu.Unlock()
	for _, other := range others {
		do(address, other)
	}
}

// connect and disconnect need mu.
func (n *Network) connect(from, to string) {
	a, b := n.members[from], n.members[to]
	if from != to && a != nil && b != nil && !n.cut[link{from, to}] {
		a.Connect(raft.ServerAddress(to), b)
	}
}

func (n *Network) disconnect(from, to string) {
	if a := n.members[from]; a != nil {
		a.Disconnect(raft.ServerAddress(to))
	}
}
