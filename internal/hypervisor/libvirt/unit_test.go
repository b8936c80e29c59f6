package libvirt

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

func TestDomainName(t *testing.T) {
	cases := []struct{ id, want string }{
		{"instance/web-3-0", "hs-web-3-0"},
		{"instance/webshop.db-e3", "hs-webshop.db-e3"},
		{"instance/../../etc", "hs-_[0-9a-f]{32}"},
		{"instance/Web", "hs-_[0-9a-f]{32}"},
		{"instance/a b", "hs-_[0-9a-f]{32}"},
		{"instance/-x", "hs-_[0-9a-f]{32}"},
		{"instance/", "hs-_[0-9a-f]{32}"},
		{"instance/" + strings.Repeat("a", 41), "hs-_[0-9a-f]{32}"},
	}
	seen := map[string]string{}
	for _, c := range cases {
		got := domainName(model.ObjectID(c.id))
		if !regexp.MustCompile("^" + c.want + "$").MatchString(got) {
			t.Errorf("%s is domain %s, want %s", c.id, got, c.want)
		}
		if other := seen[got]; other != "" {
			t.Errorf("%s and %s have the same domain name", c.id, other)
		}
		seen[got] = c.id
	}
}

func TestDomainUUID(t *testing.T) {
	a, b := domainUUID("instance/a"), domainUUID("instance/b")
	if a == b || a != domainUUID("instance/a") || !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(a) {
		t.Errorf("UUIDs %s and %s", a, b)
	}
}

func TestMark(t *testing.T) {
	want := mark{ID: "instance/a", Owner: `lease/<&"'>`, Digest: "ff"}
	// libvirt hands our element out without its namespace.
	text := strings.ReplaceAll(want.text(), "hotspare:", "")
	got, err := parseMark(text)
	want.XMLName = got.XMLName
	if err != nil || got != want {
		t.Errorf("mark came back as %+v, %v", got, err)
	}
	for _, bad := range []string{"", "<domain/>", "<domain", "<other><id>instance/a</id></other>"} {
		if m, err := parseMark(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, m)
		}
	}
}

func TestNBD(t *testing.T) {
	cases := []struct{ address, host, port, export string }{
		{"nbd://10.77.0.9:10901/webshop-db-root", "10.77.0.9", "10901", "webshop-db-root"},
		{"nbd://storage/a/b", "storage", "10809", "a/b"},
		{"nbd://[fd00::1]:10/x", "fd00::1", "10", "x"},
		{"http://10.77.0.9/x", "", "", ""},
		{"nbd:///x", "", "", ""},
		{"nbd://10.77.0.9:10901", "", "", ""},
		{"nbd://10.77.0.9:port/x", "", "", ""},
		{"nbd://u@10.77.0.9/x", "", "", ""},
		{"nbd://10.77.0.9/x?y=z", "", "", ""},
		{"nbd+unix:///x?socket=/y", "", "", ""},
	}
	for _, c := range cases {
		got, err := nbdXML(c.address)
		if c.host == "" {
			if err == nil {
				t.Errorf("%s was read as %+v", c.address, got)
			}
			continue
		}
		if err != nil || got.Name != c.export || got.Hosts[0].Name != c.host || got.Hosts[0].Port != c.port {
			t.Errorf("%s was read as %+v, %v", c.address, got, err)
		}
	}
}

func TestDomainXML(t *testing.T) {
	def := hypervisor.Definition{ID: "instance/db", Owner: "plan/webshop", Spec: &pb.InstanceSpec{
		Hostname: "db", Vcpus: 2, MemoryBytes: 256 << 20,
		Disks: []*pb.Disk{
			{Name: "root", Source: &pb.Disk_Nbd{Nbd: "nbd://10.77.0.9:10901/db"}},
			{Name: "scratch", Source: &pb.Disk_BlankBytes{BlankBytes: 1 << 20}},
		},
		Nics: []*pb.Nic{
			{Bridge: "br0", Mac: "52:54:00:00:00:01", Address: "10.0.0.2/24", Gateway: "10.0.0.1"},
			{Bridge: "br1", Network: "lent", Mac: "52:54:00:00:00:AB"},
		},
		Boot: &pb.Boot{Kernel: "/k", Initrd: "/i", Cmdline: "console=ttyS0 "},
	}}
	f := files{dir: t.TempDir()}
	for _, c := range []struct {
		domainType string
		want       []string
	}{
		{"qemu", []string{
			`<domain type="qemu">`, `<name>hs-db</name>`, `<cpu mode="maximum">`, `<tb-cache unit="MiB">64</tb-cache>`,
			`<cmdline>console=ttyS0 hs.name=db hs.nic=52:54:00:00:00:01,10.0.0.2/24,10.0.0.1</cmdline>`,
			`<source protocol="nbd" name="db">`, `<host transport="tcp" name="10.77.0.9" port="10901">`,
			`<source file="` + f.path("disk-scratch.qcow2") + `">`, `<source bridge="br1">`, `<target dev="` + model.PortName("lent", "52:54:00:00:00:ab") + `">`, `error_policy="stop"`,
			`<hotspare:id>instance/db</hotspare:id>`, `<rom enabled="no">`,
		}},
		{"kvm", []string{`<domain type="kvm">`, `<cpu mode="host-model">`}},
	} {
		text, err := domainXML(def, c.domainType, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %s is missing in\n%s", c.domainType, w, text)
			}
		}
		if strings.Contains(text, "autostart") {
			t.Error("a domain of ours is never on autostart")
		}
	}
	def.Spec.Nics[0].Bridge = ""
	if _, err := domainXML(def, "qemu", f); err == nil {
		t.Error("a card without a bridge was accepted")
	}
}

func TestIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	for text, want := range map[string]bool{
		"": false, "Libvirt": false, "LibvirtQemudPart and more": false, "LibvirtQemudSave": true, "LibvirtQemudSave and more": true,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := isWhole(path); err != nil || got != want {
			t.Errorf("%q is whole: %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestMetaData(t *testing.T) {
	got := hypervisor.CloudMetaData("web-3-0", &pb.InstanceSpec{Hostname: "web", SshKeys: []string{"ssh-ed25519 AAAA \"me\"\n", "ssh-rsa B"}})
	want := "instance-id: \"web-3-0\"\nlocal-hostname: \"web\"\npublic-keys:\n- \"ssh-ed25519 AAAA \\\"me\\\"\"\n- \"ssh-rsa B\"\n"
	if got != want {
		t.Errorf("metadata\n%s, want\n%s", got, want)
	}
}

func TestMakeDiskRefuses(t *testing.T) {
	f := files{dir: t.TempDir()}
	for name, disk := range map[string]*pb.Disk{
		"unsafe name":    {Name: "../x", Source: &pb.Disk_BlankBytes{BlankBytes: 1}},
		"no source":      {Name: "x"},
		"relative image": {Name: "x", Source: &pb.Disk_Image{Image: "x.qcow2"}},
		"no such image":  {Name: "x", Source: &pb.Disk_Image{Image: "/nonexistent/x.qcow2"}},
	} {
		if err := makeDisk(t.Context(), disk, f); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if left, err := os.ReadDir(f.dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Local pools are there, each on a file system of its own, or nothing begins; a VM's directories go with it.
func TestLocalPools(t *testing.T) {
	dir, ssd := t.TempDir(), t.TempDir()
	for what, c := range map[string]struct{ pool, says string }{
		"missing":         {filepath.Join(dir, "none"), "local pool ssd"},
		"the same device": {ssd, "its space would count twice"},
	} {
		_, err := New(Options{Socket: "/s", StateDir: dir, LocalPools: map[string]string{"ssd": c.pool}, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	shm, err := os.MkdirTemp("/dev/shm", "pools")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(shm) })
	if _, err := New(Options{Socket: "/s", StateDir: shm, LocalPools: map[string]string{"ssd": "/"}, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "not mounted") {
		t.Errorf("on the root file system: %v", err)
	}
	d := &Driver{state: dir, pools: map[string]string{"ssd": ssd}}
	f := d.files("instance/db")
	disk := &pb.Disk{Name: "local-ssd", LocalPool: "ssd", Source: &pb.Disk_BlankBytes{BlankBytes: 1}}
	path, err := f.disk(disk)
	if want := filepath.Join(ssd, "hs-db", "disk-local-ssd.qcow2"); err != nil || path != want {
		t.Errorf("%s, %v", path, err)
	}
	for _, made := range []string{f.path("x"), path} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(made), 0o700), os.WriteFile(made, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.removeAll(); err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{dir, ssd} {
		if left, err := os.ReadDir(in); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", in, left, err)
		}
	}
	if err := errors.Join(os.MkdirAll(f.dir, 0o700), f.mark("ssd"), f.mark("ssd")); err != nil {
		t.Fatal(err)
	}
	without := (&Driver{state: dir}).files("instance/db")
	if err := without.removeAll(); err == nil || !strings.Contains(err.Error(), "no local pool ssd") {
		t.Errorf("a VM goes while its disk cannot: %v", err)
	}
	if err := errors.Join(f.removeAll(), without.removeAll()); err != nil {
		t.Errorf("and once that can: %v", err)
	}
	disk.LocalPool = "nvme"
	if err := makeDisk(t.Context(), disk, f); err == nil || !strings.Contains(err.Error(), "no local pool nvme") {
		t.Errorf("a disk in a pool that is not there: %v", err)
	}
}

func TestSeedNamesThePackage(t *testing.T) {
	t.Setenv("PATH", "")
	def := hypervisor.Definition{ID: "instance/a", Spec: &pb.InstanceSpec{UserData: []byte("#cloud-config")}}
	if err := makeSeed(t.Context(), def, files{dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "genisoimage") {
		t.Errorf("without a tool: %v", err)
	}
	def.Spec.UserData = nil
	if err := makeSeed(t.Context(), def, files{dir: t.TempDir()}); err != nil {
		t.Errorf("without need of a seed: %v", err)
	}
}
