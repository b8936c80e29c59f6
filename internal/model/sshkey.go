package model

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
)

// maxSSHKey bounds one line: an RSA key of 16384 bits has less than 3 KiB.
const maxSSHKey = 8 << 10

func sshKeyTypes() []string {
	return []string{
		"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
		"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
	}
}

// IsSSHKey says whether a text is one public key as it stands in authorized_keys: "ssh-ed25519 AAAAC3... name",
// perhaps behind options. What is inside the key is the guest's to judge, but a file that holds something else,
// or a key that was cut off, is told to who gave it, and not found out at the first login.
func IsSSHKey(line string) bool {
	if len(line) > maxSSHKey || strings.ContainsAny(strings.TrimSpace(line), "\r\n\x00") {
		return false
	}
	fields := strings.Fields(line)
	for i, f := range fields {
		if !slices.Contains(sshKeyTypes(), f) || i+1 == len(fields) {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(fields[i+1])
		return err == nil && wireFields(blob, f)
	}
	return false
}

// wireFields says whether a blob is a list of two or more length-prefixed fields that begins with the key's type.
func wireFields(blob []byte, kind string) bool {
	n := 0
	for ; len(blob) > 0; n++ {
		if len(blob) < 4 {
			return false
		}
		size := binary.BigEndian.Uint32(blob)
		if size == 0 || uint64(size) > uint64(len(blob)-4) || n == 0 && !bytes.Equal(blob[4:4+size], []byte(kind)) {
			return false
		}
		blob = blob[4+size:]
	}
	return n >= 2
}
