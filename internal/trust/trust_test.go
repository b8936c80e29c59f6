package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
	"github.com/hotspare/hotspare/internal/trust/token"
)

// noon is when the tests take place.
func noon() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func authority(t testing.TB) *trust.Authority {
	t.Helper()
	a, err := trust.NewAuthority(noon())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a key and a signed certificate.
func issue(t testing.TB, a *trust.Authority, o trust.Order) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if o.Request, err = trust.NewRequest(key); err != nil {
		t.Fatal(err)
	}
	if o.Now.IsZero() {
		o.Now = noon()
	}
	if o.Life == 0 {
		o.Life = trust.DaemonLife
	}
	cert, err := a.Sign(o)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

// keeper makes a keeper for somebody, whose clock stands at now.
func keeper(t testing.TB, a *trust.Authority, role trust.Role, name string, now time.Time) *trust.Keeper {
	t.Helper()
	key, cert := issue(t, a, trust.Order{Identity: trust.Identity{Role: role, Name: name}})
	path := filepath.Join(t.TempDir(), "identity.pem")
	if err := trust.SaveIdentity(path, key, cert, a.CertificatePEM()); err != nil {
		t.Fatal(err)
	}
	k, err := trust.OpenKeeper(path, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// shake runs a handshake and says what each side makes of it; in TLS 1.3 the client learns of a refusal
// with its first read.
func shake(t testing.TB, server, client *tls.Config) (peer tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	// Not net.Pipe: without buffers an alert and the rest of a flight wait for each other.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		} else {
			_ = a.Close()
		}
		done <- err
	}()
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	} else {
		_ = b.Close()
	}
	serverErr = <-done
	_, _ = a.Close(), b.Close()
	return s.ConnectionState(), serverErr, clientErr
}

func TestHandshakes(t *testing.T) {
	site, other := authority(t), authority(t)
	now := noon()
	good := keeper(t, site, trust.RoleCoordinator, "c1", now)
	cases := map[string]struct {
		server, client *tls.Config
		ok             bool
		// say is in the error of the side that refuses.
		say string
	}{
		"raft: two coordinators":                 {good.RaftServer(), keeper(t, site, trust.RoleCoordinator, "c2", now).RaftClient(), true, ""},
		"raft: agent dials":                      {good.RaftServer(), keeper(t, site, trust.RoleAgent, "h1", now).RaftClient(), false, "peer is agent/h1"},
		"raft: operator dials":                   {good.RaftServer(), keeper(t, site, trust.RoleOperator, "alice", now).RaftClient(), false, "peer is operator/alice"},
		"raft: nobody dials":                     {good.RaftServer(), &tls.Config{InsecureSkipVerify: true}, false, "certificate"},
		"raft: agent answers":                    {keeper(t, site, trust.RoleAgent, "h1", now).RaftServer(), good.RaftClient(), false, "certificate"},
		"raft: other authority dials":            {good.RaftServer(), keeper(t, other, trust.RoleCoordinator, "c2", now).RaftClient(), false, "authority"},
		"raft: other authority answers":          {keeper(t, other, trust.RoleCoordinator, "c2", now).RaftServer(), good.RaftClient(), false, "authority"},
		"raft: certificate has ended":            {keeper(t, site, trust.RoleCoordinator, "c1", now.Add(91*24*time.Hour)).RaftServer(), keeper(t, site, trust.RoleCoordinator, "c2", now).RaftClient(), false, "expired"},
		"raft: certificate is not yet due":       {keeper(t, site, trust.RoleCoordinator, "c1", now.Add(-time.Hour)).RaftServer(), keeper(t, site, trust.RoleCoordinator, "c2", now).RaftClient(), false, "not yet valid"},
		"api: agent":                             {good.Server(), keeper(t, site, trust.RoleAgent, "h1", now).Client(), true, ""},
		"api: nobody, knows the name":            {good.Server(), enroll(t, site, now), true, ""},
		"api: other authority's agent":           {good.Server(), keeper(t, other, trust.RoleAgent, "h1", now).Client(), false, "authority"},
		"api: agent answers":                     {keeper(t, site, trust.RoleAgent, "h1", now).Server(), keeper(t, site, trust.RoleAgent, "h2", now).Client(), false, "certificate"},
		"api: coordinator ended, client's clock": {good.Server(), keeper(t, site, trust.RoleAgent, "h1", now.Add(91*24*time.Hour)).Client(), false, "expired"},
		"enrol: right authority":                 {good.Server(), enroll(t, site, now), true, ""},
		"enrol: another site's token":            {good.Server(), enroll(t, other, now), false, "token names"},
		"enrol: an agent pretends":               {keeper(t, site, trust.RoleAgent, "h1", now).Server(), enroll(t, site, now), false, "certificate"},
		"enrol: coordinator's has ended":         {good.Server(), enroll(t, site, now.Add(91*24*time.Hour)), false, "expired"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, serverErr, clientErr := shake(t, c.server, c.client)
			if ok := serverErr == nil && clientErr == nil; ok != c.ok {
				t.Fatalf("server %v, client %v", serverErr, clientErr)
			}
			if c.ok {
				return
			}
			if serverErr == nil || clientErr == nil {
				t.Errorf("one side went on: server %v, client %v", serverErr, clientErr)
			}
			if text := serverErr.Error() + clientErr.Error(); !strings.Contains(text, c.say) {
				t.Errorf("says %q, not %q", text, c.say)
			}
		})
	}
}

func enroll(t testing.TB, a *trust.Authority, now time.Time) *tls.Config {
	t.Helper()
	tok, err := token.New(rand.Reader, a.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	back, err := token.Parse(tok.Text())
	if err != nil {
		t.Fatal(err)
	}
	return trust.EnrollTLS(back, func() time.Time { return now })
}

// A man in the middle who knows the authority's public certificate can send it along, but not use it.
func TestEnrollRefusesBorrowedAuthority(t *testing.T) {
	site, evil := authority(t), authority(t)
	key, cert := issue(t, evil, trust.Order{Identity: trust.Identity{Role: trust.RoleCoordinator, Name: "c1"}})
	leaf, _ := pem.Decode(cert)
	ca, _ := pem.Decode(site.CertificatePEM())
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Bytes, ca.Bytes}, PrivateKey: key}}}
	if _, _, clientErr := shake(t, server, enroll(t, site, noon())); clientErr == nil {
		t.Fatal("accepted")
	}
	server.Certificates[0].Certificate = [][]byte{leaf.Bytes}
	if _, _, clientErr := shake(t, server, enroll(t, site, noon())); clientErr == nil {
		t.Fatal("accepted without the authority")
	}
}

func TestIdentityBehindConnection(t *testing.T) {
	a := authority(t)
	server := keeper(t, a, trust.RoleCoordinator, "c1", noon()).Server()
	state, _, _ := shake(t, server, keeper(t, a, trust.RoleMonitor, "alertmanager", noon()).Client())
	id, err := trust.IdentityOf(state)
	if err != nil || id != (trust.Identity{Role: trust.RoleMonitor, Name: "alertmanager"}) {
		t.Fatalf("%v, %v", id, err)
	}
	state, _, _ = shake(t, server, enroll(t, a, noon()))
	if id, err := trust.IdentityOf(state); err != nil || id != (trust.Identity{}) {
		t.Fatalf("nobody is %v, %v", id, err)
	}
	state, _, _ = shake(t, server, keeper(t, a, trust.RoleOperator, "olga", noon()).Client())
	state.VerifiedChains = nil
	if _, err := trust.IdentityOf(state); model.FaultOf(err) != model.FaultUnauthenticated {
		t.Fatalf("a certificate that nobody verified: %v", err)
	}
}

func TestSignedCertificates(t *testing.T) {
	a := authority(t)
	_, certPEM := issue(t, a, trust.Order{
		Identity: trust.Identity{Role: trust.RoleCoordinator, Name: "c1"}, Hosts: []string{"c1.example", "10.0.0.1", "::1"},
	})
	block, _ := pem.Decode(certPEM)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"c1.example", "10.0.0.1", "::1", trust.CoordinatorName} {
		if err := c.VerifyHostname(h); err != nil {
			t.Error(err)
		}
	}
	if err := c.VerifyHostname("c2.example"); err == nil {
		t.Error("a name that was not asked for")
	}
	if got := c.URIs[0].String(); got != "hotspare://site/coordinator/c1" {
		t.Error(got)
	}
	_, certPEM = issue(t, a, trust.Order{Identity: trust.Identity{Role: trust.RoleOperator, Name: "alice@example.org"}})
	block, _ = pem.Decode(certPEM)
	if c, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	if got := c.URIs[0].String(); got != "hotspare://site/user/operator/alice@example.org" {
		t.Error(got)
	}
	if c.IsCA || c.VerifyHostname(trust.CoordinatorName) == nil {
		t.Error("a user's certificate passes for more")
	}
}

func TestSignRefuses(t *testing.T) {
	a := authority(t)
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := trust.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	large, err := trust.NewRequest(p384)
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), request...)
	forged[len(forged)-1] ^= 1
	agent := trust.Identity{Role: trust.RoleAgent, Name: "h1"}
	hour := time.Hour
	cases := map[string]trust.Order{
		"no request":          {Identity: agent, Life: hour},
		"rubbish":             {Request: []byte("rubbish"), Identity: agent, Life: hour},
		"too long":            {Request: make([]byte, 17<<10), Identity: agent, Life: hour},
		"forged":              {Request: forged, Identity: agent, Life: hour},
		"another curve":       {Request: large, Identity: agent, Life: hour},
		"no role":             {Request: request, Identity: trust.Identity{Name: "h1"}, Life: hour},
		"unknown role":        {Request: request, Identity: trust.Identity{Role: "root", Name: "h1"}, Life: hour},
		"no name":             {Request: request, Identity: trust.Identity{Role: trust.RoleAgent}, Life: hour},
		"name with a path":    {Request: request, Identity: trust.Identity{Role: trust.RoleAgent, Name: "../coordinator/c1"}, Life: hour},
		"name of dots":        {Request: request, Identity: trust.Identity{Role: trust.RoleAgent, Name: ".."}, Life: hour},
		"no life":             {Request: request, Identity: agent},
		"too long a life":     {Request: request, Identity: agent, Life: trust.DaemonLife + 1},
		"host names of agent": {Request: request, Identity: agent, Life: hour, Hosts: []string{trust.CoordinatorName}},
	}
	for name, o := range cases {
		t.Run(name, func(t *testing.T) {
			o.Now = noon()
			if _, err := a.Sign(o); model.FaultOf(err) != model.FaultInvalid {
				t.Fatalf("got %v", err)
			}
		})
	}
	late := trust.Order{Request: request, Identity: agent, Life: hour, Now: noon().Add(21 * 365 * 24 * time.Hour)}
	if _, err := a.Sign(late); model.FaultOf(err) != model.FaultPrecondition {
		t.Fatalf("after the authority's end: %v", err)
	}
}

// Names that only a foreign or broken signer would write give no identity.
func TestStrangeNamesAreNobody(t *testing.T) {
	for _, names := range [][]string{
		{},
		{"spiffe://site/coordinator/c1"},
		{"hotspare://site/coordinator/c1", "hotspare://site/agent/h1"},
		{"hotspare://elsewhere/coordinator/c1"},
		{"hotspare://site/operator/alice/x"},
		{"hotspare://site/user/coordinator/c1"},
		{"hotspare://site/user/operator/a%2Fb"},
		{"hotspare://site/coordinator/c1?x=1"},
		{"hotspare://site/coordinator/c1#x"},
		{"hotspare://root@site/coordinator/c1"},
		{"hotspare://site//coordinator/c1"},
	} {
		cert := &x509.Certificate{}
		for _, n := range names {
			u, err := url.Parse(n)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
		if id, err := trust.IdentityOf(state); model.FaultOf(err) != model.FaultUnauthenticated {
			t.Errorf("%v is %v, %v", names, id, err)
		}
	}
}

func TestAuthorityRoundTrip(t *testing.T) {
	a := authority(t)
	cert, key, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := trust.ParseAuthority(cert, key)
	if err != nil || b.Fingerprint() != a.Fingerprint() {
		t.Fatal(err)
	}
	_, otherKey, err := authority(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.ParseAuthority(cert, otherKey); err == nil {
		t.Error("another authority's key was accepted")
	}
	if _, err := trust.ParseAuthority(key, cert); err == nil {
		t.Error("certificate and key swapped were accepted")
	}
}

// A certificate that Sign never makes, from the right authority and with the coordinators' DNS name: only
// the role in its URI gives it away.
func TestClientsCheckTheRoleToo(t *testing.T) {
	site := authority(t)
	certPEM, keyPEM, err := site.Encode()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	name, err := url.Parse("hotspare://site/agent/h1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		URIs: []*url.URL{name}, DNSNames: []string{trust.CoordinatorName}, NotBefore: noon(), NotAfter: noon().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, signer.Leaf, key.Public(), signer.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der, signer.Leaf.Raw}, PrivateKey: key}}}
	for who, client := range map[string]*tls.Config{
		"member":          keeper(t, site, trust.RoleCoordinator, "c1", noon()).RaftClient(),
		"agent":           keeper(t, site, trust.RoleAgent, "h2", noon()).Client(),
		"enrolling agent": enroll(t, site, noon()),
	} {
		if _, _, err := shake(t, server, client); err == nil || !strings.Contains(err.Error(), "peer is agent/h1") {
			t.Errorf("%s: %v", who, err)
		}
	}
}
