package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hotspare/hotspare/internal/config"
	"github.com/hotspare/hotspare/internal/coordinator"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/daemon"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// serve runs the coordinator until the context ends.
func serve(ctx context.Context, k *config.Coordinator) (err error) {
	log := daemon.Logger(os.Stderr, k.Log)
	keeper, err := trust.OpenKeeper(k.IdentityFile, time.Now)
	if err != nil {
		return fmt.Errorf("%w (make it with: hotspare-coordinator setup)", err)
	}
	if id := keeper.Identity(); id.Role != trust.RoleCoordinator || id.Name != k.Name {
		return fmt.Errorf("%s belongs to %s, this is coordinator %s: copy %s.pem here", k.IdentityFile, id, k.Name, k.Name)
	}
	authority, err := initialAuthority(k)
	if err != nil {
		return err
	}
	c, err := start(ctx, k, keeper, authority, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	listeners, err := listen(k)
	if err != nil {
		return err
	}
	servers, err := c.Serve(coordinator.ServeOptions{
		Listeners: listeners, Server: keeper.Server(), Client: keeper.Client(), Local: trust.NewLocal(0),
	})
	if err != nil {
		return err
	}
	defer servers.Stop()
	log.Info("coordinator started", "coordinator", k.Name, "version", version, "api", k.Listen, "http", k.HTTPListen)
	var parts sync.WaitGroup
	parts.Go(func() { keeper.Run(ctx, log, renew(c, k)) })
	parts.Go(func() { daemon.OnReload(ctx, log, keeper.Reload) })
	parts.Go(func() {
		daemon.Ready(ctx, log, func() error { _, err := c.Node().Stats(); return err })
	})
	<-ctx.Done()
	daemon.Stopping(log)
	parts.Wait()
	return nil
}

func start(ctx context.Context, k *config.Coordinator, keeper *trust.Keeper, authority *trust.Authority, log *slog.Logger) (*coordinator.Coordinator, error) {
	me := k.Members[slices.IndexFunc(k.Members, func(m config.Member) bool { return m.Name == k.Name })]
	transport, err := raftnode.NewTLSTransport(raftnode.TLSOptions{
		Listen: k.RaftListen, Advertise: me.Raft, Server: keeper.RaftServer(), Client: keeper.RaftClient(), Logger: log,
	})
	if err != nil {
		return nil, err
	}
	addresses := map[string]string{}
	var others []raftnode.Member
	for _, m := range k.Members {
		addresses[m.Name] = m.API
		if m.Name != k.Name {
			others = append(others, raftnode.Member{Name: m.Name, Address: m.Raft, Voter: true})
		}
	}
	c, err := coordinator.Start(ctx, coordinator.Options{
		Name: k.Name, Dir: k.DataDir, Transport: transport, Log: log, Now: time.Now, Authority: authority, Addresses: addresses,
	})
	if err != nil {
		return nil, err
	}
	if !k.Bootstrap {
		return c, nil
	}
	if err := c.Bootstrap(ctx, others...); err != nil && model.FaultOf(err) != model.FaultExists {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// initialAuthority reads the authority that setup left beside the identity; nil when there is none.
func initialAuthority(k *config.Coordinator) (*trust.Authority, error) {
	path := filepath.Join(filepath.Dir(k.IdentityFile), authorityFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // No authority here is the usual case.
	}
	if err != nil {
		return nil, err
	}
	i := bytes.LastIndex(data, []byte("-----BEGIN"))
	if i < 0 {
		return nil, fmt.Errorf("%s holds no PEM: copy it again from where setup wrote it", path)
	}
	a, err := trust.ParseAuthority(data[:i], data[i:])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func listen(k *config.Coordinator) (l coordinator.Listeners, err error) {
	if err := os.MkdirAll(filepath.Dir(k.Socket), 0o755); err != nil {
		return l, err
	}
	if err := os.Remove(k.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	for _, x := range []struct {
		to               *net.Listener
		network, address string
	}{{&l.API, "tcp", k.Listen}, {&l.HTTP, "tcp", k.HTTPListen}, {&l.Socket, "unix", k.Socket}} {
		if *x.to, err = net.Listen(x.network, x.address); err != nil {
			return l, err
		}
	}
	// The kernel tells who connects (SO_PEERCRED); the mode only keeps others from trying.
	return l, os.Chmod(k.Socket, 0o600)
}

// renew signs this coordinator's next certificate with the authority of the replicated state.
func renew(c *coordinator.Coordinator, k *config.Coordinator) trust.Renew {
	me := k.Members[slices.IndexFunc(k.Members, func(m config.Member) bool { return m.Name == k.Name })]
	return func(_ context.Context, csr []byte) (cert, ca []byte, err error) {
		m := c.State().Meta()
		a, err := trust.ParseAuthority(m.GetAuthorityCertificate(), m.GetAuthorityKey())
		if err != nil {
			return nil, nil, err
		}
		cert, err = a.Sign(order(me, csr, time.Now()))
		return cert, a.CertificatePEM(), err
	}
}
