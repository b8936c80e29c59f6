package libvirt

import (
	"context"
	"errors"
	"fmt"

	golibvirt "github.com/digitalocean/go-libvirt"
	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirtxml"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
)

// Memory that QEMU takes beyond the guest's own: a guest of 128 MiB was measured at 240 MiB resident,
// 112 more, under emulation with little code translated. An emulated guest may fill its translation
// cache besides.
const (
	overheadBytes         = 128 << 20
	emulatedOverheadBytes = overheadBytes + translationCacheMiB<<20
)

// Capacity implements hypervisor.Driver.
func (d *Driver) Capacity(ctx context.Context) (*pb.Capacity, error) {
	c, err := d.capacity(ctx)
	if err != nil {
		return nil, fmt.Errorf("capacity of the host: %w", err)
	}
	return c, nil
}

func (d *Driver) capacity(ctx context.Context) (*pb.Capacity, error) {
	domainType, err := d.probeType(ctx)
	if err != nil {
		return nil, err
	}
	caps, err := d.capabilities(ctx)
	if err != nil {
		return nil, err
	}
	out, err := call(ctx, d.c, func(l *golibvirt.Libvirt) (*pb.Capacity, error) {
		_, memoryKiB, cpus, _, _, _, _, _, err := l.NodeGetInfo()
		if err != nil {
			return nil, err
		}
		version, err := l.ConnectGetVersion()
		if err != nil {
			return nil, err
		}
		return &pb.Capacity{Vcpus: uint32(cpus), MemoryBytes: memoryKiB << 10, CpuClass: cpuClass(caps, domainType, version)}, nil
	})
	if err != nil {
		return nil, err
	}
	out.OverheadBytes = overheadBytes
	if domainType == "qemu" {
		out.OverheadBytes = emulatedOverheadBytes
	}
	if out.DiskBytes, err = sizeOf(d.state); err != nil {
		return nil, err
	}
	for pool, dir := range d.pools { // Any order: each by itself.
		size, err := sizeOf(dir)
		if err != nil {
			return nil, err
		}
		if out.LocalDisksBytes == nil {
			out.LocalDisksBytes = map[string]uint64{}
		}
		out.LocalDisksBytes[pool] = size
	}
	if out.SaveBytesPerSecond, err = d.saveRate(ctx); err != nil {
		return nil, err
	}
	return out, d.countForeign(ctx, out)
}

// sizeOf is the size of the file system of a directory, in bytes.
func sizeOf(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("size of %s: %w", dir, err)
	}
	return fs.Blocks * uint64(fs.Bsize), nil
}

// countForeign adds what running domains without our metadata use.
func (d *Driver) countForeign(ctx context.Context, out *pb.Capacity) error {
	active, err := d.all(ctx, golibvirt.ConnectListDomainsActive)
	if err != nil {
		return err
	}
	for _, dom := range active {
		_, err := d.examine(ctx, dom)
		if err == nil || errors.Is(err, hypervisor.ErrNotFound) {
			continue
		}
		if !errors.Is(err, hypervisor.ErrForeign) {
			return err
		}
		type use struct {
			vcpus  uint32
			memory uint64
		}
		u, err := call(ctx, d.c, func(l *golibvirt.Libvirt) (use, error) {
			_, maxKiB, _, vcpus, _, err := l.DomainGetInfo(dom)
			return use{uint32(vcpus), maxKiB << 10}, err
		})
		if golibvirt.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		out.ForeignVcpus += u.vcpus
		out.ForeignMemoryBytes += u.memory + out.OverheadBytes
	}
	return nil
}

// probeType returns the type that new domains get.
func (d *Driver) probeType(ctx context.Context) (string, error) {
	d.mu.Lock()
	known := d.domainType
	d.mu.Unlock()
	if known != "" {
		return known, nil
	}
	caps, err := d.capabilities(ctx)
	if err != nil {
		return "", err
	}
	probed := "qemu"
	for _, g := range caps.Guests {
		for _, dom := range g.Arch.Domains {
			if g.Arch.Name == "x86_64" && dom.Type == "kvm" {
				probed = "kvm"
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.domainType = probed
	return probed, nil
}

// capabilities reads what the host's libvirt can do, once: the text is long.
func (d *Driver) capabilities(ctx context.Context) (*libvirtxml.Caps, error) {
	d.mu.Lock()
	caps := d.caps
	d.mu.Unlock()
	if caps != nil {
		return caps, nil
	}
	text, err := call(ctx, d.c, (*golibvirt.Libvirt).ConnectGetCapabilities)
	if err != nil {
		return nil, err
	}
	caps = &libvirtxml.Caps{}
	if err := caps.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read libvirt's capabilities: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.caps = caps
	return caps, nil
}

// cpuClass names hosts between which RAM can be moved: the same CPU model seen by KVM, or the same
// emulator.
func cpuClass(caps *libvirtxml.Caps, domainType string, qemuVersion uint64) string {
	if domainType == "qemu" || caps.Host.CPU == nil {
		return fmt.Sprintf("x86_64/emulated/qemu-%d.%d", qemuVersion/1000000, qemuVersion/1000%1000)
	}
	cpu := caps.Host.CPU
	return fmt.Sprintf("%s/%s/%s", cpu.Arch, cpu.Vendor, cpu.Model)
}
