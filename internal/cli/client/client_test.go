package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/trust"
)

// party is somebody with a certificate, in files.
type party struct{ ca, cert, key string }

func newParty(t *testing.T, authority *trust.Authority, id trust.Identity) party {
	t.Helper()
	key, csr, err := client.NewKey(id.Name)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Sign(trust.Order{Request: csr, Identity: id, Life: time.Hour, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := party{filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")}
	for name, data := range map[string][]byte{p.ca: authority.CertificatePEM(), p.cert: cert, p.key: key} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func newAuthority(t *testing.T) *trust.Authority {
	t.Helper()
	a, err := trust.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type statusServer struct {
	pb.UnimplementedSiteServiceServer
	hang bool
}

func (s statusServer) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	if s.hang {
		<-ctx.Done()
	}
	return &pb.GetStatusResponse{Index: 7}, nil
}

// serve starts a coordinator on the loopback interface and returns its address.
func serve(t *testing.T, p party, trusted *trust.Authority, s statusServer) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trusted.CertificatePEM())
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})))
	pb.RegisterSiteServiceServer(server, s)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // returns when Stop closes the listener
	}()
	t.Cleanup(func() { server.Stop(); <-done })
	return listener.Addr().String()
}

func status(t *testing.T, who party, o client.Options, endpoints ...string) error {
	t.Helper()
	c, err := client.New(client.Target{Endpoints: endpoints, CACert: who.ca, Cert: who.cert, Key: who.key}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer, err := pb.NewSiteServiceClient(c).GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err == nil && answer.GetIndex() != 7 {
		t.Errorf("got %v", answer)
	}
	return err
}

func TestIdentities(t *testing.T) {
	authority, other := newAuthority(t), newAuthority(t)
	coordinator := newParty(t, authority, trust.Identity{Role: trust.RoleCoordinator, Name: "c1"})
	ann := newParty(t, authority, trust.Identity{Role: trust.RoleOperator, Name: "ann"})
	good := serve(t, coordinator, authority, statusServer{})
	if err := status(t, ann, client.Options{}, good); err != nil {
		t.Errorf("the right coordinator was refused: %v", err)
	}

	for name, c := range map[string]struct {
		server, who party
		trusted     *trust.Authority
		want        string
	}{
		"an agent that plays coordinator": {
			newParty(t, authority, trust.Identity{Role: trust.RoleAgent, Name: "h1"}), ann, authority, "verify the coordinator's certificate",
		},
		"a coordinator of another site": {
			newParty(t, other, trust.Identity{Role: trust.RoleCoordinator, Name: "c1"}), ann, authority, "verify the coordinator's certificate",
		},
		"a user of another site": {
			coordinator, party{ann.ca, newParty(t, other, trust.Identity{Role: trust.RoleOperator, Name: "eve"}).cert, ""}, authority, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			who, want := c.who, c.want
			if who.key == "" { // a certificate and key of the other site, but the authority of this one
				stranger := newParty(t, other, trust.Identity{Role: trust.RoleOperator, Name: "eve"})
				who, want = party{ann.ca, stranger.cert, stranger.key}, "the coordinator refused the client certificate"
			}
			began := time.Now()
			err := status(t, who, client.Options{Timeout: 20 * time.Second}, serve(t, c.server, c.trusted, statusServer{}))
			var identity *client.IdentityError
			if !errors.As(err, &identity) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			if time.Since(began) > 10*time.Second {
				t.Error("went on trying")
			}
		})
	}
}

func TestTriesEveryEndpoint(t *testing.T) {
	authority := newAuthority(t)
	coordinator := newParty(t, authority, trust.Identity{Role: trust.RoleCoordinator, Name: "c1"})
	ann := newParty(t, authority, trust.Identity{Role: trust.RoleOperator, Name: "ann"})
	good := serve(t, coordinator, authority, statusServer{})
	if err := status(t, ann, client.Options{Timeout: 20 * time.Second}, "127.0.0.1:1", "127.0.0.1:2", good); err != nil {
		t.Error(err)
	}
	err := status(t, ann, client.Options{Timeout: 300 * time.Millisecond}, "127.0.0.1:1", "127.0.0.1:2")
	var silent *client.NoAnswerError
	if !errors.As(err, &silent) || !strings.Contains(err.Error(), "127.0.0.1:1, 127.0.0.1:2") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
	hanging := serve(t, coordinator, authority, statusServer{hang: true})
	err = status(t, ann, client.Options{Timeout: 300 * time.Millisecond}, hanging)
	if !errors.As(err, &silent) {
		t.Errorf("a coordinator that hangs: got %v", err)
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	text := `current_context: west
contexts:
- name: west
  endpoints: [c1:7443, c2:7443]
  cacert: ca.crt
  cert: ann.crt
  key: /keys/ann.key
- name: lab
  endpoints: [unix:/tmp/lab.sock]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags client.Flags
		env   map[string]string
		want  client.Target
		fault string
	}{
		"current context": {want: client.Target{Endpoints: []string{"c1:7443", "c2:7443"}, CACert: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "ann.crt"), Key: "/keys/ann.key"}},
		"named context":   {flags: client.Flags{Context: "lab"}, want: client.Target{Endpoints: []string{"unix:/tmp/lab.sock"}}},
		"environment":     {env: map[string]string{"HOTSPARE_CONTEXT": "lab", "HOTSPARE_ENDPOINTS": "unix:/a, unix:/b"}, want: client.Target{Endpoints: []string{"unix:/a", "unix:/b"}}},
		"flags win": {
			flags: client.Flags{Endpoints: []string{"unix:/f"}, Context: "lab"}, env: map[string]string{"HOTSPARE_ENDPOINTS": "unix:/a"},
			want: client.Target{Endpoints: []string{"unix:/f"}},
		},
		"a context by flag beats endpoints by environment": {
			flags: client.Flags{Context: "lab"}, env: map[string]string{"HOTSPARE_ENDPOINTS": "unix:/a"},
			want: client.Target{Endpoints: []string{"unix:/tmp/lab.sock"}},
		},
		"socket":          {flags: client.Flags{Socket: "/run/x.sock", Context: "lab"}, want: client.Target{Endpoints: []string{"unix:/run/x.sock"}}},
		"unknown context": {flags: client.Flags{Context: "east"}, fault: `no context "east"`},
		"no certificate":  {flags: client.Flags{Context: "lab", Endpoints: []string{"c1:7443"}}, fault: "needs --cacert, --cert and --key"},
		"no port":         {flags: client.Flags{Context: "lab", Endpoints: []string{"c1"}}, fault: "is not host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := client.Resolve(c.flags, func(k string) string { return c.env[k] }, file)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("got %v, want %q", err, c.fault)
				}
				return
			}
			if err != nil || strings.Join(got.Endpoints, " ") != strings.Join(c.want.Endpoints, " ") || got.CACert != c.want.CACert || got.Cert != c.want.Cert || got.Key != c.want.Key {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestContextsAreStrict(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := "current_context: north\ncontexts:\n- name: a\n  endpoint: [c1:7443]\n- name: a\n  endpoints: [unix:/a]\n- endpoints: [unix:/b]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := client.LoadContexts(file)
	for _, want := range []string{
		`:4:3: unknown field "endpoint", did you mean "endpoints"?`,
		`:3:3: context "a" has no endpoints`,
		`:5:9: context "a" is listed twice`,
		`:7:3: contexts[2] has no name`,
		`:1:18: current_context "north" is not among the contexts`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if c, err := client.LoadContexts(filepath.Join(t.TempDir(), "none")); err != nil || len(c.Contexts) != 0 {
		t.Errorf("no file: %v, %v", c, err)
	}
}
