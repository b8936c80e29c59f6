package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/config"
	fencelibvirt "github.com/hotspare/hotspare/internal/fence/libvirt"
	"github.com/hotspare/hotspare/internal/hypervisor/libvirt"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/sdn/bridge"
	"github.com/hotspare/hotspare/internal/sdn/dns"
	"github.com/hotspare/hotspare/internal/storage"
	"github.com/hotspare/hotspare/internal/storage/mirror"
	"github.com/hotspare/hotspare/internal/storage/qcow2"
)

// dirMode is for directories that only the agent and root read; QEMU's user must be let into the
// libvirt driver's by the administrator.
const dirMode = 0o755

// openDrivers opens what the configuration names. The returned function closes it again.
func openDrivers(k *config.Agent, log *slog.Logger) (d actuate.Drivers, done func(), err error) {
	var closers []func() error
	closeAll := func() {
		for _, c := range closers {
			if err := c(); err != nil {
				log.Debug("a driver did not close cleanly", "error", err)
			}
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	if k.Libvirt.Socket != "" {
		if err := os.MkdirAll(k.Libvirt.StateDir, dirMode); err != nil {
			return d, nil, err
		}
		h, err := libvirt.New(libvirt.Options{
			Socket: k.Libvirt.Socket, StateDir: k.Libvirt.StateDir, LocalPools: k.Libvirt.LocalPools, DomainType: k.Libvirt.DomainType, Log: log,
		})
		if err != nil {
			return d, nil, err
		}
		closers = append(closers, func() error { h.Close(); return nil })
		d.Hypervisor = h
	}
	if k.Networks {
		n, err := bridge.New(bridge.Options{Namespace: k.NetworkNamespace, Log: log})
		if err != nil {
			return d, nil, err
		}
		closers = append(closers, n.Close)
		d.Networks = n
	}
	if err := errors.Join(openPools(k, log, &d), openSource(k, log, &d), openZones(k, log, &d), openFences(k, log, &d)); err != nil {
		return d, nil, err
	}
	return d, closeAll, nil
}

func openPools(k *config.Agent, log *slog.Logger, d *actuate.Drivers) error {
	d.Pools = map[string]storage.Driver{}
	for _, p := range k.Pools {
		if err := os.MkdirAll(p.Dir, dirMode); err != nil {
			return err
		}
		pool, err := qcow2.New(qcow2.Options{Dir: p.Dir, Address: p.ExportAddress, Log: log})
		if err != nil {
			return fmt.Errorf("pool %s: %w", p.Name, err)
		}
		d.Pools[p.Name] = pool
	}
	return nil
}

func openSource(k *config.Agent, log *slog.Logger, d *actuate.Drivers) error {
	if k.Source.Socket == "" {
		return nil
	}
	s, err := mirror.New(mirror.Options{Socket: k.Source.Socket, StateFile: k.Source.StateFile, Log: log})
	if err != nil {
		return err
	}
	d.Source = s
	return nil
}

func openZones(k *config.Agent, log *slog.Logger, d *actuate.Drivers) error {
	var zones []dns.Zone
	for _, z := range k.Zones {
		secret, err := config.ReadSecret(z.KeyFile)
		if err != nil {
			return err
		}
		zones = append(zones, dns.Zone{Name: z.Name, Server: z.Server, KeyName: z.KeyName, KeySecret: secret, Algorithm: z.Algorithm})
	}
	if len(zones) == 0 {
		return nil
	}
	e, err := dns.New(dns.Options{Zones: zones, Log: log})
	if err != nil {
		return err
	}
	d.Zones = map[string]sdn.Endpoints{}
	for _, z := range k.Zones {
		d.Zones[z.Name] = e
	}
	return nil
}

func openFences(k *config.Agent, log *slog.Logger, d *actuate.Drivers) error {
	if len(k.FenceTargets) == 0 {
		return nil
	}
	if err := os.MkdirAll(k.FenceDir(), dirMode); err != nil {
		return err
	}
	targets := map[string]fencelibvirt.Target{}
	for _, t := range k.FenceTargets {
		targets[t.Name] = fencelibvirt.Target{Socket: t.Socket, TCP: t.TCP, Domains: t.Domains}
	}
	f, err := fencelibvirt.New(fencelibvirt.Options{Targets: targets, StateDir: k.FenceDir(), Log: log})
	if err != nil {
		return err
	}
	d.Fence = f
	return nil
}
