package mirror

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// notesVersion is raised when an older driver could no longer read the file rightly.
const notesVersion = 1

// notes is what must outlive the agent.
type notes struct {
	Version int `json:"version"`
	// Disks are found by domain and target: "web/vda".
	Disks map[string]note `json:"disks"`
	path  string
}

// note is what is known of one disk.
type note struct {
	// Started is the highest number for which a mirror was ever started, or may have been.
	Started uint64 `json:"started"`
	// Well is when its mirror was last seen in sync.
	Well time.Time `json:"well,omitzero"`
	// Since is since when the mirror is degraded; zero: it is not.
	Since time.Time `json:"since,omitzero"`
}

func key(spec *pb.VolumeSpec) string { return spec.GetDomain() + "/" + spec.GetDisk() }

func readNotes(path string) (*notes, error) {
	n := &notes{Version: notesVersion, Disks: map[string]note{}, path: path}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	if err := n.decode(text); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

func (n *notes) decode(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(n); err != nil {
		return err
	}
	if n.Version != notesVersion {
		return fmt.Errorf("version %d, this driver reads %d", n.Version, notesVersion)
	}
	if n.Disks == nil {
		n.Disks = map[string]note{}
	}
	return nil
}

// write replaces the file so that after a crash either the old or the new content is there.
func (n *notes) write() error {
	text, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(n.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(n.path+".new", n.path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(n.path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// note changes what is known of a disk, durably, and returns what was known before.
func (s *Source) note(spec *pb.VolumeSpec, change func(*note)) (before note, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.notes.Disks[key(spec)]
	after := before
	change(&after)
	s.notes.Disks[key(spec)] = after
	if err := s.notes.write(); err != nil {
		s.notes.Disks[key(spec)] = before
		return before, fmt.Errorf("save %s: %w", s.notes.path, err)
	}
	return before, nil
}

// seen notes in memory only that a mirror is well.
func (s *Source) seen(spec *pb.VolumeSpec, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.notes.Disks[key(spec)]
	n.Well = now
	s.notes.Disks[key(spec)] = n
}

func (s *Source) read(spec *pb.VolumeSpec) note {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notes.Disks[key(spec)]
}

func (s *Source) started(spec *pb.VolumeSpec) uint64 { return s.read(spec).Started }
