package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

// NewKey makes a P-256 key and a request for a certificate: the key in PEM, the request in
// DER, as the API takes it.
func NewKey(user string) (key, csr []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: user}}, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a request for a certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), request, nil
}

// WriteIdentity writes a user's key, certificate and the site's authority to a directory, which it makes, and
// returns the names of the files in this order. Only the user can read the key.
func WriteIdentity(dir, user string, key, certificate, authority []byte) (names []string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{{user + ".key", key, 0o600}, {user + ".crt", certificate, 0o644}, {"ca.crt", authority, 0o644}} {
		name := filepath.Join(dir, f.name)
		if err := os.WriteFile(name, f.data, f.mode); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		names = append(names, name)
	}
	return names, nil
}
