package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

const (
	// mgmtSegment is the segment that every host is attached to.
	mgmtSegment = "mgmt"
	// fabricAddr is where the test process itself sits on the management network.
	fabricAddr = "10.77.0.1"
	// firstHost is the last byte of the first host's management address.
	firstHost = 11
	// maxHosts keeps addresses inside 10.77.0.0/24.
	maxHosts = 200
	// closeWait bounds the removal of a lab; the processes are killed, so only the kernel has to keep up.
	closeWait = 30 * time.Second
)

// Options describe a lab.
type Options struct {
	// Name is a short prefix for everything the lab makes: 1 to 8 of a-z and 0-9. One live lab may have it at a time.
	Name string
	// Dir is where the lab keeps its files, in a directory of its own that Close removes. Empty means the system's
	// temporary directory. It must be short: libvirt's socket path below it is limited to 107 bytes.
	Dir string
	Log *slog.Logger
}

// Lab is a set of hosts on this machine. Its methods may be called from several goroutines.
type Lab struct {
	name   string
	dir    string
	log    *slog.Logger
	reg    *registry
	fabric *Host
	// stopReaping ends what reap began.
	stopReaping func()

	mu       sync.Mutex
	closed   bool
	hosts    []*Host
	segments map[string]bool
	cuts     map[cut]bool
	nextPort int
	zones    []zone
}

// New makes an empty lab: the fabric and its management bridge. It first removes what a dead lab of that
// name left, and refuses when that lab is still in use by another process.
func New(ctx context.Context, o Options) (*Lab, error) {
	if !regexp.MustCompile(`^[a-z0-9]{1,8}$`).MatchString(o.Name) {
		return nil, fmt.Errorf("make lab %q: the name must be 1 to 8 of a-z and 0-9", o.Name)
	}
	if o.Log == nil {
		return nil, fmt.Errorf("make lab %s: no logger", o.Name)
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	parent, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("make lab %s: %w", o.Name, err)
	}
	reg, err := awaitRegistry(ctx, o.Name)
	if err != nil {
		return nil, fmt.Errorf("make lab %s: %w", o.Name, err)
	}
	if err := reg.clean(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make lab %s: remove the last one: %w", o.Name, err), reg.close())
	}
	l := &Lab{
		name: o.Name, dir: filepath.Join(parent, "lab-"+o.Name), log: o.Log, reg: reg,
		segments: map[string]bool{}, cuts: map[cut]bool{}, stopReaping: reap(),
	}
	if err := l.makeFabric(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make lab %s: %w", o.Name, err), l.Close())
	}
	return l, nil
}

// makeFabric makes the fabric namespace and the management bridge in it.
func (l *Lab) makeFabric(ctx context.Context) error {
	if err := l.reg.noteDir(l.dir); err != nil {
		return err
	}
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return err
	}
	fabric, err := l.makeHost(ctx, "fabric")
	if err != nil {
		return err
	}
	fabric.MgmtAddr = fabricAddr
	l.fabric = fabric
	if err := l.AddSegment(ctx, mgmtSegment); err != nil {
		return err
	}
	_, err = fabric.Run(ctx, "ip", "addr", "add", fabricAddr+"/24", "dev", bridgeName(mgmtSegment))
	return err
}

// Dir returns the lab's own directory; Close removes it.
func (l *Lab) Dir() string { return l.dir }

// HostOptions describe a host.
type HostOptions struct {
	// Name is 1 to 16 of a-z, 0-9 and -, unique in the lab.
	Name string
	// Libvirt starts virtlogd and libvirtd.
	Libvirt bool
}

// AddHost makes a host on the management network. On an error nothing of it is left running once the lab is closed.
func (l *Lab) AddHost(ctx context.Context, o HostOptions) (*Host, error) {
	if !regexp.MustCompile(`^[a-z][a-z0-9-]{0,15}$`).MatchString(o.Name) {
		return nil, fmt.Errorf("add host %q: the name must be 1 to 16 of a-z, 0-9 and -", o.Name)
	}
	begin := time.Now()
	h, err := l.makeHost(ctx, o.Name)
	if err != nil {
		return nil, fmt.Errorf("add host %s: %w", o.Name, err)
	}
	l.mu.Lock()
	if len(l.hosts) >= maxHosts {
		l.mu.Unlock()
		return nil, fmt.Errorf("add host %s: the lab is full at %d hosts", o.Name, maxHosts)
	}
	h.MgmtAddr = fmt.Sprintf("10.77.0.%d", firstHost+len(l.hosts))
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	if err := h.Attach(ctx, mgmtSegment, "mgmt0"); err != nil {
		return nil, fmt.Errorf("add host %s: %w", o.Name, err)
	}
	if _, err := h.Run(ctx, "ip", "addr", "add", h.MgmtAddr+"/24", "dev", "mgmt0"); err != nil {
		return nil, fmt.Errorf("add host %s: %w", o.Name, err)
	}
	if o.Libvirt {
		h.LibvirtSocket = h.socketPath()
		if err := h.StartLibvirt(ctx); err != nil {
			return nil, fmt.Errorf("add host %s: %w", o.Name, err)
		}
	}
	l.log.Info("host added", "host", o.Name, "address", h.MgmtAddr, "libvirt", o.Libvirt, "took", time.Since(begin))
	return h, nil
}

// AddNode makes a host without libvirt: for a coordinator, a name server, a monitoring system or a client.
func (l *Lab) AddNode(ctx context.Context, name string) (*Host, error) {
	return l.AddHost(ctx, HostOptions{Name: name})
}

// Close kills every process in the lab's namespaces and removes namespaces, mounts and files. A second call does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	err := l.reg.clean(ctx)
	// The kernel takes a moment to end what it killed; wait for our own children so that nothing outlives Close.
	for _, h := range append(l.allHosts(), l.fabric) {
		if h != nil {
			err = errors.Join(err, h.awaitProcesses(ctx))
		}
	}
	l.stopReaping()
	if err = errors.Join(err, l.reg.close()); err != nil {
		return fmt.Errorf("close lab %s: %w", l.name, err)
	}
	return nil
}

// CleanStale removes what a lab of that name left when its test was killed. It does nothing when there is no such lab and
// refuses while the lab is in use.
func CleanStale(ctx context.Context, name string) error {
	reg, err := openRegistry(name)
	if err != nil {
		return fmt.Errorf("clean lab %s: %w", name, err)
	}
	if err := errors.Join(reg.clean(ctx), reg.close()); err != nil {
		return fmt.Errorf("clean lab %s: %w", name, err)
	}
	return nil
}

// allHosts returns a copy of the list of hosts, without the fabric.
func (l *Lab) allHosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Host(nil), l.hosts...)
}
