package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	kernelMetaPackage = "linux-image-cloud-amd64"
	initPackage       = "github.com/hotspare/hotspare/e2e/guest/init"
	// imageFormat goes into the digest; raise it when this file builds something else from the same sources.
	imageFormat = "2"
)

// sources are what the guest's program is built from; their bytes are part of the image's digest.
//
//go:embed init/*.go disk/*.go
var sources embed.FS

// modules returns the kernel modules in the order in which init must load them.
func modules() []string {
	return []string{
		"drivers/virtio/virtio_ring.ko", "drivers/virtio/virtio.ko",
		"drivers/virtio/virtio_pci_modern_dev.ko", "drivers/virtio/virtio_pci_legacy_dev.ko",
		"drivers/virtio/virtio_pci.ko", "drivers/block/virtio_blk.ko",
		"net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko",
		"drivers/input/evdev.ko", "drivers/acpi/button.ko",
	}
}

// Image is a kernel and an initramfs, ready for direct kernel boot. The files are shared and must not be changed.
type Image struct {
	// Kernel and Initrd are absolute paths.
	Kernel, Initrd string
	// Digest names the content: the kernel's version and the sources of init.
	Digest string
}

// CacheDir returns where images are kept between test runs: HOTSPARE_GUEST_CACHE, or a directory in the user's cache.
func CacheDir() (string, error) {
	if dir := os.Getenv("HOTSPARE_GUEST_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	return filepath.Join(base, "hotspare", "guest"), nil
}

// Build returns the guest's image, from the cache when it is there. Several test processes may call it at once: they
// take turns by a lock file. The first call downloads the kernel (27 MB) and needs apt-get, dpkg and the go command, whose
// working directory must be inside this module; later calls need none of them.
func Build(ctx context.Context, cacheDir string) (Image, error) {
	cacheDir, err := filepath.Abs(cacheDir)
	if err != nil {
		return Image{}, fmt.Errorf("build guest in %s: %w", cacheDir, err)
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return Image{}, fmt.Errorf("build guest: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(cacheDir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return Image{}, fmt.Errorf("build guest: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Image{}, fmt.Errorf("build guest: lock %s: %w", cacheDir, err)
	}
	kernelDir, err := findKernel(ctx, cacheDir)
	if err != nil {
		return Image{}, fmt.Errorf("build guest: %w", err)
	}
	digest, err := imageDigest(filepath.Base(kernelDir))
	if err != nil {
		return Image{}, fmt.Errorf("build guest: %w", err)
	}
	img := Image{Kernel: filepath.Join(kernelDir, "vmlinuz"), Initrd: filepath.Join(cacheDir, "initrd-"+digest), Digest: digest}
	if _, err := os.Stat(img.Initrd); err == nil {
		return img, nil
	}
	if err := buildInitrd(ctx, kernelDir, img.Initrd); err != nil {
		return Image{}, fmt.Errorf("build guest: %w", err)
	}
	return img, nil
}

// imageDigest covers everything that decides the content of the initramfs.
func imageDigest(kernelVersion string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, imageFormat, kernelVersion, runtime.Version(), strings.Join(modules(), " "))
	err := fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := sources.ReadFile(path)
		fmt.Fprintln(h, path, len(text))
		h.Write(text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read sources of init: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// findKernel returns the newest unpacked kernel in the cache, fetching one when there is none.
func findKernel(ctx context.Context, cacheDir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(cacheDir, "kernel-*"))
	if err != nil {
		return "", fmt.Errorf("look for a kernel in %s: %w", cacheDir, err)
	}
	if len(found) > 0 {
		return found[len(found)-1], nil
	}
	return fetchKernel(ctx, cacheDir)
}

// fetchKernel downloads the package that the meta package depends on and keeps its kernel and our modules.
func fetchKernel(ctx context.Context, cacheDir string) (string, error) {
	depends, err := output(ctx, cacheDir, "apt-cache", "depends", "--important", kernelMetaPackage)
	if err != nil {
		return "", err
	}
	name := ""
	for word := range strings.FieldsSeq(depends) {
		if strings.HasPrefix(word, "linux-image-") && word != kernelMetaPackage {
			name = word
		}
	}
	if name == "" {
		return "", fmt.Errorf("%s depends on no kernel; is the package list empty (apt-get update)?", kernelMetaPackage)
	}
	work, err := os.MkdirTemp(cacheDir, "fetch-")
	if err != nil {
		return "", fmt.Errorf("fetch kernel: %w", err)
	}
	defer os.RemoveAll(work)
	if _, err := output(ctx, work, "apt-get", "-o", "APT::Sandbox::User=root", "download", name); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download of %s left %d packages in %s", name, len(debs), work)
	}
	if _, err := output(ctx, work, "dpkg", "-x", debs[0], "tree"); err != nil {
		return "", err
	}
	keep := filepath.Join(work, "keep")
	if err := pickKernel(ctx, filepath.Join(work, "tree"), keep); err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	target := filepath.Join(cacheDir, "kernel-"+strings.TrimSuffix(filepath.Base(debs[0]), ".deb"))
	return target, os.Rename(keep, target)
}

// pickKernel copies the kernel and the modules that the guest loads out of an unpacked package.
func pickKernel(ctx context.Context, tree, keep string) error {
	if err := os.Mkdir(keep, 0o755); err != nil {
		return err
	}
	kernels, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("%d kernels in %s, want 1", len(kernels), tree)
	}
	if err := os.Rename(kernels[0], filepath.Join(keep, "vmlinuz")); err != nil {
		return err
	}
	for _, m := range modules() {
		found, err := filepath.Glob(filepath.Join(tree, "lib", "modules", "*", "kernel", m+"*"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%d files for module %s, want 1", len(found), m)
		}
		if strings.HasSuffix(found[0], ".xz") {
			if _, err := output(ctx, tree, "xz", "--decompress", found[0]); err != nil {
				return err
			}
			found[0] = strings.TrimSuffix(found[0], ".xz")
		}
		if err := os.Rename(found[0], filepath.Join(keep, filepath.Base(m))); err != nil {
			return err
		}
	}
	return nil
}

// buildInitrd compiles init and packs it with the modules.
func buildInitrd(ctx context.Context, kernelDir, target string) error {
	work, err := os.MkdirTemp(filepath.Dir(target), "initrd-work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	program := filepath.Join(work, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, initPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile init: %w: %s", err, bytes.TrimSpace(text))
	}
	entries := []cpioEntry{{name: "modules", dir: true}}
	var order strings.Builder
	for _, m := range modules() {
		data, err := os.ReadFile(filepath.Join(kernelDir, filepath.Base(m)))
		if err != nil {
			return err
		}
		entries = append(entries, cpioEntry{name: "modules/" + filepath.Base(m), data: data})
		fmt.Fprintln(&order, filepath.Base(m))
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	entries = append(entries, cpioEntry{name: "modules/order", data: []byte(order.String())}, cpioEntry{name: "init", data: data})
	return writeInitrd(filepath.Join(work, "initrd"), target, entries)
}

// writeInitrd writes the archive beside the target and renames it, so that a cut build leaves no half image. It is not
// compressed: 6.6 MB are read at once, while an emulated processor takes about 0.2 s of a 2.3 s boot to unpack gzip.
func writeInitrd(temporary, target string, entries []cpioEntry) error {
	f, err := os.Create(temporary)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeCPIO(f, entries); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(temporary, target)
}

// output runs a command in dir and returns what it printed; its complaints go into the error.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, io.Writer(&complaint)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.String(), nil
}
