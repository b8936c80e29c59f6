package qcow2

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

// metadataVersion is raised when an older driver could no longer read volume.json rightly.
const metadataVersion = 1

// maxDepth bounds the layers under one export: each costs the daemon a file descriptor, up to 1 MiB
// of cache and a lookup for every read that falls through. It is reached only when clones freeze the
// same synchronisation again and again; a resync begins a new chain. Layers are not merged by a job
// of the daemon: QEMU 7.2's died of SIGSEGV when a block-stream ended on a layer that several nodes
// stood on, and every promoted volume of the pool with it.
const maxDepth = 32

// maxName bounds a volume's name; export names and file names allow 255 bytes.
const maxName = 128

// state is what a volume is.
type state string

// The states, as they stand in volume.json.
const (
	isReplica state = "replica"
	isPrimary state = "primary"
	isClone   state = "clone"
)

// volume is what volume.json says. It is a value: changes are made on a copy and saved before
// anything follows them.
type volume struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	State   state  `json:"state"`
	// Next numbers the next layer. Numbers are never used again.
	Next uint64 `json:"next"`
	// Sync is the newest synchronisation that was ever allowed to write.
	Sync uint64 `json:"sync,omitempty"`
	// Layers are kept oldest first; a base has a lower number than what stands on it.
	Layers []layer `json:"layers,omitempty"`
	// Top is the layer that is exported; 0: none.
	Top uint64 `json:"top,omitempty"`
	// Idle is since when a replica waits for a higher number.
	Idle time.Time `json:"idle,omitzero"`
	// Lost is since when the mirror of the newest synchronisation is known to have ended.
	Lost time.Time `json:"lost,omitzero"`
	// Of and Origin name the layer of another volume that a clone stands on.
	Of     string `json:"of,omitempty"`
	Origin uint64 `json:"origin,omitempty"`
	// OriginAt is when the origin had converged.
	OriginAt time.Time `json:"origin_at,omitzero"`
	// Disk is the file that the newest point is handed over to on promotion, Given the layer that is
	// or was handed over.
	Disk  string `json:"disk,omitempty"`
	Given *layer `json:"given,omitempty"`
	// Back is the mirror of a promoted volume to another pool. It is never changed, only replaced.
	Back *wayBack `json:"back,omitempty"`
	// Removing is set when a removal was begun.
	Removing bool `json:"removing,omitempty"`
}

// layer is one layer file.
type layer struct {
	Number    uint64 `json:"number"`
	SizeBytes uint64 `json:"size_bytes"`
	// Base is the layer below in the same volume; 0: none, or the origin of a clone.
	Base uint64 `json:"base,omitempty"`
	// Sync is the synchronisation that wrote it; 0 for the layers of promotions and clones.
	Sync      uint64    `json:"sync,omitempty"`
	Converged bool      `json:"converged,omitempty"`
	At        time.Time `json:"at,omitzero"`
	// Raw is set for the layers of a volume that is handed over as a raw file.
	Raw bool `json:"raw,omitempty"`
}

// checkName refuses names that could leave the pool's folder or look like something else in it.
func checkName(name string) error {
	if name == "" || len(name) > maxName || name[0] == '.' || strings.ContainsAny(name, "/@\x00") {
		return fmt.Errorf("volume name %q: want 1 to %d bytes without '/' and '@', not beginning with a dot", name, maxName)
	}
	return nil
}

// decodeVolume reads volume.json and checks everything that later code relies on.
func decodeVolume(text []byte) (volume, error) {
	var v volume
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return volume{}, err
	}
	if v.Version != metadataVersion {
		return volume{}, fmt.Errorf("version %d, this driver reads %d", v.Version, metadataVersion)
	}
	return v, v.check()
}

func (v volume) check() error {
	if err := checkName(v.Name); err != nil {
		return err
	}
	if !slices.Contains([]state{isReplica, isPrimary, isClone}, v.State) {
		return fmt.Errorf("state %q", v.State)
	}
	if err := v.checkLayers(); err != nil {
		return err
	}
	if (v.State == isClone) != (v.Origin != 0) || (v.State == isClone) != (v.Of != "") {
		return errors.New("only a clone has an origin")
	}
	if v.Back != nil && v.State != isPrimary {
		return errors.New("only a promoted volume is mirrored back")
	}
	if v.Disk != "" && !filepath.IsAbs(v.Disk) {
		return fmt.Errorf("disk %q is not an absolute path", v.Disk)
	}
	return nil
}

func (v volume) checkLayers() error {
	last := uint64(0)
	for _, l := range v.Layers {
		if l.Number <= last || l.Number >= v.Next || l.Base >= l.Number {
			return fmt.Errorf("layer %d on %d is out of order", l.Number, l.Base)
		}
		if l.Base != 0 && v.layer(l.Base) == nil {
			return fmt.Errorf("layer %d stands on %d, which does not exist", l.Number, l.Base)
		}
		last = l.Number
	}
	if v.Top != 0 && v.layer(v.Top) == nil {
		return fmt.Errorf("top layer %d does not exist", v.Top)
	}
	return nil
}

// copy returns a volume whose layers may be changed.
func (v volume) copy() volume {
	v.Layers = slices.Clone(v.Layers)
	return v
}

// layer returns the layer of that number, or nil.
func (v *volume) layer(number uint64) *layer {
	for i := range v.Layers {
		if v.Layers[i].Number == number {
			return &v.Layers[i]
		}
	}
	return nil
}

// point returns the newest consistent layer of a volume that is no clone, or nil.
func (v *volume) point() *layer {
	for i := len(v.Layers) - 1; i >= 0; i-- {
		if v.Layers[i].Converged {
			return &v.Layers[i]
		}
	}
	return nil
}

// find returns the consistent layer of that name; empty: the newest.
func (v *volume) find(name string) *layer {
	if name == "" {
		return v.point()
	}
	for i, l := range v.Layers {
		if l.Converged && strconv.FormatUint(l.Number, 10) == name {
			return &v.Layers[i]
		}
	}
	return nil
}

// chain returns the layers from the given one down to the last that stands on nothing.
func (v *volume) chain(number uint64) []layer {
	var out []layer
	for l := v.layer(number); l != nil; l = v.layer(l.Base) {
		out = append(out, *l)
	}
	return out
}

// add makes a new top layer.
func (v *volume) add(l layer) layer {
	l.Number = v.Next
	v.Next++
	v.Layers = append(v.Layers, l)
	v.Top = l.Number
	return l
}

// mark notes that a synchronisation has converged.
func (v *volume) mark(converged uint64, now time.Time) {
	l := v.layer(v.Top)
	if converged == 0 || l == nil || l.Sync != converged || l.Converged {
		return
	}
	l.Converged, l.At = true, now
}

// resync begins a synchronisation and returns its layer; nil when the number is not higher.
func (v *volume) resync(number, sizeBytes uint64, raw bool) *layer {
	if number <= v.Sync {
		return nil
	}
	v.Sync = number
	v.Idle, v.Lost = time.Time{}, time.Time{}
	l := v.add(layer{SizeBytes: sizeBytes, Sync: number, Raw: raw})
	return &l
}

// freeze puts an empty layer above the top and returns it. What is known of the content goes with it.
func (v *volume) freeze() layer {
	l := *v.layer(v.Top)
	l.Base, l.Raw = l.Number, false
	return v.add(l)
}

// promote puts a writable layer above a point and returns it.
func (v *volume) promote(point layer) layer {
	v.State = isPrimary
	v.Idle, v.Lost = time.Time{}, time.Time{}
	return v.add(layer{SizeBytes: point.SizeBytes, Base: point.Number})
}

// demote forgets the promoted layer.
func (v *volume) demote(now time.Time) {
	v.State, v.Top, v.Given, v.Back = isReplica, 0, nil, nil
	v.Idle = now
}

// prune forgets the layers that neither the export, nor the newest point, nor a clone stands on.
func (v *volume) prune(origins []uint64) {
	needed := map[uint64]bool{}
	roots := append([]uint64{v.Top}, origins...)
	if p := v.point(); p != nil && v.State != isClone {
		roots = append(roots, p.Number)
	}
	for _, root := range roots {
		for _, l := range v.chain(root) {
			needed[l.Number] = true
		}
	}
	v.Layers = slices.DeleteFunc(v.Layers, func(l layer) bool { return !needed[l.Number] })
}

// exportName is the NBD name under which the top is reachable.
func (v *volume) exportName() string {
	if v.State == isReplica {
		return storage.SyncExport(v.Name, v.Sync)
	}
	return v.Name
}

// tag stands for the volume in the daemon's identifiers, which allow 31 letters, digits and dashes.
func (v *volume) tag() string {
	sum := sha256.Sum256([]byte(v.Name))
	return "v" + hex.EncodeToString(sum[:8])
}

// exportID names the export in the daemon: one for each name, so that one that still winds down is
// never taken for its successor.
func (v *volume) exportID() string {
	if v.State == isReplica {
		return v.tag() + "-s" + strconv.FormatUint(v.Sync, 10)
	}
	return v.tag() + "-w"
}

// node names a layer's node in the daemon.
func (v *volume) node(number uint64) string { return v.tag() + "-" + strconv.FormatUint(number, 36) }

// file names a layer's file within the volume's folder.
func (l layer) file() string {
	suffix := ".qcow2"
	if l.Raw {
		suffix = ".raw"
	}
	return strconv.FormatUint(l.Number, 10) + suffix
}

// status is what the pool shows, without the space that is used.
func (v *volume) status(address string) *pb.VolumeStatus {
	s := &pb.VolumeStatus{Layers: uint32(len(v.Layers)), Resync: v.Sync}
	switch p := v.point(); {
	case v.State == isClone:
		s.Point = consistent(v.OriginAt, v.Origin)
	case v.Given != nil && v.Given.Converged:
		s.Point = consistent(v.Given.At, v.Given.Number)
	case p != nil:
		s.Point = consistent(p.At, p.Number)
	}
	if v.exported() {
		s.Export = "nbd://" + address + "/" + v.Name
	}
	switch {
	case !v.Idle.IsZero():
		s.DegradedSince = timestamppb.New(v.Idle)
		s.DegradedReason = "nothing may write until a new synchronisation is asked for"
	case !v.Lost.IsZero():
		s.DegradedSince = timestamppb.New(v.Lost)
		s.DegradedReason = fmt.Sprintf("the storage daemon died, and the mirror of synchronisation %d with it", v.Sync)
	}
	return s
}

func consistent(at time.Time, number uint64) *pb.ConsistentPoint {
	return &pb.ConsistentPoint{Time: timestamppb.New(at), Layer: strconv.FormatUint(number, 10)}
}

// exported says whether the top may be written to by a VM or a mirror.
func (v *volume) exported() bool { return v.Top != 0 && (v.Back == nil || !v.Back.Sealed) }

// pbState translates the state for the seam.
func (v *volume) pbState() pb.State {
	switch v.State {
	case isPrimary:
		return pb.State_STATE_PRIMARY
	case isClone:
		return pb.State_STATE_CLONE
	default:
		return pb.State_STATE_REPLICA
	}
}
