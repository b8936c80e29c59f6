package raftnode

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxEntryBytes bounds the data of one log entry (R7); more is proposed in parts.
const MaxEntryBytes = 4 << 20

// MaxProposalBytes bounds the data of one proposal: what maxSets unfinished ones may hold in memory, and
// what a snapshot carries of them, stays below 256 MiB.
const MaxProposalBytes = 64 << 20

const (
	// partBytes is the size of a part: small enough that heartbeats and other entries pass between two.
	partBytes = 1 << 20
	// maxParts follows from the two bounds above.
	maxParts = MaxProposalBytes / partBytes
	// maxSets bounds unfinished proposals; a leader sends one at a time, so more are leavings.
	maxSets = 4
	// maxSetAge is the number of entries after which an unfinished proposal is dropped.
	maxSetAge = 4096
)

// Frame kinds: the first byte of each entry. Never reuse a number.
const (
	frameWhole = 1
	framePart  = 2
	frameClose = 3
)

// errPartsLost: the parts named by an entry were dropped, so the proposal has no effect.
var errPartsLost = errors.New("parts of the proposal were dropped")

func wholeFrame(data []byte) []byte {
	return append([]byte{frameWhole}, data...)
}

func partFrame(set uint64, number int, piece []byte) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{framePart}, set)
	b = binary.LittleEndian.AppendUint32(b, uint32(number))
	return append(b, piece...)
}

func closeFrame(set uint64, count int, digest [sha256.Size]byte) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{frameClose}, set)
	b = binary.LittleEndian.AppendUint32(b, uint32(count))
	return append(b, digest[:]...)
}

// partSet is an unfinished proposal. Parts are never changed once they are in.
type partSet struct {
	// first is the index of the entry with the first part, the set's name.
	first, term uint64
	parts       [][]byte
}

// partSets are the unfinished proposals, oldest first. They change by what is in the log only.
type partSets []partSet

// clone returns a copy that later entries do not change: they only append to the lists of parts.
func (s partSets) clone() partSets { return slices.Clone(s) }

// accept takes one entry. It returns the data when a proposal is complete, errPartsLost when the entry
// belongs to a set that is gone, and another error when the entry cannot be decoded.
func (s *partSets) accept(index, term uint64, entry []byte) (data []byte, complete bool, err error) {
	*s = slices.DeleteFunc(*s, func(p partSet) bool {
		return p.term < term || index-p.first > maxSetAge
	})
	if len(entry) == 0 {
		return nil, false, errors.New("an empty entry")
	}
	body := entry[1:]
	switch entry[0] {
	case frameWhole:
		return body, true, nil
	case framePart:
		return nil, false, s.part(index, term, body)
	case frameClose:
		data, err = s.finish(body)
		return data, err == nil, err
	default:
		return nil, false, fmt.Errorf("frame kind %d is not known", entry[0])
	}
}

func (s *partSets) part(index, term uint64, body []byte) error {
	if len(body) < 12 || len(body) > 12+partBytes {
		return fmt.Errorf("a part of %d bytes", len(body))
	}
	set, number, piece := binary.LittleEndian.Uint64(body), int(binary.LittleEndian.Uint32(body[8:])), body[12:]
	if set == 0 {
		if len(*s) == maxSets {
			*s = slices.Delete(*s, 0, 1)
		}
		*s = append(*s, partSet{first: index, term: term, parts: [][]byte{piece}})
		return nil
	}
	p := s.find(set)
	if p == nil || len(p.parts) != number || number >= maxParts {
		return fmt.Errorf("part %d of set %d: %w", number, set, errPartsLost)
	}
	p.parts = append(p.parts, piece)
	return nil
}

func (s *partSets) finish(body []byte) ([]byte, error) {
	if len(body) != 12+sha256.Size {
		return nil, fmt.Errorf("a closing entry of %d bytes", len(body))
	}
	set, count, digest := binary.LittleEndian.Uint64(body), int(binary.LittleEndian.Uint32(body[8:])), body[12:]
	p := s.find(set)
	if p == nil || len(p.parts) != count {
		return nil, fmt.Errorf("close set %d: %w", set, errPartsLost)
	}
	data := bytes.Join(p.parts, nil)
	*s = slices.DeleteFunc(*s, func(p partSet) bool { return p.first == set })
	if got := sha256.Sum256(data); !bytes.Equal(got[:], digest) {
		return nil, fmt.Errorf("close set %d: the digest differs: %w", set, errPartsLost)
	}
	return data, nil
}

func (s partSets) find(first uint64) *partSet {
	for i := range s {
		if s[i].first == first {
			return &s[i]
		}
	}
	return nil
}

// snapshotMagic opens each snapshot; the last byte is the format.
const snapshotMagic = "hsraft\x00\x01"

// writeTo writes the head of a snapshot: magic, number of sets, then for each its name, term, number of
// parts and the parts with their lengths, little endian.
func (s partSets) writeTo(w io.Writer) error {
	b := binary.LittleEndian.AppendUint32([]byte(snapshotMagic), uint32(len(s)))
	for _, p := range s {
		b = binary.LittleEndian.AppendUint64(b, p.first)
		b = binary.LittleEndian.AppendUint64(b, p.term)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.parts)))
		for _, piece := range p.parts {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(piece)))
			if _, err := w.Write(append(b, piece...)); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	_, err := w.Write(b)
	return err
}

// readSets reads what writeTo wrote and refuses numbers above the bounds.
func readSets(r io.Reader) (partSets, error) {
	head := make([]byte, len(snapshotMagic)+4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("read its head: %w", err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%q is not the head of a snapshot that this version reads", head[:len(snapshotMagic)])
	}
	count := binary.LittleEndian.Uint32(head[len(snapshotMagic):])
	if count > maxSets {
		return nil, fmt.Errorf("%d unfinished proposals exceed %d", count, maxSets)
	}
	var sets partSets
	for range count {
		p, err := readSet(r)
		if err != nil {
			return nil, fmt.Errorf("read an unfinished proposal: %w", err)
		}
		sets = append(sets, p)
	}
	return sets, nil
}

func readSet(r io.Reader) (partSet, error) {
	var head [20]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return partSet{}, err
	}
	p := partSet{first: binary.LittleEndian.Uint64(head[:]), term: binary.LittleEndian.Uint64(head[8:])}
	count := binary.LittleEndian.Uint32(head[16:])
	if count > maxParts {
		return partSet{}, fmt.Errorf("%d parts exceed %d", count, maxParts)
	}
	for range count {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return partSet{}, err
		}
		n := binary.LittleEndian.Uint32(size[:])
		if n > partBytes {
			return partSet{}, fmt.Errorf("a part of %d bytes exceeds %d", n, partBytes)
		}
		piece := make([]byte, n)
		if _, err := io.ReadFull(r, piece); err != nil {
			return partSet{}, err
		}
		p.parts = append(p.parts, piece)
	}
	return p, nil
}
