package trust_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotspare/hotspare/internal/trust"
)

// renewer signs renewals at the time now() for one identity.
func renewer(a *trust.Authority, id trust.Identity, now func() time.Time) trust.Renew {
	return func(_ context.Context, request []byte) ([]byte, []byte, error) {
		cert, err := a.Sign(trust.Order{Request: request, Identity: id, Life: trust.DaemonLife, Now: now()})
		return cert, a.CertificatePEM(), err
	}
}

func TestKeeperRenewsAtTwoThirds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := trust.Identity{Role: trust.RoleAgent, Name: "h1"}
		a, err := trust.NewAuthority(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		key, cert := issue(t, a, trust.Order{Identity: id, Now: time.Now()})
		path := filepath.Join(t.TempDir(), "identity.pem")
		if err := trust.SaveIdentity(path, key, cert, a.CertificatePEM()); err != nil {
			t.Fatal(err)
		}
		k, err := trust.OpenKeeper(path, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		first := k.NotAfter()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		var calls atomic.Int32
		good := renewer(a, id, time.Now)
		go func() {
			defer close(done)
			k.Run(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context, request []byte) ([]byte, []byte, error) {
				if calls.Add(1) <= 3 {
					return nil, nil, errors.New("no contact")
				}
				return good(ctx, request)
			})
		}()
		<-time.After(59 * 24 * time.Hour)
		if calls.Load() != 0 {
			t.Fatalf("%d renewals before two thirds", calls.Load())
		}
		<-time.After(2 * 24 * time.Hour)
		synctest.Wait()
		if calls.Load() != 4 || !k.NotAfter().After(first) {
			t.Fatalf("%d calls, ends %v, first %v", calls.Load(), k.NotAfter(), first)
		}
		cancel()
		<-done
		again, err := trust.OpenKeeper(path, time.Now)
		if err != nil || !again.NotAfter().Equal(k.NotAfter()) {
			t.Fatalf("on disk: %v, %v", again, err)
		}
	})
}

func TestKeeperSwapsWithoutRestart(t *testing.T) {
	a := authority(t)
	server := keeper(t, a, trust.RoleCoordinator, "c1", noon())
	client := keeper(t, a, trust.RoleAgent, "h1", noon())
	serverTLS, clientTLS := server.Server(), client.Client()
	before, _, _ := shake(t, serverTLS, clientTLS)
	if err := client.RenewNow(t.Context(), renewer(a, client.Identity(), noon)); err != nil {
		t.Fatal(err)
	}
	after, _, _ := shake(t, serverTLS, clientTLS)
	if before.PeerCertificates[0].Equal(after.PeerCertificates[0]) {
		t.Error("the old certificate is still shown")
	}
}

func TestKeeperRefuses(t *testing.T) {
	a, other := authority(t), authority(t)
	h1, h2 := trust.Identity{Role: trust.RoleAgent, Name: "h1"}, trust.Identity{Role: trust.RoleAgent, Name: "h2"}
	k := keeper(t, a, trust.RoleAgent, "h1", noon())
	end := k.NotAfter()
	for name, renew := range map[string]trust.Renew{
		"somebody else's certificate": renewer(a, h2, noon),
		"another authority":           renewer(other, h1, noon),
		"another key": func(context.Context, []byte) ([]byte, []byte, error) {
			_, cert := issue(t, a, trust.Order{Identity: h1})
			return cert, a.CertificatePEM(), nil
		},
		"no PEM":   func(context.Context, []byte) ([]byte, []byte, error) { return []byte("x"), nil, nil },
		"an error": func(context.Context, []byte) ([]byte, []byte, error) { return nil, nil, errors.New("busy") },
	} {
		if err := k.RenewNow(t.Context(), renew); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if k.Identity() != h1 || !k.NotAfter().Equal(end) || k.Reload() != nil {
		t.Error("a refused renewal changed something")
	}
	path := filepath.Join(t.TempDir(), "identity.pem")
	key, _ := issue(t, a, trust.Order{Identity: h1})
	_, cert := issue(t, a, trust.Order{Identity: h1})
	if err := trust.SaveIdentity(path, key, cert, a.CertificatePEM()); err == nil {
		t.Error("a key was saved with a certificate for another")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	for _, content := range []string{"one", "two"} {
		if err := trust.WriteFile(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("%q, %v", got, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if err := trust.WriteFile(filepath.Join(dir, "missing", "secret"), nil); err == nil {
		t.Error("written into a folder that is not there")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
