package token_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust/token"
)

func secret(b byte) *bytes.Reader { return bytes.NewReader(bytes.Repeat([]byte{b}, 32)) }

func TestRoundTrip(t *testing.T) {
	tok, err := token.New(secret(1), sha256.Sum256([]byte("authority")))
	if err != nil {
		t.Fatal(err)
	}
	text := tok.Text()
	back, err := token.Parse(" " + text + "\n")
	if err != nil || back != tok || !strings.HasPrefix(text, "hs1.") {
		t.Fatalf("%q: %v", text, err)
	}
	if !back.Names([]byte("authority")) || back.Names([]byte("another")) {
		t.Error("the token names the wrong authority")
	}
	if got := fmt.Sprintf("%v %+v %s", tok, tok, tok); strings.Contains(got, text[4:20]) {
		t.Errorf("printing shows the secret: %s", got)
	}
	other, err := token.New(secret(2), sha256.Sum256([]byte("authority")))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(tok.Hash(), other.Hash()) || !bytes.Equal(tok.Hash(), back.Hash()) || len(tok.Hash()) != 32 {
		t.Error("hashes")
	}
}

func TestNewNeedsRandomness(t *testing.T) {
	if _, err := token.New(bytes.NewReader([]byte("short")), [32]byte{}); err == nil {
		t.Fatal("a token from five random bytes")
	}
}

func TestParseRefuses(t *testing.T) {
	tok, err := token.New(secret(1), [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	good := tok.Text()
	for _, s := range []string{
		"", "hs1", "hs1..", good[:len(good)-1], good + "A", good + ".x", strings.Replace(good, "hs1", "hs2", 1),
		strings.Replace(good, ".", ".=", 1), strings.ToUpper(good),
	} {
		_, err := token.Parse(s)
		var fault *model.Error
		if !errors.As(err, &fault) || fault.Fault != model.FaultInvalid {
			t.Errorf("%q: %v", s, err)
		}
		if err != nil && len(s) > 20 && strings.Contains(err.Error(), s[4:20]) {
			t.Errorf("the message shows the secret: %v", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	tok, err := token.New(secret(7), [32]byte{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tok.Text())
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := token.Parse(s); err == nil && tok.Text() != strings.TrimSpace(s) {
			t.Fatalf("%q is read and written as %q", s, tok.Text())
		}
	})
}
