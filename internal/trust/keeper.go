package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// renewRetry is the first pause after a renewal failed; it doubles up to renewRetryMax. A third of
	// DaemonLife is left, so there is no hurry.
	renewRetry    = time.Minute
	renewRetryMax = time.Hour
)

// Keeper holds a daemon's key and certificate, and swaps them without a restart: connections made
// afterwards use the new ones. It is safe for concurrent use.
type Keeper struct {
	path    string
	now     func() time.Time
	current atomic.Pointer[holding]
}

// holding is one generation of what a keeper holds; it is not changed.
type holding struct {
	identity  Identity
	leaf      *x509.Certificate
	authority *x509.Certificate
	pool      *x509.CertPool
	pair      tls.Certificate
}

// Renew asks the authority for a certificate for a new key, given as a PKCS #10 request.
type Renew func(ctx context.Context, request []byte) (certPEM, authorityPEM []byte, err error)

// SaveIdentity writes key, certificate and authority to one file, so that they always belong together.
// What does not belong together is refused and nothing is written.
func SaveIdentity(path string, key *ecdsa.PrivateKey, certPEM, authorityPEM []byte) error {
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	content := slices.Concat(keyPEM, certPEM, authorityPEM)
	if _, err := parseHolding(content); err != nil {
		return fmt.Errorf("save identity in %s: %w", path, err)
	}
	return WriteFile(path, content)
}

// OpenKeeper reads what SaveIdentity wrote. A certificate that has ended is not an error here: a
// coordinator can still renew its own, and everybody else's peers refuse it.
func OpenKeeper(path string, now func() time.Time) (*Keeper, error) {
	k := &Keeper{path: path, now: now}
	return k, k.Reload()
}

// Reload reads the file again; on an error the keeper goes on with what it has.
func (k *Keeper) Reload() error {
	content, err := os.ReadFile(k.path)
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	h, err := parseHolding(content)
	if err != nil {
		return fmt.Errorf("read identity in %s: %w", k.path, err)
	}
	k.current.Store(h)
	return nil
}

func parseHolding(content []byte) (*holding, error) {
	key, err := parseKey(content)
	if err != nil {
		return nil, err
	}
	_, rest := pem.Decode(content)
	leaf, err := ParseCertificate(rest)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	_, rest = pem.Decode(rest)
	authority, err := ParseCertificate(rest)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the certificate is for another key")
	}
	if err := leaf.CheckSignatureFrom(authority); err != nil {
		return nil, fmt.Errorf("the certificate is not from the authority: %w", err)
	}
	id, err := certificateIdentity(leaf)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	return &holding{
		identity: id, leaf: leaf, authority: authority, pool: pool,
		// The authority goes along so that an enrolling agent can compare it with its token.
		pair: tls.Certificate{Certificate: [][]byte{leaf.Raw, authority.Raw}, PrivateKey: key, Leaf: leaf},
	}, nil
}

// Identity returns who the certificate says we are.
func (k *Keeper) Identity() Identity { return k.current.Load().identity }

// NotAfter returns when the certificate ends.
func (k *Keeper) NotAfter() time.Time { return k.current.Load().leaf.NotAfter }

// AuthorityPEM returns the authority's certificate.
func (k *Keeper) AuthorityPEM() []byte { return encodeCertificate(k.current.Load().authority.Raw) }

// RenewAt returns when the certificate is due: after two thirds of its life.
func (k *Keeper) RenewAt() time.Time {
	leaf := k.current.Load().leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3 * 2)
}

// RenewNow gets a certificate for a new key, writes it and swaps it in. A certificate for somebody else
// or from another authority is refused.
func (k *Keeper) RenewNow(ctx context.Context, renew Renew) error {
	if err := k.renew(ctx, renew); err != nil {
		return fmt.Errorf("renew certificate of %s: %w", k.Identity(), err)
	}
	return nil
}

func (k *Keeper) renew(ctx context.Context, renew Renew) error {
	key, err := NewKey()
	if err != nil {
		return err
	}
	request, err := NewRequest(key)
	if err != nil {
		return err
	}
	certPEM, authorityPEM, err := renew(ctx, request)
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	h, err := parseHolding(slices.Concat(keyPEM, certPEM, authorityPEM))
	if err != nil {
		return err
	}
	old := k.current.Load()
	if h.identity != old.identity || !h.authority.Equal(old.authority) {
		return fmt.Errorf("the new certificate is for %s or from another authority", h.identity)
	}
	if err := SaveIdentity(k.path, key, certPEM, authorityPEM); err != nil {
		return err
	}
	k.current.Store(h)
	return nil
}

// Run renews the certificate whenever it is due, until ctx ends.
func (k *Keeper) Run(ctx context.Context, log *slog.Logger, renew Renew) {
	pause := renewRetry
	wait := k.RenewAt().Sub(k.now())
	for {
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := k.RenewNow(ctx, renew); err != nil {
			log.Warn("certificate not renewed", "error", err, "ends_at", k.NotAfter())
			wait, pause = pause, min(2*pause, renewRetryMax)
			continue
		}
		log.Info("certificate renewed", "ends_at", k.NotAfter())
		pause = renewRetry
		// A life so short that it is due at once must not become a busy loop.
		wait = max(k.RenewAt().Sub(k.now()), renewRetry)
	}
}
