package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// coordinatorURI begins the URI in the certificate of every coordinator. Agents and users have
// certificates of the same authority, so its signature alone proves nothing (pitfall P10).
const coordinatorURI = "hotspare://site/coordinator/"

// identity checks who answers, and remembers why it refused: gRPC would only say "unavailable".
type identity struct {
	mu sync.Mutex
	// refused is the last fault that we found in a coordinator's certificate; guarded by mu.
	refused error
}

func (i *identity) tlsConfig(t Target) (*tls.Config, error) {
	ca, err := os.ReadFile(t.CACert)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read the authority's certificate: %s holds no certificate in PEM", t.CACert)
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("read the client's certificate and key: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2"},
		// The name that was dialled proves nothing here: a coordinator is known by the URI in its
		// certificate, whatever address leads to it. VerifyConnection checks the chain and the URI.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			err := verifyCoordinator(s, roots)
			i.mu.Lock()
			defer i.mu.Unlock()
			i.refused = err
			return err
		},
	}, nil
}

func verifyCoordinator(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the coordinator showed no certificate")
	}
	leaf := s.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("verify the coordinator's certificate: %w", err)
	}
	for _, u := range leaf.URIs {
		if strings.HasPrefix(u.String(), coordinatorURI) {
			return nil
		}
	}
	return fmt.Errorf("the certificate shown is not a coordinator's: it has no URI %s…", coordinatorURI)
}

// verdict says whether the last failure is about identities, which no repeat can heal.
func (i *identity) verdict(last error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.refused != nil {
		return i.refused
	}
	// With TLS 1.3 a coordinator's refusal of our certificate arrives after the handshake, as an alert.
	if last != nil && strings.Contains(last.Error(), "remote error: tls:") {
		return fmt.Errorf("the coordinator refused the client certificate: %w", last)
	}
	return nil
}
