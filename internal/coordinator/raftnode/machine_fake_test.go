package raftnode_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// journal is a machine that keeps every entry; "refuse ..." is refused.
type journal struct {
	mu      sync.Mutex
	entries []string
	indexes []uint64
	// slow is how long one Apply takes.
	slow time.Duration
	// restored counts snapshots read.
	restored int
}

var errRefused = errors.New("refused")

func (j *journal) Apply(index, _ uint64, data []byte) any {
	<-time.After(j.slow)
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.indexes); n > 0 && j.indexes[n-1] >= index {
		panic(fmt.Sprintf("entry %d applied after %d", index, j.indexes[n-1]))
	}
	if len(data) > 6 && string(data[:6]) == "refuse" {
		return errRefused
	}
	j.entries = append(j.entries, string(data))
	j.indexes = append(j.indexes, index)
	return len(j.entries)
}

type journalState struct {
	Entries []string
	Indexes []uint64
}

func (j *journal) Snapshot() func(io.Writer) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := journalState{slices.Clone(j.entries), slices.Clone(j.indexes)}
	return func(w io.Writer) error { return json.NewEncoder(w).Encode(s) }
}

func (j *journal) Restore(r io.Reader) error {
	var s journalState
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries, j.indexes = s.Entries, s.Indexes
	j.restored++
	return nil
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.entries)
}

func (j *journal) restoredTimes() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.restored
}
