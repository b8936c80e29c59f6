package clustertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent"
	"github.com/hotspare/hotspare/internal/agent/join"
	"github.com/hotspare/hotspare/internal/coordinator"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode/memnet"
	"github.com/hotspare/hotspare/internal/manifest"
	"github.com/hotspare/hotspare/internal/trust"
)

// site is a whole site under test.
type site struct {
	t         *testing.T
	ctx       context.Context //nolint:containedctx // The site is the test's lifetime.
	dir       string
	wire      *wire
	raft      *memnet.Network
	world     *world
	book      *logbook
	authority *trust.Authority
	names     []string // of the coordinators
	members   map[string]*member
	agents    map[string]*process
	operator  *trust.Keeper
	conns     map[string]*grpc.ClientConn
	requests  int
}

// member is one coordinator and its present process.
type member struct {
	name    string
	keeper  *trust.Keeper
	c       *coordinator.Coordinator
	servers *coordinator.Servers
	up      bool
	// skew is how far its machine's clock is ahead, in nanoseconds.
	skew atomic.Int64
	// gone is closed when nothing of the last process is left.
	gone chan struct{}
}

// process is one agent and its present process.
type process struct {
	name   string
	keeper *trust.Keeper
	life   *life
	bootID string
	booted time.Time
	up     bool
	cancel context.CancelFunc
	gone   chan struct{}
}

// bubble runs a scenario on a site of three coordinators and some hosts, inside a bubble, and checks
// the invariants at the end.
func bubble(t *testing.T, hosts int, scenario func(s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, hosts)
		scenario(s)
		if !t.Failed() {
			s.finish()
		}
	})
}

func newSite(t *testing.T, hosts int) *site {
	ctx, cancel := context.WithCancel(context.Background())
	s := &site{
		t: t, ctx: ctx, dir: t.TempDir(), wire: newWire(), raft: memnet.New(), world: newWorld(ctx, hosts), book: &logbook{},
		names: []string{"c1", "c2", "c3"}, members: map[string]*member{}, agents: map[string]*process{}, conns: map[string]*grpc.ClientConn{},
	}
	s.world.watch.begin(s)
	t.Cleanup(func() {
		s.stop()
		cancel()
		if t.Failed() {
			t.Logf("the end of the log:\n%s", s.book.tail(250))
		}
	})
	var err error
	s.authority, err = trust.NewAuthority(time.Now())
	s.must(err)
	s.operator = s.identity(trust.Identity{Role: trust.RoleOperator, Name: "olga"})
	for _, name := range s.names {
		s.members[name] = &member{name: name, keeper: s.identity(trust.Identity{Role: trust.RoleCoordinator, Name: name})}
	}
	for _, name := range s.names {
		s.startMember(name)
	}
	s.must(s.members["c1"].c.Node().Bootstrap(ctx, raftnode.Member{Name: "c2", Address: "c2"}, raftnode.Member{Name: "c3", Address: "c3"}))
	s.until("the authority stored", time.Minute, func() bool {
		l := s.leader()
		return l != nil && len(l.c.State().Meta().GetAuthorityKey()) > 0
	})
	for _, name := range s.world.agents() {
		s.join(name)
	}
	s.apply(siteManifest)
	s.ready()
	return s
}

// stop ends everything; what hangs in simulated drivers is let go.
func (s *site) stop() {
	for _, c := range s.conns {
		_ = c.Close()
	}
	for _, p := range s.agents {
		s.crashAgent(p.name)
	}
	for _, name := range s.names {
		s.crash(name)
	}
	for _, p := range s.agents {
		<-p.gone
	}
	for _, m := range s.members {
		<-m.gone
	}
	s.world.watch.end()
	s.wire.end()
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// identity signs a certificate as the site's authority does.
func (s *site) identity(id trust.Identity) *trust.Keeper {
	key, err := trust.NewKey()
	s.must(err)
	csr, err := trust.NewRequest(key)
	s.must(err)
	order := trust.Order{Request: csr, Identity: id, Life: trust.DaemonLife, Now: time.Now()}
	if id.Role == trust.RoleCoordinator {
		order.Hosts = []string{"localhost"}
	}
	cert, err := s.authority.Sign(order)
	s.must(err)
	path := filepath.Join(s.dir, id.Name+".pem")
	s.must(trust.SaveIdentity(path, key, cert, s.authority.CertificatePEM()))
	k, err := trust.OpenKeeper(path, time.Now)
	s.must(err)
	return k
}

func target(coordinator string) string { return "passthrough:///" + coordinator + ":api" }

func (s *site) dial(from string) grpc.DialOption { return grpc.WithContextDialer(s.wire.dialer(from)) }

func (s *site) startMember(name string) {
	m := s.members[name]
	if m.gone != nil {
		<-m.gone
	}
	transport := s.raft.Transport(name)
	s.raft.Rejoin(name)
	addresses := map[string]string{}
	for _, n := range s.names {
		addresses[n] = target(n)
	}
	log := s.book.logger(name)
	c, err := coordinator.Start(s.ctx, coordinator.Options{
		Name: name, Dir: filepath.Join(s.dir, name), Transport: transport, Log: log, Now: m.now, Authority: s.authority, Addresses: addresses,
	})
	s.must(err)
	servers, err := c.Serve(coordinator.ServeOptions{
		Listeners: coordinator.Listeners{API: s.wire.listen(name, "api"), HTTP: s.wire.listen(name, "http")},
		Server:    m.keeper.Server(), Client: m.keeper.Client(), Dial: []grpc.DialOption{s.dial(name)},
	})
	s.must(err)
	m.c, m.servers, m.up, m.gone = c, servers, true, make(chan struct{})
}

// now is the time on the member's machine.
func (m *member) now() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) }

// crash kills a coordinator's process.
func (s *site) crash(name string) {
	m := s.members[name]
	if m == nil || !m.up {
		return
	}
	m.up = false
	s.raft.Isolate(name)
	s.wire.vanish(name, false)
	go func() {
		defer close(m.gone)
		m.servers.Stop()
		if err := m.c.Stop(); err != nil {
			s.t.Errorf("stop %s: %v", name, err)
		}
	}()
}

// restart starts a coordinator that was killed, from its own directory.
func (s *site) restart(name string) { s.startMember(name) }

// join lets an agent join with a one-time token, as on real hosts, and starts it.
func (s *site) join(name string) {
	var resp *pb.CreateTokenResponse
	s.call(func(ctx context.Context, c *grpc.ClientConn) (err error) {
		resp, err = pb.NewSiteServiceClient(c).CreateToken(ctx, &pb.CreateTokenRequest{Host: name})
		return err
	})
	path := filepath.Join(s.dir, name+".pem")
	s.must(join.Join(s.ctx, join.Options{
		Name: name, Token: resp.GetToken(), Coordinators: []string{target("c1"), target("c2")}, Path: path, Now: time.Now,
		Dial: []grpc.DialOption{s.dial(name)},
	}))
	keeper, err := trust.OpenKeeper(path, time.Now)
	s.must(err)
	s.agents[name] = &process{name: name, keeper: keeper, booted: time.Now()}
	s.startAgent(name)
}

// boot returns what names the present boot of an agent's machine.
func (s *site) boot(name string) string {
	if s.world.isHost(name) {
		return s.world.hosts[name].BootID()
	}
	return name + "-boot-1"
}

// startAgent starts an agent's process on its journal.
func (s *site) startAgent(name string) {
	p := s.agents[name]
	if p.gone != nil {
		<-p.gone
	}
	if id := s.boot(name); id != p.bootID {
		p.bootID, p.booted = id, time.Now()
	}
	ids := 0
	p.life = &life{host: name, world: s.world, dead: make(chan struct{})}
	targets := make([]string, len(s.names))
	for i, n := range s.names {
		targets[i] = target(n)
	}
	booted := p.booted
	a, err := agent.New(agent.Options{
		Name: name, Version: "test", Coordinators: targets,
		DialOptions: func(string) []grpc.DialOption {
			return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(p.keeper.Client())), s.dial(name)}
		},
		Drivers: p.life.wrap(s.world.drivers(name)), JournalPath: s.journalPath(name), BootID: p.bootID,
		Wall: time.Now, Boot: func() time.Duration { return time.Since(booted) },
		NewID: func() string {
			ids++
			return fmt.Sprintf("%s-journal-%d-%d", name, time.Now().UnixNano(), ids)
		},
		Log: s.book.logger(name),
	})
	s.must(err)
	ctx, cancel := context.WithCancel(s.ctx)
	p.cancel, p.up, p.gone = cancel, true, make(chan struct{})
	gone := p.gone
	go func() {
		defer close(gone)
		if err := a.Run(ctx); err != nil {
			s.t.Errorf("agent %s ended: %v", name, err)
		}
	}()
}

func (s *site) journalPath(name string) string { return filepath.Join(s.dir, name+".journal") }

// crashAgent kills an agent's process; its machine and what the drivers do go on.
func (s *site) crashAgent(name string) { s.endAgent(name, false) }

func (s *site) endAgent(name string, silently bool) {
	p := s.agents[name]
	if p == nil || !p.up {
		return
	}
	p.up = false
	p.life.kill()
	s.wire.vanish(name, silently)
	p.cancel()
}

// powerCut takes a host's power away and gives it back: all guests are gone; the agent is down until
// startAgent.
func (s *site) powerCut(name string) {
	s.endAgent(name, true)
	s.world.hosts[name].Crash()
}

// loseJournal removes the journal of an agent that is down.
func (s *site) loseJournal(name string) {
	<-s.agents[name].gone
	s.must(os.Remove(s.journalPath(name)))
}

// cutAgent cuts an agent off from all coordinators, both ways.
func (s *site) cutAgent(name string) {
	for _, c := range s.names {
		s.wire.block(name, c)
		s.wire.block(c, name)
	}
}

func (s *site) healAgent(name string) {
	for _, c := range s.names {
		s.wire.unblock(name, c)
		s.wire.unblock(c, name)
	}
}

// partition cuts a coordinator off from the other members; agents and users reach it still.
func (s *site) partition(name string) {
	s.raft.Isolate(name)
	for _, c := range s.names {
		if c != name {
			s.wire.block(name, c)
			s.wire.block(c, name)
		}
	}
}

func (s *site) heal(name string) {
	s.raft.Rejoin(name)
	for _, c := range s.names {
		s.wire.unblock(name, c)
		s.wire.unblock(c, name)
	}
}

// leader returns the member that leads and has applied everything, or nil.
func (s *site) leader() *member {
	var best *member
	for _, n := range s.names {
		m := s.members[n]
		if m.up && m.c.Leading() == nil && (best == nil || m.c.Node().Term() > best.c.Node().Term()) {
			best = m
		}
	}
	return best
}

// followers returns the running members that do not lead.
func (s *site) followers() []string {
	l := s.leader()
	return slices.DeleteFunc(slices.Clone(s.names), func(n string) bool { return !s.members[n].up || l != nil && l.name == n })
}

// poll is how often until looks.
const poll = 20 * time.Millisecond

// until waits under virtual time for a condition.
func (s *site) until(what string, limit time.Duration, cond func() bool) {
	s.t.Helper()
	if !s.within(limit, cond) {
		s.t.Fatalf("not within %v: %s", limit, what)
	}
}

func (s *site) within(limit time.Duration, cond func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(poll) {
		synctest.Wait()
		if cond() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// conn returns the operator's connection to one coordinator.
func (s *site) conn(coordinator string) *grpc.ClientConn {
	if s.conns[coordinator] == nil {
		c, err := grpc.NewClient(target(coordinator), grpc.WithTransportCredentials(credentials.NewTLS(s.operator.Client())), s.dial("ops"))
		s.must(err)
		s.conns[coordinator] = c
	}
	return s.conns[coordinator]
}

// clientTries bounds how often a user's client asks again; each try goes to the next coordinator.
const clientTries = 60

// try asks the coordinators in turn, as the CLI does, until one answers something that is not "later".
func (s *site) try(f func(context.Context, *grpc.ClientConn) error) error {
	var err error
	for i := range clientTries {
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		err = f(ctx, s.conn(s.names[i%len(s.names)]))
		cancel()
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
			time.Sleep(200 * time.Millisecond)
		default:
			return err
		}
	}
	return errors.Join(errors.New("no coordinator answered"), err)
}

func (s *site) call(f func(context.Context, *grpc.ClientConn) error) {
	s.t.Helper()
	if err := s.try(f); err != nil {
		s.t.Fatal(err)
	}
}

// request returns a fresh request id.
func (s *site) request() string {
	s.requests++
	return fmt.Sprintf("request-%d", s.requests)
}

func (s *site) apply(text string) {
	s.t.Helper()
	resources, err := manifest.Decode(manifest.File{Name: "site.yaml", Data: []byte(text)})
	s.must(err)
	req := &pb.ApplyRequest{RequestId: s.request(), Resources: resources, AcceptUnproven: true}
	s.call(func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewResourceServiceClient(c).Apply(ctx, req)
		return err
	})
}

// ready waits until the site is proven and all plans could run.
func (s *site) ready() {
	s.t.Helper()
	var last *pb.GetStatusResponse
	ok := s.within(3*time.Minute, func() bool {
		l := s.leader()
		if l == nil {
			return false
		}
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		st, err := pb.NewSiteServiceClient(s.conn(l.name)).GetStatus(ctx, &pb.GetStatusRequest{})
		if err != nil {
			return false
		}
		last = st
		ready := st.GetGuarantee() == "Proven(1)"
		for _, r := range st.GetPlans() {
			ready = ready && r.GetReady()
		}
		return ready
	})
	if !ok {
		s.t.Fatalf("the site is not ready: %v", last)
	}
}

// pass lets virtual time pass.
func pass(d time.Duration) { time.Sleep(d) }

// sleep lets the site go on by itself for a while.
func (s *site) sleep(d time.Duration) { pass(d) }
