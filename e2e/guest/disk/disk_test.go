package disk_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/e2e/guest/disk"
)

func TestMarker(t *testing.T) {
	sector, err := disk.Marker("production erp")
	if err != nil {
		t.Fatal(err)
	}
	if got := disk.ReadMarker(sector); got != "production erp" {
		t.Errorf("marker %q", got)
	}
	if got := disk.ReadMarker(make([]byte, disk.SectorBytes)); got != "" {
		t.Errorf("marker of an empty disk %q", got)
	}
	for _, bad := range []string{"two\nlines", strings.Repeat("x", disk.SectorBytes)} {
		if _, err := disk.Marker(bad); err == nil {
			t.Errorf("marker %.10q accepted", bad)
		}
	}
}

func TestDecodeRefusesEveryFlippedBit(t *testing.T) {
	sector := make([]byte, disk.RecordBytes)
	want := disk.Record{Number: 7, Time: time.Unix(1700000000, 42).UTC()}
	disk.Encode(sector, want)
	got, err := disk.Decode(sector)
	if err != nil || got != want {
		t.Fatalf("decode %+v, %v; want %+v", got, err, want)
	}
	for i := range sector {
		sector[i] ^= 1
		if _, err := disk.Decode(sector); !errors.Is(err, disk.ErrNoRecord) {
			t.Errorf("record with byte %d changed: %v", i, err)
		}
		sector[i] ^= 1
	}
}

func TestScan(t *testing.T) {
	const size = disk.RecordsOffset + 4<<20
	tests := []struct {
		name    string
		numbers []uint64
		last    uint64
		whole   bool
	}{
		{"empty", nil, 0, true},
		{"unbroken", []uint64{1, 2, 3}, 3, true},
		{"gap", []uint64{1, 2, 4}, 4, false},
		{"first missing", []uint64{2, 3}, 3, false},
		{"beyond one chunk", []uint64{1, 5000}, 5000, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			image := make([]byte, size)
			for _, n := range tc.numbers {
				disk.Encode(image[disk.Offset(n):][:disk.RecordBytes], disk.Record{Number: n, Time: time.Unix(int64(n), 0)})
			}
			rep, err := disk.Scan(bytes.NewReader(image), size, nil)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Last != tc.last || rep.Unbroken != tc.whole || rep.Count != uint64(len(tc.numbers)) {
				t.Errorf("report %+v", rep)
			}
		})
	}
	if _, err := disk.Scan(bytes.NewReader(nil), size, nil); err == nil {
		t.Error("scan of a disk shorter than it says gave no error")
	}
}

func TestCapacity(t *testing.T) {
	for size, want := range map[int64]uint64{0: 0, 4096: 0, 4608: 1, 1 << 40: disk.RegionBytes / disk.RecordBytes} {
		if got := disk.Capacity(size); got != want {
			t.Errorf("capacity of %d bytes: %d records, want %d", size, got, want)
		}
	}
}
