package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
)

// sumBytes is the length of the checksum before each value: bbolt's pages have none.
const sumBytes = 4

// stored is a record with its order in wire format, which keeps fields that this version does not know.
type stored struct {
	reconcile.Record
	Order []byte `json:",omitempty"`
}

func encodeRecord(r reconcile.Record) ([]byte, error) {
	s := stored{Record: r}
	if r.Order != nil {
		b, err := proto.Marshal(r.Order)
		if err != nil {
			return nil, fmt.Errorf("encode order: %w", err)
		}
		s.Order = b
	}
	return encode(s)
}

func decodeRecord(b []byte) (reconcile.Record, error) {
	var s stored
	if err := decode(b, &s); err != nil {
		return reconcile.Record{}, err
	}
	if s.Order != nil {
		o := new(pb.Order)
		if err := proto.Unmarshal(s.Order, o); err != nil {
			return reconcile.Record{}, fmt.Errorf("%w: decode order: %w", ErrDamaged, err)
		}
		s.Record.Order = o
	}
	return s.Record, nil
}

// encode returns a checksum and the value as JSON, which is readable in an incident.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > maxValueBytes {
		return nil, fmt.Errorf("%d bytes are more than the journal takes for one value (%d)", len(b), maxValueBytes)
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, sumBytes+len(b)), crc32.ChecksumIEEE(b))
	return append(out, b...), nil
}

func decode(b []byte, v any) error {
	if len(b) < sumBytes || crc32.ChecksumIEEE(b[sumBytes:]) != binary.BigEndian.Uint32(b) {
		return fmt.Errorf("%w: a checksum is wrong", ErrDamaged)
	}
	if err := json.Unmarshal(b[sumBytes:], v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// The layout of bbolt's two meta pages, as far as the size of the file is concerned.
const (
	boltMagic      = 0xED0CDAED
	pageHeader     = 16
	offsetPageSize = pageHeader + 8
	offsetHighPage = pageHeader + 40
	offsetTxID     = pageHeader + 48
	metaBytes      = pageHeader + 64
)

// checkSize compares the length of the file with what its newest meta page says.
func checkSize(f io.ReaderAt, size int64) error {
	if size == 0 {
		return nil
	}
	first, err := readMeta(f, 0)
	if err != nil {
		return err
	}
	pageSize := int64(binary.NativeEndian.Uint32(first[offsetPageSize:]))
	if binary.NativeEndian.Uint32(first[pageHeader:]) != boltMagic || pageSize < 512 || pageSize > 1<<16 {
		return fmt.Errorf("%w: it does not begin like a journal", ErrDamaged)
	}
	second, err := readMeta(f, pageSize)
	if err != nil {
		return err
	}
	newest := first
	if binary.NativeEndian.Uint64(second[offsetTxID:]) > binary.NativeEndian.Uint64(first[offsetTxID:]) {
		newest = second
	}
	pages := binary.NativeEndian.Uint64(newest[offsetHighPage:])
	if pages > 1<<40 || int64(pages)*pageSize > size {
		return fmt.Errorf("%w: it was cut off: %d bytes of %d pages", ErrDamaged, size, pages)
	}
	return nil
}

func readMeta(f io.ReaderAt, at int64) ([]byte, error) {
	b := make([]byte, metaBytes)
	_, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: it was cut off in its first pages", ErrDamaged)
	}
	return b, err
}
