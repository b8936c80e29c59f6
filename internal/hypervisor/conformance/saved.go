package conformance

import (
	"context"
	"errors"
	"slices"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

// saved starts a domain and saves it.
func (f *Fixture) saved(t *testing.T, d hypervisor.Definition) model.ObjectID {
	t.Helper()
	s := f.saver(t)
	id := f.started(t, d)
	must(t, "save", s.Save(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_SAVED)
	return id
}

func saveRestoreKeepsRAM(t *testing.T, f *Fixture) {
	s := f.saver(t)
	id := f.started(t, f.Define("a"))
	f.ready(t, id)
	before := f.wantGuestGoesOn(t, id, Guest{})
	must(t, "save", s.Save(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_SAVED)
	must(t, "restore", s.Restore(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_RUNNING)
	f.wantGuestGoesOn(t, id, before)
	f.wantStarts(t, id, 2)
}

func saveIdempotent(t *testing.T, f *Fixture) {
	id := f.saved(t, f.Define("a"))
	s := f.saver(t)
	must(t, "save again", s.Save(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_SAVED)
	must(t, "stop what is saved", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	f.wantState(t, id, pb.State_STATE_SAVED)
	must(t, "restore", s.Restore(f.context(t), id))
	must(t, "restore again", s.Restore(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_RUNNING)
	f.wantStarts(t, id, 2)
}

func saveRefusesOff(t *testing.T, f *Fixture) {
	s := f.saver(t)
	id := f.defined(t, f.Define("a"))
	if err := s.Save(f.context(t), id); !errors.Is(err, hypervisor.ErrState) {
		t.Errorf("save a domain that is off: %v, want ErrState", err)
	}
	f.wantState(t, id, pb.State_STATE_DEFINED)
}

func saveCancelled(t *testing.T, f *Fixture) {
	s := f.saver(t)
	id := f.started(t, f.Define("a"))
	f.ready(t, id)
	before := f.wantGuestGoesOn(t, id, Guest{})
	var had []string
	if f.Inventory != nil {
		had = f.Inventory(t)
	}
	ctx, cancel := context.WithTimeout(f.context(t), f.CancelSaveAfter)
	defer cancel()
	if err := s.Save(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("save with a short deadline: %v, want its context's error", err)
	}
	// The outcome is unknown when the call returns, and settles soon.
	f.eventually(t, "the domain is cleanly running or cleanly saved", func() bool {
		d, err := f.Driver.Inspect(f.context(t), id)
		must(t, "inspect", err)
		switch d.State {
		case pb.State_STATE_SAVED:
			return true
		case pb.State_STATE_RUNNING:
			return d.Problem == "" && (had == nil || slices.Equal(had, f.Inventory(t)))
		default:
			t.Fatalf("state %v after a cancelled save: the RAM is lost", d.State)
			return false
		}
	})
	d, err := f.Driver.Inspect(f.context(t), id)
	must(t, "inspect", err)
	t.Logf("the cancelled save ended in %v", d.State)
	if d.State == pb.State_STATE_SAVED {
		must(t, "restore", s.Restore(f.context(t), id))
	}
	f.wantGuestGoesOn(t, id, before)
	must(t, "save after a cancelled save", s.Save(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_SAVED)
}

func restoreUsesImageOnce(t *testing.T, f *Fixture) {
	id := f.saved(t, f.Define("a"))
	s := f.saver(t)
	must(t, "restore", s.Restore(f.context(t), id))
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	f.wantState(t, id, pb.State_STATE_DEFINED)
	if err := s.Restore(f.context(t), id); !errors.Is(err, hypervisor.ErrState) {
		t.Errorf("restore a second time: %v, want ErrState", err)
	}
	f.wantState(t, id, pb.State_STATE_DEFINED)
	must(t, "start cold", f.Driver.Start(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_RUNNING)
}

func restoreWithoutImage(t *testing.T, f *Fixture) {
	s := f.saver(t)
	id := f.defined(t, f.Define("a"))
	if err := s.Restore(f.context(t), id); !errors.Is(err, hypervisor.ErrState) {
		t.Errorf("restore without an image: %v, want ErrState", err)
	}
	f.wantState(t, id, pb.State_STATE_DEFINED)
	f.wantStarts(t, id, 0)
}

func startRefusesSaved(t *testing.T, f *Fixture) {
	id := f.saved(t, f.Define("a"))
	if err := f.Driver.Start(f.context(t), id); !errors.Is(err, hypervisor.ErrState) {
		t.Errorf("start a saved domain: %v, want ErrState", err)
	}
	f.wantState(t, id, pb.State_STATE_SAVED)
	def := f.Define("a")
	def.Spec.MemoryBytes += 16 << 20
	if err := f.Driver.Define(f.context(t), def); !errors.Is(err, hypervisor.ErrState) {
		t.Errorf("define something else while saved: %v, want ErrState", err)
	}
	f.wantState(t, id, pb.State_STATE_SAVED)
	f.wantStarts(t, id, 1)
}

func dropSaved(t *testing.T, f *Fixture) {
	s := f.saver(t)
	id := f.started(t, f.Define("a"))
	if err := s.DropSaved(f.context(t), id); !errors.Is(err, hypervisor.ErrState) {
		t.Errorf("drop the image of a running domain: %v, want ErrState", err)
	}
	must(t, "save", s.Save(f.context(t), id))
	before := f.disks(t, id)
	must(t, "drop", s.DropSaved(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_DEFINED)
	must(t, "drop again", s.DropSaved(f.context(t), id))
	if after := f.disks(t, id); !slices.Equal(before, after) {
		t.Errorf("disks %q became %q", before, after)
	}
	must(t, "start cold", f.Driver.Start(f.context(t), id))
	f.wantStarts(t, id, 2)
}

func removeSaved(t *testing.T, f *Fixture) {
	f.saver(t)
	var before []string
	if f.Inventory != nil {
		before = f.Inventory(t)
	}
	id := f.saved(t, f.Define("a"))
	must(t, "remove", f.Driver.Remove(f.context(t), id))
	if _, err := f.Driver.Inspect(f.context(t), id); !errors.Is(err, hypervisor.ErrNotFound) {
		t.Errorf("inspect after remove: %v, want ErrNotFound", err)
	}
	if f.Inventory != nil {
		if after := f.Inventory(t); !slices.Equal(before, after) {
			t.Errorf("left behind: %q, before %q", after, before)
		}
	}
}

func reopenRunning(t *testing.T, f *Fixture) {
	if f.Reopen == nil {
		t.Skip("the fixture cannot make a second driver")
	}
	id := f.started(t, f.Define("a"))
	f.Driver = f.Reopen(t)
	f.wantState(t, id, pb.State_STATE_RUNNING)
	if got := f.listed(t); !slices.Equal(got, []model.ObjectID{id}) {
		t.Errorf("list: %q, want %q", got, id)
	}
	must(t, "start", f.Driver.Start(f.context(t), id))
	f.wantStarts(t, id, 1)
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	f.wantState(t, id, pb.State_STATE_DEFINED)
}

func reopenSaved(t *testing.T, f *Fixture) {
	if f.Reopen == nil {
		t.Skip("the fixture cannot make a second driver")
	}
	id := f.saved(t, f.Define("a"))
	f.Driver = f.Reopen(t)
	f.wantState(t, id, pb.State_STATE_SAVED)
	must(t, "restore", f.saver(t).Restore(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_RUNNING)
	f.wantStarts(t, id, 2)
}
