package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"
)

const (
	// lockTimeout bounds the wait for the file's lock: longer means that another process has it.
	lockTimeout = 2 * time.Second
	// deleteBatch bounds one transaction of a log compaction, so that new entries are not kept
	// waiting behind thousands of deletions.
	deleteBatch = 1024
	// appendFill packs the pages of the log, which only grows at its end.
	appendFill = 0.9
	// fileMode and dirMode keep the log, which holds the authority's key, to its owner.
	fileMode = 0o600
	dirMode  = 0o700
)

// errNotFound is compared by its text in raft: it must be exactly this.
var errNotFound = errors.New("not found")

// Store keeps raft's log and its term and vote in one bbolt file. Every change is on disk (fsync) when
// the call returns. It is safe for concurrent use.
type Store struct {
	db   *bbolt.DB
	path string
}

var (
	_ raft.LogStore    = (*Store)(nil)
	_ raft.StableStore = (*Store)(nil)
)

func logBucket() []byte    { return []byte("log") }
func stableBucket() []byte { return []byte("stable") }

// OpenStore opens or makes the file. A file that is locked, cut short or not ours is an error that says
// so; the file is not changed then.
func OpenStore(path string) (*Store, error) {
	fresh, err := checkFile(path)
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	s := &Store{path: path}
	if err := guard(func() error { return s.open() }); err != nil {
		if s.db != nil {
			err = errors.Join(err, s.db.Close())
		}
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	if fresh {
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, errors.Join(fmt.Errorf("open raft log %s: %w", path, err), s.db.Close())
		}
	}
	return s, nil
}

func (s *Store) open() error {
	db, err := bbolt.Open(s.path, fileMode, &bbolt.Options{
		Timeout: lockTimeout,
		// The free list is rebuilt on open: writing it with each commit costs more as the file grows.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	})
	if err != nil {
		return explain(err)
	}
	s.db = db
	return db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(logBucket()); err != nil {
			return err
		}
		_, err := tx.CreateBucketIfNotExists(stableBucket())
		return err
	})
}

// checkFile finds a file that ends before its last page; bbolt maps such a file and dies of SIGBUS when
// it touches what is missing. Opened read-only, bbolt reads nothing but the meta pages.
func checkFile(path string) (fresh bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return false, explain(err)
	}
	var want int64
	err = db.View(func(tx *bbolt.Tx) error {
		want = tx.Size()
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return false, err
	}
	if info.Size() < want {
		return false, fmt.Errorf("the file is cut short: %d bytes of %d (restore this member from a backup, or remove its directory and let it join again)", info.Size(), want)
	}
	return false, nil
}

func explain(err error) error {
	if errors.Is(err, bberrors.ErrTimeout) {
		return fmt.Errorf("another process holds its lock (is a coordinator running on this directory?): %w", err)
	}
	return err
}

// guard turns a crash on a damaged page into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	return f()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// FirstIndex returns the lowest index, 0 when the log is empty.
func (s *Store) FirstIndex() (uint64, error) {
	return s.edge((*bbolt.Cursor).First)
}

// LastIndex returns the highest index, 0 when the log is empty.
func (s *Store) LastIndex() (uint64, error) {
	return s.edge((*bbolt.Cursor).Last)
}

func (s *Store) edge(move func(*bbolt.Cursor) (k, v []byte)) (index uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if k, _ := move(tx.Bucket(logBucket()).Cursor()); k != nil {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog reads one entry, or returns raft.ErrLogNotFound.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(logBucket()).Get(indexKey(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		if err := decodeEntry(index, v, l); err != nil {
			return fmt.Errorf("read entry %d of raft log %s: the file is damaged: %w", index, s.path, err)
		}
		return nil
	})
}

// StoreLog stores one entry.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores entries with one fsync: all of them or none.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket())
		b.FillPercent = appendFill
		for _, l := range logs {
			if err := b.Put(indexKey(l.Index), encodeEntry(l)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store %d entries in raft log %s: %w", len(logs), s.path, err)
	}
	return nil
}

// DeleteRange deletes entries from minIndex to maxIndex, both included. Cutting the tail is one
// transaction, because half of it would leave a gap below stale entries; cutting the head goes in
// batches from the bottom.
func (s *Store) DeleteRange(minIndex, maxIndex uint64) error {
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	limit := deleteBatch
	if maxIndex >= last {
		limit = 0
	}
	for more := true; more; {
		if more, err = s.deleteSome(minIndex, maxIndex, limit); err != nil {
			return fmt.Errorf("delete entries %d to %d of raft log %s: %w", minIndex, maxIndex, s.path, err)
		}
	}
	return nil
}

// deleteSome deletes up to limit entries (0: all) from the bottom and says whether some are left.
func (s *Store) deleteSome(minIndex, maxIndex uint64, limit int) (more bool, err error) {
	err = s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket())
		var keys [][]byte
		c := b.Cursor()
		for k, _ := c.Seek(indexKey(minIndex)); k != nil && binary.BigEndian.Uint64(k) <= maxIndex; k, _ = c.Next() {
			if limit > 0 && len(keys) == limit {
				more = true
				break
			}
			keys = append(keys, k)
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}

// Set stores a value of raft's stable state.
func (s *Store) Set(key, value []byte) error {
	err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(stableBucket()).Put(key, value) })
	if err != nil {
		return fmt.Errorf("store %s in raft log %s: %w", key, s.path, err)
	}
	return nil
}

// Get returns a value of raft's stable state, or an error with the text "not found".
func (s *Store) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(stableBucket()).Get(key)
		if v == nil {
			return errNotFound
		}
		value = append([]byte{}, v...)
		return nil
	})
	return value, err
}

// SetUint64 stores a number of raft's stable state.
func (s *Store) SetUint64(key []byte, n uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, n))
}

// GetUint64 returns a number of raft's stable state, or an error with the text "not found".
func (s *Store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("read %s of raft log %s: %d bytes are not a number", key, s.path, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// indexKey orders entries by index.
func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }
