package dns

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// exchangeLimit bounds one question and its answer when the caller's context allows more: a server
// that takes longer than this over TCP is down.
const exchangeLimit = 5 * time.Second

// tsigFudge is how far the clocks of client and server may differ, in seconds (RFC 8945, 5.2.3).
const tsigFudge = 300

// Zone says where a zone is changed and with which key.
type Zone struct {
	// Name of the zone, with or without the final dot.
	Name string
	// Server is the "host:port" of the zone's primary server. It is asked over TCP.
	Server string
	// KeyName and KeySecret (base64) are the TSIG key. Changes and questions are both signed.
	KeyName   string
	KeySecret string
	// Algorithm is hmac-sha256 (also when empty), hmac-sha384 or hmac-sha512.
	Algorithm string
}

// server is one zone's configuration, checked and in wire form.
type server struct {
	zone, address, key, secret, algorithm string
}

func newServer(z Zone) (*server, error) {
	s := &server{
		zone: dns.CanonicalName(z.Name), address: z.Server,
		key: dns.CanonicalName(z.KeyName), secret: z.KeySecret,
	}
	var faults []error
	if _, ok := dns.IsDomainName(s.zone); !ok || z.Name == "" {
		faults = append(faults, fmt.Errorf("zone name %q is not a domain name", z.Name))
	}
	if _, port, err := net.SplitHostPort(z.Server); err != nil {
		faults = append(faults, fmt.Errorf("server %q of zone %s: %w", z.Server, z.Name, err))
	} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		faults = append(faults, fmt.Errorf("server %q of zone %s: port is not from 1 to 65535", z.Server, z.Name))
	}
	if _, ok := dns.IsDomainName(s.key); !ok || z.KeyName == "" {
		faults = append(faults, fmt.Errorf("key name %q of zone %s is not a domain name", z.KeyName, z.Name))
	}
	// The secret itself never appears in a message.
	if raw, err := base64.StdEncoding.DecodeString(z.KeySecret); err != nil || len(raw) == 0 {
		faults = append(faults, fmt.Errorf("key secret of zone %s is not base64", z.Name))
	}
	switch z.Algorithm {
	case "", "hmac-sha256":
		s.algorithm = dns.HmacSHA256
	case "hmac-sha384":
		s.algorithm = dns.HmacSHA384
	case "hmac-sha512":
		s.algorithm = dns.HmacSHA512
	default:
		faults = append(faults, fmt.Errorf("key algorithm %q of zone %s is not hmac-sha256, -384 or -512",
			z.Algorithm, z.Name))
	}
	return s, errors.Join(faults...)
}

// exchange sends one signed message and returns the signed answer, whatever its code. Any error means
// that the outcome is unknown, except a refused key.
func (s *server) exchange(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, fmt.Errorf("ask dns server %s: %w", s.address, because(ctx, err))
	}
	conn := &dns.Conn{Conn: raw, TsigSecret: map[string]string{s.key: s.secret}}
	defer conn.Close()
	// Reads and writes know no context: its end is made a deadline that has passed. Only a closed
	// connection refuses a deadline, and on that one nothing waits.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	m.SetTsig(s.key, s.algorithm, tsigFudge, time.Now().Unix())
	if err := conn.WriteMsg(m); err != nil {
		return nil, fmt.Errorf("ask dns server %s: %w", s.address, because(ctx, err))
	}
	answer, err := conn.ReadMsg()
	if answer != nil && answer.Rcode == dns.RcodeNotAuth {
		return nil, s.refused(answer)
	}
	if err != nil {
		return nil, fmt.Errorf("answer of dns server %s: %w", s.address, because(ctx, err))
	}
	if answer.Id != m.Id {
		return nil, fmt.Errorf("answer of dns server %s: %w", s.address, dns.ErrId)
	}
	// The library verifies a signature that is there and accepts an answer without one.
	if answer.IsTsig() == nil {
		return nil, fmt.Errorf("answer of dns server %s: %s without the signature of key %s",
			s.address, rcode(answer), s.key)
	}
	return answer, nil
}

// refused explains NOTAUTH, which means a key, a clock or a zone that the server does not accept.
func (s *server) refused(answer *dns.Msg) error {
	why := "it is not authoritative for the zone"
	if sig := answer.IsTsig(); sig != nil {
		switch sig.Error {
		case dns.RcodeBadKey:
			why = "it does not know the key"
		case dns.RcodeBadSig:
			why = "the key's secret differs"
		case dns.RcodeBadTime:
			why = "its clock differs from ours by more than " + strconv.Itoa(tsigFudge) + " s"
		}
	}
	return fmt.Errorf("dns server %s refuses key %s for zone %s: %s (NOTAUTH): %w",
		s.address, s.key, s.zone, why, ErrRefused)
}

// because prefers the context's error: it is the reason of the deadline that the connection reports.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return err
}

func rcode(m *dns.Msg) string {
	if name, ok := dns.RcodeToString[m.Rcode]; ok {
		return name
	}
	return "code " + strconv.Itoa(m.Rcode)
}
