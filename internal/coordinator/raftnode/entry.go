package raftnode

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// Layout of a stored log entry, little endian. The index is the key.
//
//	0  format (1)        entryFormat
//	1  type (1)          raft.LogType
//	2  term (8)
//	10 appended at (8)   Unix nanoseconds; 0: not set
//	18 extensions (4)    length
//	22 extensions, data
//	-4 CRC-32C over all before
const (
	entryFormat     = 1
	entryHeaderLen  = 22
	entryTrailerLen = 4
)

// encodeEntry returns the stored form of an entry.
func encodeEntry(l *raft.Log) []byte {
	b := make([]byte, entryHeaderLen, entryHeaderLen+len(l.Extensions)+len(l.Data)+entryTrailerLen)
	b[0] = entryFormat
	b[1] = byte(l.Type)
	binary.LittleEndian.PutUint64(b[2:], l.Term)
	if !l.AppendedAt.IsZero() {
		binary.LittleEndian.PutUint64(b[10:], uint64(l.AppendedAt.UnixNano()))
	}
	binary.LittleEndian.PutUint32(b[18:], uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

// decodeEntry reads a stored entry; it keeps no reference to b, which bbolt takes back.
func decodeEntry(index uint64, b []byte, l *raft.Log) error {
	if len(b) < entryHeaderLen+entryTrailerLen {
		return fmt.Errorf("%d bytes are too short for an entry", len(b))
	}
	body, sum := b[:len(b)-entryTrailerLen], binary.LittleEndian.Uint32(b[len(b)-entryTrailerLen:])
	if got := checksum(body); got != sum {
		return fmt.Errorf("checksum is %08x, stored %08x", got, sum)
	}
	if body[0] != entryFormat {
		return fmt.Errorf("entry format %d is not known (this version reads %d)", body[0], entryFormat)
	}
	extLen := int(binary.LittleEndian.Uint32(body[18:]))
	if extLen > len(body)-entryHeaderLen {
		return fmt.Errorf("extensions of %d bytes do not fit in the entry", extLen)
	}
	payload := append([]byte(nil), body[entryHeaderLen:]...)
	*l = raft.Log{
		Index: index,
		Type:  raft.LogType(body[1]),
		Term:  binary.LittleEndian.Uint64(body[2:]),
		Data:  payload[extLen:],
	}
	if extLen > 0 {
		l.Extensions = payload[:extLen:extLen]
	}
	if ns := int64(binary.LittleEndian.Uint64(body[10:])); ns != 0 {
		l.AppendedAt = time.Unix(0, ns)
	}
	return nil
}

// checksum finds torn and rotten pages: bbolt itself checks only its two meta pages.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
