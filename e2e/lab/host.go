package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// maxSocketPath is the longest path of a Unix socket that Linux takes.
const maxSocketPath = 107

// Host is one "machine" of the lab. It has a boot id of its own in /proc/sys/kernel/random/boot_id.
type Host struct {
	// Name is unique in the lab.
	Name string
	// NetNS is the name of the network namespace, as "ip netns" shows it.
	NetNS string
	// Dir holds all files of the host; run, etc, lib and log in it are the host's /run, /etc/libvirt, /var/lib/libvirt and
	// /var/log/libvirt, data is for disks. The path is the same inside the host and outside.
	Dir string
	// LibvirtSocket is where libvirtd listens, reachable from the test process too. Empty without libvirt.
	LibvirtSocket string
	// MgmtAddr is the address on the management network, without a prefix length.
	MgmtAddr string

	lab    *Lab
	holder *Process

	mu        sync.Mutex
	processes []*Process // every process that Start started, also ended ones
	ports     []port
	libvirt   *Process // libvirtd, nil when it does not run
}

// holderScript gives the host its private mounts and then only keeps them: everything else joins this process's namespaces.
const holderScript = `set -e
dir=$1
mount --bind "$dir/run" /run
for pair in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt; do
	if test -d "${pair#*:}"; then mount --bind "$dir/${pair%%:*}" "${pair#*:}"; fi
done
mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id
ip link set lo up
echo ready
exec sleep infinity
`

// makeHost makes the namespaces and directories of a host, not yet on any network.
func (l *Lab) makeHost(ctx context.Context, name string) (*Host, error) {
	h := &Host{Name: name, NetNS: l.name + "-" + name, Dir: filepath.Join(l.dir, name), lab: l}
	if path := h.socketPath(); len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket path %s is longer than %d bytes: choose a shorter directory for the lab", path, maxSocketPath)
	}
	for _, sub := range []string{"run/libvirt", "run/lock", "etc", "lib", "log", "data"} {
		if err := os.MkdirAll(filepath.Join(h.Dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := h.newBootID(); err != nil {
		return nil, err
	}
	if err := l.reg.noteNetNS(h.NetNS); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "ip", "netns", "add", h.NetNS).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("add namespace %s: %w: %s", h.NetNS, err, bytes.TrimSpace(out))
	}
	return h, h.startHolder(ctx)
}

// startHolder starts the process that keeps the mount namespace.
func (h *Host) startHolder(ctx context.Context) error {
	// "ip netns exec" gives a /sys that shows the namespace's own devices, and no cgroup file systems: libvirt then uses none.
	cmd := exec.Command("ip", "netns", "exec", h.NetNS, "unshare", "--mount", "--propagation", "slave",
		"sh", "-c", holderScript, "holder", h.Dir)
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout = in
	p, err := h.start("holder", cmd)
	in.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(syscall.SIGKILL) })
	defer stop()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return fmt.Errorf("mount private directories of %s: %w", h.Name, errors.Join(err, p.logError()))
	}
	h.holder = p
	return nil
}

// Command prepares a program to run inside the host: its network, its /run and its libvirt directories. The program starts in /, so
// paths must be absolute. The environment and the rest of the file system are those of the test process.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(h.holder.PID()), "--net", "--mount", "--", name}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
}

// Run runs a program inside the host and returns its standard output; what it wrote to standard error goes into the error.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := h.Command(ctx, name, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run %s %s on %s: %w: %s", name, strings.Join(args, " "), h.Name, err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.String(), nil
}

// Start starts a command made by Command as a long-running process of the host and logs its output, unless the command has
// outputs already, to log/<label>.log. Give Command a context that outlives the process. Close kills it.
func (h *Host) Start(label string, cmd *exec.Cmd) (*Process, error) {
	p, err := h.start(label, cmd)
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", label, h.Name, err)
	}
	return p, nil
}

func (h *Host) start(label string, cmd *exec.Cmd) (*Process, error) {
	p, err := startProcess(label, filepath.Join(h.Dir, "log", label+".log"), cmd)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.processes = append(h.processes, p)
	return p, nil
}

// awaitProcesses waits until every process that Start started was reaped.
func (h *Host) awaitProcesses(ctx context.Context) error {
	h.mu.Lock()
	processes := append([]*Process(nil), h.processes...)
	h.mu.Unlock()
	for _, p := range processes {
		select {
		case <-p.Done():
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of %s on %s: %w", p.label, h.Name, ctx.Err())
		}
	}
	return nil
}
