package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/strictyaml"
)

// DefaultSocket is where a coordinator on this machine listens for root.
const DefaultSocket = "/run/hotspare/coordinator.sock"

// unixPrefix marks an endpoint that is a Unix socket.
const unixPrefix = "unix:"

// Target says whom to call and with which identity.
type Target struct {
	// Endpoints are "host:port" or "unix:/path".
	Endpoints []string
	// Files in PEM; needed for every endpoint that is not a Unix socket.
	CACert, Cert, Key string
}

// Flags are what the command line says; empty fields were not given.
type Flags struct {
	Endpoints         []string
	Socket            string
	Context           string
	CACert, Cert, Key string
}

// Contexts is the file of contexts.
type Contexts struct {
	Current  string    `yaml:"current_context"`
	Contexts []Context `yaml:"contexts"`
}

// Context is one site that a user knows.
type Context struct {
	Name      string   `yaml:"name"`
	Endpoints []string `yaml:"endpoints"`
	CACert    string   `yaml:"cacert"`
	Cert      string   `yaml:"cert"`
	Key       string   `yaml:"key"`
}

// ErrNoTarget means that nothing says whom to call.
var ErrNoTarget = errors.New("no coordinator is named: use --endpoint HOST:PORT, HOTSPARE_ENDPOINTS, or a context in the configuration file")

// Resolve works out the target: flags win over the environment, which wins over the context. Without
// any of them the socket of a coordinator on this machine is used when there is one.
func Resolve(f Flags, env func(string) string, configFile string) (Target, error) {
	contexts, err := LoadContexts(configFile)
	if err != nil {
		return Target{}, err
	}
	name := first(f.Context, env("HOTSPARE_CONTEXT"), contexts.Current)
	var c Context
	if name != "" {
		i := slices.IndexFunc(contexts.Contexts, func(c Context) bool { return c.Name == name })
		if i < 0 {
			return Target{}, fmt.Errorf("no context %q in %s", name, configFile)
		}
		c = contexts.Contexts[i]
	}
	t := Target{
		Endpoints: c.Endpoints,
		CACert:    first(f.CACert, env("HOTSPARE_CACERT"), c.CACert),
		Cert:      first(f.Cert, env("HOTSPARE_CERT"), c.Cert),
		Key:       first(f.Key, env("HOTSPARE_KEY"), c.Key),
	}
	if v := splitList(env("HOTSPARE_ENDPOINTS")); len(v) > 0 && f.Context == "" {
		t.Endpoints = v
	}
	if len(f.Endpoints) > 0 {
		t.Endpoints = f.Endpoints
	}
	if f.Socket != "" {
		t.Endpoints = []string{unixPrefix + strings.TrimPrefix(f.Socket, unixPrefix)}
	}
	if len(t.Endpoints) == 0 {
		if _, err := os.Stat(DefaultSocket); err != nil {
			return t, ErrNoTarget
		}
		t.Endpoints = []string{unixPrefix + DefaultSocket}
	}
	return t, t.check()
}

func (t Target) check() error {
	for _, e := range t.Endpoints {
		if strings.HasPrefix(e, unixPrefix) {
			continue
		}
		if !strings.Contains(e, ":") {
			return fmt.Errorf("endpoint %q is not host:port or unix:/path", e)
		}
		if t.CACert == "" || t.Cert == "" || t.Key == "" {
			return fmt.Errorf("endpoint %s needs --cacert, --cert and --key (or HOTSPARE_CACERT, HOTSPARE_CERT, HOTSPARE_KEY, or a context); an operator makes them with: hotspare client issue", e)
		}
	}
	return nil
}

// LoadContexts reads the file of contexts. No file is an empty one. Paths in it are relative to it.
func LoadContexts(file string) (Contexts, error) {
	var c Contexts
	if file == "" {
		return c, nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read contexts: %w", err)
	}
	var problems strictyaml.Problems
	docs := strictyaml.Parse(file, data, &problems)
	if len(docs) > 1 {
		problems.Add(docs[1].At, "the file has one document")
	}
	if len(docs) > 0 {
		places := strictyaml.Decode(docs[0], &c, &problems)
		checkContexts(c, places, &problems)
	}
	for i := range c.Contexts {
		for _, p := range []*string{&c.Contexts[i].CACert, &c.Contexts[i].Cert, &c.Contexts[i].Key} {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(filepath.Dir(file), *p)
			}
		}
	}
	return c, problems.Err()
}

func checkContexts(c Contexts, places strictyaml.Places, problems *strictyaml.Problems) {
	seen := map[string]bool{}
	for i, x := range c.Contexts {
		path := fmt.Sprintf("contexts[%d]", i)
		if x.Name == "" {
			problems.Add(places.Find(path), "%s has no name", path)
		}
		if seen[x.Name] {
			problems.Add(places.Find(path+".name"), "context %q is listed twice", x.Name)
		}
		seen[x.Name] = true
		if len(x.Endpoints) == 0 {
			problems.Add(places.Find(path), "context %q has no endpoints", x.Name)
		}
	}
	if c.Current != "" && !seen[c.Current] {
		problems.Add(places.Find("current_context"), "current_context %q is not among the contexts", c.Current)
	}
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if p := strings.TrimSpace(part); p != "" {
			out = append(out, p)
		}
	}
	return out
}
