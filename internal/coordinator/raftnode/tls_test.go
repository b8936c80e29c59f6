package raftnode_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/trust"
)

// pki makes keepers of one authority.
type pki struct {
	t         testing.TB
	authority *trust.Authority
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	a, err := trust.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &pki{t: t, authority: a}
}

func (p *pki) keeper(role trust.Role, name string) *trust.Keeper {
	p.t.Helper()
	key, err := trust.NewKey()
	if err != nil {
		p.t.Fatal(err)
	}
	request, err := trust.NewRequest(key)
	if err != nil {
		p.t.Fatal(err)
	}
	cert, err := p.authority.Sign(trust.Order{
		Request: request, Identity: trust.Identity{Role: role, Name: name}, Life: time.Hour, Now: time.Now(),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.t.TempDir(), "identity.pem")
	if err := trust.SaveIdentity(path, key, cert, p.authority.CertificatePEM()); err != nil {
		p.t.Fatal(err)
	}
	k, err := trust.OpenKeeper(path, time.Now)
	if err != nil {
		p.t.Fatal(err)
	}
	return k
}

// logLines keeps what is logged.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logLines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// tlsMember opens a member that shows the keeper's certificate.
func tlsMember(t testing.TB, name string, k *trust.Keeper, out io.Writer) (*raftnode.Node, *journal, string) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(out, nil))
	transport, err := raftnode.NewTLSTransport(raftnode.TLSOptions{
		Listen: "127.0.0.1:0", Server: k.RaftServer(), Client: k.RaftClient(), Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	address, j := string(transport.LocalAddr()), &journal{}
	n, err := raftnode.Open(raftnode.Options{Name: name, Dir: t.TempDir(), Machine: j, Transport: transport, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, j, address
}

// eventually waits in real time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s after 20 s", what)
		}
	}
}

func firstOverTLS(t testing.TB, p *pki) (*raftnode.Node, string, *logLines) {
	t.Helper()
	out := &logLines{}
	a, _, address := tlsMember(t, "a", p.keeper(trust.RoleCoordinator, "a"), out)
	if err := a.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "leader", a.IsLeader)
	return a, address, out
}

func TestMembersOverTLS(t *testing.T) {
	p := newPKI(t)
	a, _, _ := firstOverTLS(t, p)
	b, entries, address := tlsMember(t, "b", p.keeper(trust.RoleCoordinator, "b"), io.Discard)
	if err := a.AddMember(t.Context(), "b", address); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", raftnode.MaxEntryBytes)
	for _, data := range []string{"one", large} {
		if _, _, err := a.Propose(t.Context(), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "replication", func() bool { return slices.Equal(entries.all(), []string{"one", large}) })
	if err := a.TransferLeadership(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new leader", b.IsLeader)
}

// P10: the same authority signs agents, so the role decides, on both sides of a connection.
func TestWrongRolesAreRefusedOnTheRaftPort(t *testing.T) {
	p := newPKI(t)
	a, address, out := firstOverTLS(t, p)
	agent := p.keeper(trust.RoleAgent, "h1")

	conn, err := tls.Dial("tcp", address, agent.RaftClient())
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("an agent that dials: %v", err)
	}
	eventually(t, "log line", func() bool { return out.has("peer is agent/h1") })

	// An agent that sits where a member should be: its certificate is not for servers, and if it were
	// the role would not fit.
	ln, err := tls.Listen("tcp", "127.0.0.1:0", agent.Server())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	shaken := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			err = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
		shaken <- err
	}()
	go func() { _ = a.AddMember(t.Context(), "evil", ln.Addr().String()) }()
	if err := <-shaken; err == nil {
		t.Error("the leader spoke to an agent")
	}
	if err := a.RemoveMember(t.Context(), "evil"); err != nil {
		t.Fatal(err)
	}
}

func TestTLSTransportDemandsRoleChecks(t *testing.T) {
	k := newPKI(t).keeper(trust.RoleCoordinator, "a")
	for _, o := range []raftnode.TLSOptions{
		{},
		{Server: k.RaftServer(), Client: &tls.Config{}},
		{Server: &tls.Config{}, Client: k.RaftClient()},
	} {
		o.Listen, o.Logger = "127.0.0.1:0", slog.New(slog.DiscardHandler)
		if transport, err := raftnode.NewTLSTransport(o); err == nil {
			_ = transport.Close()
			t.Error("accepted")
		}
	}
}

func TestAdvertisedAddressCanBeDialled(t *testing.T) {
	k := newPKI(t).keeper(trust.RoleCoordinator, "a")
	for advertise, ok := range map[string]bool{"": false, "c1.example:7000": true, "10.0.0.1:7000": true, "c1.example": false, ":7000": false, "[::]:7000": false, "c1:0": false} {
		transport, err := raftnode.NewTLSTransport(raftnode.TLSOptions{
			Listen: "0.0.0.0:0", Advertise: advertise, Server: k.RaftServer(), Client: k.RaftClient(), Logger: slog.New(slog.DiscardHandler),
		})
		if err == nil {
			_ = transport.Close()
		}
		if (err == nil) != ok {
			t.Errorf("%q: %v", advertise, err)
		}
	}
}

// A peer that never speaks must hold neither the port nor the shutdown.
func TestSilentConnectionsDoNotBlock(t *testing.T) {
	p := newPKI(t)
	a, address, _ := firstOverTLS(t, p)
	for range 5 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	_, _, other := tlsMember(t, "b", p.keeper(trust.RoleCoordinator, "b"), io.Discard)
	if err := a.AddMember(t.Context(), "b", other); err != nil {
		t.Fatal(err)
	}
}
