package config

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/strictyaml"
)

// maxSecretBytes bounds a file with one secret.
const maxSecretBytes = 4096

// Log says what is logged and how.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is text or json.
	Format string `yaml:"format"`
}

// LoadCoordinator reads the coordinator's configuration. env reads an environment variable.
func LoadCoordinator(path string, env func(string) string) (*Coordinator, error) {
	c := &Coordinator{}
	if err := load(path, env, c, c.complete); err != nil {
		return nil, err
	}
	return c, nil
}

// LoadAgent reads an agent's configuration. env reads an environment variable.
func LoadAgent(path string, env func(string) string) (*Agent, error) {
	a := &Agent{}
	if err := load(path, env, a, a.complete); err != nil {
		return nil, err
	}
	return a, nil
}

// load decodes a file into a struct, lays the environment over it, and has it completed and checked.
func load(path string, env func(string) string, into any, complete func(*checker)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	// Relative paths start at the file's folder: an absolute name for it makes that a fixed place.
	absolute, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	c := &checker{problems: &strictyaml.Problems{}, places: strictyaml.Places{"": {File: path}}, path: absolute}
	docs := strictyaml.Parse(path, data, c.problems)
	if len(docs) > 1 {
		c.problems.Add(docs[1].At, "a configuration has one document")
	}
	if len(docs) > 0 {
		c.places = strictyaml.Decode(docs[0], into, c.problems)
	}
	c.overlay(env, reflect.ValueOf(into).Elem(), "")
	complete(c)
	return c.problems.Err()
}

// checker collects the faults of one configuration.
type checker struct {
	problems *strictyaml.Problems
	places   strictyaml.Places
	path     string
	// fromEnv are the settings that the environment set: their faults are not in the file.
	fromEnv map[string]string
}

func (c *checker) add(setting, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if name := c.fromEnv[setting]; name != "" {
		c.problems.Add(strictyaml.Position{File: "environment"}, "%s: %s", name, text)
		return
	}
	c.problems.Add(c.places.Find(setting), "%s: %s", setting, text)
}

// overlay sets every setting that is one value, or a list of words, from its variable: data_dir from
// HOTSPARE_DATA_DIR, log.level from HOTSPARE_LOG_LEVEL. Lists are parted by commas.
func (c *checker) overlay(env func(string) string, v reflect.Value, prefix string) {
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("yaml")
		if tag == "" {
			continue
		}
		setting, field := prefix+tag, v.Field(i)
		if field.Kind() == reflect.Struct {
			c.overlay(env, field, setting+".")
			continue
		}
		name := "HOTSPARE_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
		text := env(name)
		if text == "" || field.Kind() == reflect.Map {
			continue
		}
		if field.Kind() == reflect.Slice {
			words, ok := reflect.TypeAssert[*[]string](field.Addr())
			if !ok {
				continue // a list of more than words stands in the file only
			}
			*words = strings.Split(text, ",")
		} else if err := strictyaml.SetScalar(field, text); err != nil {
			c.problems.Add(strictyaml.Position{File: "environment"}, "%s %v", name, err)
		}
		if c.fromEnv == nil {
			c.fromEnv = map[string]string{}
		}
		c.fromEnv[setting] = name
	}
}

// orDefault fills a setting that was not given.
func orDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func (c *checker) name(setting, s string) {
	if !model.ValidName(s) {
		c.add(setting, "%q is not a name: 1 to 63 of a-z, 0-9 and '-', not at the ends", s)
	}
}

// listen checks an address to listen on: the host may be left out for all, the port may be 0 for any.
func (c *checker) listen(setting, s string) {
	if _, port, err := net.SplitHostPort(s); err != nil || !validPort(port, 0) {
		c.add(setting, "%q is not an address to listen on, for example 10.0.0.1:7443 or :7443", s)
	}
}

// reach checks an address that others dial.
func (c *checker) reach(setting, s string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || !validPort(port, 1) {
		c.add(setting, "%q is not host:port", s)
		return
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		c.add(setting, "%q is no address that others can reach", s)
	}
}

func validPort(port string, least uint64) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n >= least
}

// dir makes a path absolute, relative to the configuration's folder.
func (c *checker) dir(p *string) {
	if *p != "" && !filepath.IsAbs(*p) {
		*p = filepath.Join(filepath.Dir(c.path), *p)
	}
}

func (c *checker) word(setting, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		c.add(setting, "is %q, want one of %s", s, strings.Join(allowed, ", "))
	}
}

func (c *checker) log(l *Log) {
	orDefault(&l.Level, "info")
	orDefault(&l.Format, "text")
	c.word("log.level", l.Level, "debug", "info", "warn", "error")
	c.word("log.format", l.Format, "text", "json")
}

// secret checks that a file with a secret is there and that not everybody can read it.
func (c *checker) secret(setting, path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		c.add(setting, "%v", err)
	case !info.Mode().IsRegular():
		c.add(setting, "%s is not a file", path)
	case info.Mode().Perm()&0o007 != 0:
		c.add(setting, "everybody can read or change %s (mode %04o): chmod 0640 or stricter", path, info.Mode().Perm())
	}
}

// ReadSecret returns the secret in a file, without the blanks around it.
func ReadSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if len(data) > maxSecretBytes {
		return "", fmt.Errorf("read secret: %s has more than %d bytes", path, maxSecretBytes)
	}
	s := strings.TrimSpace(string(data))
	if s == "" {
		return "", fmt.Errorf("read secret: %w", &fs.PathError{Op: "read", Path: path, Err: io.ErrUnexpectedEOF})
	}
	return s, nil
}
