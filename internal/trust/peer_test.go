package trust_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// asker is a health server that remembers who asked.
type asker struct {
	grpc_health_v1.UnimplementedHealthServer
	who trust.Identity
	err error
}

func (a *asker) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	a.who, a.err = trust.PeerIdentity(ctx)
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

// ask makes one call over a listener and returns whom the server saw.
func ask(t *testing.T, network, address string, server, client credentials.TransportCredentials) (*asker, error) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{}
	s := grpc.NewServer(grpc.Creds(server))
	grpc_health_v1.RegisterHealthServer(s, a)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	defer func() {
		s.Stop()
		<-done
	}()
	target := ln.Addr().String()
	if network == "unix" {
		target = "unix:" + target
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(client))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	return a, err
}

func TestPeerOverTLS(t *testing.T) {
	site := authority(t)
	server := credentials.NewTLS(keeper(t, site, trust.RoleCoordinator, "c1", noon()).Server())
	for name, c := range map[string]struct {
		creds credentials.TransportCredentials
		want  trust.Identity
	}{
		"agent":  {credentials.NewTLS(keeper(t, site, trust.RoleAgent, "h1", noon()).Client()), trust.Identity{Role: trust.RoleAgent, Name: "h1"}},
		"nobody": {credentials.NewTLS(enroll(t, site, noon())), trust.Identity{}},
	} {
		a, err := ask(t, "tcp", "127.0.0.1:0", server, c.creds)
		if err != nil || a.err != nil || a.who != c.want {
			t.Errorf("%s: seen %v, %v, %v", name, a.who, a.err, err)
		}
	}
}

func TestPeerOverLocalSocket(t *testing.T) {
	uid := uint32(os.Getuid())
	a, err := ask(t, "unix", filepath.Join(t.TempDir(), "s"), trust.NewLocal(uid), insecure.NewCredentials())
	if err != nil || a.err != nil || a.who.Role != trust.RoleOperator || trust.Authorize(a.who, "/hotspare.v1.SiteService/CreateToken") != nil {
		t.Fatalf("seen %v, %v, %v", a.who, a.err, err)
	}
	if _, err := ask(t, "unix", filepath.Join(t.TempDir(), "s"), trust.NewLocal(uid+1), insecure.NewCredentials()); err == nil {
		t.Error("another user was let in")
	}
	if _, err := ask(t, "tcp", "127.0.0.1:0", trust.NewLocal(uid), insecure.NewCredentials()); err == nil {
		t.Error("a TCP connection was taken for a Unix socket")
	}
	if root := (trust.LocalInfo{}).Identity(); root.String() != "operator/root@local" || root.Validate() != nil {
		t.Errorf("root is %v", root)
	}
}

func TestPeerWithoutProof(t *testing.T) {
	a, err := ask(t, "tcp", "127.0.0.1:0", insecure.NewCredentials(), insecure.NewCredentials())
	if err != nil || model.FaultOf(a.err) != model.FaultUnauthenticated {
		t.Errorf("plain TCP: %v, %v, %v", a.who, a.err, err)
	}
	if _, err := trust.PeerIdentity(peer.NewContext(t.Context(), &peer.Peer{})); err == nil {
		t.Error("no proof at all")
	}
	if _, err := trust.PeerIdentity(t.Context()); err == nil {
		t.Error("no peer at all")
	}
}
