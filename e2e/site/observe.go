package site

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hotspare/hotspare/e2e/guest"
	"github.com/hotspare/hotspare/e2e/guest/disk"
	"github.com/hotspare/hotspare/e2e/lab"
)

// Answer is what a guest tells of itself.
type Answer struct {
	Hostname string  `json:"hostname"`
	BootID   string  `json:"boot_id"`
	Uptime   float64 `json:"uptime_seconds"`
	Counter  uint64  `json:"counter"`
	Disk     struct {
		Marker     string `json:"marker"`
		LastRecord uint64 `json:"last_record"`
		Error      string `json:"error"`
	} `json:"disk"`
	// Metadata is what the guest heard from its host's metadata service.
	Metadata struct {
		Lease      string   `json:"lease"`
		UserData   string   `json:"user_data"`
		SSHKeys    []string `json:"ssh_keys"`
		Notices    int      `json:"notices"`
		Told       bool     `json:"told"`
		Preemption struct {
			Action   string `json:"action"`
			Failover string `json:"failover"`
			Reason   string `json:"reason"`
		} `json:"preemption"`
	} `json:"metadata"`
}

// askScript makes a request over HTTP with nothing but the shell.
const askScript = `exec 3<>"/dev/tcp/$1/80" && printf '%s HTTP/1.0\r\n\r\n' "$2" >&3 && cat <&3`

// AskLent asks a lent guest on a host by its address. Lent bridges are closed against the host, so the question is asked
// from the probe port of the lent network.
func (s *Site) AskLent(ctx context.Context, h *lab.Host, address string) (Answer, error) {
	body, err := s.RequestLent(ctx, h, address, "GET /")
	if err != nil {
		return Answer{}, err
	}
	return read(body)
}

// RequestLent makes a request of a lent guest, for example "POST /records", and returns the body of the answer.
func (s *Site) RequestLent(ctx context.Context, h *lab.Host, address, request string) (string, error) {
	names, err := h.Run(ctx, "ip", "netns", "list")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(names) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		addresses, err := h.Run(ctx, "ip", "-n", name, "-4", "addr", "show")
		if err != nil || !strings.Contains(addresses, " 10.20.0.") {
			continue
		}
		return ask(ctx, h, "ip", "netns", "exec", name, "timeout", "5", "bash", "-c", askScript, "ask", address, request)
	}
	return "", fmt.Errorf("ask %s on %s: no probe port on the lent network (namespaces: %q)", address, h.Name, names)
}

// AskProduction asks the production address from the client's machine.
func (s *Site) AskProduction(ctx context.Context, address string) (Answer, error) {
	body, err := ask(ctx, s.Client, "timeout", "5", "bash", "-c", askScript, "ask", address, "GET /")
	if err != nil {
		return Answer{}, err
	}
	return read(body)
}

// ask runs a program that prints an HTTP answer, and returns its body.
func ask(ctx context.Context, h *lab.Host, program string, args ...string) (string, error) {
	out, err := h.Run(ctx, program, args...)
	if err != nil {
		return "", err
	}
	_, body, found := strings.Cut(out, "\r\n\r\n")
	if !found {
		return "", fmt.Errorf("%s answered %q", h.Name, out)
	}
	return body, nil
}

func read(body string) (Answer, error) {
	var a Answer
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		return Answer{}, fmt.Errorf("read the guest's answer %q: %w", body, err)
	}
	return a, nil
}

// Lease is a lease as `hotspare lease describe -o json` shows it.
type Lease struct {
	Name      string     `json:"name"`
	Phase     string     `json:"phase"`
	EndsAt    time.Time  `json:"endsAt"`
	Instances []Instance `json:"instances"`
}

// Instance is one VM of a lease.
type Instance struct {
	Object  string `json:"object"`
	Host    string `json:"host"`
	Address string `json:"address"`
	MAC     string `json:"mac"`
}

// Lease reads a lease.
func (s *Site) Lease(ctx context.Context, name string) (Lease, error) {
	out, err := s.Run(ctx, "lease", "describe", name, "-o", "json")
	if err != nil {
		return Lease{}, err
	}
	var l Lease
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		return Lease{}, fmt.Errorf("read lease %s: %w", name, err)
	}
	return l, nil
}

// Answers asks every instance of some leases until it answers; by object.
func (s *Site) Answers(ctx context.Context, leases ...Lease) (map[string]Answer, error) {
	answers := map[string]Answer{}
	var instances []Instance
	for _, l := range leases {
		instances = append(instances, l.Instances...)
	}
	for _, i := range instances {
		h, err := s.Host(i.Host)
		if err != nil {
			return nil, err
		}
		address, _, _ := strings.Cut(i.Address, "/")
		if answers[i.Object], err = s.AwaitLent(ctx, h, address); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// Host returns the hypervisor host with this name.
func (s *Site) Host(name string) (*lab.Host, error) {
	for _, h := range []*lab.Host{s.H1, s.H2, s.East} {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("no hypervisor host %q", name)
}

// Name asks the name server for the address of www.
func (s *Site) Name(ctx context.Context) (string, error) {
	out, err := s.Client.Run(ctx, "kdig", "+short", "@"+s.DNS.MgmtAddr, "www."+zoneName, "A")
	return strings.TrimSpace(out), err
}

// QEMUStarts counts the starts of QEMU that libvirt has logged on the recovery hosts, for each domain.
func (s *Site) QEMUStarts() (map[string]int, error) {
	starts := map[string]int{}
	for _, h := range []*lab.Host{s.H1, s.H2} {
		if err := countStarts(h, starts); err != nil {
			return nil, err
		}
	}
	return starts, nil
}

// QEMUStartsOn is QEMUStarts for one host.
func QEMUStartsOn(h *lab.Host) (map[string]int, error) {
	starts := map[string]int{}
	return starts, countStarts(h, starts)
}

func countStarts(h *lab.Host, starts map[string]int) error {
	logs, err := filepath.Glob(filepath.Join(h.Dir, "log", "qemu", "*.log"))
	if err != nil {
		return err
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// libvirt begins each start with a line "<time>: starting up libvirt version: ...".
		starts[strings.TrimSuffix(filepath.Base(path), ".log")] += bytes.Count(text, []byte(": starting up libvirt version"))
	}
	return nil
}

// guestLimit bounds the boot of a guest; 9 to 15 s are usual under emulation.
const guestLimit = 2 * time.Minute

// AwaitLent is AskLent until the guest answers.
func (s *Site) AwaitLent(ctx context.Context, h *lab.Host, address string) (Answer, error) {
	return awaitAnswer(ctx, address, func(ctx context.Context) (Answer, error) { return s.AskLent(ctx, h, address) })
}

// AwaitProduction is AskProduction until the guest answers.
func (s *Site) AwaitProduction(ctx context.Context, address string) (Answer, error) {
	return awaitAnswer(ctx, address, func(ctx context.Context) (Answer, error) { return s.AskProduction(ctx, address) })
}

func awaitAnswer(ctx context.Context, address string, question func(context.Context) (Answer, error)) (a Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, guestLimit)
	defer cancel()
	err = await(ctx, "an answer from "+address, func(ctx context.Context) error {
		var err error
		a, err = question(ctx)
		return err
	})
	return a, err
}

// Exports lists what the storage daemon of a host exports over NBD; no server means nothing.
func (s *Site) Exports(ctx context.Context, h *lab.Host) []string {
	out, err := h.Run(ctx, "qemu-nbd", "--list", "--bind", h.MgmtAddr, "--port", "10809")
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.Lines(out) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "export: "); found {
			names = append(names, strings.Trim(name, "'"))
		}
	}
	return names
}

// Layers counts the layers of a volume in the pool of the storage host, from the newest one down, as qemu-img finds them on disk:
// each promotion puts one on top.
func (s *Site) Layers(ctx context.Context, volume string) (int, error) {
	files, err := filepath.Glob(filepath.Join(s.Store.Dir, "data", "west", volume, "*.qcow2"))
	if err != nil {
		return 0, err
	}
	newest := 0
	for _, f := range files {
		number, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(f), ".qcow2"))
		if err != nil {
			return 0, fmt.Errorf("layer %s has no number: %w", f, err)
		}
		newest = max(newest, number)
	}
	top := filepath.Join(s.Store.Dir, "data", "west", volume, strconv.Itoa(newest)+".qcow2")
	out, err := s.Store.Run(ctx, "qemu-img", "info", "--force-share", "--backing-chain", "--output=json", top)
	if err != nil {
		return 0, err
	}
	var chain []json.RawMessage
	if err := json.Unmarshal([]byte(out), &chain); err != nil {
		return 0, fmt.Errorf("read the layers of %s: %w", volume, err)
	}
	return len(chain), nil
}

// ProductionState is what the old side's own libvirt says of the production VM.
func (s *Site) ProductionState(ctx context.Context) (string, error) {
	out, err := s.East.Run(ctx, "virsh", "--connect", "qemu:///system", "domstate", ProductionDomain)
	return strings.TrimSpace(out), err
}

// ownNumbers are numbers that grow by themselves: libvirt's domain ids, its tap devices, and the layer that a new
// synchronisation writes to.
var ownNumbers = []*regexp.Regexp{
	regexp.MustCompile(`(domain-)[0-9]+(-)`), regexp.MustCompile(`(vnet)[0-9]+( )`), regexp.MustCompile(`(/)[0-9]+(\.qcow2)$`),
}

// Inventory lists everything that exists on all machines, without numbers that grow by themselves.
func (s *Site) Inventory(ctx context.Context) ([]string, error) {
	lines, err := s.Lab.Inventory(ctx)
	for i := range lines {
		for _, number := range ownNumbers {
			lines[i] = number.ReplaceAllString(lines[i], "${1}N${2}")
		}
	}
	slices.Sort(lines)
	return lines, err
}

// OldDisk reads the records on the production VM's own disk, which must be off.
func (s *Site) OldDisk(ctx context.Context) (disk.Report, error) {
	_, report, err := guest.ReadDisk(ctx, s.productionDisk())
	return report, err
}
