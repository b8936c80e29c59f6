package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/hotspare/hotspare/e2e/lab"
)

// Post sends a body to a webhook of one coordinator, from the client's machine and over TLS, and returns the HTTP status and
// the answer.
func (s *Site) Post(ctx context.Context, c *lab.Host, trigger, token, body string) (int, string, error) {
	authority, err := os.ReadFile(s.pki("ca.crt"))
	if err != nil {
		return 0, "", err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return 0, "", fmt.Errorf("%s holds no certificate", s.pki("ca.crt"))
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: s.Client.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
	}}
	url := "https://" + c.MgmtAddr + ":7444/v1/triggers/" + trigger + ":alertmanager"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("post to %s: %w", url, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}
