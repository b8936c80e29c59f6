// Package store holds the present version of the replicated state and applies the raft log to it.
// It is the only writer; everybody else reads a version. It decodes entries and snapshots, tells
// listeners what changed, and decides nothing. The raft node drives it through Apply, Snapshot and
// Restore.
package store

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
)

// Store is the present state. The zero value is not usable; call New.
type Store struct {
	current atomic.Pointer[state.State]

	mu        sync.Mutex // guards listeners
	listeners []func(s *state.State, changed []string)
}

// New returns a store that holds the state of a new site.
func New() *Store {
	s := &Store{}
	s.current.Store(state.New())
	return s
}

// State returns the present version.
func (s *Store) State() *state.State { return s.current.Load() }

// OnChange adds a listener that is called after each entry that changed something, in the order of
// the log, on the goroutine that applies it: it must not block. After a restore changed is nil.
func (s *Store) OnChange(f func(st *state.State, changed []string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, f)
}

// Apply applies one entry and returns its state.Result. An entry that cannot be decoded stops the
// node: going on would make this member differ from the others.
func (s *Store) Apply(index, term uint64, data []byte) any {
	var c pb.Command
	if err := proto.Unmarshal(data, &c); err != nil {
		panic(fmt.Sprintf("store: raft entry %d cannot be decoded: %v; restore this member from another's snapshot", index, err))
	}
	next, result := s.State().Apply(index, term, &c)
	s.current.Store(next)
	if len(result.Changed) > 0 {
		s.tell(next, result.Changed)
	}
	return result
}

// Snapshot captures the present version; the returned function writes it.
func (s *Store) Snapshot() func(w io.Writer) error { return s.State().WriteSnapshot }

// Restore replaces the state by a snapshot.
func (s *Store) Restore(r io.Reader) error {
	next, err := state.ReadSnapshot(r)
	if err != nil {
		return err
	}
	s.current.Store(next)
	s.tell(next, nil)
	return nil
}

func (s *Store) tell(st *state.State, changed []string) {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, f := range listeners {
		f(st, changed)
	}
}
