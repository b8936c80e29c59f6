package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// libvirtWait bounds the start of virtlogd and libvirtd; under 1 s was seen on an idle machine.
const libvirtWait = 60 * time.Second

// qemuConfig lets QEMU run as root, unconfined: the lab's isolation is its namespaces. Devices come from the machine's own /dev.
const qemuConfig = `user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
`

// socketPath is where the host's libvirtd listens, seen from outside.
func (h *Host) socketPath() string {
	return filepath.Join(h.Dir, "run", "libvirt", "libvirt-sock")
}

func (h *Host) virtlogdSocket() string {
	return filepath.Join(h.Dir, "run", "libvirt", "virtlogd-sock")
}

// LibvirtURI returns the connection URI for virsh and other clients outside the host.
func (h *Host) LibvirtURI() string {
	return "qemu+unix:///system?socket=" + h.LibvirtSocket
}

// StartLibvirt starts virtlogd and libvirtd, also again after Crash or KillLibvirt, and returns when libvirtd answers.
func (h *Host) StartLibvirt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, libvirtWait)
	defer cancel()
	if err := h.writeLibvirtConfig(); err != nil {
		return fmt.Errorf("start libvirt on %s: %w", h.Name, err)
	}
	// virtlogd outlives a kill of libvirtd and keeps the guests' consoles: start it only when it is gone.
	if !answers(ctx, h.virtlogdSocket()) {
		if _, err := h.startDaemon(ctx, "virtlogd", h.virtlogdSocket()); err != nil {
			return fmt.Errorf("start libvirt on %s: %w", h.Name, err)
		}
	}
	p, err := h.startDaemon(ctx, "libvirtd", h.socketPath())
	if err != nil {
		return fmt.Errorf("start libvirt on %s: %w", h.Name, err)
	}
	err = p.ready(ctx, func(ctx context.Context) error {
		_, err := h.Run(ctx, "virsh", "--connect", "qemu:///system", "list")
		return err
	})
	if err != nil {
		return fmt.Errorf("start libvirt on %s: %w", h.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.libvirt = p
	return nil
}

// startDaemon starts one of libvirt's daemons and waits for its socket.
func (h *Host) startDaemon(ctx context.Context, name, socket string) (*Process, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	p, err := h.Start(name, h.Command(context.Background(), name, "--pid-file", "/run/"+name+".pid"))
	if err != nil {
		return nil, err
	}
	return p, p.ready(ctx, func(context.Context) error {
		_, err := os.Stat(socket)
		return err
	})
}

// writeLibvirtConfig writes the configuration once; the host keeps its identity over a crash.
func (h *Host) writeLibvirtConfig() error {
	path := filepath.Join(h.Dir, "etc", "libvirtd.conf")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	// All hosts of the lab run on one board and would else report the same UUID.
	text := fmt.Sprintf("auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nhost_uuid = \"%s\"\n"+
		"log_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n", newUUID())
	return errors.Join(
		os.MkdirAll(filepath.Join(h.Dir, "etc", "qemu"), 0o700), // as the Debian package has it
		os.WriteFile(filepath.Join(h.Dir, "etc", "qemu.conf"), []byte(qemuConfig), 0o644),
		os.WriteFile(path, []byte(text), 0o644))
}

// KillLibvirt kills libvirtd (not virtlogd, not the guests), as a crash of the daemon would.
func (h *Host) KillLibvirt(ctx context.Context) error {
	h.mu.Lock()
	daemon := h.libvirt
	h.libvirt = nil
	h.mu.Unlock()
	if daemon == nil {
		return fmt.Errorf("kill libvirtd on %s: it does not run", h.Name)
	}
	if err := daemon.Kill(ctx); err != nil {
		return fmt.Errorf("kill libvirtd on %s: %w", h.Name, err)
	}
	return nil
}

// answers tells whether somebody accepts connections at a Unix socket.
func answers(ctx context.Context, path string) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
