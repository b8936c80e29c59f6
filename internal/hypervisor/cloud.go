package hypervisor

import (
	"fmt"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// CloudMetaData is the meta-data of cloud-init's NoCloud data source, in YAML, for a driver's seed and for the
// agent's metadata service. Every value is a double-quoted scalar, in which Go's quoting is valid.
func CloudMetaData(instance string, s *pb.InstanceSpec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "instance-id: %q\nlocal-hostname: %q\n", instance, s.GetHostname())
	if keys := s.GetSshKeys(); len(keys) > 0 {
		b.WriteString("public-keys:\n")
		for _, k := range keys {
			fmt.Fprintf(&b, "- %q\n", strings.TrimSpace(k))
		}
	}
	return b.String()
}
