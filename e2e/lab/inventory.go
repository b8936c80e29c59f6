package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Inventory lists what exists on all hosts, one thing a line, sorted, for a comparison before and after: domains, networks, interfaces,
// addresses, routes, namespaces, packet filter rules, processes, files and DNS records. Numbers that change by themselves (process and
// interface ids, packet counters, SOA serials, sizes) are left out; so are logs, the lab's own services and IPv6 link-local addresses.
func (l *Lab) Inventory(ctx context.Context) ([]string, error) {
	var lines []string
	for _, h := range l.allHosts() {
		for _, part := range []struct {
			kind string
			list func(context.Context) ([]string, error)
		}{
			{"domain", h.listDomains},
			{"libvirt-network", h.listLibvirtNetworks},
			{"link", h.listLinks},
			{"route", h.listRoutes},
			{"netns", h.listNetNS},
			{"nft", h.listRules},
			{"process", h.listProcesses},
			{"file", h.listFiles},
		} {
			found, err := part.list(ctx)
			if err != nil {
				return nil, fmt.Errorf("inventory of %s: %s: %w", h.Name, part.kind, err)
			}
			for _, f := range found {
				lines = append(lines, h.Name+" "+part.kind+" "+f)
			}
		}
	}
	l.mu.Lock()
	zones := slices.Clone(l.zones)
	l.mu.Unlock()
	for _, z := range zones {
		found, err := z.list(ctx)
		if err != nil {
			return nil, fmt.Errorf("inventory of zone %s: %w", z.name, err)
		}
		lines = append(lines, found...)
	}
	slices.Sort(lines)
	return lines, nil
}

// virsh runs virsh on a host that has libvirt running.
func (h *Host) virsh(ctx context.Context, args ...string) ([]string, error) {
	h.mu.Lock()
	running := h.libvirt != nil
	h.mu.Unlock()
	if !running {
		return nil, nil
	}
	out, err := h.Run(ctx, "virsh", append([]string{"--connect", "qemu:///system"}, args...)...)
	return nonEmpty(out), err
}

// listDomains gives "name state"; a saved domain's state is "saved".
func (h *Host) listDomains(ctx context.Context) ([]string, error) {
	rows, err := h.virsh(ctx, "list", "--all", "--managed-save")
	return withoutFirstColumn(rows), err
}

func (h *Host) listLibvirtNetworks(ctx context.Context) ([]string, error) {
	rows, err := h.virsh(ctx, "net-list", "--all")
	if len(rows) > 0 {
		rows = rows[2:]
	}
	return normaliseSpace(rows), err
}

// withoutFirstColumn drops virsh's two heading lines and the id, which changes with each start.
func withoutFirstColumn(rows []string) []string {
	if len(rows) < 2 {
		return nil
	}
	var out []string
	for _, row := range rows[2:] {
		if fields := strings.Fields(row); len(fields) > 1 {
			out = append(out, strings.Join(fields[1:], " "))
		}
	}
	return out
}

// listLinks gives "name up|down master=bridge" and "name address" for each address.
func (h *Host) listLinks(ctx context.Context) ([]string, error) {
	out, err := h.Run(ctx, "ip", "-json", "addr", "show")
	if err != nil {
		return nil, err
	}
	var links []struct {
		Name      string   `json:"ifname"`
		Master    string   `json:"master"`
		Flags     []string `json:"flags"`
		Addresses []struct {
			Local  string `json:"local"`
			Bits   int    `json:"prefixlen"`
			Scope  string `json:"scope"`
			Family string `json:"family"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		return nil, fmt.Errorf("read output of ip: %w", err)
	}
	var lines []string
	for _, link := range links {
		state := "down"
		if slices.Contains(link.Flags, "UP") {
			state = "up"
		}
		lines = append(lines, fmt.Sprintf("%s %s master=%s", link.Name, state, link.Master))
		for _, a := range link.Addresses {
			if a.Family == "inet6" && a.Scope == "link" {
				continue
			}
			lines = append(lines, fmt.Sprintf("%s %s/%d", link.Name, a.Local, a.Bits))
		}
	}
	return lines, nil
}

func (h *Host) listRoutes(ctx context.Context) ([]string, error) {
	out, err := h.Run(ctx, "ip", "-4", "route", "show", "table", "all", "type", "unicast")
	rules, errRules := h.Run(ctx, "ip", "-4", "rule", "show")
	// The flag follows a bridge's last port late, by the kernel's own timer; the link's state is listed anyway.
	out = strings.ReplaceAll(out, " linkdown", "")
	return normaliseSpace(nonEmpty(out + rules)), errors.Join(err, errRules)
}

// listNetNS gives the named namespaces that the host sees; each host has its own directory of names.
func (h *Host) listNetNS(ctx context.Context) ([]string, error) {
	out, err := h.Run(ctx, "ip", "netns", "list")
	var names []string
	for _, line := range nonEmpty(out) {
		names = append(names, strings.Fields(line)[0])
	}
	return names, err
}

// listRules gives the packet filter's lines, each with the table and chain it is in.
func (h *Host) listRules(ctx context.Context) ([]string, error) {
	out, err := h.Run(ctx, "nft", "--stateless", "list", "ruleset")
	if err != nil {
		return nil, err
	}
	var lines, path []string
	for _, line := range normaliseSpace(nonEmpty(out)) {
		if line == "}" {
			path = path[:max(len(path)-1, 0)]
			continue
		}
		if block, found := strings.CutSuffix(line, " {"); found {
			path = append(path, block)
			lines = append(lines, strings.Join(path, " / "))
			continue
		}
		lines = append(lines, strings.Join(append(slices.Clone(path), line), " / "))
	}
	return lines, nil
}

// listProcesses gives the program of each process, with the guest's name for QEMU.
func (h *Host) listProcesses(context.Context) ([]string, error) {
	pids, err := processesIn([]string{h.NetNS})
	if err != nil {
		return nil, err
	}
	guestName := regexp.MustCompile(`(?:^|\x00)-name\x00(?:guest=)?([^,\x00]+)`)
	var lines []string
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err != nil || len(text) == 0 || pid == h.holder.PID() {
			continue
		}
		program, _, _ := strings.Cut(string(text), "\x00")
		line := filepath.Base(program)
		if m := guestName.FindSubmatch(text); m != nil {
			line += " guest=" + string(m[1])
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// listFiles walks the host's own directory, which holds its /run, /etc/libvirt and /var/lib/libvirt too.
func (h *Host) listFiles(context.Context) ([]string, error) {
	var lines []string
	err := filepath.WalkDir(h.Dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone while we looked
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(h.Dir, path)
		if err != nil {
			return err
		}
		if rel == "log" || rel == servicesDir {
			return fs.SkipDir
		}
		if e.IsDir() {
			rel += "/"
		}
		if !strings.HasSuffix(rel, ".log") {
			lines = append(lines, rel)
		}
		return nil
	})
	return lines, err
}

// list transfers the zone and gives its records without the SOA, whose serial grows with each change and its undoing.
func (z zone) list(ctx context.Context) ([]string, error) {
	out, err := z.host.Run(ctx, "kdig", "+noall", "+answer", "@"+z.addr, z.name, "AXFR")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, line := range normaliseSpace(nonEmpty(out)) {
		fields := strings.Fields(line)
		if strings.HasPrefix(line, ";") || (len(fields) > 3 && fields[3] == "SOA") {
			continue
		}
		lines = append(lines, "dns "+z.name+" "+line)
	}
	return lines, nil
}

// nonEmpty splits text into its lines that hold something.
func nonEmpty(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func normaliseSpace(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, line := range lines {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return out
}
