package libvirt

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// The files of a domain, beside its disks. The package comment says what each one means.
const (
	ramPartial   = "ram.partial"
	ramSaved     = "ram.saved"
	ramRestoring = "ram.restoring"
	ramUsed      = "ram.used"
	consoleLog   = "console.log"
	// poolMark with the name of a local pool says that a disk of the domain is, or is about to be, there.
	poolMark = "pool-"
)

// files are the private directories of one domain: the main one, and one in each other local pool of the host.
type files struct {
	dir   string
	pools map[string]string
}

func (d *Driver) files(id model.ObjectID) files {
	f := files{dir: filepath.Join(d.state, domainName(id)), pools: make(map[string]string, len(d.pools))}
	for pool, dir := range d.pools { // Any order: each by itself.
		f.pools[pool] = filepath.Join(dir, domainName(id))
	}
	return f
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// disk is where a private disk is. The pools of this host are those of its configuration, so that one may be gone that
// an order names.
func (f files) disk(d *pb.Disk) (string, error) {
	dir, there := f.pools[d.GetLocalPool()]
	switch {
	case d.GetLocalPool() == "":
		dir = f.dir
	case !there:
		return "", noPool(d.GetLocalPool())
	}
	return filepath.Join(dir, "disk-"+d.GetName()+".qcow2"), nil
}

func (f files) has(name string) bool {
	_, err := os.Lstat(f.path(name))
	return err == nil
}

// rename renames one file to another name, durably.
func (f files) rename(from, to string) error {
	if err := os.Rename(f.path(from), f.path(to)); err != nil {
		return err
	}
	return syncPath(f.dir)
}

// remove deletes a file if it is there, durably.
func (f files) remove(name string) error {
	if err := os.Remove(f.path(name)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return syncPath(f.dir)
}

// mark notes, durably, that a disk is about to be made in a local pool.
func (f files) mark(pool string) error {
	path := f.path(poolMark + pool)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return errors.Join(syncPath(path), syncPath(f.dir))
}

// reachable refuses to go on while a local pool is not configured in which the domain has a disk: that would stay for
// good, and be taken for the next one's empty disk.
func (f files) reachable() error {
	marks, err := filepath.Glob(f.path(poolMark + "*"))
	for _, m := range marks {
		pool := strings.TrimPrefix(filepath.Base(m), poolMark)
		if _, there := f.pools[pool]; !there {
			err = errors.Join(err, noPool(pool))
		}
	}
	return err
}

func noPool(pool string) error {
	return fmt.Errorf("this host has no local pool %s: see libvirt.local_pools in the agent's configuration", pool)
}

// removeAll deletes the directories with everything in them, durably. The main one goes last: while it is there, it shows
// that there is something to remove.
func (f files) removeAll() error {
	if err := f.reachable(); err != nil {
		return err
	}
	for _, dir := range append(slices.Sorted(maps.Values(f.pools)), f.dir) {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := syncPath(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// syncPath makes the content of a file or directory durable. libvirt leaves a saved image readable
// for root and QEMU only; an agent that is neither syncs the whole file system instead.
func syncPath(path string) error {
	f, err := os.Open(path)
	whole := errors.Is(err, os.ErrPermission)
	if whole {
		f, err = os.Open(filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if whole {
		err = unix.Syncfs(int(f.Fd()))
	} else {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
