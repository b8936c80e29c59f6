package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/internal/config"
)

func noEnv(string) string { return "" }

// write puts a configuration into a new folder.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestShippedFiles(t *testing.T) {
	k, err := config.LoadCoordinator("../../deploy/etc/coordinator.yaml", noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if k.Name != "c1" || len(k.Members) != 3 || k.Members[2].API != "c3.dr.example:7443" || k.Bootstrap {
		t.Errorf("got %+v", k)
	}
	a, err := config.LoadAgent("../../deploy/etc/agent.yaml", noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != "h1" || len(a.Coordinators) != 3 || !a.Networks || a.Libvirt.StateDir != "/var/lib/hotspare/instances" {
		t.Errorf("got %+v", a)
	}
}

// TestCommentedSettings turns the commented parts of the shipped file on: they must be right, too.
func TestCommentedSettings(t *testing.T) {
	data, err := os.ReadFile("../../deploy/etc/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, s := range []string{"local_pools:", "pools:", "- {name: west", "zones:", "- {name: shop", "fence_targets:", "- {name: east", "source:"} {
		if !strings.Contains(text, "# "+s) {
			t.Errorf("no commented %q", s)
		}
		text = strings.Replace(text, "# "+s, s, 1)
	}
	path := write(t, text)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "dns.key"), []byte("c2VjcmV0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := config.LoadAgent(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Zone{Name: "shop.example.", Server: "ns1.example:53", KeyName: "hotspare.", KeyFile: filepath.Join(filepath.Dir(path), "dns.key"), Algorithm: "hmac-sha256"}
	if diff := cmp.Diff([]config.Zone{want}, a.Zones); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if a.Source.StateFile != "/var/lib/hotspare/agent/mirrors.json" || len(a.Pools) != 1 || len(a.FenceTargets[0].Domains) != 3 {
		t.Errorf("got %+v", a)
	}
	secret, err := config.ReadSecret(a.Zones[0].KeyFile)
	if err != nil || secret != "c2VjcmV0" {
		t.Errorf("secret is %q, %v", secret, err)
	}
}

func TestDefaults(t *testing.T) {
	k, err := config.LoadCoordinator(write(t, "name: c1\nmembers: [{name: c1, raft: 'a:1', api: 'a:2'}]\n"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Coordinator{
		Name: "c1", DataDir: "/var/lib/hotspare/coordinator", Listen: ":7443", HTTPListen: ":7444", RaftListen: ":7445",
		Socket: "/run/hotspare/coordinator.sock", Members: []config.Member{{Name: "c1", Raft: "a:1", API: "a:2"}},
		IdentityFile: "/var/lib/hotspare/coordinator/pki/identity.pem", Log: config.Log{Level: "info", Format: "text"},
	}
	if diff := cmp.Diff(want, k); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEnvironment(t *testing.T) {
	env := map[string]string{
		"HOTSPARE_NAME": "h2", "HOTSPARE_COORDINATORS": "c1:1,c2:2", "HOTSPARE_LOG_LEVEL": "debug", "HOTSPARE_NETWORKS": "true",
		"HOTSPARE_LIBVIRT_SOCKET": "/run/x.sock", "HOTSPARE_POOLS": "ignored", "HOTSPARE_DATA_DIR": "/data",
	}
	a, err := config.LoadAgent(write(t, "name: h1\ncoordinators: ['c9:9']\n"), func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != "h2" || len(a.Coordinators) != 2 || a.Log.Level != "debug" || !a.Networks || a.Libvirt.Socket != "/run/x.sock" ||
		len(a.Pools) != 0 || a.Journal != "/data/journal.db" || a.FenceDir() != "/data/fence" {
		t.Errorf("got %+v", a)
	}
	env["HOTSPARE_NETWORKS"], env["HOTSPARE_LOG_LEVEL"], env["HOTSPARE_COORDINATORS"] = "maybe", "loud", "c1"
	_, err = config.LoadAgent(write(t, "name: h1\n"), func(k string) string { return env[k] })
	for _, want := range []string{
		`environment: HOTSPARE_NETWORKS is "maybe", want true or false`,
		`environment: HOTSPARE_LOG_LEVEL: is "loud", want one of debug, info, warn, error`,
		`environment: HOTSPARE_COORDINATORS: "c1" is not host:port`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestFaultsOfTheCoordinator(t *testing.T) {
	path := write(t, `nmae: c1
listen: 7443
http_listen: ":70000"
members:
- {name: c1, raft: "0.0.0.0:7445", api: "c1:7443"}
- {name: c1, raft: "c2:7445", api: "c1:7443"}
bootstrap: maybe
log: {level: loud, format: text, colour: true}
`)
	_, err := config.LoadCoordinator(path, noEnv)
	checkFaults(t, err, path, []string{
		`:1:1: unknown field "nmae", did you mean "name"?`,
		`:1:1: name: "" is not a name: 1 to 63 of a-z, 0-9 and '-', not at the ends`,
		`:2:9: listen: "7443" is not an address to listen on, for example 10.0.0.1:7443 or :7443`,
		`:3:14: http_listen: ":70000" is not an address to listen on, for example 10.0.0.1:7443 or :7443`,
		`:5:1: members: "" itself is missing: list every coordinator with name, raft and api address`,
		`:5:20: members[0].raft: "0.0.0.0:7445" is no address that others can reach`,
		`:6:4: members[1]: name c1 is used twice`,
		`:6:4: members[1]: address c1:7443 is used twice`,
		`:7:12: is "maybe", want true or false`,
		`:8:14: log.level: is "loud", want one of debug, info, warn, error`,
		`:8:34: unknown field "colour", valid here: level, format`,
	})
}

func TestFaultsOfLocalPools(t *testing.T) {
	path := write(t, `name: h1
coordinators: ["c1:7443"]
libvirt:
  socket: /s
  local_pools:
    local: /x
    Big: /y
    ssd: ""
`)
	_, err := config.LoadAgent(path, noEnv)
	checkFaults(t, err, path, []string{
		`:6:12: libvirt.local_pools.local: "local" is no name of a local pool: want 1 to 32 of a-z, 0-9 and '-', and not "local", which is state_dir`,
		`:7:10: libvirt.local_pools.Big: "Big" is no name of a local pool: want 1 to 32 of a-z, 0-9 and '-', and not "local", which is state_dir`,
		`:8:10: libvirt.local_pools.ssd: names no directory`,
	})
}

func TestFaultsOfTheAgent(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open.key")
	if err := os.WriteFile(open, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "agent.yaml")
	text := `name: H1
libvirt: {domain_type: xen}
network_namespace: /run/netns/x
pools:
- {name: west, export_address: "10.0.0.1"}
- {name: west, dir: a, export_address: "10.0.0.1:1"}
source: {state_file: x}
zones:
- {name: shop.example, server: "ns:53", key_name: k, key_file: none.key}
- {name: b.example., server: "ns:53", key_file: open.key, algorithm: md5}
- {name: c.example., server: "ns:53", key_name: k}
fence_targets:
- {name: east}
- {name: east, socket: /s, tcp: "a:1"}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.LoadAgent(path, noEnv)
	checkFaults(t, err, path, []string{
		`:1:1: coordinators: list the API addresses of all coordinators`,
		`:1:7: name: "H1" is not a name: 1 to 63 of a-z, 0-9 and '-', not at the ends`,
		`:2:11: libvirt.socket: is missing`,
		`:3:20: network_namespace: has no effect without networks: true`,
		`:5:4: pools[0]: dir is missing`,
		`:5:32: pools[0].export_address: "10.0.0.1" is not host:port`,
		`:6:10: pools[1].name: "west" is used twice`,
		`:7:10: source.socket: is missing`,
		`:9:10: zones[0].name: "shop.example" is not a zone with its final dot, for example shop.example.`,
		`:9:64: zones[0].key_file: stat ` + dir + `/none.key: no such file or directory`,
		`:10:4: zones[1]: key_name is missing`,
		`:10:49: zones[1].key_file: everybody can read or change ` + open + ` (mode 0644): chmod 0640 or stricter`,
		`:10:70: zones[1].algorithm: is "md5", want one of hmac-sha256, hmac-sha384, hmac-sha512`,
		`:11:4: zones[2]: key_file is missing: the TSIG key stands in a file of its own`,
		`:13:4: fence_targets[0]: needs socket or tcp, and only one of them`,
		`:14:4: fence_targets[1]: needs socket or tcp, and only one of them`,
		`:14:10: fence_targets[1].name: "east" is used twice`,
	})
}

func checkFaults(t *testing.T, err error, path string, want []string) {
	t.Helper()
	if err == nil {
		t.Fatal("was accepted")
	}
	got := strings.Split(strings.ReplaceAll(err.Error(), path, ""), "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestFewSettings keeps each daemon's configuration small.
func TestFewSettings(t *testing.T) {
	for _, c := range []any{config.Coordinator{}, config.Agent{}} {
		if n := settings(reflect.TypeOf(c)); n > 30 {
			t.Errorf("%T has %d settings, at most 30: a new one needs a line in the design", c, n)
		}
	}
}

func settings(t reflect.Type) int {
	n := 0
	for field := range t.Fields() {
		f := field.Type
		if f.Kind() == reflect.Slice {
			f = f.Elem()
		}
		if f.Kind() == reflect.Struct {
			n += settings(f)
		} else {
			n++
		}
	}
	return n
}

func TestNotAFile(t *testing.T) {
	if _, err := config.LoadAgent(filepath.Join(t.TempDir(), "none"), noEnv); err == nil || !strings.Contains(err.Error(), "read configuration") {
		t.Errorf("got %v", err)
	}
	if _, err := config.ReadSecret(write(t, " \n")); err == nil {
		t.Error("an empty secret was accepted")
	}
}
