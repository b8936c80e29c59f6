package store_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/store"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

func TestStoreFollowsTheLog(t *testing.T) {
	w := fixture.New(t)
	s := store.New()
	told := 0
	s.OnChange(func(st *state.State, changed []string) {
		if st != s.State() || !slices.IsSorted(changed) {
			t.Error("a listener was told of another version, or out of order")
		}
		told++
	})
	changes := 0
	for i, c := range w.Log {
		data, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		r, ok := s.Apply(uint64(i+1), 1, data).(state.Result)
		if !ok {
			t.Fatal("the outcome is no state.Result")
		}
		if len(r.Changed) > 0 {
			changes++
		}
	}
	if !bytes.Equal(fixture.Bytes(t, s.State()), fixture.Bytes(t, w.State)) || told != changes {
		t.Errorf("told %d times of %d changes, or another state", told, changes)
	}
	var snapshot bytes.Buffer
	write := s.Snapshot()
	want := fixture.Bytes(t, s.State())
	s.Apply(uint64(len(w.Log)+1), 1, nil) // A snapshot is of the moment at which it was taken.
	if err := write(&snapshot); err != nil || !bytes.Equal(snapshot.Bytes(), want) {
		t.Errorf("snapshot: %v", err)
	}
	other := store.New()
	if err := other.Restore(bytes.NewReader(snapshot.Bytes()[:10])); err == nil || other.State().Index() != 0 {
		t.Error("a damaged snapshot must leave the state as it is")
	}
	if err := other.Restore(&snapshot); err != nil || !bytes.Equal(fixture.Bytes(t, other.State()), want) {
		t.Errorf("restore: %v", err)
	}
}

func TestUndecodableEntryStopsTheNode(t *testing.T) {
	defer func() {
		if r, _ := recover().(string); !strings.Contains(r, "entry 7") {
			t.Errorf("panic %q does not name the entry", r)
		}
	}()
	store.New().Apply(7, 1, []byte{0xff})
	t.Error("an entry that cannot be decoded was applied")
}

func TestCommandOfTheFutureIsRefused(t *testing.T) {
	data, err := proto.Marshal(&pb.Command{Level: 1})
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, 0xf2, 0x3f, 0x00) // Field 1022, empty: a body that this version does not know.
	if r, _ := store.New().Apply(1, 1, data).(state.Result); r.Err == nil {
		t.Error("an unknown command was accepted")
	}
}
