package sim

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
)

var _ sdn.Metadata = (*Networks)(nil)

// listener is the metadata port of one network, in memory.
type listener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(sdn.MetadataAddress), Port: sdn.MetadataPort}
}

// conn is a connection that knows where it comes from.
type conn struct {
	net.Conn
	from netip.Addr
}

// RemoteAddr is the machine's.
func (c *conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.from.AsSlice(), Port: 40000} }

// drop takes a network away, its listener with it. The caller holds mu.
func (n *Networks) drop(name string) {
	delete(n.networks, name)
	delete(n.admitted, name)
	if l := n.listeners[name]; l != nil {
		l.once.Do(func() { close(l.done) })
		delete(n.listeners, name)
	}
}

// ListenMetadata implements sdn.Metadata.
func (n *Networks) ListenMetadata(ctx context.Context, name string) (net.Listener, error) {
	var out net.Listener
	err := n.Through(ctx, Listen, name, func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		have := n.networks[name]
		if have == nil || !have.probe || have.spec.GetRole() != pb.NetworkRole_NETWORK_ROLE_LENT {
			return fmt.Errorf("listen on network %s: %w", name, sdn.ErrNotFound)
		}
		if old := n.listeners[name]; old != nil {
			select {
			case <-old.done:
			default:
				return fmt.Errorf("listen on network %s: the port is in use", name)
			}
		}
		l := &listener{conns: make(chan net.Conn), done: make(chan struct{})}
		n.listeners[name] = l
		out = l
		return nil
	})
	if err == nil && out == nil { // A lie: nobody ever comes.
		out = &listener{conns: make(chan net.Conn), done: make(chan struct{})}
	}
	return out, err
}

// Admit implements sdn.Metadata.
func (n *Networks) Admit(ctx context.Context, name string, cards []sdn.Card) error {
	return n.Through(ctx, Admit, name, func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		have := n.networks[name]
		if have == nil || !have.probe || have.spec.GetRole() != pb.NetworkRole_NETWORK_ROLE_LENT {
			return fmt.Errorf("admit machines on network %s: %w", name, sdn.ErrNotFound)
		}
		n.admitted[name] = slices.Clone(cards)
		return nil
	})
}

// Machine implements sdn.Metadata.
func (n *Networks) Machine(ctx context.Context, name string, address netip.Addr) (net.HardwareAddr, error) {
	var out net.HardwareAddr
	err := n.Through(ctx, Machine, name, func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, c := range n.admitted[name] {
			if c.Address != address {
				continue
			}
			if out != nil {
				return fmt.Errorf("look for the machine with address %s on network %s: two are admitted: %w", address, name, sdn.ErrConflict)
			}
			out = c.MAC
		}
		if out == nil {
			return fmt.Errorf("look for the machine with address %s on network %s: %w", address, name, sdn.ErrNotFound)
		}
		return nil
	})
	return out, err
}

// Connect is a machine's hand: from its address, by its card, it connects to the metadata service.
func (n *Networks) Connect(ctx context.Context, name string, mac net.HardwareAddr, address netip.Addr) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[name]
	known := slices.ContainsFunc(n.admitted[name], func(c sdn.Card) bool {
		return c.Address == address && slices.Equal(c.MAC, mac)
	})
	n.mu.Unlock()
	if l == nil || !known {
		return nil, fmt.Errorf("connect to %s on network %s: nobody answers", sdn.MetadataAddress, name)
	}
	near, far := net.Pipe()
	select {
	case l.conns <- &conn{Conn: far, from: address}:
		return near, nil
	case <-l.done:
		return nil, fmt.Errorf("connect to %s on network %s: nobody listens", sdn.MetadataAddress, name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
