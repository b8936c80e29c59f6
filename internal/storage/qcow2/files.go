package qcow2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

const (
	metadataFile = "volume.json"
	// keptSuffix marks the file that a disk which was handed over has replaced.
	keptSuffix = ".hotspare-before"
	// qcow2Magic is what a qcow2 file begins with.
	qcow2Magic = "QFI\xfb"
)

func (d *Driver) folder(name string) string { return filepath.Join(d.dir, name) }

// load reads all metadata of the pool. A volume whose metadata cannot be read is left alone and
// reported by every call that names it.
func (d *Driver) load() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("read pool %s: %w", d.dir, err)
	}
	d.volumes, d.broken = map[string]volume{}, map[string]error{}
	for _, e := range entries {
		if !e.IsDir() || checkName(e.Name()) != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(d.folder(e.Name()), metadataFile))
		if errors.Is(err, fs.ErrNotExist) {
			// A volume that was never finished, or whose removal was.
			d.discard(e.Name())
			continue
		}
		var v volume
		if err == nil {
			v, err = decodeVolume(text)
		}
		if err == nil && v.Name != e.Name() {
			err = fmt.Errorf("it names volume %s", v.Name)
		}
		if err != nil {
			d.broken[e.Name()] = fmt.Errorf("read %s of volume %s: %w", metadataFile, e.Name(), err)
			d.log.Error("volume cannot be read", "pool", d.dir, "volume", e.Name(), "error", err)
			continue
		}
		d.volumes[v.Name] = v
	}
	return nil
}

// layerFile matches the names of layer files, nothing else is ever deleted from a pool.
func layerFile(name string) (number uint64, ok bool) {
	base, found := strings.CutSuffix(name, ".qcow2")
	if !found {
		base, found = strings.CutSuffix(name, ".raw")
	}
	if !found || !regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(base) {
		return 0, false
	}
	number, err := strconv.ParseUint(base, 10, 64)
	return number, err == nil
}

// discard deletes what an unfinished volume left. Files that are not ours keep the folder.
func (d *Driver) discard(name string) {
	entries, err := os.ReadDir(d.folder(name))
	for _, e := range entries {
		if _, ours := layerFile(e.Name()); ours || e.Name() == metadataFile+".new" {
			err = errors.Join(err, os.Remove(filepath.Join(d.folder(name), e.Name())))
		}
	}
	if err = errors.Join(err, os.Remove(d.folder(name))); err != nil {
		d.log.Warn("unfinished volume stays", "pool", d.dir, "volume", name, "error", err)
	}
}

// save puts a volume's metadata on disk and takes it into use.
func (d *Driver) save(v volume) error {
	if err := v.check(); err != nil {
		panic("qcow2: volume " + v.Name + " would be saved broken: " + err.Error())
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s of volume %s: %w", metadataFile, v.Name, err)
	}
	path := filepath.Join(d.folder(v.Name), metadataFile)
	if err := writeFile(path, append(text, '\n')); err != nil {
		// Which of the two is on disk is unknown: the next call reads it.
		d.volumes = nil
		return fmt.Errorf("save volume %s: %w", v.Name, err)
	}
	d.volumes[v.Name] = v
	return nil
}

// writeFile replaces a file so that after a crash either the old or the new content is there.
func writeFile(path string, text []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}

// syncPath makes a file or a folder's entries durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeFolder makes a volume's folder durable.
func (d *Driver) makeFolder(name string) error {
	err := os.Mkdir(d.folder(name), 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncPath(d.dir)
}

// makeLayer makes an empty layer file above a base, given relative to the volume's folder; empty:
// none. The name of the base in its header serves people with qemu-img; the driver never follows it.
func (d *Driver) makeLayer(ctx context.Context, v *volume, l layer, base string) error {
	path := filepath.Join(d.folder(v.Name), l.file())
	if l.Raw {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("make layer %s: %w", path, err)
		}
		err = errors.Join(f.Truncate(int64(l.SizeBytes)), f.Sync(), f.Close())
		if err == nil {
			err = syncPath(d.folder(v.Name))
		}
		return err
	}
	arguments := []string{"create", "-q", "-f", "qcow2"}
	if base != "" {
		format := "qcow2"
		if strings.HasSuffix(base, ".raw") {
			format = "raw"
		}
		arguments = append(arguments, "-u", "-b", base, "-F", format)
	}
	arguments = append(arguments, path, strconv.FormatUint(l.SizeBytes, 10))
	if out, err := exec.CommandContext(ctx, d.imageBinary, arguments...).CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("make layer %s: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	err := errors.Join(os.Chmod(path, 0o600), syncPath(path), syncPath(d.folder(v.Name)))
	if err != nil {
		return fmt.Errorf("make layer %s: %w", path, err)
	}
	return nil
}

// sweep deletes the layer files that the metadata no longer names.
func (d *Driver) sweep(v *volume) error {
	entries, err := os.ReadDir(d.folder(v.Name))
	if err != nil {
		return fmt.Errorf("read folder of volume %s: %w", v.Name, err)
	}
	for _, e := range entries {
		number, ours := layerFile(e.Name())
		kept := v.layer(number) != nil || v.Given != nil && v.Given.Number == number
		if !ours || kept && !v.Removing {
			continue
		}
		if err := os.Remove(filepath.Join(d.folder(v.Name), e.Name())); err != nil {
			return fmt.Errorf("delete forgotten layer: %w", err)
		}
	}
	return nil
}

// used sums the space of a volume's files.
func (d *Driver) used(name string) uint64 {
	var sum uint64
	entries, err := os.ReadDir(d.folder(name))
	if err != nil {
		return 0
	}
	for _, e := range entries {
		var st syscall.Stat_t
		if syscall.Stat(filepath.Join(d.folder(name), e.Name()), &st) == nil {
			// The kernel counts blocks of 512 bytes, whatever the file system's own block is.
			sum += uint64(st.Blocks) * 512
		}
	}
	return sum
}

// checkDisk refuses a path to which no layer could be renamed, and says whether the file that is
// there is raw.
func (d *Driver) checkDisk(path string) (raw bool, err error) {
	if !filepath.IsAbs(path) {
		return false, fmt.Errorf("disk %q is not an absolute path", path)
	}
	var pool, disk syscall.Stat_t
	if err := errors.Join(syscall.Stat(d.dir, &pool), syscall.Stat(filepath.Dir(path), &disk)); err != nil {
		return false, fmt.Errorf("look at disk %s: %w", path, err)
	}
	if pool.Dev != disk.Dev {
		return false, fmt.Errorf("disk %s is not on the file system of pool %s: a layer cannot be renamed to it", path, d.dir)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at disk %s: %w", path, err)
	}
	defer f.Close()
	magic := make([]byte, len(qcow2Magic))
	n, _ := f.ReadAt(magic, 0)
	return string(magic[:n]) != qcow2Magic, nil
}

// handOver renames a layer onto the disk's path and keeps the file that is there beside it. It may
// be repeated at any point.
func (d *Driver) handOver(v *volume) error {
	from, kept := filepath.Join(d.folder(v.Name), v.Given.file()), v.Disk+keptSuffix
	layerInfo, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hand over disk %s: %w", v.Disk, err)
	}
	old, err := os.Stat(v.Disk)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("hand over disk %s: %w", v.Disk, err)
	default:
		if err := keep(v.Disk, kept, old); err != nil {
			return fmt.Errorf("keep the old disk %s: %w", v.Disk, err)
		}
		owner := old.Sys().(*syscall.Stat_t)
		err := errors.Join(os.Chmod(from, old.Mode().Perm()), os.Chown(from, int(owner.Uid), int(owner.Gid)))
		if err != nil {
			return fmt.Errorf("hand over disk %s: %w", v.Disk, err)
		}
	}
	err = errors.Join(os.Rename(from, v.Disk), syncPath(filepath.Dir(v.Disk)), syncPath(d.folder(v.Name)))
	if err != nil {
		return fmt.Errorf("hand over disk %s: %w", v.Disk, err)
	}
	d.log.Info("disk handed over", "volume", v.Name, "disk", v.Disk, "layer", v.Given.Number, "bytes", layerInfo.Size())
	return nil
}

// keep gives a file a second name, so that it survives a rename onto its first.
func keep(path, kept string, info fs.FileInfo) error {
	if have, err := os.Stat(kept); err == nil && !os.SameFile(have, info) {
		// Left by an earlier way back, whose volume was removed by hand.
		if err := os.Remove(kept); err != nil {
			return err
		}
	}
	if err := os.Link(path, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
