package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/hotspare/hotspare/internal/agent/reconcile"
)

const (
	// schema is the version of the file's content. An agent refuses what is newer.
	schema = 1
	// lockTimeout is how long another process may hold the file: an agent that is just ending.
	lockTimeout = 5 * time.Second
	// maxValueBytes bounds one value. It is above what a message of a coordinator can hold (32 MiB, a
	// third more as JSON), so that no order can make the journal refuse a write.
	maxValueBytes = 64 << 20
)

const (
	bucketMeta    = "meta"
	bucketObjects = "objects"
	bucketLedger  = "ledger"

	keySchema = "schema"
	keyID     = "id"
	keyMarks  = "marks"
)

// ErrDamaged is returned by Open when the file cannot be trusted. The message says what to do.
var ErrDamaged = errors.New("the journal is damaged")

// ErrNewer is returned by Open when a newer version of hotspare wrote the file.
var ErrNewer = errors.New("the journal was written by a newer version of hotspare")

// Options configures a journal.
type Options struct {
	// NewID makes the identifier of a journal that is created; it must be random.
	NewID func() string
	// NoSync leaves out the sync after each transaction. Only for benchmarks.
	NoSync bool
}

// Journal is an open journal. It is not safe for concurrent use.
type Journal struct {
	db   *bolt.DB
	path string
	id   string
}

// Open opens or creates a journal, and checks all of it.
func Open(path string, o Options) (*Journal, reconcile.Content, error) {
	var content reconcile.Content
	if err := checkFile(path); err != nil {
		return nil, content, explain(path, err)
	}
	j := &Journal{path: path}
	err := guarded(func() error {
		// The free list is synced: without it bbolt rebuilds it in a goroutine of its own, where a
		// damaged page ends the process (seen with bbolt 1.5.0) and nothing can be recovered.
		db, err := bolt.Open(path, 0o600, &bolt.Options{
			Timeout: lockTimeout, FreelistType: bolt.FreelistMapType,
		})
		if err != nil {
			return err
		}
		j.db = db
		db.NoSync = o.NoSync
		if err := j.prepare(o); err != nil {
			return err
		}
		content, err = j.load()
		return err
	})
	if err != nil {
		j.close()
		return nil, reconcile.Content{}, explain(path, err)
	}
	return j, content, nil
}

// explain adds what to do to an error of Open.
func explain(path string, err error) error {
	err = fmt.Errorf("open journal %s: %w", path, err)
	switch {
	case errors.Is(err, ErrNewer):
		return fmt.Errorf("%w (start the newer version again, or move the file away to begin with an empty journal)", err)
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%w (another agent has it open: end that one first)", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return err
	default:
		return fmt.Errorf("%w (move the file away and start the agent again: it begins with an empty journal, "+
			"adopts the running domains, and waits for the coordinator)", err)
	}
}

// guarded runs f and turns panics and page faults of a damaged file into an error.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return f()
}

// prepare makes the buckets of a new journal, or checks the version of an old one.
func (j *Journal) prepare(o Options) error {
	return j.db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte(bucketMeta))
		if meta == nil {
			return j.create(tx, o)
		}
		version, err := strconv.Atoi(string(meta.Get([]byte(keySchema))))
		if err != nil {
			return fmt.Errorf("%w: no schema version", ErrDamaged)
		}
		if version > schema {
			return fmt.Errorf("%w: schema %d, this version knows %d", ErrNewer, version, schema)
		}
		j.id = string(meta.Get([]byte(keyID)))
		if j.id == "" || tx.Bucket([]byte(bucketObjects)) == nil || tx.Bucket([]byte(bucketLedger)) == nil {
			return fmt.Errorf("%w: its identifier or a table is missing", ErrDamaged)
		}
		return nil
	})
}

func (j *Journal) create(tx *bolt.Tx, o Options) error {
	for _, name := range []string{bucketMeta, bucketObjects, bucketLedger} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	j.id = o.NewID()
	meta := tx.Bucket([]byte(bucketMeta))
	if err := meta.Put([]byte(keyID), []byte(j.id)); err != nil {
		return err
	}
	return meta.Put([]byte(keySchema), []byte(strconv.Itoa(schema)))
}

// load decodes everything.
func (j *Journal) load() (reconcile.Content, error) {
	var c reconcile.Content
	err := j.db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte(bucketMeta)).Get([]byte(keyMarks)); b != nil {
			if err := decode(b, &c.Marks); err != nil {
				return fmt.Errorf("read marks: %w", err)
			}
		}
		err := tx.Bucket([]byte(bucketObjects)).ForEach(func(k, v []byte) error {
			r, err := decodeRecord(v)
			if err == nil && string(r.Object) != string(k) {
				err = fmt.Errorf("%w: it is about %s", ErrDamaged, r.Object)
			}
			if err != nil {
				return fmt.Errorf("read record %s: %w", k, err)
			}
			c.Records = append(c.Records, r)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketLedger)).ForEach(func(k, v []byte) error {
			var a reconcile.Artefact
			if err := decode(v, &a); err != nil {
				return fmt.Errorf("read ledger entry %s: %w", k, err)
			}
			c.Ledger = append(c.Ledger, a)
			return nil
		})
	})
	return c, err
}

// ID returns the identifier that was made with the file. A coordinator that knows another one
// quarantines the agent (R13).
func (j *Journal) ID() string { return j.id }

// Persist writes sets of changes, in their order, in one transaction. When it returns nil they are
// on disk; after an error none of them is.
func (j *Journal) Persist(all ...reconcile.Persist) error {
	err := j.db.Update(func(tx *bolt.Tx) error {
		for _, p := range all {
			if err := write(tx, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write journal %s: %w", j.path, err)
	}
	return nil
}

func write(tx *bolt.Tx, p reconcile.Persist) error {
	objects, ledger := tx.Bucket([]byte(bucketObjects)), tx.Bucket([]byte(bucketLedger))
	for _, r := range p.Put {
		b, err := encodeRecord(r)
		if err != nil {
			return fmt.Errorf("record %s: %w", r.Object, err)
		}
		if err := objects.Put([]byte(r.Object), b); err != nil {
			return fmt.Errorf("record %s: %w", r.Object, err)
		}
	}
	for _, id := range p.Delete {
		if err := objects.Delete([]byte(id)); err != nil {
			return fmt.Errorf("delete record %s: %w", id, err)
		}
	}
	for _, k := range p.Drop {
		if err := ledger.Delete(ledgerKey(k)); err != nil {
			return fmt.Errorf("drop ledger entry of %s: %w", k.Object, err)
		}
	}
	for _, a := range p.Note {
		b, err := encode(a)
		if err != nil {
			return fmt.Errorf("ledger entry of %s: %w", a.Object, err)
		}
		if err := ledger.Put(ledgerKey(a.ArtefactKey), b); err != nil {
			return fmt.Errorf("ledger entry of %s: %w", a.Object, err)
		}
	}
	if p.Marks == nil {
		return nil
	}
	b, err := encode(p.Marks)
	if err != nil {
		return fmt.Errorf("marks: %w", err)
	}
	return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyMarks), b)
}

func ledgerKey(k reconcile.ArtefactKey) []byte {
	return fmt.Appendf(nil, "%s\x00%020d", k.Object, k.Epoch)
}

// Close closes the file.
func (j *Journal) Close() error {
	if err := j.db.Close(); err != nil {
		return fmt.Errorf("close journal %s: %w", j.path, err)
	}
	return nil
}

func (j *Journal) close() {
	if j.db != nil {
		// The reason for closing is reported already, and nothing was written.
		_ = guarded(j.db.Close)
	}
}

// Ledger reads the ledger of a journal without changing it: for the residue check.
func (j *Journal) Ledger() ([]reconcile.Artefact, error) {
	c, err := j.load()
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	return c.Ledger, nil
}

// checkFile refuses a file that is shorter than it says it is; bbolt would fault on it.
func checkFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return checkSize(f, info.Size())
}
