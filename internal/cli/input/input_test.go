package input_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/input"
)

func TestVM(t *testing.T) {
	const gib = 1 << 30
	for text, want := range map[string]*pb.Resources{
		"4cpu,8GiB":   {Vcpus: 4, MemoryBytes: 8 * gib},
		"2x4cpu,8GiB": {Vcpus: 4, MemoryBytes: 8 * gib},
		"1cpu,1GiB,disk/ssd=5GiB,disk/hdd=1TiB": {
			Vcpus: 1, MemoryBytes: gib, LocalDisksBytes: map[string]uint64{"ssd": 5 * gib, "hdd": 1024 * gib},
		},
		"1cpu,1GiB,disk/x=5GiB,x=1": {Vcpus: 1, MemoryBytes: gib, LocalDisksBytes: map[string]uint64{"x": 5 * gib}, Devices: map[string]uint32{"x": 1}},
		"1cpu,1GiB,x=1,disk/x=5GiB": {Vcpus: 1, MemoryBytes: gib, LocalDisksBytes: map[string]uint64{"x": 5 * gib}, Devices: map[string]uint32{"x": 1}},
		"4cpu,8GiB,disk=20GiB,a100=2,fpga=1": {
			Vcpus: 4, MemoryBytes: 8 * gib, LocalDiskBytes: 20 * gib, Devices: map[string]uint32{"a100": 2, "fpga": 1},
		},
	} {
		n, got, err := input.VM(text)
		if err != nil || !proto.Equal(got, want) || (n == 2) != strings.HasPrefix(text, "2x") {
			t.Errorf("%s: %d of %v, %v", text, n, got, err)
		}
	}
	for text, says := range map[string]string{
		"":                                    "want for example",
		"4cpu":                                "want for example",
		"0cpu,8GiB":                           "want for example",
		"0x1cpu,8GiB":                         "want for example",
		"4cpu,8GiB,":                          "want for example",
		"4cpu,8GiB,disk":                      "want for example",
		"4cpu,8GiB,disk=20":                   `disk is "20", want a size`,
		"4cpu,8GiB,disk=0GiB":                 `disk is "0GiB", want a size`,
		"4cpu,8GiB,disk=1GiB,disk=1GiB":       "disk is there twice",
		"4cpu,8GiB,disk/ssd=20":               `disk/ssd is "20", want a size`,
		"4cpu,8GiB,disk/a=1GiB,disk/a=1GiB":   "disk/a is there twice",
		"4cpu,8GiB,disk/=1GiB":                "want for example",
		"4cpu,8GiB,a100=1,a100=1":             "a100 is there twice",
		"4cpu,8GiB,a100=0":                    `device a100 is "0", want how many`,
		"4cpu,8GiB,a100=many":                 `device a100 is "many", want how many`,
		"4cpu,8GiB,a100=99999999999999999999": "want how many",
	} {
		if _, _, err := input.VM(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}
