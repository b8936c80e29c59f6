package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hotspare/hotspare/e2e/guest"
	"github.com/hotspare/hotspare/e2e/lab"
)

// Names and addresses of the site. The production network is 10.10.0.0/24, the lent one 10.20.0.0/24.
const (
	// ProductionAddress is where the production VM answers, on either side.
	ProductionAddress = "10.10.0.11"
	// ProductionDomain is its name at the protected site.
	ProductionDomain = "prod-db"
	// OldName is what the DNS name www.shop.example. points at before a failover.
	OldName = "198.51.100.10"
	// NewName is what it points at during one.
	NewName = "203.0.113.10"

	zoneName  = "shop.example"
	clientNIC = "10.10.0.251/24"
	monNIC    = "10.10.0.250/24"
	keyName   = "hotspare"
	// keySecret is the TSIG key of the zone, which lives as long as the lab.
	keySecret = "aG90c3BhcmUtZTJlLXRzaWcta2V5LTMyLWJ5dGVzISE="
	// recordEvery is how often the production VM writes a record.
	recordEvery = 200 * time.Millisecond
	// diskBytes is the size of the production VM's disk.
	diskBytes = 64 << 20
)

// Options describe a site.
type Options struct {
	// Name is the lab's.
	Name string
	// Dir is where the lab is made, short; empty: the system's temporary directory.
	Dir string
	// Bin holds hotspare, hotspare-coordinator and hotspare-agent.
	Bin string
	Log *slog.Logger
}

// Site is a running site.
type Site struct {
	Lab *lab.Lab
	// Coordinators are c1, c2 and c3.
	Coordinators []*lab.Host
	H1, H2       *lab.Host
	Store, GW    *lab.Host
	East         *lab.Host
	DNS, Mon     *lab.Host
	Client       *lab.Host
	// Image is the guest that production and lent VMs run.
	Image guest.Image

	o         Options
	processes map[string]*lab.Process // of the product, by the host's name
}

// New makes the site and returns when its coordinators lead, its agents are connected and its manifests are applied. On an
// error nothing is left.
func New(ctx context.Context, o Options) (*Site, error) {
	s := &Site{o: o, processes: map[string]*lab.Process{}}
	begin := time.Now()
	if err := s.make(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make site %s: %w", o.Name, err), s.Close())
	}
	o.Log.Info("site made", "took", time.Since(begin).Round(time.Millisecond))
	return s, nil
}

func (s *Site) make(ctx context.Context) error {
	cache, err := guest.CacheDir()
	if err != nil {
		return err
	}
	if s.Image, err = guest.Build(ctx, cache); err != nil {
		return err
	}
	if s.Lab, err = lab.New(ctx, lab.Options{Name: s.o.Name, Dir: s.o.Dir, Log: s.o.Log}); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		s.addHosts, s.startCoordinators, s.startProduction, s.startNameServer, s.joinAgents, s.applyManifests,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close removes the site with everything that runs in it. A second call does nothing.
func (s *Site) Close() error {
	if s.Lab == nil {
		return nil
	}
	return s.Lab.Close()
}

// addHosts makes the machines and their cables.
func (s *Site) addHosts(ctx context.Context) error {
	if err := s.Lab.AddSegment(ctx, "prod"); err != nil {
		return err
	}
	s.Coordinators = make([]*lab.Host, 3)
	for _, h := range []struct {
		to      **lab.Host
		name    string
		libvirt bool
	}{
		{&s.Coordinators[0], "c1", false},
		{&s.Coordinators[1], "c2", false},
		{&s.Coordinators[2], "c3", false},
		{&s.H1, "h1", true},
		{&s.H2, "h2", true},
		{&s.East, "east", true},
		{&s.Store, "store", false},
		{&s.GW, "gw", false},
		{&s.DNS, "dns", false},
		{&s.Mon, "mon", false},
		{&s.Client, "client", false},
	} {
		var err error
		if *h.to, err = s.Lab.AddHost(ctx, lab.HostOptions{Name: h.name, Libvirt: h.libvirt}); err != nil {
			return err
		}
	}
	for _, h := range []*lab.Host{s.H1, s.H2, s.East, s.Mon, s.Client} {
		if err := h.Attach(ctx, "prod", "prod0"); err != nil {
			return err
		}
	}
	for h, address := range map[*lab.Host]string{s.Mon: monNIC, s.Client: clientNIC} {
		if _, err := h.Run(ctx, "ip", "addr", "add", address, "dev", "prod0"); err != nil {
			return err
		}
	}
	return nil
}

// startNameServer serves the zone whose name a failover repoints.
func (s *Site) startNameServer(ctx context.Context) error {
	_, err := s.Lab.StartKnot(ctx, s.DNS, lab.KnotOptions{
		Zone: zoneName, Records: []string{"www A " + OldName}, KeyName: keyName, KeySecret: keySecret,
	})
	return err
}

// startProduction starts the VM that is protected, on the protected site's own bridge.
func (s *Site) startProduction(ctx context.Context) error {
	if _, err := s.East.Run(ctx, "sh", "-c",
		"ip link add br-prod up type bridge && ip link set prod0 master br-prod"); err != nil {
		return err
	}
	disk := s.productionDisk()
	if err := guest.Disk(ctx, disk, diskBytes, "production"); err != nil {
		return err
	}
	text, err := guest.Domain{
		Name: ProductionDomain, Image: s.Image, Disk: disk, Bridges: []string{"br-prod"},
		Params: guest.Params{
			Name: ProductionDomain, RecordEvery: recordEvery,
			NICs: []guest.NIC{{MAC: "52:54:00:aa:00:01", Address: ProductionAddress + "/24"}},
		},
	}.XML("/var/log/libvirt")
	if err != nil {
		return err
	}
	path := filepath.Join(s.East.Dir, servicesDir, "prod-db.xml")
	if err := writeFile(path, text, 0o644); err != nil {
		return err
	}
	if _, err := s.East.Run(ctx, "virsh", "--connect", "qemu:///system", "define", path); err != nil {
		return err
	}
	return s.StartProduction(ctx)
}

func (s *Site) productionDisk() string { return filepath.Join(s.East.Dir, "data", "prod-db.qcow2") }

// StartProduction starts the production VM, as the protected site's people do when nothing was carried back to it.
func (s *Site) StartProduction(ctx context.Context) error {
	_, err := s.East.Run(ctx, "virsh", "--connect", "qemu:///system", "start", ProductionDomain)
	return err
}

// Hotspare prepares the command line tool on the client's machine, with the operator's certificate.
func (s *Site) Hotspare(ctx context.Context, args ...string) *exec.Cmd {
	base := []string{"--cert", s.pki("ann.crt"), "--key", s.pki("ann.key"), "--cacert", s.pki("ca.crt")}
	for _, c := range s.Coordinators {
		base = append(base, "--endpoint", c.MgmtAddr+":7443")
	}
	return s.Client.Command(ctx, s.bin("hotspare"), append(base, args...)...)
}

// Run runs the command line tool and returns what it printed.
func (s *Site) Run(ctx context.Context, args ...string) (string, error) {
	cmd := s.Hotspare(ctx, args...)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("hotspare %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// Process returns the coordinator or agent that runs on a host.
func (s *Site) Process(h *lab.Host) *lab.Process { return s.processes[h.Name] }

func (s *Site) bin(name string) string { return filepath.Join(s.o.Bin, name) }

func (s *Site) pki(name string) string { return filepath.Join(s.Client.Dir, servicesDir, name) }

// servicesDir is the part of a host's directory that the inventory leaves out.
const servicesDir = "services"

// writeFile writes a file and makes its directory.
func writeFile(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}

// await waits until the condition holds; the context bounds it.
func await(ctx context.Context, what string, condition func(context.Context) error) error {
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

// pollEvery is the pause between two looks at something that has no event to wait for.
const pollEvery = 200 * time.Millisecond
