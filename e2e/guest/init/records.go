package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotspare/hotspare/e2e/guest/disk"
)

var (
	errNoDisk   = errors.New("no disk")
	errDiskFull = errors.New("disk full")
)

// diskState is what GET / tells about the disk. It is a copy, so that asking never waits for a disk that hangs.
type diskState struct {
	Present    bool   `json:"present"`
	SizeBytes  int64  `json:"size_bytes"`
	Marker     string `json:"marker"`
	LastRecord uint64 `json:"last_record"`
	Error      string `json:"error"`
}

// records owns the disk. io is held during disk calls, mu only to copy the state.
type records struct {
	io     sync.Mutex
	file   *os.File // nil without a disk; guarded by io
	buffer []byte   // page-aligned memory for O_DIRECT; guarded by io

	mu      sync.Mutex
	current diskState // guarded by mu
}

// openRecords opens the disk, finds the last record on it and, with an interval, begins to write. It
// never fails: a guest without a usable disk says so over HTTP.
func openRecords(path string, every time.Duration) *records {
	r := &records{}
	if err := r.open(path); err != nil {
		r.note(func(d *diskState) { d.Error = err.Error() })
		return r
	}
	if every > 0 {
		go r.writeEvery(every)
	}
	return r
}

func (r *records) open(path string) error {
	r.io.Lock()
	defer r.io.Unlock()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	}
	if err != nil {
		return fmt.Errorf("open disk: %w", err)
	}
	size, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_END)
	if err != nil {
		return fmt.Errorf("measure disk: %w", err)
	}
	buffer, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("get memory for disk: %w", err)
	}
	r.file, r.buffer = f, buffer
	r.note(func(d *diskState) { d.Present, d.SizeBytes = true, size })
	if _, err := r.readMarker(); err != nil {
		return err
	}
	_, err = r.scan()
	return err
}

// marker reads the text in sector 0 from the disk.
func (r *records) marker() (string, error) {
	r.io.Lock()
	defer r.io.Unlock()
	return r.readMarker()
}

func (r *records) readMarker() (string, error) {
	if r.file == nil {
		return "", errNoDisk
	}
	sector := r.buffer[:disk.SectorBytes]
	if _, err := r.file.ReadAt(sector, 0); err != nil {
		return "", fmt.Errorf("read marker: %w", err)
	}
	text := disk.ReadMarker(sector)
	r.note(func(d *diskState) { d.Marker = text })
	return text, nil
}

// report scans the disk.
func (r *records) report() (disk.Report, error) {
	r.io.Lock()
	defer r.io.Unlock()
	return r.scan()
}

func (r *records) scan() (disk.Report, error) {
	if r.file == nil {
		return disk.Report{}, errNoDisk
	}
	rep, err := disk.Scan(r.file, r.state().SizeBytes, r.buffer)
	if err != nil {
		return disk.Report{}, err
	}
	r.note(func(d *diskState) { d.LastRecord = rep.Last })
	return rep, nil
}

// add appends one record and returns its number once it is on the disk.
func (r *records) add() (uint64, error) {
	r.io.Lock()
	defer r.io.Unlock()
	if r.file == nil {
		return 0, errNoDisk
	}
	d := r.state()
	number := d.LastRecord + 1
	if number > disk.Capacity(d.SizeBytes) {
		return 0, errDiskFull
	}
	sector := r.buffer[:disk.RecordBytes]
	disk.Encode(sector, disk.Record{Number: number, Time: time.Now()})
	_, err := r.file.WriteAt(sector, disk.Offset(number))
	if err == nil {
		err = unix.Fdatasync(int(r.file.Fd()))
	}
	if err != nil {
		err = fmt.Errorf("write record %d: %w", number, err)
		r.note(func(d *diskState) { d.Error = err.Error() })
		return 0, err
	}
	r.note(func(d *diskState) { d.LastRecord, d.Error = number, "" })
	return number, nil
}

// writeEvery writes until the disk is full; it goes on after an error, as an application would.
func (r *records) writeEvery(every time.Duration) {
	for range time.Tick(every) {
		if _, err := r.add(); errors.Is(err, errDiskFull) {
			r.note(func(d *diskState) { d.Error = err.Error() })
			return
		}
	}
}

func (r *records) state() diskState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

func (r *records) note(change func(*diskState)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.current)
}
