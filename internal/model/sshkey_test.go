package model

import (
	"strings"
	"testing"
)

func TestIsSSHKey(t *testing.T) {
	// Made by ssh-keygen.
	const (
		ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIELe3te6SvjGjeiLoAz5SK0xIU1cOiblEVfk2f/Gn2Bn carol"
		ecdsa   = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJcyuiFGouYeuiaJH1pI6tw8OiSR63E808ZcR7kvLIoahOJme2ZOb/dVeW33fCyGubAEbW08wRMpYvOP2c4D9pM= c"
		rsa     = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCPY3FQtcmWsadIzoZcfjBiMrlURj0BAUchgRsFbDh2JqLDPlUyKmIx5PQhglLAaL925EP1hYpxX/e7eDSYCdFuO4jJTTgtm5+LP7un9Vj9UQ2bK+SkicyebLhKhbkA9K6XnZN5QuXtTQeHJL7Vn1uSyc0ZkLpheN5ljDm3jpoDqWE9khasinGYdzNXoHBtOFMjXvit8RRDj7zE3hkOIetJ2QQFFhQhXtmL6wDQqFW3NQVKVHxUREWSWse+mpBsg4CPup1wypbNfS+CbZzL10/m4Q08j/4bv+LCErCt++EwkDl4tjOHqB8Zxq7TDvyeFcNu0CFWX/PGZIKNRYEswYBj d"
	)
	for _, good := range []string{
		ed25519, ecdsa, rsa, ed25519 + "\n", strings.TrimSuffix(ed25519, " carol"), `no-pty,command="echo hi" ` + ed25519, ed25519 + " of my laptop",
	} {
		if !IsSSHKey(good) {
			t.Errorf("refused: %q", good)
		}
	}
	for _, bad := range []string{
		"", "hello", "ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 AAAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
		strings.Replace(ed25519, "ssh-ed25519", "ssh-rsa", 1), ed25519[:len("ssh-ed25519 ")+40] + " carol", ed25519 + "\n" + ecdsa,
		"-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-dss " + strings.Fields(rsa)[1], ed25519 + strings.Repeat(" x", 8<<10),
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5/////w==",
	} {
		if IsSSHKey(bad) {
			t.Errorf("accepted: %.80q", bad)
		}
	}
}

func FuzzIsSSHKey(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIELe3te6SvjGjeiLoAz5SK0xIU1cOiblEVfk2f/Gn2Bn carol")
	f.Fuzz(func(t *testing.T, line string) {
		if IsSSHKey(line) && strings.Contains(strings.TrimSpace(line), "\n") {
			t.Errorf("two lines: %q", line)
		}
	})
}
