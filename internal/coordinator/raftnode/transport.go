package raftnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Transport carries raft's messages. All three parts are demanded here because raft asks for the last
// two by type assertion: without pre-vote it goes on with a log line, and a member that comes back from
// a cut link disturbs the leader.
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

const (
	// handshakeTimeout bounds a TLS handshake on either side.
	handshakeTimeout = 5 * time.Second
	// maxHandshakes bounds connections that have not shown a certificate yet.
	maxHandshakes = 64
	// ioTimeout bounds one raft message; raft scales it up for snapshots.
	ioTimeout = 10 * time.Second
	// maxPool is the number of idle connections kept to each member: heartbeats, entries, votes.
	maxPool = 3
)

// TLSOptions configures the transport between members.
type TLSOptions struct {
	// Listen is host:port; Advertise is what other members dial, and defaults to the listener's address.
	Listen, Advertise string
	// Server and Client must check the other side's chain and that its role is coordinator (P10): an
	// agent's certificate comes from the same authority. Package trust builds both.
	Server, Client *tls.Config
	Logger         *slog.Logger
}

// NewTLSTransport listens and returns the transport. Close ends the listener.
func NewTLSTransport(o TLSOptions) (Transport, error) {
	if o.Server == nil || o.Client == nil || o.Server.VerifyConnection == nil || o.Client.VerifyConnection == nil {
		return nil, errors.New("listen for raft members: both TLS configurations must check the role of the peer")
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for raft members: %w", err)
	}
	if o.Advertise == "" {
		o.Advertise = ln.Addr().String()
	}
	if err := reachable(o.Advertise); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for raft members: %w", err), ln.Close())
	}
	s := &stream{
		listener: ln, advertise: address(o.Advertise), server: o.Server, client: o.Client, log: o.Logger,
		ready: make(chan net.Conn), slots: make(chan struct{}, maxHandshakes),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work.Go(s.accept)
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: maxPool, Timeout: ioTimeout, Logger: newSlogger(o.Logger),
	}), nil
}

// reachable refuses what other members cannot dial: it would go into the replicated configuration.
func reachable(advertise string) error {
	host, port, err := net.SplitHostPort(advertise)
	if err != nil {
		return fmt.Errorf("advertised address: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || port == "" || port == "0" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("advertised address %q is not one that other members can dial (set it to this host's name or address and a port)", advertise)
	}
	return nil
}

// address is a net.Addr made of what members are told to dial.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// stream gives raft only connections whose peer has proved its role, in both directions.
type stream struct {
	listener       net.Listener
	advertise      net.Addr
	server, client *tls.Config
	log            *slog.Logger
	ready          chan net.Conn
	slots          chan struct{}
	work           sync.WaitGroup
	// ctx ends with the listener; it is not the context of any call.
	ctx    context.Context
	cancel context.CancelFunc
}

var _ raft.StreamLayer = (*stream)(nil)

func (s *stream) accept() {
	for {
		conn, err := s.listener.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			s.log.Warn("accept raft member", "error", err)
			select {
			case <-s.ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
			s.work.Go(func() { s.greet(conn) })
		default:
			s.log.Warn("refuse raft connection: too many handshakes", "address", conn.RemoteAddr().String())
			_ = conn.Close()
		}
	}
}

// acceptPause keeps a full file table from becoming a busy loop.
const acceptPause = 100 * time.Millisecond

func (s *stream) greet(raw net.Conn) {
	defer func() { <-s.slots }()
	conn := tls.Server(raw, s.server)
	if err := handshake(s.ctx, conn); err != nil {
		s.log.Warn("refuse raft connection", "address", raw.RemoteAddr().String(), "error", err)
		return
	}
	select {
	case s.ready <- conn:
	case <-s.ctx.Done():
		_ = conn.Close()
	}
}

// handshake closes the connection when it fails.
func handshake(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return errors.Join(err, conn.NetConn().Close())
	}
	return nil
}

// Accept returns the next connection from a coordinator.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.ready:
		return conn, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends the listener and waits for handshakes under way.
func (s *stream) Close() error {
	s.cancel()
	err := s.listener.Close()
	s.work.Wait()
	return err
}

// Addr returns what other members dial.
func (s *stream) Addr() net.Addr { return s.advertise }

// Dial connects to another coordinator; in TLS 1.3 the other side's refusal arrives with the first read.
func (s *stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", string(to))
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, s.client)
	if err := handshake(ctx, conn); err != nil {
		return nil, fmt.Errorf("connect to raft member at %s: %w", to, err)
	}
	return conn, nil
}

// tracked remembers what each member answered last, from which the leader knows how far it has come.
type tracked struct {
	Transport
	mu sync.Mutex
	// contacts is guarded by mu.
	contacts map[raft.ServerID]contact
}

// contact is the newest answer of a member.
type contact struct {
	lastIndex uint64
	at        time.Time
}

func newTracked(t Transport) *tracked {
	return &tracked{Transport: t, contacts: make(map[raft.ServerID]contact)}
}

// AppendEntries is how raft sends heartbeats, several in each HeartbeatTimeout.
func (t *tracked) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.Transport.AppendEntries(id, to, args, resp); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.contacts[id] = contact{lastIndex: resp.LastLog, at: time.Now()}
	return nil
}

func (t *tracked) contact(id raft.ServerID) contact {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.contacts[id]
}
