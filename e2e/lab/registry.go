package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	registryRoot = "/run/hotspare-lab"
	netnsRoot    = "/run/netns"
	// pollEvery is how often a condition outside our reach (a process, a socket) is looked at.
	pollEvery = 20 * time.Millisecond
)

// ErrInUse says that a live process holds the lab.
var ErrInUse = errors.New("lab is in use by another process")

// registry notes what a lab is about to make, so that it can be removed after a crash of the test:
// <root>/<lab>.lock is held by the process that uses the lab; <root>/<lab>/dir is a symlink to its directory and
// <root>/<lab>/netns/<name> stands for each of its namespaces.
type registry struct {
	path string
	lock *os.File
}

// openRegistry takes the lab's lock.
func openRegistry(name string) (*registry, error) {
	if err := os.MkdirAll(registryRoot, 0o755); err != nil {
		return nil, err
	}
	r := &registry{path: filepath.Join(registryRoot, name)}
	lock, err := os.OpenFile(r.path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	r.lock = lock
	return r, nil
}

// busyWait is how long New waits for another process that uses the lab: two runs of the tests on one
// machine follow each other instead of failing. The longest test holds its lab for about three minutes.
const busyWait = 4 * time.Minute

// awaitRegistry takes the lab's lock, and waits for who holds it.
func awaitRegistry(ctx context.Context, name string) (*registry, error) {
	ctx, cancel := context.WithTimeout(ctx, busyWait)
	defer cancel()
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		r, err := openRegistry(name)
		if !errors.Is(err, ErrInUse) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-t.C:
		}
	}
}

// close gives the lab's name back. The lock file stays: removing it would race with another process that waits for it.
func (r *registry) close() error {
	return r.lock.Close()
}

func (r *registry) noteDir(dir string) error {
	if err := os.MkdirAll(filepath.Join(r.path, "netns"), 0o755); err != nil {
		return err
	}
	return os.Symlink(dir, filepath.Join(r.path, "dir"))
}

func (r *registry) noteNetNS(name string) error {
	return os.WriteFile(filepath.Join(r.path, "netns", name), nil, 0o644)
}

// clean removes everything that is noted. It may be repeated until it succeeds.
func (r *registry) clean(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(r.path, "netns"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err := killAll(ctx, names); err != nil {
		return err
	}
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(netnsRoot, name)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if out, err := exec.CommandContext(ctx, "ip", "netns", "delete", name).CombinedOutput(); err != nil {
			return fmt.Errorf("delete namespace %s: %w: %s", name, err, strings.TrimSpace(string(out)))
		}
	}
	dir, err := os.Readlink(filepath.Join(r.path, "dir"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if dir != "" {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(r.path)
}

// killAll kills every process in the network namespaces, and every process in the mount namespaces of those: a process may
// have moved to a network namespace of its own. It returns when none is left.
func killAll(ctx context.Context, names []string) error {
	return waitFor(ctx, "processes of the lab to end", func(context.Context) error {
		pids, err := processesIn(names)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				return fmt.Errorf("kill %d: %w", pid, err)
			}
		}
		return fmt.Errorf("%d processes left", len(pids))
	})
}

// processesIn returns the processes whose network namespace is one of the named ones, or which share a mount namespace
// with such a process (the machine's own mount namespace does not count).
func processesIn(names []string) ([]int, error) {
	nets := map[uint64]bool{}
	for _, name := range names {
		if id, err := namespaceID(filepath.Join(netnsRoot, name)); err == nil {
			nets[id] = true
		}
	}
	ownNet, err := namespaceID("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	ownMount, err := namespaceID("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	// A name whose namespace is not mounted is an ordinary file; never take the machine's own namespace for ours.
	delete(nets, ownNet)
	all, err := otherProcesses()
	if err != nil {
		return nil, err
	}
	mounts := map[uint64]bool{}
	for _, p := range all {
		if nets[p.net] && p.mount != ownMount {
			mounts[p.mount] = true
		}
	}
	var pids []int
	for _, p := range all {
		if nets[p.net] || mounts[p.mount] {
			pids = append(pids, p.pid)
		}
	}
	return pids, nil
}

// process is a running process and the namespaces it is in.
type process struct {
	pid        int
	net, mount uint64
}

// otherProcesses returns every process of the machine except the first and this one.
func otherProcesses() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		// A process that just ended, or a zombie, has no namespaces: it is gone for our purpose.
		n, errNet := namespaceID(filepath.Join("/proc", e.Name(), "ns", "net"))
		m, errMount := namespaceID(filepath.Join("/proc", e.Name(), "ns", "mnt"))
		if errNet != nil || errMount != nil {
			continue
		}
		all = append(all, process{pid, n, m})
	}
	return all, nil
}

// namespaceID returns the inode that identifies a namespace.
func namespaceID(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// waitFor tries until the condition gives no error, or ctx ends: then the error says what was waited for and the last cause.
func waitFor(ctx context.Context, what string, condition func(context.Context) error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		}
	}
}
