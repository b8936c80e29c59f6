package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hotspare/hotspare/e2e/guest/disk"
)

// rawName is the file name of an image while it is in raw form.
const rawName = "raw"

// Disk creates a qcow2 image of the given size with the marker in sector 0 and no records. It needs qemu-img and
// refuses to replace a file.
func Disk(ctx context.Context, path string, sizeBytes int64, marker string) error {
	sector, err := disk.Marker(marker)
	if err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	if sizeBytes <= disk.RecordsOffset || sizeBytes%disk.SectorBytes != 0 {
		return fmt.Errorf("make disk %s: size %d is not a multiple of %d over %d", path, sizeBytes, disk.SectorBytes, disk.RecordsOffset)
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("make disk %s: %w", path, os.ErrExist)
	}
	work, err := os.MkdirTemp(filepath.Dir(path), ".disk-")
	if err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	defer os.RemoveAll(work)
	raw := filepath.Join(work, rawName)
	if err := os.WriteFile(raw, sector, 0o644); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	if err := os.Truncate(raw, sizeBytes); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	if _, err := output(ctx, work, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path); err != nil {
		return fmt.Errorf("make disk %s: %w", path, err)
	}
	return nil
}

// ReadDisk returns the marker and the records of an image that no running guest has open, whatever its format
// and backing chain.
func ReadDisk(ctx context.Context, path string) (marker string, rep disk.Report, err error) {
	work, err := os.MkdirTemp("", "guest-disk-")
	if err != nil {
		return "", disk.Report{}, fmt.Errorf("read disk %s: %w", path, err)
	}
	defer os.RemoveAll(work)
	raw := filepath.Join(work, rawName)
	if _, err := output(ctx, work, "qemu-img", "convert", "-O", "raw", path, raw); err != nil {
		return "", disk.Report{}, fmt.Errorf("read disk %s: %w", path, err)
	}
	f, err := os.Open(raw)
	if err != nil {
		return "", disk.Report{}, fmt.Errorf("read disk %s: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", disk.Report{}, fmt.Errorf("read disk %s: %w", path, err)
	}
	sector := make([]byte, disk.SectorBytes)
	if _, err := f.ReadAt(sector, 0); err != nil {
		return "", disk.Report{}, fmt.Errorf("read disk %s: %w", path, err)
	}
	rep, err = disk.Scan(f, info.Size(), nil)
	if err != nil {
		return "", disk.Report{}, fmt.Errorf("read disk %s: %w", path, err)
	}
	return disk.ReadMarker(sector), rep, nil
}
