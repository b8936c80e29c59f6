// Package disk is the layout of the test guest's disk: a marker text in sector 0
// and a row of numbered, checksummed records behind it. The guest writes them, the
// tests read them back, from inside the guest or from the image, and so learn which
// disk a guest runs on and how many acknowledged writes a failover lost. The package
// only encodes, decodes and scans; it never opens a device.
package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

const (
	// SectorBytes is the unit of every read and write.
	SectorBytes = 512
	// RecordBytes is the size of one record: a sector, so that a record is written whole or not at all.
	RecordBytes = SectorBytes
	// RecordsOffset is where record 1 begins; 4096 keeps records aligned on disks with large sectors.
	RecordsOffset = 4096
	// RegionBytes bounds the part of a disk that holds records (65536 of them), so that a scan at boot stays short.
	RegionBytes = 32 << 20

	markerPrefix = "hotspare-disk:"
	recordMagic  = "HSREC001"
	payloadStart = 32
	scanChunk    = 1 << 20
)

// ErrNoRecord says that a sector holds no valid record.
var ErrNoRecord = errors.New("no valid record")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is one acknowledged write. Numbers start at 1 and have no gaps.
type Record struct {
	Number uint64
	Time   time.Time
}

// Report is what a scan found.
type Report struct {
	// Last is the highest number of a valid record, 0 when there is none.
	Last uint64 `json:"last"`
	// Count is how many valid records there are.
	Count uint64 `json:"count"`
	// Unbroken is true when records 1..Last are all valid.
	Unbroken bool `json:"unbroken"`
	// LastTime is the time in record Last, by the writer's clock.
	LastTime time.Time `json:"last_time"`
}

// Marker returns sector 0 for a marker text, an error if the text does not fit into one line of one sector.
func Marker(text string) ([]byte, error) {
	if len(markerPrefix)+len(text)+1 > SectorBytes || bytes.ContainsAny([]byte(text), "\n\x00") {
		return nil, fmt.Errorf("encode marker %q: want one line of at most %d bytes", text, SectorBytes-len(markerPrefix)-1)
	}
	sector := make([]byte, SectorBytes)
	copy(sector, markerPrefix+text+"\n")
	return sector, nil
}

// ReadMarker returns the marker text of sector 0, empty when the disk has none.
func ReadMarker(sector []byte) string {
	text, found := bytes.CutPrefix(sector, []byte(markerPrefix))
	if !found {
		return ""
	}
	text, _, found = bytes.Cut(text, []byte("\n"))
	if !found {
		return ""
	}
	return string(text)
}

// Capacity returns how many records a disk of the given size can hold.
func Capacity(sizeBytes int64) uint64 {
	sizeBytes = min(sizeBytes, RecordsOffset+RegionBytes)
	if sizeBytes <= RecordsOffset {
		return 0
	}
	return uint64(sizeBytes-RecordsOffset) / RecordBytes
}

// Offset returns where on the disk a record is kept.
func Offset(number uint64) int64 {
	return RecordsOffset + int64(number-1)*RecordBytes
}

// Encode writes a record into sector, which must be RecordBytes long. Layout, little endian:
// 0 magic, 8 number, 16 time in Unix nanoseconds, 24 CRC-32C of everything else, 28 zero, 32 payload made from the number.
func Encode(sector []byte, r Record) {
	clear(sector)
	copy(sector, recordMagic)
	binary.LittleEndian.PutUint64(sector[8:], r.Number)
	binary.LittleEndian.PutUint64(sector[16:], uint64(r.Time.UnixNano()))
	for i := payloadStart; i+8 <= RecordBytes; i += 8 {
		binary.LittleEndian.PutUint64(sector[i:], r.Number*0x9e3779b97f4a7c15+uint64(i))
	}
	binary.LittleEndian.PutUint32(sector[24:], checksum(sector))
}

// Decode reads a record, or returns ErrNoRecord.
func Decode(sector []byte) (Record, error) {
	if len(sector) != RecordBytes || string(sector[:8]) != recordMagic ||
		binary.LittleEndian.Uint32(sector[24:]) != checksum(sector) {
		return Record{}, ErrNoRecord
	}
	nanos := int64(binary.LittleEndian.Uint64(sector[16:]))
	return Record{Number: binary.LittleEndian.Uint64(sector[8:]), Time: time.Unix(0, nanos).UTC()}, nil
}

// checksum covers the whole sector but its own four bytes.
func checksum(sector []byte) uint32 {
	sum := crc32.Update(0, castagnoli, sector[:24])
	return crc32.Update(sum, castagnoli, sector[28:])
}

// Scan reads every record position of a disk of the given size. A valid record in the wrong
// place counts as missing. The reader gets aligned reads of at most 1 MiB into buf when buf is
// at least that long (a guest gives memory fit for O_DIRECT); with nil, Scan allocates.
func Scan(r io.ReaderAt, sizeBytes int64, buf []byte) (Report, error) {
	if len(buf) < scanChunk {
		buf = make([]byte, scanChunk)
	}
	rep := Report{}
	end := Offset(Capacity(sizeBytes) + 1)
	for at := int64(RecordsOffset); at < end; {
		part := buf[:min(scanChunk, end-at)]
		if _, err := r.ReadAt(part, at); err != nil {
			return Report{}, fmt.Errorf("scan records at byte %d: %w", at, err)
		}
		for i := 0; i < len(part); i += RecordBytes {
			want := uint64((at+int64(i)-RecordsOffset)/RecordBytes) + 1
			rec, err := Decode(part[i : i+RecordBytes])
			if err != nil || rec.Number != want {
				continue
			}
			rep.Count++
			rep.Last, rep.LastTime = rec.Number, rec.Time
		}
		at += int64(len(part))
	}
	rep.Unbroken = rep.Count == rep.Last
	return rep, nil
}
