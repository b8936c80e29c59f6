package guest

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// MemoryMiB is the least memory in which the guest was seen to boot and serve comfortably.
const MemoryMiB = 96

// NIC is a network card as the guest sees it.
type NIC struct {
	// MAC as six hexadecimal pairs, for example 52:54:00:00:00:01.
	MAC string
	// Address is the IPv4 address with its prefix length, for example 10.20.0.5/24.
	Address string
	// Gateway is the IPv4 default gateway, empty for none.
	Gateway string
}

// Params says how a guest behaves.
type Params struct {
	// Name is the hostname that GET / shows; empty means "guest".
	Name string
	NICs []NIC
	// Port is a TCP port to serve besides 80, 0 for none.
	Port int
	// RecordEvery makes the guest write one record each interval from boot, 0 for never.
	RecordEvery time.Duration
	// Unhealthy makes GET /health answer 503.
	Unhealthy bool
	// IgnoreShutdown makes the guest deaf to the ACPI power button.
	IgnoreShutdown bool
	// MetadataEvery makes the guest take user-data and ssh keys from its host's metadata service, and ask there each
	// interval whether it is preempted; 0 for never.
	MetadataEvery time.Duration
	// ReadyAfter makes it say so long after a notice that it may be taken; 0 for never.
	ReadyAfter time.Duration
}

// CommandLine returns the kernel arguments for such a guest: console on the first serial port, nothing
// that costs boot time under emulation, one processor however many the machine has, as what it does needs no
// more and emulated ones may wait for each other for long, and an end instead of a hang on a kernel panic.
func (p Params) CommandLine() string {
	args := []string{
		"console=ttyS0", "quiet", "mitigations=off", "nokaslr", "apparmor=0", "panic=-1", "audit=0",
		"random.trust_cpu=on", "rcupdate.rcu_expedited=1", "cryptomgr.notests", "no_timer_check",
		"maxcpus=1",
	}
	if p.Name != "" {
		args = append(args, "hs.name="+p.Name)
	}
	for _, n := range p.NICs {
		arg := "hs.nic=" + n.MAC + "," + n.Address
		if n.Gateway != "" {
			arg += "," + n.Gateway
		}
		args = append(args, arg)
	}
	if p.Port != 0 {
		args = append(args, fmt.Sprintf("hs.port=%d", p.Port))
	}
	if p.RecordEvery > 0 {
		args = append(args, "hs.records="+p.RecordEvery.String())
	}
	if p.Unhealthy {
		args = append(args, "hs.unhealthy=1")
	}
	if p.IgnoreShutdown {
		args = append(args, "hs.ignore-shutdown=1")
	}
	if p.MetadataEvery > 0 {
		args = append(args, "hs.metadata="+p.MetadataEvery.String())
	}
	if p.ReadyAfter > 0 {
		args = append(args, "hs.ready="+p.ReadyAfter.String())
	}
	return strings.Join(args, " ")
}

// Domain is a guest as libvirt runs it.
type Domain struct {
	Name string
	// UUID may be empty: libvirt then chooses one.
	UUID   string
	Image  Image
	Params Params
	// Disk is the path of a qcow2 image for /dev/vda, empty for none.
	Disk string
	// Bridges are the host's bridges for Params.NICs, in the same order.
	Bridges []string
	// MemoryMiB is the memory in MiB; 0 means the constant MemoryMiB.
	MemoryMiB int
}

// XML returns a domain for "virsh define": emulated, q35, no ROMs and no graphics, for the fastest start. The console goes
// to a file that libvirt's virtlogd writes, <name>.console in consoleDir, when that is not empty.
func (d Domain) XML(consoleDir string) (string, error) {
	if len(d.Bridges) != len(d.Params.NICs) {
		return "", fmt.Errorf("domain %s: %d bridges for %d nics", d.Name, len(d.Bridges), len(d.Params.NICs))
	}
	memory := d.MemoryMiB
	if memory == 0 {
		memory = MemoryMiB
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<domain type='qemu'>\n  <name>%s</name>\n", escape(d.Name))
	if d.UUID != "" {
		fmt.Fprintf(&b, "  <uuid>%s</uuid>\n", escape(d.UUID))
	}
	fmt.Fprintf(&b, "  <memory unit='MiB'>%d</memory>\n  <vcpu>1</vcpu>\n", memory)
	fmt.Fprintf(&b, "  <os>\n    <type arch='x86_64' machine='q35'>hvm</type>\n    <kernel>%s</kernel>\n    <initrd>%s</initrd>\n"+
		"    <cmdline>%s</cmdline>\n    <bootmenu enable='no'/>\n  </os>\n",
		escape(d.Image.Kernel), escape(d.Image.Initrd), escape(d.Params.CommandLine()))
	b.WriteString("  <features><acpi/></features>\n  <cpu mode='maximum'/>\n  <on_poweroff>destroy</on_poweroff>\n" +
		"  <on_reboot>restart</on_reboot>\n  <on_crash>destroy</on_crash>\n  <devices>\n")
	if d.Disk != "" {
		fmt.Fprintf(&b, "    <disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2' cache='none'/>\n"+
			"      <source file='%s'/>\n      <target dev='vda' bus='virtio'/>\n    </disk>\n", escape(d.Disk))
	}
	for i, n := range d.Params.NICs {
		fmt.Fprintf(&b, "    <interface type='bridge'>\n      <mac address='%s'/>\n      <source bridge='%s'/>\n"+
			"      <model type='virtio'/>\n      <rom enabled='no'/>\n    </interface>\n", escape(n.MAC), escape(d.Bridges[i]))
	}
	if consoleDir == "" {
		b.WriteString("    <serial type='null'/>\n")
	} else {
		fmt.Fprintf(&b, "    <serial type='file'><source path='%s/%s.console'/></serial>\n", escape(consoleDir), escape(d.Name))
	}
	b.WriteString("    <controller type='usb' model='none'/>\n    <memballoon model='none'/>\n    <video><model type='none'/></video>\n" +
		"  </devices>\n</domain>\n")
	return b.String(), nil
}

// escape makes text safe inside XML.
func escape(text string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(text)); err != nil {
		panic("write to a buffer: " + err.Error())
	}
	return b.String()
}
