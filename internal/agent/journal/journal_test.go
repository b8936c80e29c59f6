package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/testing/protocmp"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/model"
)

func options() Options { return Options{NewID: func() string { return "journal-1" }} }

func record(name string) reconcile.Record {
	return reconcile.Record{
		Object: model.ObjectID("instance/" + name), Era: 1, Note: "kept", Attempts: 2,
		Order: &pb.Order{
			Object: "instance/" + name, Kind: pb.Kind_KIND_INSTANCE, Generation: 7, Epoch: 3,
			Spec: &pb.Spec{State: pb.State_STATE_RUNNING, Parameters: &pb.Spec_Instance{
				Instance: &pb.InstanceSpec{Vcpus: 2, UserData: []byte{0, 255}},
			}},
		},
		Intent:  reconcile.Intent{From: pb.State_STATE_DEFINED, To: pb.State_STATE_RUNNING, Generation: 7},
		Reclaim: reconcile.Reclaim{Stage: reconcile.StageStop, Began: 5, Why: "save failed"},
	}
}

func written(t *testing.T) (path string, want reconcile.Content) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "journal")
	j, content, err := Open(path, options())
	if err != nil {
		t.Fatal(err)
	}
	if len(content.Records) != 0 || j.ID() != "journal-1" {
		t.Fatalf("a new journal holds %v with id %q", content, j.ID())
	}
	want = reconcile.Content{
		Marks:   reconcile.Marks{Era: 1, Generation: 7, Term: 4, BootID: "boot-1", Held: true},
		Records: []reconcile.Record{record("a"), record("b")},
		Ledger: []reconcile.Artefact{{
			ArtefactKey: reconcile.ArtefactKey{Object: "instance/a", Epoch: 3}, What: "domain a",
		}},
	}
	gone := reconcile.ArtefactKey{Object: "instance/c", Epoch: 3}
	steps := []reconcile.Persist{
		{Put: []reconcile.Record{record("c")}, Note: []reconcile.Artefact{{ArtefactKey: gone}}},
		{Put: want.Records, Marks: &want.Marks, Note: want.Ledger},
		{Delete: []model.ObjectID{"instance/c"}, Drop: []reconcile.ArtefactKey{gone}},
	}
	for _, p := range steps {
		if err := j.Persist(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return path, want
}

func TestJournalKeepsWhatWasPersisted(t *testing.T) {
	path, want := written(t)
	other := Options{NewID: func() string { return "another" }}
	j, got, err := Open(path, other)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if j.ID() != "journal-1" {
		t.Errorf("the id changed to %q", j.ID())
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Error(d)
	}
	ledger, err := j.Ledger()
	if err != nil || len(ledger) != 1 {
		t.Errorf("ledger %v, %v", ledger, err)
	}
}

func TestPersistIsAllOrNothing(t *testing.T) {
	path, want := written(t)
	j, _, err := Open(path, options())
	if err != nil {
		t.Fatal(err)
	}
	huge := record("huge")
	huge.Note = string(bytes.Repeat([]byte("x"), maxValueBytes))
	if err := j.Persist(reconcile.Persist{Put: []reconcile.Record{record("d"), huge}}); err == nil {
		t.Fatal("a value beyond the bound was taken")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, got, err := Open(path, options())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

func TestOpenRefusesWhatItCannotTrust(t *testing.T) {
	put := func(bucket, key, value string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			err = db.Update(func(tx *bolt.Tx) error {
				return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	truncate := func(size int64) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := map[string]struct {
		damage func(t *testing.T, path string)
		want   error
	}{
		"newer schema":      {put(bucketMeta, keySchema, "2"), ErrNewer},
		"no schema":         {put(bucketMeta, keySchema, "x"), ErrDamaged},
		"record":            {put(bucketObjects, "instance/a", "{}"), ErrDamaged},
		"ledger":            {put(bucketLedger, "k", "sums{}"), ErrDamaged},
		"marks":             {put(bucketMeta, keyMarks, "sums{}"), ErrDamaged},
		"cut in first page": {truncate(100), ErrDamaged},
		"cut to two pages":  {truncate(8192), ErrDamaged},
		"cut to four pages": {truncate(16384), ErrDamaged},
		"another file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("text "), 4000), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ErrDamaged},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			path, _ := written(t)
			c.damage(t, path)
			j, _, err := Open(path, options())
			if err == nil {
				j.Close()
				t.Fatal("it was opened")
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestOpenNeverPanics damages every byte range of a journal in turn.
func TestOpenNeverPanics(t *testing.T) {
	path, _ := written(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	for at := 0; at < len(whole); at += 61 {
		b := bytes.Clone(whole)
		for i := at; i < min(at+16, len(b)); i++ {
			b[i] ^= 0xff
		}
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, _, err := Open(damaged, options()); err == nil {
			j.Close()
		}
	}
	for size := 0; size < len(whole); size += 509 {
		if err := os.WriteFile(damaged, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if j, _, err := Open(damaged, options()); err == nil {
			j.Close()
		}
	}
}

func TestOpenWaitsForALockOnlySoLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the whole lock timeout")
	}
	path, _ := written(t)
	j, _, err := Open(path, options())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, _, err := Open(path, options()); err == nil {
		t.Fatal("two agents have one journal")
	}
}
