package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent"
	"github.com/hotspare/hotspare/internal/agent/join"
	"github.com/hotspare/hotspare/internal/cli"
	"github.com/hotspare/hotspare/internal/coordinator"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/manifest"
	"github.com/hotspare/hotspare/internal/trust"
)

// devCoordinator is the name of the only coordinator of `hotspare dev`.
const devCoordinator = "c1"

// devReadyTimeout bounds how long the site may take to be ready for its first request.
const devReadyTimeout = 30 * time.Second

//go:embed dev_site.yaml
var devSite []byte

// devSiteProcess is the whole site of `hotspare dev`: started in order, stopped in reverse.
type devSiteProcess struct {
	o     cli.DevOptions
	dir   string
	log   *slog.Logger
	world *devWorld
	undo  []func()
}

// dev runs a whole site in this process until the context ends.
func dev(ctx context.Context, o cli.DevOptions) (err error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "hotspare-dev-")
	if err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	p := &devSiteProcess{o: o, dir: dir, log: slog.New(slog.NewTextHandler(logFile, nil)), world: newDevWorld(o.Hosts)}
	p.onStop(func() { err = errors.Join(err, os.RemoveAll(dir)) })
	p.onStop(func() { err = errors.Join(err, logFile.Close()) })
	defer func() {
		for _, v := range slices.Backward(p.undo) {
			v()
		}
	}()
	if p.o.Socket == "" {
		p.o.Socket = filepath.Join(dir, "hotspare.sock")
	}
	if err := p.start(ctx); err != nil {
		return fmt.Errorf("start the site: %w", err)
	}
	fmt.Fprintf(o.Out, devReady, time.Since(began).Seconds(), p.o.Socket, p.dir, p.o.HTTP)
	<-ctx.Done()
	fmt.Fprintln(o.Out, "stopping; nothing is left behind")
	return nil
}

const devReady = `ready after %.2f s: one coordinator, hosts with simulated VMs, a storage host, and a protected site.
In another terminal:

  export HOTSPARE_ENDPOINTS=unix:%s
  hotspare status
  hotspare lease create -p web --vm 3x12cpu,40GiB --image debian-12 --term 8h --wait
  hotspare failover declare webshop --reason "trying it out" --yes --wait
  hotspare failback webshop --reason "only a try" --wait
  hotspare lease list

The log is %s/log. Webhook: https://%s/v1/triggers/east-down:alertmanager, token dev-token.
`

func (p *devSiteProcess) onStop(f func()) { p.undo = append(p.undo, f) }

// run starts a part that works until the site stops.
func (p *devSiteProcess) run(name string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("a part of the site ended", "part", name, "error", err)
		}
	}()
	p.onStop(func() { cancel(); <-done })
}

func (p *devSiteProcess) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, devReadyTimeout)
	defer cancel()
	api, err := p.startCoordinator(ctx)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix:"+p.o.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := p.joinAgents(ctx, conn, api); err != nil {
		return err
	}
	resources, err := manifest.Decode(manifest.File{Name: "dev_site.yaml", Data: devSite})
	if err != nil {
		return err
	}
	// The hosts have not reported yet, so nothing can be proven at this moment.
	req := &pb.ApplyRequest{RequestId: uuid.NewString(), Resources: resources, AcceptUnproven: true}
	if _, err := pb.NewResourceServiceClient(conn).Apply(ctx, req, grpc.WaitForReady(true)); err != nil {
		return err
	}
	return p.awaitReady(ctx, conn)
}

// startCoordinator bootstraps a site of one member and serves it; it returns the address of the API.
func (p *devSiteProcess) startCoordinator(ctx context.Context) (string, error) {
	authority, err := trust.NewAuthority(time.Now())
	if err != nil {
		return "", err
	}
	keeper, err := p.coordinatorIdentity(authority)
	if err != nil {
		return "", err
	}
	var l coordinator.Listeners
	for _, x := range []struct {
		to               *net.Listener
		network, address string
	}{{&l.API, "tcp", p.o.Listen}, {&l.HTTP, "tcp", p.o.HTTP}, {&l.Socket, "unix", p.o.Socket}} {
		if *x.to, err = net.Listen(x.network, x.address); err != nil {
			return "", fmt.Errorf("%w (another hotspare dev may be running; choose other addresses with --listen, --http-listen, --dev-socket)", err)
		}
	}
	transport, err := raftnode.NewTLSTransport(raftnode.TLSOptions{
		Listen: "127.0.0.1:0", Server: keeper.RaftServer(), Client: keeper.RaftClient(), Logger: p.log,
	})
	if err != nil {
		return "", err
	}
	c, err := coordinator.Start(ctx, coordinator.Options{
		Name: devCoordinator, Alone: true, Dir: filepath.Join(p.dir, "coordinator"), Transport: transport, Log: p.log, Now: time.Now, Authority: authority,
		Addresses: map[string]string{devCoordinator: l.API.Addr().String()},
	})
	if err != nil {
		return "", err
	}
	p.onStop(func() {
		if err := c.Stop(); err != nil {
			p.log.Error("the coordinator did not stop cleanly", "error", err)
		}
	})
	if err := c.Bootstrap(ctx); err != nil {
		return "", err
	}
	servers, err := c.Serve(coordinator.ServeOptions{
		Listeners: l, Server: keeper.Server(), Client: keeper.Client(), Local: trust.NewLocal(uint32(os.Getuid())),
	})
	if err != nil {
		return "", err
	}
	p.onStop(servers.Stop)
	p.o.HTTP = l.HTTP.Addr().String()
	return l.API.Addr().String(), nil
}

func (p *devSiteProcess) coordinatorIdentity(authority *trust.Authority) (*trust.Keeper, error) {
	key, err := trust.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := trust.NewRequest(key)
	if err != nil {
		return nil, err
	}
	cert, err := authority.Sign(trust.Order{
		Request: csr, Identity: trust.Identity{Role: trust.RoleCoordinator, Name: devCoordinator}, Hosts: []string{"127.0.0.1", "localhost"},
		Life: trust.DaemonLife, Now: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(p.dir, "coordinator.pem")
	if err := trust.SaveIdentity(path, key, cert, authority.CertificatePEM()); err != nil {
		return nil, err
	}
	return trust.OpenKeeper(path, time.Now)
}

// joinAgents lets every agent join with a one-time token, as on real hosts, and starts it.
func (p *devSiteProcess) joinAgents(ctx context.Context, conn *grpc.ClientConn, api string) error {
	site := pb.NewSiteServiceClient(conn)
	for _, name := range p.world.agentNames() {
		resp, err := site.CreateToken(ctx, &pb.CreateTokenRequest{RequestId: uuid.NewString(), Host: name}, grpc.WaitForReady(true))
		for attempt := 0; err != nil && ctx.Err() == nil && attempt < maxLeaderWaits; attempt++ {
			// The first leader is being elected.
			time.Sleep(leaderWait)
			resp, err = site.CreateToken(ctx, &pb.CreateTokenRequest{RequestId: uuid.NewString(), Host: name})
		}
		if err != nil {
			return err
		}
		identity := filepath.Join(p.dir, name+".pem")
		if err := join.Join(ctx, join.Options{
			Name: name, Token: resp.GetToken(), Coordinators: []string{api}, Path: identity, Now: time.Now,
		}); err != nil {
			return err
		}
		if err := p.startAgent(name, api, identity); err != nil {
			return err
		}
	}
	return nil
}

// leaderWait is the pause between tries while nobody leads; maxLeaderWaits bounds them.
const (
	leaderWait     = 20 * time.Millisecond
	maxLeaderWaits = 500
)

func (p *devSiteProcess) startAgent(name, api, identity string) error {
	keeper, err := trust.OpenKeeper(identity, time.Now)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{
		Name: name, Version: version, Coordinators: []string{api},
		DialOptions: func(string) []grpc.DialOption {
			return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(keeper.Client()))}
		},
		Drivers: p.world.drivers(name), JournalPath: filepath.Join(p.dir, name+".journal"), BootID: uuid.NewString(),
		Wall: time.Now, Boot: agent.HostBoot, NewID: uuid.NewString, Log: p.log.With("host", name),
	})
	if err != nil {
		return err
	}
	p.run("agent "+name, a.Run)
	return nil
}

// awaitReady waits until the site is proven and its plan ready.
func (p *devSiteProcess) awaitReady(ctx context.Context, conn *grpc.ClientConn) error {
	site := pb.NewSiteServiceClient(conn)
	for {
		st, err := site.GetStatus(ctx, &pb.GetStatusRequest{})
		if err != nil {
			return err
		}
		ready := st.GetGuarantee() == "Proven(1)"
		for _, r := range st.GetPlans() {
			ready = ready && r.GetReady()
		}
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the site is %s %s, plans %v: %w", st.GetGuarantee(), st.GetGuaranteeReason(), st.GetPlans(), ctx.Err())
		case <-time.After(leaderWait):
		}
	}
}
