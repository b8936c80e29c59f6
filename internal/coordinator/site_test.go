package coordinator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/coordinator"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// limit bounds every wait and every call of these tests.
const limit = 30 * time.Second

// member is one coordinator and where it is reached.
type member struct {
	*coordinator.Coordinator
	api, https, raft string
	keeper           *trust.Keeper
}

// site is three coordinators on loopback with real TLS.
type site struct {
	authority *trust.Authority
	pool      *x509.CertPool
	// leader is first; a test of the surface changes no leadership.
	members []*member
	people  map[trust.Role]*trust.Keeper
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{authority: must(trust.NewAuthority(time.Now()))(t), pool: x509.NewCertPool(), people: map[trust.Role]*trust.Keeper{}}
	s.pool.AppendCertsFromPEM(s.authority.CertificatePEM())
	names := []string{"c1", "c2", "c3"}
	addresses := map[string]string{}
	listeners := map[string]coordinator.Listeners{}
	transports := map[string]raftnode.Transport{}
	keepers := map[string]*trust.Keeper{}
	for _, n := range names {
		keepers[n] = identity(t, s.authority, trust.RoleCoordinator, n)
		l := coordinator.Listeners{API: must(net.Listen("tcp", "127.0.0.1:0"))(t), HTTP: must(net.Listen("tcp", "127.0.0.1:0"))(t)}
		listeners[n], addresses[n] = l, l.API.Addr().String()
		transports[n] = must(raftnode.NewTLSTransport(raftnode.TLSOptions{
			Listen: "127.0.0.1:0", Server: keepers[n].RaftServer(), Client: keepers[n].RaftClient(), Logger: slog.New(slog.DiscardHandler),
		}))(t)
	}
	var others []raftnode.Member
	for _, n := range names {
		raft := string(transports[n].LocalAddr())
		c := must(coordinator.Start(t.Context(), coordinator.Options{
			Name: n, Dir: filepath.Join(dir, n), Transport: transports[n], Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Authority: s.authority, Addresses: addresses,
		}))(t)
		servers := must(c.Serve(coordinator.ServeOptions{Listeners: listeners[n], Server: keepers[n].Server(), Client: keepers[n].Client()}))(t)
		t.Cleanup(func() { servers.Stop(); must(0, c.Stop())(t) })
		s.members = append(s.members, &member{c, addresses[n], listeners[n].HTTP.Addr().String(), raft, keepers[n]})
		if n != names[0] {
			others = append(others, raftnode.Member{Name: n, Address: raft, Voter: true})
		}
	}
	must(0, s.members[0].Bootstrap(t.Context(), others...))(t)
	await(t, "a leader that everybody knows", func() bool {
		for i, m := range s.members {
			if name, _ := m.Node().Leader(); name == "" || len(m.State().Meta().GetAuthorityKey()) == 0 {
				return false
			} else if m.Leading() == nil {
				s.members[0], s.members[i] = s.members[i], s.members[0]
			}
		}
		return s.leader().Leading() == nil
	})
	for _, r := range []trust.Role{trust.RoleDeveloper, trust.RoleOperator, trust.RoleMonitor, trust.RoleAgent} {
		s.people[r] = identity(t, s.authority, r, "some-"+string(r))
	}
	return s
}

func (s *site) leader() *member   { return s.members[0] }
func (s *site) follower() *member { return s.members[1] }

// decisions says how much was ever decided: a refused request leaves it as it was.
func (s *site) decisions() uint64 { return s.leader().State().Meta().GetEvidenceSequence() }

func identity(t *testing.T, a *trust.Authority, role trust.Role, name string) *trust.Keeper {
	t.Helper()
	key := must(trust.NewKey())(t)
	cert := must(a.Sign(trust.Order{
		Request: must(trust.NewRequest(key))(t), Identity: trust.Identity{Role: role, Name: name}, Life: time.Hour, Now: time.Now(),
	}))(t)
	path := filepath.Join(t.TempDir(), name+".pem")
	must(0, trust.SaveIdentity(path, key, cert, a.CertificatePEM()))(t)
	return must(trust.OpenKeeper(path, time.Now))(t)
}

// as is the TLS side of a client that trusts this site and shows a certificate of any authority, or none.
func (s *site) as(k *trust.Keeper) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: s.pool, ServerName: trust.CoordinatorName}
	if k != nil {
		c.GetClientCertificate = k.Client().GetClientCertificate
	}
	return c
}

// dial connects to a member's gRPC port.
func (s *site) dial(t *testing.T, m *member, k *trust.Keeper) *grpc.ClientConn {
	t.Helper()
	conn := must(grpc.NewClient(m.api, grpc.WithTransportCredentials(credentials.NewTLS(s.as(k)))))(t)
	t.Cleanup(func() { must(0, conn.Close())(t) })
	return conn
}

// browser is a client of the members' HTTPS ports.
func (s *site) browser(t *testing.T, k *trust.Keeper) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: s.as(k), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: limit}
}

// answer is what came back over HTTPS.
type answer struct {
	code   int
	header http.Header
	body   string
}

func ask(t *testing.T, c *http.Client, method, url string, body io.Reader, header ...string) answer {
	t.Helper()
	req := must(http.NewRequestWithContext(t.Context(), method, url, body))(t)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { must(0, resp.Body.Close())(t) }()
	return answer{resp.StatusCode, resp.Header, string(must(io.ReadAll(resp.Body))(t))}
}

// info returns what an error of gRPC tells a program.
func info(t *testing.T, err error) *errdetails.ErrorInfo {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok && i.GetDomain() == model.ErrorDomain {
			return i
		}
	}
	t.Fatalf("%v carries no reason", err)
	return nil
}

// refused checks code and reason of an error of gRPC, and the exit code that the command line makes of it.
func refused(t *testing.T, err error, code codes.Code, fault model.Fault) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want code %v", err, code)
	}
	if reason := info(t, err).GetReason(); reason != fault.Reason() {
		t.Errorf("%v carries reason %s, want %s", err, reason, fault.Reason())
	}
	denied := fault == model.FaultDenied || fault == model.FaultUnauthenticated
	if exit := outcome.Code(err); denied != (exit == 4) {
		t.Errorf("%v: the command line ends with %d", err, exit)
	}
}

func (s *site) apply(t *testing.T, rs ...*pb.Resource) {
	t.Helper()
	must(pb.NewResourceServiceClient(s.dial(t, s.leader(), s.people[trust.RoleOperator])).Apply(t.Context(), &pb.ApplyRequest{
		Resources: rs, AcceptUnproven: true,
	}))(t)
	await(t, "a follower to know it", func() bool { return s.follower().State().Index() >= s.leader().State().Index() })
}

// operations reads "get /v1/leases" and so on from the published description of the API.
func operations(t *testing.T) []string {
	t.Helper()
	var api struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	must(0, json.Unmarshal(openapi(t), &api))(t)
	var out []string
	for path, methods := range api.Paths { // Any order: each is tried.
		for m := range methods {
			out = append(out, m+" "+path)
		}
	}
	if len(out) == 0 {
		t.Fatal("no operation found")
	}
	return out
}

// concrete fills an operation's parameters in.
func concrete(operation, kind string) (method, path string) {
	method, path, _ = strings.Cut(operation, " ")
	path = strings.NewReplacer("{kind}", kind, "{name}", "x", "{host}", "x", "{trigger}", "x").Replace(path)
	return strings.ToUpper(method), path
}

// must ends the test on an error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v for %s", limit, what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
