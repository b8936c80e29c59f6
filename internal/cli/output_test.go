package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOutputs(t *testing.T) {
	for name, args := range map[string][]string{
		"get-pools":      {"get", "pools"},
		"get-pools-yaml": {"get", "pools", "-o", "yaml"},
		"get-pools-name": {"get", "pools", "-o", "name"},
		"get-pool-json":  {"get", "pool", "west", "-o", "json"},
		"describe-pool":  {"describe", "pool", "west"},
		"status-json":    {"status", "-o", "json"},
		"status-yaml":    {"status", "-o", "yaml"},
		"apply":          {"apply", "-f", "../../examples", "--dry-run"},
		"evidence":       {"evidence", "list", "--after", "2"},
		"evidence-json":  {"evidence", "export", "--after", "4"},
		"version":        {"version", "-o", "name"},
		"lease-help":     {"lease", "create", "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, sampleSite())
			if code := c.run(t, args...); code != 0 {
				t.Fatalf("exit code %d: %s", code, &c.err)
			}
			golden(t, name, c.out.String())
		})
	}
}

func TestEvidenceIsPaged(t *testing.T) {
	s := sampleSite()
	c := serve(t, s)
	if code := c.run(t, "evidence", "export"); code != 0 || strings.Count(c.out.String(), "\n") != 5 || len(s.requests()) != 4 {
		t.Errorf("exit code %d, %d requests:\n%s", code, len(s.requests()), &c.out)
	}
}

func TestOutputFromEnvironment(t *testing.T) {
	c := serve(t, sampleSite())
	c.options.Env = func(k string) string { return map[string]string{"HOTSPARE_OUTPUT": "name"}[k] }
	if code := c.run(t, "host", "list"); code != 0 || c.out.String() != "h1\nh2\n" {
		t.Errorf("exit code %d, wrote %q", code, &c.out)
	}
}

func TestTokenGoesToTheOutputAlone(t *testing.T) {
	c := serve(t, sampleSite())
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if code := c.run(t, "agent", "token", "create", "--host", "h7", "--ca-out", ca); code != 0 || c.out.String() != "secret-token\n" {
		t.Errorf("exit code %d, wrote %q", code, &c.out)
	}
	if data, err := os.ReadFile(ca); err != nil || string(data) != "authority\n" {
		t.Errorf("authority is %q, %v", data, err)
	}
}
