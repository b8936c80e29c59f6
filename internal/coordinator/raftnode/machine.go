package raftnode

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// Machine is the replicated state machine. Raft calls Apply, Snapshot and Restore one after the other
// from one goroutine.
type Machine interface {
	// Apply applies one committed entry and returns what the proposer gets; an error is a refusal that
	// every member makes alike. It never fails half way, and panics only on a broken invariant or on an
	// entry that it cannot decode. It must not change data.
	Apply(index, term uint64, data []byte) any
	// Snapshot captures the state in O(1); the returned function writes it and may run while Apply does.
	Snapshot() func(w io.Writer) error
	// Restore replaces the state by a written one. After an error the state is not used.
	Restore(r io.Reader) error
}

// fsm joins raft's interface to the machine, with the parts of large proposals between them.
type fsm struct {
	machine Machine
	sets    partSets
}

var _ raft.FSM = (*fsm)(nil)

// Apply hands one entry to the machine. Bytes that are no frame stop the node: members that read them
// differently would diverge.
func (f *fsm) Apply(l *raft.Log) any {
	data, complete, err := f.sets.accept(l.Index, l.Term, l.Data)
	switch {
	case errors.Is(err, errPartsLost):
		return err
	case err != nil:
		panic(fmt.Sprintf("raftnode: entry %d of term %d cannot be decoded: %v", l.Index, l.Term, err))
	case !complete:
		return nil
	}
	return f.machine.Apply(l.Index, l.Term, data)
}

// Snapshot captures machine and unfinished proposals.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return &capture{sets: f.sets.clone(), write: f.machine.Snapshot()}, nil
}

// Restore replaces machine and unfinished proposals.
func (f *fsm) Restore(rc io.ReadCloser) error {
	r := bufio.NewReader(rc)
	sets, err := readSets(r)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if err := f.machine.Restore(r); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	f.sets = sets
	return nil
}

// capture is a snapshot that is not written yet.
type capture struct {
	sets  partSets
	write func(io.Writer) error
}

// Persist writes the snapshot; on an error the sink is thrown away.
func (c *capture) Persist(sink raft.SnapshotSink) error {
	w := bufio.NewWriter(sink)
	if err := errors.Join(c.sets.writeTo(w), c.write(w), w.Flush()); err != nil {
		return errors.Join(fmt.Errorf("write snapshot %s: %w", sink.ID(), err), sink.Cancel())
	}
	return sink.Close()
}

// Release does nothing: memory goes with the last reference.
func (c *capture) Release() {}
