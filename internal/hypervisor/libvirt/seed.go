package libvirt

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"libvirt.org/go/libvirtxml"

	"github.com/hotspare/hotspare/internal/hypervisor"
)

// seedFile is the domain's cloud-init seed: an ISO 9660 image with the volume name that the NoCloud
// data source looks for.
const seedFile = "seed.iso"

// makeSeed writes the seed when the definition has something for it, and removes it when not.
func makeSeed(ctx context.Context, def hypervisor.Definition, f files) error {
	s := def.Spec
	if len(s.GetUserData()) == 0 && len(s.GetSshKeys()) == 0 {
		return f.remove(seedFile)
	}
	tool, args, err := isoTool()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(f.dir, "seed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	user := s.GetUserData()
	if len(user) == 0 {
		user = []byte("#cloud-config\n")
	}
	for name, text := range map[string][]byte{"user-data": user, "meta-data": []byte(hypervisor.CloudMetaData(def.ID.Name(), s))} {
		if err := os.WriteFile(work+"/"+name, text, 0o600); err != nil {
			return err
		}
	}
	made := work + "/" + seedFile
	ctx, cancel := context.WithTimeout(ctx, toolLimit)
	defer cancel()
	args = append(args, "-output", made, "-volid", "cidata", "-joliet", "-rock", work+"/user-data", work+"/meta-data")
	if out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("make the cloud-init seed with %s: %w: %s", tool, err, out)
	}
	if err := syncPath(made); err != nil {
		return err
	}
	if err := os.Rename(made, f.path(seedFile)); err != nil {
		return err
	}
	return syncPath(f.dir)
}

// isoTool finds a program that writes ISO images.
func isoTool() (tool string, args []string, err error) {
	if path, err := exec.LookPath("genisoimage"); err == nil {
		return path, []string{"-quiet"}, nil
	}
	if path, err := exec.LookPath("xorriso"); err == nil {
		return path, []string{"-as", "genisoimage", "-quiet"}, nil
	}
	return "", nil, fmt.Errorf("user data and ssh keys need genisoimage or xorriso: install one of these packages on the host")
}

func seedXML(f files) libvirtxml.DomainDisk {
	return libvirtxml.DomainDisk{
		Device: "cdrom", ReadOnly: &libvirtxml.DomainDiskReadOnly{},
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: f.path(seedFile)}},
		Target: &libvirtxml.DomainDiskTarget{Dev: "sda", Bus: "sata"},
	}
}
