package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/hotspare/hotspare/internal/model"
)

const (
	// authorityLife is how long a site's authority lasts: longer than the site's machines, because
	// changing it means enrolling every agent again.
	authorityLife = 20 * 365 * 24 * time.Hour
	// backdate lets a machine whose clock is behind accept a fresh certificate.
	backdate = 5 * time.Minute
	// DaemonLife is the life of certificates of coordinators and agents. They are renewed after two
	// thirds of it, so contact may be lost for a month without an agent having to enrol again.
	DaemonLife = 90 * 24 * time.Hour
	// MaxUserLife is the longest life of a user's certificate, which nobody renews by itself.
	MaxUserLife = 365 * 24 * time.Hour
	// maxRequestBytes bounds a signing request from the network.
	maxRequestBytes = 16 << 10
	// maxHosts bounds the host names in one certificate.
	maxHosts = 32
)

// CoordinatorName is a DNS name in every coordinator's certificate, and in no other. Clients ask for it
// instead of the address they dialled: a coordinator proves what it is, and may change its address.
const CoordinatorName = "coordinator.hotspare.internal"

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// Authority is the site's certificate authority.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority with a new P-256 key from the system's random source.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "hotspare site authority"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the site's authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the site's authority: %w", err)
	}
	return &Authority{cert: cert, key: key}, nil
}

// NewKey makes a P-256 key.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a P-256 key: %w", err)
	}
	return key, nil
}

// ParseAuthority reads what Encode wrote.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("read the site's authority: %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the site's authority: %w", err)
	}
	if !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("read the site's authority: certificate and key do not belong together")
	}
	return &Authority{cert: cert, key: key}, nil
}

// Encode returns certificate and key as PEM. The key is the site's greatest secret.
func (a *Authority) Encode() (certPEM, keyPEM []byte, err error) {
	keyPEM, err = encodeKey(a.key)
	return encodeCertificate(a.cert.Raw), keyPEM, err
}

// CertificatePEM returns the certificate, which is not secret.
func (a *Authority) CertificatePEM() []byte { return encodeCertificate(a.cert.Raw) }

// Fingerprint is the SHA-256 of the certificate; join tokens carry it.
func (a *Authority) Fingerprint() [sha256.Size]byte { return sha256.Sum256(a.cert.Raw) }

// NewRequest makes the signing request for a key. It names nobody: the signer decides whose it is.
func NewRequest(key *ecdsa.PrivateKey) (der []byte, err error) {
	der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a signing request: %w", err)
	}
	return der, nil
}

// Order says what certificate to sign.
type Order struct {
	// Request is the DER of a PKCS #10 request with a P-256 key. Nothing but the key is taken from it.
	Request  []byte
	Identity Identity
	// Hosts are DNS names and IP addresses that a coordinator answers to, for browsers and other clients
	// that compare them.
	Hosts []string
	// Life counts from Now; a certificate never outlives the authority.
	Life time.Duration
	Now  time.Time
}

// Sign returns the certificate as PEM. Faults of the order are model errors.
func (a *Authority) Sign(o Order) (certPEM []byte, err error) {
	pub, err := requestedKey(o.Request)
	if err != nil {
		return nil, err
	}
	template, err := a.template(o)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %s: %w", o.Identity, err)
	}
	return encodeCertificate(der), nil
}

// requestedKey checks the request's signature, which proves that the sender has the key.
func requestedKey(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) > maxRequestBytes {
		return nil, model.Errorf(model.FaultInvalid, "", "signing request of %d bytes exceeds %d", len(der), maxRequestBytes)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, &model.Error{Fault: model.FaultInvalid, What: "signing request", Err: err}
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, model.Errorf(model.FaultInvalid, "", "signing request has a %v key", csr.PublicKeyAlgorithm).
			WithRemedy("use a P-256 key")
	}
	return pub, nil
}

func (a *Authority) template(o Order) (*x509.Certificate, error) {
	if err := o.Identity.Validate(); err != nil {
		return nil, err
	}
	limit := DaemonLife
	if o.Identity.Role.IsUser() {
		limit = MaxUserLife
	}
	if o.Life <= 0 || o.Life > limit {
		return nil, model.Errorf(model.FaultInvalid, "", "a certificate for %s cannot last %v", o.Identity, o.Life).
			WithRemedy("at most %v", limit)
	}
	c := &x509.Certificate{
		Subject:     pkix.Name{CommonName: o.Identity.String()},
		URIs:        []*url.URL{o.Identity.uri()},
		NotBefore:   o.Now.Add(-backdate),
		NotAfter:    o.Now.Add(o.Life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if o.Now.After(a.cert.NotAfter) {
		return nil, model.Errorf(model.FaultPrecondition, "", "the site's authority ended on %s", a.cert.NotAfter.Format(time.DateOnly))
	}
	if c.NotAfter.After(a.cert.NotAfter) {
		c.NotAfter = a.cert.NotAfter
	}
	if o.Identity.Role != RoleCoordinator {
		if len(o.Hosts) > 0 {
			return nil, model.Errorf(model.FaultInvalid, "", "a certificate for %s has no host names", o.Identity)
		}
		return c, nil
	}
	if len(o.Hosts) > maxHosts {
		return nil, model.Errorf(model.FaultInvalid, "", "%d host names exceed %d", len(o.Hosts), maxHosts)
	}
	c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	c.DNSNames = []string{CoordinatorName}
	for _, h := range o.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	return c, nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// ParseCertificate reads the first certificate in PEM form.
func ParseCertificate(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemCertificate {
		return nil, errors.New("no certificate in PEM form")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemKey {
		return nil, errors.New("no private key in PEM form")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("the private key is not a P-256 key")
	}
	return ec, nil
}
