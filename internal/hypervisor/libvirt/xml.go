package libvirt

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"libvirt.org/go/libvirtxml"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	// markNamespace is the XML namespace of our metadata. It stays as it is for ever: existing domains
	// are recognised by it.
	markNamespace = "https://hotspare.dev/domain/1"
	// namePrefix begins the name of every domain of ours.
	namePrefix = "hs-"
	// maxPlainName is the longest object name that is used as it is. Longer names are cut and hashed,
	// so that paths and unix sockets below libvirt's directories stay within 107 bytes.
	maxPlainName = 40
	// translationCacheMiB bounds the translated code that an emulated guest keeps; QEMU's default grows
	// to a large part of the host's memory, which capacity could not count.
	translationCacheMiB = 64
	// nbdPort is the registered port of NBD.
	nbdPort = "10809"
)

// plainName matches object names that are safe as the name of a domain and of a directory.
var plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)

// diskName matches names of disks that are safe in a file name.
var diskName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

// domainName derives the libvirt name of an object's domain.
func domainName(id model.ObjectID) string {
	name := id.Name()
	if len(name) <= maxPlainName && plainName.MatchString(name) {
		return namePrefix + name
	}
	sum := sha256.Sum256([]byte(id))
	// The underscore keeps cut names apart from plain ones.
	return namePrefix + "_" + hex.EncodeToString(sum[:16])
}

// domainUUID derives the domain's UUID from its name (RFC 9562 version 5), so that a definition made
// anew is the same machine for the guest.
func domainUUID(id model.ObjectID) string {
	h := sha1.New()
	h.Write([]byte(markNamespace + "/" + string(id)))
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// mark is our metadata in a domain. libvirt hands it out without its namespace, by which it was asked for.
type mark struct {
	XMLName xml.Name       `xml:"domain"`
	ID      model.ObjectID `xml:"id"`
	Owner   string         `xml:"owner"`
	Digest  string         `xml:"digest"`
}

// text is the metadata element. libvirt wants a prefix, which encoding/xml does not write.
func (m mark) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<hotspare:domain xmlns:hotspare=%q>", markNamespace)
	for _, e := range [][2]string{{"id", string(m.ID)}, {"owner", m.Owner}, {"digest", m.Digest}} {
		b.WriteString("<hotspare:" + e[0] + ">")
		_ = xml.EscapeText(&b, []byte(e[1])) // a strings.Builder takes everything
		b.WriteString("</hotspare:" + e[0] + ">")
	}
	b.WriteString("</hotspare:domain>")
	return b.String()
}

func parseMark(text string) (mark, error) {
	var m mark
	err := xml.Unmarshal([]byte(text), &m)
	if err == nil && m.ID == "" {
		err = fmt.Errorf("it names no object")
	}
	return m, err
}

// domainXML makes the domain of a definition. The private disks must be at the places that files names.
func domainXML(def hypervisor.Definition, domainType string, f files) (string, error) {
	s := def.Spec
	if len(s.GetDevices()) > 0 {
		return "", model.Errorf(model.FaultUnsupported, string(def.ID), "the libvirt driver gives VMs no devices of their host")
	}
	dom := libvirtxml.Domain{
		Type: domainType, Name: domainName(def.ID), UUID: domainUUID(def.ID),
		Metadata: &libvirtxml.DomainMetadata{XML: mark{ID: def.ID, Owner: def.Owner, Digest: def.Digest()}.text()},
		Memory:   &libvirtxml.DomainMemory{Value: uint(s.GetMemoryBytes() >> 10), Unit: "KiB"},
		VCPU:     &libvirtxml.DomainVCPU{Value: uint(s.GetVcpus())},
		OS: &libvirtxml.DomainOS{
			Type:     &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"},
			BootMenu: &libvirtxml.DomainBootMenu{Enable: "no"},
		},
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}},
		CPU:        &libvirtxml.DomainCPU{Mode: "host-model"},
		OnPoweroff: "destroy", OnReboot: "restart", OnCrash: "destroy",
	}
	if domainType == "qemu" {
		dom.CPU.Mode = "maximum"
		dom.Features.TCG = &libvirtxml.DomainFeatureTCG{TBCache: &libvirtxml.DomainFeatureTCGTBCache{Unit: "MiB", Size: translationCacheMiB}}
	}
	if b := s.GetBoot(); b.GetKernel() != "" {
		dom.OS.Kernel, dom.OS.Initrd, dom.OS.Cmdline = b.GetKernel(), b.GetInitrd(), commandLine(s)
	}
	devices, err := deviceXML(s, f)
	if err != nil {
		return "", err
	}
	dom.Devices = devices
	return dom.Marshal()
}

// commandLine is the kernel's command line with what the guest must know about itself: hs.name, and
// one hs.nic=MAC,CIDR[,GATEWAY] for each card with an address.
func commandLine(s *pb.InstanceSpec) string {
	var args []string
	if c := strings.TrimSpace(s.GetBoot().GetCmdline()); c != "" {
		args = append(args, c)
	}
	if s.GetHostname() != "" {
		args = append(args, "hs.name="+s.GetHostname())
	}
	for _, n := range s.GetNics() {
		if n.GetAddress() == "" {
			continue
		}
		arg := "hs.nic=" + n.GetMac() + "," + n.GetAddress()
		if n.GetGateway() != "" {
			arg += "," + n.GetGateway()
		}
		args = append(args, arg)
	}
	return strings.Join(args, " ")
}

func deviceXML(s *pb.InstanceSpec, f files) (*libvirtxml.DomainDeviceList, error) {
	port := uint(0)
	out := &libvirtxml.DomainDeviceList{
		Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
		MemBalloon:  &libvirtxml.DomainMemBalloon{Model: "none"},
		Videos:      []libvirtxml.DomainVideo{{Model: libvirtxml.DomainVideoModel{Type: "none"}}},
		RNGs: []libvirtxml.DomainRNG{{Model: "virtio", Backend: &libvirtxml.DomainRNGBackend{
			Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"},
		}}},
		Serials: []libvirtxml.DomainSerial{{
			Source: &libvirtxml.DomainChardevSource{File: &libvirtxml.DomainChardevSourceFile{Path: f.path(consoleLog), Append: "on"}},
			Target: &libvirtxml.DomainSerialTarget{Port: &port},
		}},
	}
	for i, disk := range s.GetDisks() {
		x, err := diskXML(disk, i, f)
		if err != nil {
			return nil, fmt.Errorf("disk %s: %w", disk.GetName(), err)
		}
		out.Disks = append(out.Disks, x)
	}
	if f.has(seedFile) {
		out.Disks = append(out.Disks, seedXML(f))
	}
	for i, n := range s.GetNics() {
		if n.GetBridge() == "" {
			return nil, fmt.Errorf("network card %d on network %s: the bridge is not known", i, n.GetNetwork())
		}
		card := libvirtxml.DomainInterface{
			Source: &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: n.GetBridge()}},
			Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
			ROM:    &libvirtxml.DomainROM{Enabled: "no"}, // nothing boots from the network; it costs seconds
		}
		if n.GetMac() != "" {
			card.MAC = &libvirtxml.DomainInterfaceMAC{Address: n.GetMac()}
			card.Target = &libvirtxml.DomainInterfaceTarget{Dev: model.PortName(n.GetNetwork(), n.GetMac())}
		}
		out.Interfaces = append(out.Interfaces, card)
	}
	return out, nil
}

// diskXML makes the index-th disk. On an I/O error, a full disk included, the guest is paused, so that
// it does not go on with a file system that lost writes.
func diskXML(disk *pb.Disk, index int, f files) (libvirtxml.DomainDisk, error) {
	if index >= 26 {
		return libvirtxml.DomainDisk{}, fmt.Errorf("a domain has at most 26 disks")
	}
	out := libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "qcow2", Cache: "none", ErrorPolicy: "stop", Discard: "unmap"},
		Target: &libvirtxml.DomainDiskTarget{Dev: "vd" + string(rune('a'+index)), Bus: "virtio"},
		Boot:   &libvirtxml.DomainDeviceBoot{Order: uint(index + 1)},
	}
	switch disk.GetSource().(type) {
	case *pb.Disk_Nbd:
		network, err := nbdXML(disk.GetNbd())
		if err != nil {
			return libvirtxml.DomainDisk{}, err
		}
		out.Driver.Type = "raw"
		out.Source = &libvirtxml.DomainDiskSource{Network: network}
	default:
		path, err := f.disk(disk)
		if err != nil {
			return libvirtxml.DomainDisk{}, err
		}
		out.Source = &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}}
	}
	return out, nil
}

// nbdXML reads an address like nbd://10.77.0.9:10809/export.
func nbdXML(address string) (*libvirtxml.DomainDiskSourceNetwork, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = nbdPort
	}
	export := strings.TrimPrefix(u.Path, "/")
	if u.Scheme != "nbd" || host == "" || export == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%q is not nbd://host:port/export", address)
	}
	if net.ParseIP(host) == nil && strings.ContainsAny(host, ": ") {
		return nil, fmt.Errorf("%q is not nbd://host:port/export", address)
	}
	return &libvirtxml.DomainDiskSourceNetwork{
		Protocol: "nbd", Name: export,
		Hosts: []libvirtxml.DomainDiskSourceHost{{Transport: "tcp", Name: host, Port: port}},
	}, nil
}
