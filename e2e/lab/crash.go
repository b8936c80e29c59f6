package lab

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Crash ends the host as a power cut and a new boot would: every process in it, guests included, is killed at once; /run, the packet
// filter and all interfaces but the cables are gone, cables have left their bridges and lost their addresses; the boot id is
// new. Disks and the management address stay. What a boot would bring up (bridges, StartLibvirt, agents) is the caller's to start.
func (h *Host) Crash(ctx context.Context) error {
	if err := h.killProcesses(ctx); err != nil {
		return fmt.Errorf("crash host %s: %w", h.Name, err)
	}
	h.mu.Lock()
	h.libvirt = nil
	h.mu.Unlock()
	if err := errors.Join(h.resetNetwork(ctx), h.emptyRun(), h.newBootID()); err != nil {
		return fmt.Errorf("crash host %s: %w", h.Name, err)
	}
	return nil
}

// killProcesses kills everything but the holder and waits until nothing is left.
func (h *Host) killProcesses(ctx context.Context) error {
	return waitFor(ctx, "processes to end", func(context.Context) error {
		pids, err := processesIn([]string{h.NetNS})
		if err != nil {
			return err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == h.holder.PID() })
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		if len(pids) > 0 {
			return fmt.Errorf("%d processes left", len(pids))
		}
		return nil
	})
}

// resetNetwork leaves the cables and the management address.
func (h *Host) resetNetwork(ctx context.Context) error {
	if _, err := h.Run(ctx, "nft", "flush", "ruleset"); err != nil {
		return err
	}
	out, err := h.Run(ctx, "ip", "-json", "link", "show")
	if err != nil {
		return err
	}
	var links []struct {
		Name string `json:"ifname"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		return fmt.Errorf("read output of ip: %w", err)
	}
	cables := h.portsOf()
	for _, link := range links {
		cable := slices.ContainsFunc(cables, func(p port) bool { return p.ifname == link.Name })
		switch {
		case link.Name == "lo" || link.Name == "mgmt0":
		case cable:
			_, err = h.Run(ctx, "sh", "-c", `ip link set "$1" nomaster && ip addr flush dev "$1"`, "reset", link.Name)
		default:
			_, err = h.Run(ctx, "ip", "link", "delete", link.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emptyRun removes what the host has in /run and makes what a boot makes.
func (h *Host) emptyRun() error {
	run := filepath.Join(h.Dir, "run")
	entries, err := os.ReadDir(run)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(run, e.Name())); err != nil {
			return err
		}
	}
	return errors.Join(os.Mkdir(filepath.Join(run, "libvirt"), 0o755), os.Mkdir(filepath.Join(run, "lock"), 0o755))
}

// newBootID gives the host another boot id. The file is mounted over the kernel's in the host, so it must be rewritten in place.
func (h *Host) newBootID() error {
	return os.WriteFile(filepath.Join(h.Dir, "boot_id"), []byte(newUUID()+"\n"), 0o644)
}

// newUUID returns a random UUID, version 4.
func newUUID() string {
	id := make([]byte, 16)
	rand.Read(id)
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
