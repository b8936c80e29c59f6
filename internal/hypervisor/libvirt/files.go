package libvirt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hotspare/hotspare/internal/model"
)

// The files of a domain, beside its disks. The package comment says what each one means.
const (
	ramPartial   = "ram.partial"
	ramSaved     = "ram.saved"
	ramRestoring = "ram.restoring"
	ramUsed      = "ram.used"
	consoleLog   = "console.log"
)

// files is the private directory of one domain.
type files string

func (d *Driver) files(id model.ObjectID) files {
	return files(filepath.Join(d.state, domainName(id)))
}

func (f files) path(name string) string { return filepath.Join(string(f), name) }

func (f files) disk(name string) string { return f.path("disk-" + name + ".qcow2") }

func (f files) has(name string) bool {
	_, err := os.Lstat(f.path(name))
	return err == nil
}

// rename renames one file to another name, durably.
func (f files) rename(from, to string) error {
	if err := os.Rename(f.path(from), f.path(to)); err != nil {
		return err
	}
	return syncPath(string(f))
}

// remove deletes a file if it is there, durably.
func (f files) remove(name string) error {
	if err := os.Remove(f.path(name)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return syncPath(string(f))
}

// removeAll deletes the directory with everything in it, durably.
func (f files) removeAll() error {
	if err := os.RemoveAll(string(f)); err != nil {
		return err
	}
	return syncPath(filepath.Dir(string(f)))
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
