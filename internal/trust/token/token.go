// Package token makes and reads join tokens, with which a new agent proves that an operator wants
// it, and the coordinator proves to the agent that it is the right one.
//
// A token is "hs1.<secret>.<fingerprint>": 32 random bytes and the SHA-256 of the authority's certificate,
// both base64url without padding. Coordinators keep only the hash of the secret; package state decides
// whether a hash is known, unspent, in time and for this agent. The package is pure: random bytes come in.
package token

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"github.com/hotspare/hotspare/internal/model"
)

const (
	prefix    = "hs1"
	secretLen = 32
	// hashLabel keeps the hash apart from any other use of the secret.
	hashLabel = "hotspare join token 1\x00"
)

// Token is a join token that was read.
type Token struct {
	secret      [secretLen]byte
	fingerprint [sha256.Size]byte
}

// New makes a token for the site of an authority, whose certificate has this SHA-256.
func New(random io.Reader, fingerprint [sha256.Size]byte) (Token, error) {
	t := Token{fingerprint: fingerprint}
	if _, err := io.ReadFull(random, t.secret[:]); err != nil {
		return Token{}, fmt.Errorf("make a join token: %w", err)
	}
	return t, nil
}

// Parse reads a token. The message of an error never holds any of it.
func Parse(s string) (Token, error) {
	fields := strings.Split(strings.TrimSpace(s), ".")
	var t Token
	if len(fields) != 3 || fields[0] != prefix || !decode(t.secret[:], fields[1]) || !decode(t.fingerprint[:], fields[2]) {
		return Token{}, model.Errorf(model.FaultInvalid, "token", "is not of the form %s.<secret>.<fingerprint>", prefix).
			WithRemedy("copy it whole, as `hotspare agent token create` printed it")
	}
	return t, nil
}

func decode(dst []byte, s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && copy(dst, b) == len(dst) && len(b) == len(dst)
}

// Text returns the token as it is given to an agent. It is a secret.
func (t Token) Text() string {
	e := base64.RawURLEncoding
	return strings.Join([]string{prefix, e.EncodeToString(t.secret[:]), e.EncodeToString(t.fingerprint[:])}, ".")
}

// String hides the secret from logs.
func (t Token) String() string { return prefix + ".***" }

// Hash returns what coordinators keep: 32 bytes that tell nothing about the secret.
func (t Token) Hash() []byte {
	h := sha256.Sum256(append([]byte(hashLabel), t.secret[:]...))
	return h[:]
}

// Names says whether the token names the authority with this certificate (DER).
func (t Token) Names(authority []byte) bool {
	h := sha256.Sum256(authority)
	return subtle.ConstantTimeCompare(h[:], t.fingerprint[:]) == 1
}
