package guest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/e2e/guest"
)

// bootWait bounds one boot under emulation on a busy machine; 5 to 12 s were seen.
const bootWait = 90 * time.Second

func requireTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img", "apt-get", "dpkg", "xz", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("HOTSPARE_CI") == "1" {
				t.Fatalf("missing tool: %v", err)
			}
			t.Skipf("missing tool: %v", err)
		}
	}
}

func TestCommandLineAndXML(t *testing.T) {
	d := guest.Domain{
		Name: "a<b", Image: guest.Image{Kernel: "/k", Initrd: "/i"}, Disk: "/d.qcow2", Bridges: []string{"br0"},
		Params: guest.Params{
			Name: "erp", NICs: []guest.NIC{{MAC: "52:54:00:00:00:01", Address: "10.0.0.2/24", Gateway: "10.0.0.1"}},
			Port: 8080, RecordEvery: time.Second, Unhealthy: true, IgnoreShutdown: true,
		},
	}
	text, err := d.XML("/c")
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Name    string `xml:"name"`
		Cmdline string `xml:"os>cmdline"`
		Memory  int    `xml:"memory"`
	}
	if err := xml.Unmarshal([]byte(text), &back); err != nil {
		t.Fatal(err)
	}
	if back.Name != d.Name || back.Memory != guest.MemoryMiB {
		t.Errorf("domain %+v", back)
	}
	want := "hs.name=erp hs.nic=52:54:00:00:00:01,10.0.0.2/24,10.0.0.1 hs.port=8080 hs.records=1s hs.unhealthy=1 hs.ignore-shutdown=1"
	if !strings.HasSuffix(back.Cmdline, want) {
		t.Errorf("kernel arguments %q, want the end %q", back.Cmdline, want)
	}
	d.Bridges = nil
	if _, err := d.XML(""); err == nil {
		t.Error("a nic without a bridge was accepted")
	}
}

func TestDisk(t *testing.T) {
	requireTools(t)
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "d.qcow2")
	if err := guest.Disk(ctx, path, 8<<20, "production"); err != nil {
		t.Fatal(err)
	}
	marker, rep, err := guest.ReadDisk(ctx, path)
	if err != nil || marker != "production" || rep.Last != 0 || !rep.Unbroken {
		t.Errorf("marker %q, report %+v, error %v", marker, rep, err)
	}
	if err := guest.Disk(ctx, path, 8<<20, "again"); !errors.Is(err, os.ErrExist) {
		t.Errorf("second disk on the same path: %v", err)
	}
	if err := guest.Disk(ctx, path+"2", 1000, "small"); err == nil {
		t.Error("a disk without room for records was made")
	}
}

// TestGuest boots the guest under plain QEMU, without libvirt, and goes through everything it offers.
func TestGuest(t *testing.T) {
	requireTools(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	img, err := guest.Build(ctx, cache)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if again, err := guest.Build(ctx, cache); err != nil || again != img {
		t.Fatalf("second build %+v, %v; want %+v", again, err, img)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("build from the cache took %v", took)
	}
	image := filepath.Join(dir, "d.qcow2")
	if err := guest.Disk(ctx, image, 64<<20, "first"); err != nil {
		t.Fatal(err)
	}
	params := guest.Params{Name: "erp", RecordEvery: 100 * time.Millisecond}
	vm := startQEMU(ctx, t, img, image, params)
	var state answer
	vm.getJSON(ctx, t, "/", &state)
	t.Logf("first answer %v after start", time.Since(vm.started).Round(time.Millisecond))
	if state.Hostname != "erp" || len(state.BootID) != 36 || state.Disk.Marker != "first" {
		t.Errorf("state %+v", state)
	}
	var last struct{ Last uint64 }
	vm.do(ctx, t, http.MethodPost, "/records?count=20", http.StatusOK, &last)
	var rep struct {
		Last     uint64 `json:"last"`
		Unbroken bool   `json:"unbroken"`
	}
	vm.getJSON(ctx, t, "/records", &rep)
	if last.Last < 20 || rep.Last < last.Last || !rep.Unbroken {
		t.Errorf("wrote up to %d, report %+v", last.Last, rep)
	}
	vm.do(ctx, t, http.MethodPost, "/records?count=0", http.StatusBadRequest, nil)
	vm.do(ctx, t, http.MethodGet, "/health", http.StatusOK, nil)
	if line := vm.readyLine(t); !strings.Contains(line, "boot_id="+state.BootID) {
		t.Errorf("console says %q, http says boot id %s", line, state.BootID)
	}
	vm.powerButton(ctx, t)
	vm.awaitEnd(ctx, t)
	marker, onDisk, err := guest.ReadDisk(ctx, image)
	if err != nil || marker != "first" || onDisk.Last < rep.Last || !onDisk.Unbroken {
		t.Errorf("image after power off: marker %q, report %+v, error %v; the guest had said %d", marker, onDisk, err, rep.Last)
	}

	vm = startQEMU(ctx, t, img, image, params)
	var second answer
	vm.getJSON(ctx, t, "/", &second)
	vm.do(ctx, t, http.MethodPost, "/records", http.StatusOK, nil)
	vm.getJSON(ctx, t, "/records", &rep)
	if second.BootID == state.BootID || second.Disk.LastRecord < onDisk.Last || rep.Last <= onDisk.Last || !rep.Unbroken {
		t.Errorf("second boot does not go on where the first ended at %d: %+v, %+v", onDisk.Last, second, rep)
	}
}

// TestGuestMisbehaves boots a guest that has no disk, is unhealthy and ignores the power button.
func TestGuestMisbehaves(t *testing.T) {
	requireTools(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	img, err := guest.Build(ctx, cache)
	if err != nil {
		t.Fatal(err)
	}
	vm := startQEMU(ctx, t, img, "", guest.Params{Unhealthy: true, IgnoreShutdown: true, Port: 8080})
	vm.do(ctx, t, http.MethodGet, "/health", http.StatusServiceUnavailable, nil)
	vm.do(ctx, t, http.MethodGet, "/disk", http.StatusNotFound, nil)
	vm.do(ctx, t, http.MethodPost, "/records", http.StatusNotFound, nil)
	var state answer
	vm.getJSON(ctx, t, "/", &state)
	if state.Hostname != "guest" || state.Disk.Marker != "" {
		t.Errorf("state %+v", state)
	}
	before := state.Counter
	vm.powerButton(ctx, t)
	vm.awaitConsole(ctx, t, "hotspare-guest ignores the power button")
	for state.Counter <= before { // it goes up ten times a second; a dead guest fails in getJSON
		vm.getJSON(ctx, t, "/", &state)
	}
}

// answer is what GET / tells.
type answer struct {
	Hostname string `json:"hostname"`
	BootID   string `json:"boot_id"`
	Counter  uint64 `json:"counter"`
	Disk     struct {
		Marker     string `json:"marker"`
		LastRecord uint64 `json:"last_record"`
	} `json:"disk"`
}

// machine is one plain QEMU process.
type machine struct {
	url, qmp, console string
	started           time.Time
	ended             chan struct{}
}

// startQEMU starts a guest with the given disk, or none, and one nic of user-mode networking.
func startQEMU(ctx context.Context, t *testing.T, img guest.Image, image string, params guest.Params) *machine {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	dir := t.TempDir()
	vm := &machine{
		url: fmt.Sprintf("http://127.0.0.1:%d", port), qmp: filepath.Join(dir, "qmp"), console: filepath.Join(dir, "console"),
		started: time.Now(), ended: make(chan struct{}),
	}
	const mac = "52:54:00:aa:00:01"
	params.NICs = []guest.NIC{{MAC: mac, Address: "10.0.2.15/24", Gateway: "10.0.2.2"}}
	guestPort := 80
	if params.Port != 0 {
		guestPort = params.Port
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max",
		"-m", fmt.Sprint(guest.MemoryMiB), "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", img.Kernel, "-initrd", img.Initrd, "-append", params.CommandLine(),
		"-serial", "file:"+vm.console, "-qmp", "unix:"+vm.qmp+",server=on,wait=off",
		"-netdev", fmt.Sprintf("user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:%d-:%d", port, guestPort),
		"-device", "virtio-net-pci,netdev=n,romfile=,mac="+mac)
	if image != "" {
		cmd.Args = append(cmd.Args, "-drive", "if=virtio,format=qcow2,cache=none,file="+image)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(vm.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-vm.ended
		if text, err := os.ReadFile(vm.console); err == nil && t.Failed() {
			t.Logf("console:\n%s", text)
		}
	})
	return vm
}

func (vm *machine) getJSON(ctx context.Context, t *testing.T, path string, into any) {
	t.Helper()
	vm.do(ctx, t, http.MethodGet, path, http.StatusOK, into)
}

// do asks until the guest answers.
func (vm *machine) do(ctx context.Context, t *testing.T, method, path string, wantCode int, into any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, bootWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		code, body, err := request(ctx, method, vm.url+path)
		if err == nil {
			if code != wantCode {
				t.Errorf("%s %s: status %d, want %d: %s", method, path, code, wantCode, body)
			} else if into != nil {
				if err := json.Unmarshal(body, into); err != nil {
					t.Errorf("%s %s: %v in %q", method, path, err, body)
				}
			}
			return
		}
		select {
		case <-tick.C:
		case <-vm.ended:
			t.Fatalf("%s %s: qemu ended", method, path)
		case <-ctx.Done():
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

func request(ctx context.Context, method, url string) (int, []byte, error) {
	// User-mode networking accepts before the guest listens, so each try needs a short limit of its own.
	ctx, cancel := context.WithTimeout(ctx, 150*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// readyLine returns the line that the guest prints when it serves.
func (vm *machine) readyLine(t *testing.T) string {
	t.Helper()
	return vm.consoleLine(t, "hotspare-guest ready")
}

func (vm *machine) consoleLine(t *testing.T, prefix string) string {
	t.Helper()
	f, err := os.Open(vm.console)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), prefix) {
			return s.Text()
		}
	}
	return ""
}

func (vm *machine) awaitConsole(ctx context.Context, t *testing.T, prefix string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for vm.consoleLine(t, prefix) == "" {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("console never says %q", prefix)
		}
	}
}

func (vm *machine) awaitEnd(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-vm.ended:
	case <-ctx.Done():
		t.Fatal("guest did not power off")
	}
}

// powerButton presses the ACPI button, as virsh shutdown does.
func (vm *machine) powerButton(ctx context.Context, t *testing.T) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", vm.qmp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, `{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}`); err != nil {
		t.Fatal(err)
	}
	replies := json.NewDecoder(conn)
	for range 3 { // greeting and two answers
		var reply map[string]any
		if err := replies.Decode(&reply); err != nil || reply["error"] != nil {
			t.Fatalf("qmp: %v %v", reply, err)
		}
	}
}
