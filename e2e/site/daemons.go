package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/hotspare/hotspare/e2e/guest"
	"github.com/hotspare/hotspare/e2e/lab"
)

// readyLimit bounds the wait for the first leader and for all agents; 3 s each were seen on a busy machine.
const readyLimit = 90 * time.Second

// startCoordinators makes the site's authority and starts three members; then the client gets its certificate.
func (s *Site) startCoordinators(ctx context.Context) error {
	var members strings.Builder
	for _, c := range s.Coordinators {
		fmt.Fprintf(&members, "- {name: %s, raft: \"%s:7445\", api: \"%s:7443\"}\n", c.Name, c.MgmtAddr, c.MgmtAddr)
	}
	for i, c := range s.Coordinators {
		dir := filepath.Join(c.Dir, servicesDir)
		text := fmt.Sprintf("name: %s\ndata_dir: %s/data\nidentity_file: %s/pki/identity.pem\nbootstrap: %t\n"+
			"socket: %s\nlog: {level: info}\nmembers:\n%s", c.Name, dir, dir, i == 0, s.socket(c), members.String())
		if err := writeFile(filepath.Join(dir, "coordinator.yaml"), text, 0o644); err != nil {
			return err
		}
	}
	first := s.Coordinators[0]
	pki := filepath.Join(first.Dir, servicesDir, "pki")
	if _, err := first.Run(ctx, s.bin("hotspare-coordinator"), "setup", "--config",
		filepath.Join(first.Dir, servicesDir, "coordinator.yaml"), "--out", pki); err != nil {
		return err
	}
	for _, c := range s.Coordinators {
		to := filepath.Join(c.Dir, servicesDir, "pki", "identity.pem")
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.Rename(filepath.Join(pki, c.Name+".pem"), to)); err != nil {
			return err
		}
		if err := s.StartCoordinator(c); err != nil {
			return err
		}
	}
	wait, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := await(wait, "the first leader", func(ctx context.Context) error {
		_, err := first.Run(ctx, s.bin("hotspare"), "--socket", s.socket(first), "--timeout", "5s", "status")
		return err
	}); err != nil {
		return errors.Join(err, s.logs(s.Coordinators...))
	}
	_, err := first.Run(ctx, s.bin("hotspare"), "--socket", s.socket(first), "client", "issue", "ann", "--role", "operator",
		"--out", filepath.Dir(s.pki("ann.crt")))
	return err
}

func (s *Site) socket(c *lab.Host) string {
	return filepath.Join(c.Dir, servicesDir, "coordinator.sock")
}

// StartCoordinator starts a member, also again after it was killed.
func (s *Site) StartCoordinator(c *lab.Host) error {
	return s.start(c, "hotspare-coordinator", filepath.Join(c.Dir, servicesDir, "coordinator.yaml"))
}

// StartAgent starts a host's agent, also again after it was killed.
func (s *Site) StartAgent(h *lab.Host) error {
	return s.start(h, "hotspare-agent", filepath.Join(h.Dir, servicesDir, "agent.yaml"))
}

func (s *Site) start(h *lab.Host, program, config string) error {
	p, err := h.Start(program, h.Command(context.Background(), s.bin(program), "--config", config))
	if err != nil {
		return err
	}
	s.processes[h.Name] = p
	return nil
}

// joinAgents writes the agents' configurations, lets them join with one-time tokens and waits until all are connected.
func (s *Site) joinAgents(ctx context.Context) error {
	key := filepath.Join(s.GW.Dir, servicesDir, "dns.key")
	if err := writeFile(key, keySecret+"\n", 0o600); err != nil {
		return err
	}
	hypervisor := "libvirt: {socket: /run/libvirt/libvirt-sock, domain_type: qemu, state_dir: %s/data/instances}\nnetworks: true\n"
	agents := []struct {
		host *lab.Host
		text string
	}{
		{s.H1, fmt.Sprintf(hypervisor, s.H1.Dir)},
		{s.H2, fmt.Sprintf(hypervisor, s.H2.Dir)},
		{s.Store, fmt.Sprintf("pools:\n- {name: west, dir: %s/data/west, export_address: \"%s:10809\"}\n", s.Store.Dir, s.Store.MgmtAddr)},
		{s.GW, fmt.Sprintf("zones:\n- {name: %s., server: \"%s:53\", key_name: %s., key_file: %s}\n"+
			"fence_targets:\n- {name: east-power, socket: %s, domains: [%s]}\n", zoneName, s.DNS.MgmtAddr, keyName, key,
			s.East.LibvirtSocket, ProductionDomain)},
		{s.East, fmt.Sprintf("source: {socket: /run/libvirt/libvirt-sock}\npools:\n- {name: east, dir: %s/data/back, export_address: \"%s:10809\"}\n",
			s.East.Dir, s.East.MgmtAddr)},
	}
	for _, a := range agents {
		if err := s.join(ctx, a.host, a.text); err != nil {
			return fmt.Errorf("join %s: %w", a.host.Name, err)
		}
	}
	wait, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	want := fmt.Sprintf("%d of %d connected", len(agents), len(agents))
	if err := s.awaitStatus(wait, want); err != nil {
		return errors.Join(err, s.logs(s.H1, s.H2, s.Store, s.GW, s.East))
	}
	return nil
}

func (s *Site) join(ctx context.Context, h *lab.Host, offers string) error {
	var list []string
	for _, c := range s.Coordinators {
		list = append(list, fmt.Sprintf("%q", c.MgmtAddr+":7443"))
	}
	dir := filepath.Join(h.Dir, servicesDir)
	text := fmt.Sprintf("name: %s\ncoordinators: [%s]\ndata_dir: %s/agent\nlog: {level: debug}\n%s", h.Name, strings.Join(list, ", "), dir, offers)
	token, err := s.Run(ctx, "agent", "token", "create", "--host", h.Name)
	if err != nil {
		return err
	}
	if err := errors.Join(writeFile(filepath.Join(dir, "agent.yaml"), text, 0o644),
		writeFile(filepath.Join(dir, "agent", "join-token"), token, 0o600)); err != nil {
		return err
	}
	return s.StartAgent(h)
}

// awaitStatus waits until `hotspare status` says the words.
func (s *Site) awaitStatus(ctx context.Context, words string) error {
	return await(ctx, words, func(ctx context.Context) error {
		out, err := s.Run(ctx, "--timeout", "5s", "status")
		if err == nil && !strings.Contains(out, words) {
			err = fmt.Errorf("status says:\n%s", out)
		}
		return err
	})
}

// AwaitReady waits until a plan could be run now: its volumes are replicated and everything has answered.
func (s *Site) AwaitReady(ctx context.Context, plan string) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	return await(ctx, "plan "+plan+" to be ready", func(ctx context.Context) error {
		out, err := s.Run(ctx, "--timeout", "5s", "status")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == plan && f[1] == "yes" {
				return nil
			}
		}
		return fmt.Errorf("status says:\n%s", out)
	})
}

// applyManifests declares what every plan needs: networks, pool, image, hosts and project.
func (s *Site) applyManifests(ctx context.Context) error {
	cmdline := guest.Params{}.CommandLine()
	if err := s.Apply(ctx, fmt.Sprintf(manifests, s.Store.MgmtAddr, s.Image.Kernel, s.Image.Initrd, cmdline,
		roomVCPUs/float64(runtime.NumCPU()), s.East.MgmtAddr)); err != nil {
		return err
	}
	// Until the hosts have reported what they have, no plan fits anywhere.
	wait, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	return s.awaitStatus(wait, fmt.Sprintf("of %d vCPU", 2*roomVCPUs))
}

// roomVCPUs is how many virtual CPUs each host has room for, whatever the machine has.
const roomVCPUs = 2

// Apply declares manifests.
func (s *Site) Apply(ctx context.Context, manifests string) error {
	path := filepath.Join(s.Client.Dir, servicesDir, "apply.yaml")
	if err := writeFile(path, manifests, 0o644); err != nil {
		return err
	}
	_, err := s.Run(ctx, "apply", "-f", path)
	return err
}

// logTail is how much of a daemon's log an error carries.
const logTail = 1500

// logs returns the ends of the daemons' logs as an error, for whoever must find out why something did not happen.
func (s *Site) logs(hosts ...*lab.Host) error {
	var all []error
	for _, h := range hosts {
		p := s.processes[h.Name]
		if p == nil {
			continue
		}
		text, err := os.ReadFile(p.Log())
		if err != nil {
			all = append(all, err)
			continue
		}
		all = append(all, fmt.Errorf("log of %s ends:\n%s", h.Name, text[max(0, len(text)-logTail):]))
	}
	return errors.Join(all...)
}

// Logs is everything the daemons' logs and the consoles of the VMs on the recovery hosts say at their ends.
func (s *Site) Logs() error {
	return errors.Join(s.logs(append(append([]*lab.Host{}, s.Coordinators...), s.H1, s.H2, s.Store, s.GW, s.East)...), s.consoles())
}

// consoles returns the ends of the VMs' consoles.
func (s *Site) consoles() error {
	var all []error
	for _, h := range []*lab.Host{s.H1, s.H2} {
		found, err := filepath.Glob(filepath.Join(h.Dir, "data", "instances", "*", "console.log"))
		if err != nil {
			return fmt.Errorf("look for consoles of %s: %w", h.Name, err)
		}
		for _, path := range found {
			text, err := os.ReadFile(path)
			if err != nil {
				all = append(all, err)
				continue
			}
			all = append(all, fmt.Errorf("console of %s on %s ends:\n%s", filepath.Base(filepath.Dir(path)), h.Name, text[max(0, len(text)-logTail):]))
		}
	}
	return errors.Join(all...)
}
