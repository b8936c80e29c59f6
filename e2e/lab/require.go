package lab

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Tool is a program that a feature of the lab runs, and the Debian package that brings it.
type Tool struct {
	Feature Feature
	Program string
	Package string
}

// Feature names a part of the lab that needs packages of its own.
type Feature string

// The features of the lab. FeatureHosts is what every lab needs.
const (
	FeatureHosts      Feature = "hosts"
	FeatureLibvirt    Feature = "libvirt"
	FeatureKnot       Feature = "knot"
	FeaturePrometheus Feature = "prometheus"
)

// Packages lists every program the lab runs, with its Debian package. Two packages bring no program of
// their own that is run here and are listed by the file that proves them.
func Packages() []Tool {
	return []Tool{
		{FeatureHosts, "ip", "iproute2"},
		{FeatureHosts, "nsenter", "util-linux"},
		{FeatureHosts, "unshare", "util-linux"},
		{FeatureHosts, "nft", "nftables"},
		{FeatureHosts, "ethtool", "ethtool"},
		{FeatureLibvirt, "libvirtd", "libvirt-daemon"},
		{FeatureLibvirt, "virtlogd", "libvirt-daemon"},
		{FeatureLibvirt, "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so", "libvirt-daemon-driver-qemu"},
		{FeatureLibvirt, "/etc/libvirt/qemu.conf", "libvirt-daemon-system"},
		{FeatureLibvirt, "virsh", "libvirt-clients"},
		{FeatureLibvirt, "qemu-system-x86_64", "qemu-system-x86"},
		{FeatureLibvirt, "qemu-img", "qemu-utils"},
		{FeatureLibvirt, "/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so", "qemu-block-extra"},
		{FeatureLibvirt, "apt-get", "apt"},
		{FeatureLibvirt, "dpkg", "dpkg"},
		{FeatureLibvirt, "xz", "xz-utils"},
		{FeatureKnot, "knotd", "knot"},
		{FeatureKnot, "kdig", "knot-dnsutils"},
		{FeaturePrometheus, "prometheus", "prometheus"},
		{FeaturePrometheus, "prometheus-alertmanager", "prometheus-alertmanager"},
	}
}

// Missing says in one line each what keeps the lab from running here: a Debian package or a privilege. Without
// features it looks at all of them.
func Missing(features ...Feature) []string {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "privilege: root")
	} else if out, err := exec.Command("unshare", "--net", "--mount", "true").CombinedOutput(); err != nil {
		missing = append(missing, fmt.Sprintf("privilege: new network and mount namespaces: %v %s", err, strings.TrimSpace(string(out))))
	}
	for _, tool := range Packages() {
		if len(features) > 0 && tool.Feature != FeatureHosts && !slices.Contains(features, tool.Feature) {
			continue
		}
		if _, err := exec.LookPath(tool.Program); err != nil && !isFile(tool.Program) {
			missing = append(missing, "package: "+tool.Package)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// isFile tells whether an absolute path is a file.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return strings.HasPrefix(path, "/") && err == nil && info.Mode().IsRegular()
}

// Require skips the test when something is missing; in CI (HOTSPARE_CI=1) that is a failure.
func Require(t testing.TB, features ...Feature) {
	t.Helper()
	missing := Missing(features...)
	if len(missing) == 0 {
		return
	}
	reason := "the lab cannot run here: " + strings.Join(missing, ", ")
	if os.Getenv("HOTSPARE_CI") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
