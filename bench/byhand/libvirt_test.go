package byhand

import (
	"strings"
	"testing"
)

func TestRenamedIsTheSameMachine(t *testing.T) {
	const definition = `<domain type='qemu'><name>hs-webshop-db-e1</name><uuid>00000000-0000-5000-8000-000000000001</uuid>
<metadata><x:domain xmlns:x='https://example.test/1'><x:id>instance/webshop-db-e1</x:id></x:domain></metadata>
<memory unit='KiB'>131072</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type><kernel>/boot/vmlinuz</kernel></os>
<devices><disk type='network' device='disk'><source protocol='nbd' name='webshop-db-root'/><target dev='vda' bus='virtio'/></disk>
<interface type='bridge'><mac address='52:54:00:aa:00:01'/><source bridge='br-prod10'/></interface>
<serial type='file'><source path='/a/console.log' append='on'/><target port='0'/></serial>
<console type='file'><source path='/a/console.log' append='on'/><target type='serial' port='0'/></console></devices></domain>`
	got, err := Renamed(definition, "byhand", "/b/console")
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{"<name>byhand</name>", "/boot/vmlinuz", "131072", "webshop-db-root", "52:54:00:aa:00:01", "br-prod10", "/b/console"} {
		if !strings.Contains(got, kept) {
			t.Errorf("%q is missing in:\n%s", kept, got)
		}
	}
	for _, other := range []string{"hs-webshop", "uuid", "metadata", "/a/console.log"} {
		if strings.Contains(got, other) {
			t.Errorf("%q is left in:\n%s", other, got)
		}
	}
	if _, err := Renamed("<network/>", "byhand", "/b/console"); err == nil {
		t.Error("what is no domain was renamed")
	}
}
