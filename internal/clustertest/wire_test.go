package clustertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// wire is the network between agents, users and coordinators. Every node has a name; a service is
// reached under "name:service".
type wire struct {
	mu        sync.Mutex
	listeners map[string]*listener
	// blocked holds the directions in which nothing passes; the channel is closed when it heals.
	blocked map[route]chan struct{}
	conns   map[*conn]bool
}

type route struct{ from, to string }

func newWire() *wire {
	return &wire{listeners: map[string]*listener{}, blocked: map[route]chan struct{}{}, conns: map[*conn]bool{}}
}

// connBuffer is what one direction of a connection may hold, as a socket's buffers do.
const connBuffer = 64 << 10

// errRefused is what dialling a node without a listener gives.
var errRefused = errors.New("connection refused")

// listener is one service of a node.
type listener struct {
	w     *wire
	name  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (w *wire) listen(node, service string) *listener {
	l := &listener{w: w, name: node + ":" + service, conns: make(chan net.Conn), done: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners[l.name] = l
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.w.listeners[l.name] == l {
		delete(l.w.listeners, l.name)
	}
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.name) }

type address string

func (address) Network() string  { return "wire" }
func (a address) String() string { return string(a) }

// dialer returns the dial function of a node; the target is "name:service".
func (w *wire) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, target string) (net.Conn, error) { return w.dial(ctx, from, target) }
}

func (w *wire) dial(ctx context.Context, from, target string) (net.Conn, error) {
	to, _, _ := net.SplitHostPort(target)
	for _, r := range []route{{from, to}, {to, from}} {
		if err := w.pass(ctx, r, nil); err != nil {
			return nil, fmt.Errorf("dial %s from %s: %w", target, from, err)
		}
	}
	w.mu.Lock()
	l := w.listeners[target]
	w.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s from %s: %w", target, from, errRefused)
	}
	near, far := w.pair(from, to)
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, fmt.Errorf("dial %s from %s: %w", target, from, errRefused)
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s from %s: %w", target, from, ctx.Err())
	}
}

// pair makes a connection: the end of the node that dials and the end of the other.
func (w *wire) pair(from, to string) (near, far *conn) {
	l := bufconn.Listen(connBuffer)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	a, _ := l.Dial()
	near = &conn{Conn: a, w: w, route: route{from, to}, closed: make(chan struct{})}
	far = &conn{Conn: <-accepted, w: w, route: route{to, from}, closed: make(chan struct{})}
	near.peer, far.peer = far, near
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[near], w.conns[far] = true, true
	return near, far
}

// conn is one end of a connection. While its direction is blocked, a write waits and an end is not
// seen by the other side, as with a cable that was pulled.
type conn struct {
	net.Conn
	w      *wire
	route  route
	peer   *conn
	closed chan struct{}
	once   sync.Once
}

func (c *conn) Write(b []byte) (int, error) {
	if err := c.w.pass(context.Background(), c.route, c.closed); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Close ends this end; the other hears of it when it can.
func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.w.mu.Lock()
		delete(c.w.conns, c)
		silent := c.w.blocked[c.route] != nil
		c.w.mu.Unlock()
		if !silent {
			_ = c.Conn.Close()
			return
		}
		// The reader of this end must go, the other end must not notice.
		_ = c.SetDeadline(time.Now())
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return address(c.route.from) }
func (c *conn) RemoteAddr() net.Addr { return address(c.route.to) }

// pass waits until a direction is open.
func (w *wire) pass(ctx context.Context, r route, closed <-chan struct{}) error {
	for {
		w.mu.Lock()
		healed := w.blocked[r]
		w.mu.Unlock()
		if healed == nil {
			return nil
		}
		select {
		case <-healed:
		case <-closed:
			return net.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// block stops everything from one node to another, in this direction only.
func (w *wire) block(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blocked[route{from, to}] == nil {
		w.blocked[route{from, to}] = make(chan struct{})
	}
}

func (w *wire) unblock(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if healed := w.blocked[route{from, to}]; healed != nil {
		close(healed)
		delete(w.blocked, route{from, to})
	}
}

// vanish forgets all connections of a node: without a word (power loss), or so that the other side sees
// the end (a process that died).
func (w *wire) vanish(node string, silently bool) {
	w.mu.Lock()
	var ends []*conn
	for c := range w.conns {
		if c.route.from == node {
			ends = append(ends, c)
		}
	}
	for name, l := range w.listeners {
		if host, _, _ := net.SplitHostPort(name); host == node {
			l.once.Do(func() { close(l.done) })
			delete(w.listeners, name)
		}
	}
	w.mu.Unlock()
	for _, c := range ends {
		if silently {
			c.once.Do(func() {
				close(c.closed)
				_ = c.SetDeadline(time.Now())
			})
			continue
		}
		_ = c.Close()
	}
}

// end closes everything, for the end of a test.
func (w *wire) end() {
	w.mu.Lock()
	for r, healed := range w.blocked {
		close(healed)
		delete(w.blocked, r)
	}
	var ends []*conn
	for c := range w.conns {
		ends = append(ends, c, c.peer)
	}
	w.mu.Unlock()
	for _, c := range ends {
		_ = c.Conn.Close()
	}
}
