package raftnode

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func openStore(t testing.TB, path string) *Store {
	t.Helper()
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// modelStore is what a store must behave like.
type modelStore struct {
	logs   map[uint64]raft.Log
	stable map[string][]byte
}

func (m *modelStore) edges() (lo, hi uint64) {
	for i := range m.logs {
		if lo == 0 || i < lo {
			lo = i
		}
		hi = max(hi, i)
	}
	return lo, hi
}

func TestStoreBehavesLikeModel(t *testing.T) {
	dir := t.TempDir()
	var run int
	rapid.Check(t, func(rt *rapid.T) {
		run++
		path := filepath.Join(dir, "raft-"+string(rune('a'+run%26)))
		_ = os.Remove(path)
		s := openStore(t, path)
		defer func() { _ = s.Close() }()
		m := &modelStore{logs: map[uint64]raft.Log{}, stable: map[string][]byte{}}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				_, hi := m.edges()
				var batch []*raft.Log
				for i := range rapid.IntRange(1, 5).Draw(rt, "count") {
					l := drawLog(rt, hi+1+uint64(i))
					m.logs[l.Index] = *l
					batch = append(batch, l)
				}
				noError(rt, s.StoreLogs(batch))
			},
			"overwrite": func(rt *rapid.T) {
				lo, hi := m.edges()
				l := drawLog(rt, rapid.Uint64Range(max(lo, 1), hi+1).Draw(rt, "index"))
				m.logs[l.Index] = *l
				noError(rt, s.StoreLog(l))
			},
			"delete": func(rt *rapid.T) {
				lo, hi := m.edges()
				from := rapid.Uint64Range(lo, hi+1).Draw(rt, "from")
				to := rapid.Uint64Range(from, hi+2).Draw(rt, "to")
				for i := from; i <= to; i++ {
					delete(m.logs, i)
				}
				noError(rt, s.DeleteRange(from, to))
			},
			"set": func(rt *rapid.T) {
				key := rapid.SampledFrom([]string{"CurrentTerm", "LastVoteCand"}).Draw(rt, "key")
				value := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(rt, "value")
				m.stable[key] = value
				noError(rt, s.Set([]byte(key), value))
			},
			"reopen": func(rt *rapid.T) {
				noError(rt, s.Close())
				s = openStore(t, path)
			},
			"": func(rt *rapid.T) { compareStore(rt, s, m) },
		})
	})
}

func drawLog(rt *rapid.T, index uint64) *raft.Log {
	l := &raft.Log{
		Index: index,
		Term:  rapid.Uint64().Draw(rt, "term"),
		Type:  raft.LogType(rapid.IntRange(0, 5).Draw(rt, "type")),
		Data:  rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(rt, "data"),
	}
	if rapid.Bool().Draw(rt, "extended") {
		l.Extensions = rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(rt, "extensions")
		l.AppendedAt = time.Unix(0, rapid.Int64Range(1, 1<<60).Draw(rt, "appended"))
	}
	return l
}

func noError(rt *rapid.T, err error) {
	if err != nil {
		rt.Fatal(err)
	}
}

func compareStore(rt *rapid.T, s *Store, m *modelStore) {
	lo, hi := m.edges()
	first, err := s.FirstIndex()
	noError(rt, err)
	last, err := s.LastIndex()
	noError(rt, err)
	if first != lo || last != hi {
		rt.Fatalf("indexes %d to %d, want %d to %d", first, last, lo, hi)
	}
	for i := lo; i <= hi+1; i++ {
		var got raft.Log
		err := s.GetLog(i, &got)
		want, ok := m.logs[i]
		if !ok {
			if !errors.Is(err, raft.ErrLogNotFound) {
				rt.Fatalf("entry %d: %v", i, err)
			}
			continue
		}
		noError(rt, err)
		if !bytes.Equal(got.Data, want.Data) || !bytes.Equal(got.Extensions, want.Extensions) {
			rt.Fatalf("entry %d: %v, want %v", i, got, want)
		}
		got.Data, got.Extensions, want.Data, want.Extensions = nil, nil, nil, nil
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("entry %d: %s", i, diff)
		}
	}
	for _, key := range []string{"CurrentTerm", "LastVoteCand"} {
		got, err := s.Get([]byte(key))
		want, ok := m.stable[key]
		if !ok {
			if err == nil || err.Error() != "not found" {
				rt.Fatalf("%s: %v; raft compares the text", key, err)
			}
			continue
		}
		noError(rt, err)
		if !bytes.Equal(got, want) {
			rt.Fatalf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestStoreNumbers(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "raft.db"))
	defer s.Close()
	if _, err := s.GetUint64([]byte("n")); err == nil || err.Error() != "not found" {
		t.Fatalf("got %v", err)
	}
	if err := s.SetUint64([]byte("n"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if n, err := s.GetUint64([]byte("n")); err != nil || n != 1<<40 {
		t.Fatalf("got %d, %v", n, err)
	}
	if err := s.Set([]byte("n"), []byte("short")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetUint64([]byte("n")); err == nil {
		t.Fatal("five bytes were taken for a number")
	}
}

func TestStoreDeletesLongHeadInBatches(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "raft.db"))
	defer s.Close()
	var logs []*raft.Log
	for i := range uint64(3*deleteBatch + 10) {
		logs = append(logs, &raft.Log{Index: i + 1, Term: 1, Data: []byte("entry")})
	}
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(1, 3*deleteBatch); err != nil {
		t.Fatal(err)
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if first != 3*deleteBatch+1 || last != 3*deleteBatch+10 {
		t.Fatalf("left %d to %d", first, last)
	}
}

// filled makes a file of several hundred pages.
func filled(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raft.db")
	s := openStore(t, path)
	for i := range uint64(50) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: bytes.Repeat([]byte("payload "), 4096)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStoreRefusesDamagedFiles(t *testing.T) {
	cut := func(size int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := map[string]struct {
		damage func(*testing.T, string)
		say    string
	}{
		"cut in the middle":  {cut(1 << 20), "cut short"},
		"cut to three pages": {cut(3 * 4096), "cut short"},
		"cut to one page":    {cut(4096), "open raft log"},
		"text":               {func(t *testing.T, path string) { write(t, path, bytes.Repeat([]byte("text "), 8192)) }, "open raft log"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path := filled(t)
			c.damage(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := OpenStore(path)
			if err == nil {
				_ = s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), path) {
				t.Errorf("says %q", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// bbolt does not see a flipped bit in a page; the entry's checksum does.
func TestStoreFindsRottenEntry(t *testing.T) {
	path := filled(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if bytes.HasPrefix(b[i:], []byte("payload payload ")) {
			b[i] ^= 1
		}
	}
	write(t, path, b)
	s := openStore(t, path)
	defer s.Close()
	var bad int
	for i := range uint64(50) {
		var l raft.Log
		if err := s.GetLog(i+1, &l); err != nil {
			bad++
			if !strings.Contains(err.Error(), "damaged") {
				t.Fatal(err)
			}
		}
	}
	if bad != 50 {
		t.Errorf("%d rotten entries of 50 were found", bad)
	}
}

func TestStoreIsForOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := openStore(t, path)
	defer s.Close()
	if _, err := OpenStore(path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("opened twice: %v", err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(&raft.Log{Index: 1, Term: 2, Data: []byte("data"), Extensions: []byte("x"), AppendedAt: time.Unix(1, 0)}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l raft.Log
		if err := decodeEntry(1, b, &l); err == nil && !bytes.Equal(encodeEntry(&l), b) {
			t.Fatalf("%x decodes to %+v, which encodes differently", b, l)
		}
	})
}
