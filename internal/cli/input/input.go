// Package input reads what users type into flags and keep in files that flags name.
//
// It decides what is well formed, and says what is wanted where it is not. It never asks the coordinator.
// internal/cli calls it.
package input

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/strictyaml"
)

// maxUserData bounds what cloud-init gets: it travels through the replicated log.
const maxUserData = 64 << 10

// vmPattern reads "2x4cpu,8GiB", and what follows of disk and devices.
var vmPattern = regexp.MustCompile(`^(?:(\d{1,4})x)?(\d{1,4})cpu,(\d+[KMGT]iB)((?:,(?:disk/)?[a-z0-9-]+=[0-9A-Za-z]+)*)$`)

// VM reads how many VMs of what size: "4cpu,8GiB", "2x4cpu,8GiB" or "4cpu,8GiB,disk=20GiB,disk/ssd=50GiB,a100=1".
func VM(text string) (uint32, *pb.Resources, error) {
	m := vmPattern.FindStringSubmatch(text)
	if m == nil {
		return 0, nil, outcome.Usagef("--vm %q: want for example 4cpu,8GiB or 2x4cpu,8GiB or 4cpu,8GiB,disk=20GiB,a100=1", text)
	}
	count := uint64(1)
	if m[1] != "" {
		count, _ = strconv.ParseUint(m[1], 10, 32) // the pattern has checked the digits
	}
	vcpus, _ := strconv.ParseUint(m[2], 10, 32)
	memory, err := model.ParseBytes(m[3])
	if err != nil || count == 0 || vcpus == 0 || memory == 0 {
		return 0, nil, outcome.Usagef("--vm %q: want for example 4cpu,8GiB or 2x4cpu,8GiB", text)
	}
	r := &pb.Resources{Vcpus: uint32(vcpus), MemoryBytes: memory}
	for part := range strings.SplitSeq(strings.TrimPrefix(m[4], ","), ",") {
		if err := extra(r, part); err != nil {
			return 0, nil, outcome.Usagef("--vm %q: %v", text, err)
		}
	}
	return uint32(count), r, nil
}

// extra reads one more part of a VM: "disk=20GiB", "disk/ssd=50GiB" in a local pool, or how many of a device.
func extra(r *pb.Resources, part string) error {
	name, value, _ := strings.Cut(part, "=")
	pool, pooled := strings.CutPrefix(name, "disk/")
	switch {
	case part == "":
		return nil
	case name == "disk" || pooled:
		return disk(r, name, pool, value)
	case r.GetDevices()[name] > 0:
		return fmt.Errorf("%s is there twice", name)
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 {
		return fmt.Errorf("device %s is %q, want how many", name, value)
	}
	if r.Devices == nil {
		r.Devices = map[string]uint32{}
	}
	r.Devices[name] = uint32(n)
	return nil
}

// disk reads the size of a disk: the one on the host's own disk, or one in a local pool.
func disk(r *pb.Resources, name, pool, value string) error {
	n, err := model.ParseBytes(value)
	switch {
	case err != nil || n == 0:
		return fmt.Errorf("%s is %q, want a size with a unit, for example 20GiB", name, value)
	case name == "disk" && r.GetLocalDiskBytes() > 0 || name != "disk" && r.GetLocalDisksBytes()[pool] > 0:
		return fmt.Errorf("%s is there twice", name)
	case name == "disk":
		r.LocalDiskBytes = n
		return nil
	}
	if r.LocalDisksBytes == nil {
		r.LocalDisksBytes = map[string]uint64{}
	}
	r.LocalDisksBytes[pool] = n
	return nil
}

// Time reads the optional point in time of a flag.
func Time(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, outcome.Usagef("%s %q: want a time with its zone, for example 2026-12-01T08:00Z or 2026-12-01T09:00+01:00", flag, text)
}

// Duration reads the optional duration of a flag, longer than zero.
func Duration(flag, text string) (*durationpb.Duration, error) {
	if text == "" {
		return nil, nil
	}
	d, err := model.ParseDuration(text)
	if err != nil || d <= 0 {
		return nil, outcome.Usagef("%s %q: want for example 90s, 8h or 3d", flag, text)
	}
	return durationpb.New(d), nil
}

// SSHKeys reads the public keys in files as ssh-keygen writes them: a key on each line.
func SSHKeys(files []string) ([]string, error) {
	var keys []string
	for _, name := range files {
		data, err := Bounded(name)
		if err != nil {
			return nil, outcome.Usagef("read ssh keys: %v", err)
		}
		if strings.Contains(string(data), "PRIVATE KEY") {
			return nil, outcome.Usagef("%s is a private key: give the file that ends in .pub", name)
		}
		before := len(keys)
		number := 0
		for line := range strings.Lines(string(data)) {
			number++
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if !model.IsSSHKey(line) {
				return nil, outcome.Usagef("%s, line %d is no ssh public key: want for example \"ssh-ed25519 AAAA... name\"", name, number)
			}
			keys = append(keys, line)
		}
		if len(keys) == before {
			return nil, outcome.Usagef("%s holds no ssh key", name)
		}
	}
	return keys, nil
}

// UserData reads the file that cloud-init gets.
func UserData(name string) ([]byte, error) {
	data, err := Bounded(name)
	if err != nil {
		return nil, outcome.Usagef("read user data: %v", err)
	}
	if len(data) > maxUserData {
		return nil, outcome.Usagef("user data has %d bytes, at most %d", len(data), maxUserData)
	}
	return data, nil
}

// Bounded reads a file up to what any of our inputs may be.
func Bounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	if errors.Is(err, fs.ErrInvalid) {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	return data, err
}
