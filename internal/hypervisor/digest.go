package hypervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Digest names what a domain is made of: 64 hexadecimal digits, equal for definitions that make the
// same machine. The term, the health probe, the reclaim action and the owner are not part of it,
// because they change while the machine runs. Drivers keep it in the domain's metadata.
func (d Definition) Digest() string {
	s := d.Spec
	made := struct {
		Hostname string
		VCPUs    uint32
		Memory   uint64
		Disks    []*pb.Disk
		NICs     []*pb.Nic
		Boot     *pb.Boot
		UserData []byte
		SSHKeys  []string
	}{s.GetHostname(), s.GetVcpus(), s.GetMemoryBytes(), nil, s.GetNics(), s.GetBoot(), s.GetUserData(), s.GetSshKeys()}
	made.Disks = s.GetDisks()
	// Plain JSON of the generated structs is stable as long as the messages are, unlike the encodings
	// of the protobuf library, which may differ from one build to the next.
	text, err := json.Marshal(made)
	if err != nil {
		panic("hypervisor: a definition cannot be encoded: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
