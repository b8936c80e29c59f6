package raftnode

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// logbook is a machine that keeps the entries.
type logbook struct{ entries []string }

func (l *logbook) Apply(_, _ uint64, data []byte) any {
	l.entries = append(l.entries, string(data))
	return nil
}

func (l *logbook) Snapshot() func(io.Writer) error {
	entries := slices.Clone(l.entries)
	return func(w io.Writer) error {
		for _, e := range entries {
			if _, err := io.WriteString(w, e+"\n"); err != nil {
				return err
			}
		}
		return nil
	}
}

func (l *logbook) Restore(r io.Reader) error {
	b, err := io.ReadAll(r)
	l.entries = nil
	for e := range bytes.Lines(b) {
		l.entries = append(l.entries, string(bytes.TrimSuffix(e, []byte("\n"))))
	}
	return err
}

// sink keeps a snapshot in memory.
type sink struct {
	bytes.Buffer
	cancelled bool
}

func (s *sink) ID() string    { return "test" }
func (s *sink) Cancel() error { s.cancelled = true; return nil }
func (s *sink) Close() error  { return nil }

// replica applies frames to an fsm and counts indexes.
type replica struct {
	fsm  fsm
	book logbook
	last uint64
}

func newReplica() *replica {
	r := &replica{}
	r.fsm.machine = &r.book
	return r
}

func (r *replica) apply(term uint64, frame []byte) any {
	r.last++
	return r.fsm.Apply(&raft.Log{Index: r.last, Term: term, Data: frame})
}

func (r *replica) snapshot(t *testing.T) []byte {
	t.Helper()
	c, err := r.fsm.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var s sink
	if err := c.Persist(&s); err != nil || s.cancelled {
		t.Fatal(err, s.cancelled)
	}
	return s.Bytes()
}

// frames cuts "abcdef" in three parts of a set named first, with the closing entry.
func frames(first uint64) [][]byte {
	return [][]byte{
		partFrame(0, 0, []byte("ab")), partFrame(first, 1, []byte("cd")), partFrame(first, 2, []byte("ef")),
		closeFrame(first, 3, sha256.Sum256([]byte("abcdef"))),
	}
}

func TestPartsTakeEffectWhenClosed(t *testing.T) {
	r := newReplica()
	for i, f := range frames(1) {
		if len(r.book.entries) != 0 {
			t.Fatalf("effect before entry %d", i)
		}
		if got := r.apply(1, f); got != nil {
			t.Fatal(got)
		}
	}
	if !slices.Equal(r.book.entries, []string{"abcdef"}) || len(r.fsm.sets) != 0 {
		t.Fatalf("entries %q, sets left %d", r.book.entries, len(r.fsm.sets))
	}
}

// A snapshot after each entry, restored into another replica, goes on alike, byte for byte.
func TestSnapshotBetweenParts(t *testing.T) {
	all := append([][]byte{wholeFrame([]byte("first"))}, frames(2)...)
	for cut := range all {
		a := newReplica()
		for _, f := range all[:cut] {
			a.apply(3, f)
		}
		snapshot := a.snapshot(t)
		b := newReplica()
		b.last = a.last
		if err := b.fsm.Restore(io.NopCloser(bytes.NewReader(snapshot))); err != nil {
			t.Fatal(err)
		}
		for _, f := range all[cut:] {
			a.apply(3, f)
			b.apply(3, f)
			if !bytes.Equal(a.snapshot(t), b.snapshot(t)) {
				t.Fatalf("replicas differ after a snapshot at %d", cut)
			}
		}
		if !slices.Equal(b.book.entries, []string{"first", "abcdef"}) {
			t.Fatalf("snapshot at %d: %q", cut, b.book.entries)
		}
	}
}

func TestSnapshotIsNotChangedByLaterParts(t *testing.T) {
	r := newReplica()
	r.apply(1, frames(1)[0])
	c, err := r.fsm.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	want := r.snapshot(t)
	for _, f := range frames(1)[1:] {
		r.apply(1, f)
	}
	var s sink
	if err := c.Persist(&s); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Bytes(), want) {
		t.Error("the captured state changed")
	}
}

func TestPartsAreDropped(t *testing.T) {
	f := frames(1)
	cases := map[string]func(r *replica) any{
		"a later term": func(r *replica) any {
			r.apply(1, f[0])
			r.apply(1, f[1])
			r.apply(1, f[2])
			return r.apply(2, f[3])
		},
		"too many sets": func(r *replica) any {
			for range maxSets + 1 {
				r.apply(1, f[0])
			}
			return r.apply(1, f[1])
		},
		"too old": func(r *replica) any {
			r.apply(1, f[0])
			r.last += maxSetAge
			return r.apply(1, f[1])
		},
		"a part is missing": func(r *replica) any {
			r.apply(1, f[0])
			return r.apply(1, f[2])
		},
		"closed too early": func(r *replica) any {
			r.apply(1, f[0])
			return r.apply(1, f[3])
		},
		"another digest": func(r *replica) any {
			r.apply(1, f[0])
			return r.apply(1, closeFrame(1, 1, sha256.Sum256([]byte("other"))))
		},
		"closed twice": func(r *replica) any {
			for _, frame := range f {
				r.apply(1, frame)
			}
			r.book.entries = nil
			return r.apply(1, f[3])
		},
	}
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			r := newReplica()
			err, _ := run(r).(error)
			if !errors.Is(err, errPartsLost) || len(r.book.entries) != 0 || len(r.fsm.sets) > maxSets {
				t.Fatalf("got %v, entries %q, %d sets", err, r.book.entries, len(r.fsm.sets))
			}
		})
	}
}

// Entries that no version wrote stop the node rather than let members diverge.
func TestUndecodableEntryPanics(t *testing.T) {
	for _, frame := range [][]byte{{}, {9}, {framePart, 1}, {frameClose, 1}, append([]byte{framePart}, make([]byte, 13+partBytes)...)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%.20x was applied", frame)
				}
			}()
			newReplica().apply(1, frame)
		}()
	}
}

func TestRestoreRefusesOtherSnapshots(t *testing.T) {
	r := newReplica()
	r.apply(1, frames(1)[0])
	good := r.snapshot(t)
	for _, b := range [][]byte{nil, []byte("something else"), good[:10], good[:len(good)-1]} {
		if err := newReplica().fsm.Restore(io.NopCloser(bytes.NewReader(b))); err == nil {
			t.Errorf("%q was restored", b)
		}
	}
}

func FuzzFrames(f *testing.F) {
	for _, frame := range frames(1) {
		f.Add(frame, frame)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var s partSets
		for i, frame := range [][]byte{partFrame(0, 0, []byte("x")), a, b} {
			_, _, _ = s.accept(uint64(i+1), 1, frame)
		}
		var out bytes.Buffer
		if err := s.writeTo(&out); err != nil {
			t.Fatal(err)
		}
		back, err := readSets(&out)
		if err != nil || len(back) != len(s) {
			t.Fatalf("%d sets, read back %d, %v", len(s), len(back), err)
		}
	})
}

// What a reader of Leadership sees alternates and never hides a loss.
func TestQueueOfNotices(t *testing.T) {
	cases := []struct {
		shown   bool
		notices []bool
		want    []bool
	}{
		{false, []bool{true}, []bool{true}},
		{false, []bool{true, false}, nil},
		{false, []bool{true, false, true}, []bool{true}},
		{true, []bool{false}, []bool{false}},
		{true, []bool{false, true}, []bool{false, true}},
		{true, []bool{false, true, false}, []bool{false}},
		{true, []bool{false, true, false, true}, []bool{false, true}},
		{true, []bool{true}, nil},
	}
	for _, c := range cases {
		var got []bool
		for _, v := range c.notices {
			got = queue(c.shown, got, v)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("shown %v, notices %v: %v, want %v", c.shown, c.notices, got, c.want)
		}
	}
}
