package libvirt

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// mark is what is kept of the fences of one target, in a file of its own.
type mark struct {
	Target string `json:"target"`
	// Autostart names the domains whose autostart the fence switched off.
	Autostart []string `json:"autostart,omitempty"`
	// Seen names the domains that libvirt knew when the target was fenced.
	Seen []string `json:"seen,omitempty"`
	// Fences holds the fence of each epoch.
	Fences map[uint64]epochFence `json:"fences,omitempty"`
}

// epochFence is the fence of one epoch.
type epochFence struct {
	// Since is when the target was observed off; zero while that has not happened.
	Since time.Time `json:"since,omitzero"`
	// Evidence is what was observed then.
	Evidence string `json:"evidence,omitempty"`
}

func (d *Driver) markPath(target string) string {
	return filepath.Join(d.stateDir, "fence-"+target+".json")
}

// load reads the mark of a target; an empty one when there is none.
func (d *Driver) load(target string) (mark, error) {
	m := mark{Target: target, Fences: map[uint64]epochFence{}}
	raw, err := os.ReadFile(d.markPath(target))
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("read fence mark: %w", err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("read fence mark %s: %w", d.markPath(target), err)
	}
	if m.Target != target {
		return m, fmt.Errorf("read fence mark %s: it is about target %q", d.markPath(target), m.Target)
	}
	if m.Fences == nil {
		m.Fences = map[uint64]epochFence{}
	}
	return m, nil
}

// save writes the mark so that it survives a power cut; an empty mark is removed.
func (d *Driver) save(m mark) error {
	path := d.markPath(m.Target)
	if len(m.Fences) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove fence mark: %w", err)
		}
		return d.syncDir()
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write fence mark: %w", err)
	}
	if err := writeSynced(path+".new", raw); err != nil {
		return fmt.Errorf("write fence mark: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write fence mark: %w", err)
	}
	return d.syncDir()
}

func writeSynced(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	return errors.Join(err, f.Sync(), f.Close())
}

func (d *Driver) syncDir() error {
	dir, err := os.Open(d.stateDir)
	if err != nil {
		return fmt.Errorf("sync the state directory: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync the state directory: %w", err)
	}
	return nil
}

// union returns the names of both, sorted and each once.
func union(a, b []string) []string {
	set := map[string]bool{}
	for _, name := range slices.Concat(a, b) {
		set[name] = true
	}
	return slices.Sorted(maps.Keys(set))
}
