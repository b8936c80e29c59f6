package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/hotspare/hotspare/internal/trust/token"
)

// RaftServer returns the TLS side of the raft port: a peer without a coordinator's certificate does not
// get past the handshake.
func (k *Keeper) RaftServer() *tls.Config {
	return k.server(tls.RequireAndVerifyClientCert, func(id Identity) error { return mustBe(id, RoleCoordinator) })
}

// RaftClient returns the TLS side of a member that dials another.
func (k *Keeper) RaftClient() *tls.Config { return k.Client() }

// Server returns the TLS side of the API. A client certificate is optional, because an agent that enrols
// has none yet; one that is shown must be good. What the caller may do is decided for each call.
func (k *Keeper) Server() *tls.Config {
	return k.server(tls.VerifyClientCertIfGiven, func(Identity) error { return nil })
}

// Client returns the TLS side of an agent, a CLI or a member: the server must be a coordinator of the
// same authority. The address dialled does not matter.
func (k *Keeper) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       k.now,
		RootCAs:    k.current.Load().pool,
		ServerName: CoordinatorName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &k.current.Load().pair, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := IdentityOf(cs)
			if err != nil {
				return err
			}
			return mustBe(id, RoleCoordinator)
		},
	}
}

func (k *Keeper) server(auth tls.ClientAuthType, check func(Identity) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       k.now,
		ClientAuth: auth,
		ClientCAs:  k.current.Load().pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &k.current.Load().pair, nil
		},
		// Connections live long; a ticket would only be a second way in that skips the certificate.
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := IdentityOf(cs)
			if err != nil {
				return err
			}
			return check(id)
		},
	}
}

func mustBe(id Identity, role Role) error {
	if id.Role != role {
		return unauthenticated("peer is %s, only a %s may be here", id, role)
	}
	return nil
}

// IdentityOf returns who is at the other end of a connection: nobody without a certificate, an error for
// one that was not verified or has no name of this site.
func IdentityOf(cs tls.ConnectionState) (Identity, error) {
	switch {
	case len(cs.PeerCertificates) == 0:
		return Identity{}, nil
	case len(cs.VerifiedChains) == 0:
		return Identity{}, unauthenticated("the peer's certificate was not verified")
	default:
		return certificateIdentity(cs.PeerCertificates[0])
	}
}

// EnrollTLS returns the TLS side of an agent that has nothing but a join token: it accepts only a
// coordinator whose chain ends in the authority that the token names. Without that check whoever sits in
// the middle would get the token.
func EnrollTLS(t token.Token, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       now,
		ServerName: CoordinatorName,
		// There is no pool to verify with before the handshake; VerifyConnection does all of it.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			i := slices.IndexFunc(cs.PeerCertificates, func(c *x509.Certificate) bool { return t.Names(c.Raw) })
			if i < 1 || !cs.PeerCertificates[i].IsCA {
				return unauthenticated("the coordinator is not from the authority that the token names")
			}
			leaf, pool := cs.PeerCertificates[0], x509.NewCertPool()
			pool.AddCert(cs.PeerCertificates[i])
			if _, err := leaf.Verify(x509.VerifyOptions{
				Roots: pool, CurrentTime: now(), DNSName: CoordinatorName,
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			}); err != nil {
				return errors.Join(unauthenticated("the coordinator's certificate"), err)
			}
			id, err := certificateIdentity(leaf)
			if err != nil {
				return err
			}
			return mustBe(id, RoleCoordinator)
		},
	}
}
