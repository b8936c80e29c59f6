package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
	"github.com/hotspare/hotspare/internal/agent/join"
	"github.com/hotspare/hotspare/internal/trust"
)

// refuseStrangers knocks at the real ports with certificates and tokens that do not fit there.
func refuseStrangers(ctx context.Context, t *testing.T, s *site.Site) {
	c := s.Coordinators[0]
	raft, api := c.MgmtAddr+":7445", c.MgmtAddr+":7443"
	member := identityOf(t, filepath.Join(s.Coordinators[1].Dir, "services", "pki", "identity.pem"))
	agent := identityOf(t, filepath.Join(s.H1.Dir, "services", "agent", "pki", "identity.pem"))
	stranger := foreignCoordinator(t)
	for _, knock := range []struct {
		name, port string
		who        *trust.Keeper
		welcome    bool
	}{
		{"a member on the raft port", raft, member, true},
		{"an agent on the raft port", raft, agent, false},
		{"a coordinator of another authority on the raft port", raft, stranger, false},
		{"a coordinator of another authority on the API", api, stranger, false},
	} {
		err := shake(ctx, s.H1, knock.port, knock.who)
		if welcome := err == nil; welcome != knock.welcome {
			t.Errorf("%s: welcome %v, want %v: %v", knock.name, welcome, knock.welcome, err)
		}
	}
	if err := shakeBack(ctx, s.H1, api, stranger); err == nil {
		t.Error("a member of another site takes this site's coordinator for its own")
	}
	refuseTokens(ctx, t, s)
}

func identityOf(t *testing.T, path string) *trust.Keeper {
	t.Helper()
	k, err := trust.OpenKeeper(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// foreignCoordinator is a coordinator "c1" as another site has one.
func foreignCoordinator(t *testing.T) *trust.Keeper {
	t.Helper()
	authority, err := trust.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := trust.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Sign(trust.Order{
		Request: csr, Identity: trust.Identity{Role: trust.RoleCoordinator, Name: "c1"}, Life: trust.DaemonLife, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity.pem")
	if err := trust.SaveIdentity(path, key, cert, authority.CertificatePEM()); err != nil {
		t.Fatal(err)
	}
	return identityOf(t, path)
}

// shakeLimit bounds a handshake; quiet is how long a server that has said no more is taken to be content.
const (
	shakeLimit = 5 * time.Second
	quiet      = 300 * time.Millisecond
)

// shake opens a connection with somebody's certificate, whoever the server is, and returns why the server ended it.
func shake(ctx context.Context, from *lab.Host, address string, who *trust.Keeper) error {
	config := who.Client()
	config.InsecureSkipVerify, config.VerifyConnection = true, nil // It is the server's judgement that counts.
	return connect(ctx, from, address, config)
}

// shakeBack opens a connection and judges the server.
func shakeBack(ctx context.Context, from *lab.Host, address string, who *trust.Keeper) error {
	return connect(ctx, from, address, who.Client())
}

func connect(ctx context.Context, from *lab.Host, address string, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, shakeLimit)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	config.NextProtos = []string{"h2"}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	// With TLS 1.3 the server judges the client's certificate after the client is done.
	if err := secure.SetReadDeadline(time.Now().Add(quiet)); err != nil {
		return err
	}
	_, err = secure.Read(make([]byte, 1))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil
	}
	return err
}

// refuseTokens tries to join with tokens that are not, or not any more, good for that.
func refuseTokens(ctx context.Context, t *testing.T, s *site.Site) {
	token := func(args ...string) string {
		return run(ctx, t, s, append([]string{"agent", "token", "create", "--host", "h9"}, args...)...)
	}
	try := func(name, token string) error {
		return join.Join(ctx, join.Options{
			Name: name, Token: strings.TrimSpace(token), Coordinators: []string{s.Coordinators[0].MgmtAddr + ":7443"},
			Path: filepath.Join(t.TempDir(), "identity.pem"), Now: time.Now,
			Dial: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return s.Client.DialContext(ctx, "tcp", address)
			})},
		})
	}
	made := time.Now()
	short, good := token("--valid", "1s"), token()
	refused := func(what, name, token, why string) {
		if err := try(name, token); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want to hear %q", what, err, why)
		}
	}
	refused("another host's token", "h8", good, "for another host")
	if err := try("h9", good); err != nil {
		t.Errorf("the right host: %v", err)
	}
	refused("a token for the second time", "h9", good, "used before")
	eventually(ctx, t, shakeLimit, "the end of the short token", func(context.Context) error {
		if time.Since(made) < 1100*time.Millisecond {
			return errors.New("it is valid")
		}
		return nil
	})
	refused("a token after its time", "h9", short, "expired")
	run(ctx, t, s, "host", "remove", "h9", "--reason", "it was a test", "--yes")
}

// refuseLeases asks for more than there is.
func refuseLeases(ctx context.Context, t *testing.T, s *site.Site) {
	for vm, why := range map[string]string{
		"5x1cpu,128MiB": "its quota is 4", // VMs of the project
		"8cpu,128MiB":   "no host",        // each host has room for two
	} {
		_, err := s.Run(ctx, "lease", "create", "-p", "web", "--vm", vm, "--image", "tiny", "--term", "1h")
		failed, ok := errors.AsType[*exec.ExitError](err)
		if !ok || failed.ExitCode() != 7 || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want exit code 7 and %q", vm, err, why)
		}
	}
	if out := run(ctx, t, s, "lease", "list"); strings.Contains(out, "web-") {
		t.Errorf("a refused lease is there:\n%s", out)
	}
}

// loseGuarantee silences one recovery host after the other: the guarantee goes down and says so, nothing is lent any
// more, and it heals when the agents are back. All invariants hold meanwhile.
func loseGuarantee(ctx context.Context, t *testing.T, s *site.Site) {
	awaitGuarantee := func(want string) {
		eventually(ctx, t, phaseLimit, "the guarantee to be "+want, func(ctx context.Context) error {
			out, err := s.Run(ctx, "status")
			if err == nil && !strings.Contains(out, "guarantee  "+want) {
				err = fmt.Errorf("status says:\n%s", out)
			}
			return err
		})
		run(ctx, t, s, "invariants", "check")
	}
	awaitGuarantee("Proven(1)")
	hosts := []*lab.Host{s.H1, s.H2}
	for i, h := range hosts {
		if err := s.Process(h).Kill(ctx); err != nil {
			t.Fatal(err)
		}
		awaitGuarantee([]string{"Degraded(0)", "GuaranteeLost"}[i])
	}
	_, err := s.Run(ctx, "lease", "create", "-p", "web", "--vm", "1cpu,128MiB", "--image", "tiny", "--term", "1h")
	if err == nil || !strings.Contains(err.Error(), "lends nothing") {
		t.Errorf("a lease without a guarantee: %v", err)
	}
	for _, h := range hosts {
		if err := s.StartAgent(h); err != nil {
			t.Fatal(err)
		}
	}
	awaitGuarantee("Proven(1)")
}
