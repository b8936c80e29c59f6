package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
)

const (
	// maxShared bounds the calls on the shared connection: libvirtd works on five requests of one
	// client at a time (max_client_requests) and one is left for events.
	maxShared = 4
	// maxSlow bounds the starts, saves and restores at one time, each on a connection of its own:
	// libvirtd has 20 workers by default (max_workers) and each of these occupies one to its end.
	maxSlow = 10
	// maxQuick bounds the other changing calls. They have slots of their own, so that a kill or an
	// abort never waits for a save.
	maxQuick = 6
	// dialLimit bounds the opening of a connection; a libvirtd that hangs accepts and never answers.
	dialLimit = 10 * time.Second
	// backoffMin and backoffMax bound the pause after a dial that failed, so that a caller that tries
	// again at once does not spin while libvirtd restarts.
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
)

// errClosed is returned after Close.
var errClosed = errors.New("the driver is closed")

// session is one connection to libvirtd.
type session struct {
	l    *golibvirt.Libvirt
	conn net.Conn
}

// close cuts the connection: every call on it returns at once, what libvirtd was asked for goes on.
func (s *session) close() { _ = s.conn.Close() }

// client opens and keeps connections. Safe for concurrent use.
type client struct {
	socket string

	shared chan struct{} // slots for calls on the shared connection
	slow   chan struct{} // slots for long calls on connections of their own
	quick  chan struct{} // slots for short calls on connections of their own
	dialer chan struct{} // one at a time opens the shared connection

	mu      sync.Mutex // guards all below
	closed  bool
	live    *session
	open    map[*session]struct{}
	backoff time.Duration
	next    time.Time // no dial before
}

func newClient(socket string) *client {
	return &client{
		socket: socket,
		shared: make(chan struct{}, maxShared), slow: make(chan struct{}, maxSlow),
		quick: make(chan struct{}, maxQuick), dialer: make(chan struct{}, 1),
		open: map[*session]struct{}{},
	}
}

// close cuts every connection.
func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for s := range c.open {
		s.close()
	}
}

// acquire takes a slot, or returns the context's error.
func acquire(ctx context.Context, slots chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call runs a query on the shared connection. When the context ends it returns; the query then
// finishes in the background and gives its slot back.
func call[T any](ctx context.Context, c *client, query func(*golibvirt.Libvirt) (T, error)) (T, error) {
	var none T
	if err := acquire(ctx, c.shared); err != nil {
		return none, err
	}
	s, err := c.sharedSession(ctx)
	if err != nil {
		<-c.shared
		return none, err
	}
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() { <-c.shared }()
		v, err := query(s.l)
		if lost(err) {
			c.forget(s)
		}
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// alone runs one changing call on a connection of its own, in one of the given slots, and waits for
// it to the end; the context bounds only the wait for the slot and for the connection.
func (c *client) alone(ctx context.Context, slots chan struct{}, do func(*golibvirt.Libvirt) error) error {
	if err := acquire(ctx, slots); err != nil {
		return err
	}
	defer func() { <-slots }()
	s, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer c.forget(s)
	return do(s.l)
}

// lost says whether the error of a libvirt call came from the connection and not from libvirt: then
// the outcome of the call is unknown.
func lost(err error) bool {
	var refused golibvirt.Error
	return err != nil && !errors.As(err, &refused) && !errors.Is(err, golibvirt.ErrUnsupported)
}

// unanswered says whether libvirtd may still be working on a call that returned this error, among
// errors of other origins.
func unanswered(err error) bool {
	return errors.Is(err, golibvirt.ErrInterrupted) || errors.Is(err, errClosed)
}

// sharedSession returns the shared connection, opening it if needed.
func (c *client) sharedSession(ctx context.Context) (*session, error) {
	if err := acquire(ctx, c.dialer); err != nil {
		return nil, err
	}
	defer func() { <-c.dialer }()
	c.mu.Lock()
	s := c.live
	if s != nil && !s.l.IsConnected() {
		delete(c.open, s)
		s, c.live = nil, nil
	}
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = s
	return s, nil
}

// forget closes a connection.
func (c *client) forget(s *session) {
	s.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, s)
	if c.live == s {
		c.live = nil
	}
}

// dial opens a connection, not sooner after a failure than the backoff says.
func (c *client) dial(ctx context.Context) (*session, error) {
	if err := c.pause(ctx); err != nil {
		return nil, err
	}
	s, err := open(ctx, c.socket)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			c.backoff = min(max(2*c.backoff, backoffMin), backoffMax)
			c.next = time.Now().Add(c.backoff)
		}
		return nil, fmt.Errorf("connect to libvirtd at %s: %w", c.socket, err)
	}
	c.backoff = 0
	if c.closed {
		s.close()
		return nil, errClosed
	}
	c.open[s] = struct{}{}
	return s, nil
}

// pause waits until the next dial is allowed.
func (c *client) pause(ctx context.Context) error {
	c.mu.Lock()
	closed, wait := c.closed, time.Until(c.next)
	c.mu.Unlock()
	if closed {
		return errClosed
	}
	return sleep(ctx, wait)
}

// sleep lets the time pass, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open opens one connection within dialLimit.
func open(ctx context.Context, socket string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	// Not one of the library's own dialers: they know no context, and this one cannot dial again, so
	// that a session which was cut stays cut.
	s := &session{l: golibvirt.NewWithDialer(dialers.NewAlreadyConnected(conn)), conn: conn}
	opened := make(chan error, 1)
	go func() { opened <- s.l.ConnectToURI(golibvirt.QEMUSystem) }()
	select {
	case err = <-opened:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}
