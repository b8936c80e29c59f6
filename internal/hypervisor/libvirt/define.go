package libvirt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

// toolLimit bounds a run of qemu-img or of the ISO tool: it writes a few hundred kilobytes, and hangs
// when the storage does.
const toolLimit = time.Minute

// Define implements hypervisor.Driver. Private disks are made where they are missing and never made
// anew; a disk that the new definition lacks stays until Remove.
func (d *Driver) Define(ctx context.Context, def hypervisor.Definition) error {
	if def.ID == "" || def.Spec.GetVcpus() == 0 || def.Spec.GetMemoryBytes() < 1<<20 {
		return fmt.Errorf("define %s: the definition lacks an identifier, CPUs or memory", def.ID)
	}
	return d.do(ctx, def.ID, changing{what: "define", run: func(ctx context.Context) error {
		return d.define(context.WithoutCancel(ctx), def)
	}})
}

func (d *Driver) define(ctx context.Context, def hypervisor.Definition) error {
	f := d.files(def.ID)
	have, err := d.settled(ctx, def.ID)
	isNew := errors.Is(err, hypervisor.ErrNotFound)
	switch {
	case err != nil && !isNew:
		return err
	case !isNew && (have.active || f.has(ramSaved)):
		if have.mark.Digest != def.Digest() {
			return hypervisor.ErrState
		}
		return nil
	}
	_, statErr := os.Lstat(f.dir)
	nothing := isNew && errors.Is(statErr, os.ErrNotExist)
	err = d.make(ctx, def, f)
	if err != nil && nothing && !unanswered(err) {
		// Nothing was there before, not even disks without a domain, so nothing stays.
		err = errors.Join(err, f.removeAll())
	}
	return err
}

// make writes disks and definition.
func (d *Driver) make(ctx context.Context, def hypervisor.Definition, f files) error {
	if err := os.MkdirAll(f.dir, 0o711); err != nil {
		return err
	}
	if err := f.reachable(); err != nil {
		return err
	}
	for _, disk := range def.Spec.GetDisks() {
		if err := makeDisk(ctx, disk, f); err != nil {
			return fmt.Errorf("disk %s: %w", disk.GetName(), err)
		}
	}
	if err := makeSeed(ctx, def, f); err != nil {
		return err
	}
	if err := errors.Join(syncPath(f.dir), syncPath(d.state)); err != nil {
		return err
	}
	domainType, err := d.probeType(ctx)
	if err != nil {
		return err
	}
	text, err := domainXML(def, domainType, f)
	if err != nil {
		return err
	}
	return d.c.alone(ctx, d.c.quick, func(l *golibvirt.Libvirt) error {
		dom, err := l.DomainDefineXMLFlags(text, 0)
		if err == nil {
			d.remember(dom.Name, def.ID)
		}
		return err
	})
}

func (d *Driver) remember(name string, id model.ObjectID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name] = id
}

// makeDisk makes a private disk unless it is there. A disk appears under its name only when it is
// whole and on disk.
func makeDisk(ctx context.Context, disk *pb.Disk, f files) error {
	if !diskName.MatchString(disk.GetName()) {
		return fmt.Errorf("the name %q is not safe in a file name", disk.GetName())
	}
	args := []string{"create", "-q", "-f", "qcow2"}
	size := ""
	switch disk.GetSource().(type) {
	case *pb.Disk_Nbd:
		return nil
	case *pb.Disk_Image:
		format, err := imageFormat(ctx, disk.GetImage())
		if err != nil {
			return err
		}
		args = append(args, "-b", disk.GetImage(), "-F", format)
	case *pb.Disk_BlankBytes:
		size = strconv.FormatUint(disk.GetBlankBytes(), 10)
	default:
		return fmt.Errorf("it has no source")
	}
	path, err := f.disk(disk)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if dir := filepath.Dir(path); dir != f.dir {
		if err := errors.Join(f.mark(disk.GetLocalPool()), os.MkdirAll(dir, 0o711)); err != nil {
			return err
		}
	}
	made := path + ".new"
	args = append(args, made)
	if size != "" {
		args = append(args, size)
	}
	if _, err := qemuImg(ctx, args...); err != nil {
		return errors.Join(err, os.RemoveAll(made))
	}
	if err := syncPath(made); err != nil {
		return err
	}
	if err := os.Rename(made, path); err != nil {
		return err
	}
	if dir := filepath.Dir(path); dir != f.dir { // The main one is synced when all of it is there.
		return errors.Join(syncPath(dir), syncPath(filepath.Dir(dir)))
	}
	return nil
}

// imageFormat asks for the format of an image, because QEMU must not guess it each time from what a
// guest may have written into the image's first bytes.
func imageFormat(ctx context.Context, path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("the path of image %q is not absolute", path)
	}
	out, err := qemuImg(ctx, "info", "--force-share", "--output=json", path)
	if err != nil {
		return "", err
	}
	var info struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return "", fmt.Errorf("read the answer of qemu-img about %s: %w", path, err)
	}
	return info.Format, nil
}

func qemuImg(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, toolLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-img", args...).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("qemu-img %s: %w: %s", args[0], err, failed.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("qemu-img %s: %w", args[0], err)
	}
	return out, nil
}

// Remove implements hypervisor.Driver. The files go first: a removal that is cut short leaves a
// domain that shows, not files that nobody knows of.
func (d *Driver) Remove(ctx context.Context, id model.ObjectID) error {
	return d.do(ctx, id, changing{what: "remove", run: func(ctx context.Context) error {
		ctx = context.WithoutCancel(ctx)
		f, err := d.settled(ctx, id)
		if errors.Is(err, hypervisor.ErrNotFound) {
			return d.files(id).removeAll()
		}
		if err != nil {
			return err
		}
		if f.active {
			return hypervisor.ErrState
		}
		if err := d.files(id).removeAll(); err != nil {
			return err
		}
		err = d.c.alone(ctx, d.c.quick, func(l *golibvirt.Libvirt) error {
			return l.DomainUndefineFlags(f.dom, golibvirt.DomainUndefineManagedSave|golibvirt.DomainUndefineNvram|
				golibvirt.DomainUndefineSnapshotsMetadata|golibvirt.DomainUndefineCheckpointsMetadata)
		})
		if golibvirt.IsNotFound(err) {
			return nil
		}
		return err
	}})
}
