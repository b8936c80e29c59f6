package conformance

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

func defineInspectListRemove(t *testing.T, f *Fixture) {
	def := f.Define("a")
	id := f.defined(t, def)
	d := f.wantState(t, id, pb.State_STATE_DEFINED)
	want := hypervisor.Domain{
		ID: id, Owner: def.Owner, State: pb.State_STATE_DEFINED,
		VCPUs: def.Spec.GetVcpus(), MemoryBytes: def.Spec.GetMemoryBytes(),
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("inspect (-want +got):\n%s", diff)
	}
	other := f.defined(t, f.Define("b"))
	if got := f.listed(t); !slices.Equal(got, []model.ObjectID{id, other}) {
		t.Errorf("list: %q, want %q and %q", got, id, other)
	}
	must(t, "remove", f.Driver.Remove(f.context(t), id))
	if _, err := f.Driver.Inspect(f.context(t), id); !errors.Is(err, hypervisor.ErrNotFound) {
		t.Errorf("inspect after remove: %v, want ErrNotFound", err)
	}
	if got := f.listed(t); !slices.Equal(got, []model.ObjectID{other}) {
		t.Errorf("list after remove: %q, want %q", got, other)
	}
}

func (f *Fixture) listed(t *testing.T) []model.ObjectID {
	t.Helper()
	ds, err := f.Driver.List(f.context(t))
	must(t, "list", err)
	var ids []model.ObjectID
	for _, d := range ds {
		ids = append(ids, d.ID)
	}
	slices.Sort(ids)
	return ids
}

func defineIdempotent(t *testing.T, f *Fixture) {
	def := f.Define("a")
	id := f.defined(t, def)
	before := f.disks(t, id)
	must(t, "define again", f.Driver.Define(f.context(t), def))
	if got := f.listed(t); !slices.Equal(got, []model.ObjectID{id}) {
		t.Errorf("list: %q, want only %q", got, id)
	}
	if after := f.disks(t, id); !slices.Equal(before, after) {
		t.Errorf("disks %q became %q", before, after)
	}
	must(t, "start", f.Driver.Start(f.context(t), id))
	must(t, "define the same while it runs", f.Driver.Define(f.context(t), def))
	f.wantState(t, id, pb.State_STATE_RUNNING)
	f.wantStarts(t, id, 1)
}

func (f *Fixture) disks(t *testing.T, id model.ObjectID) []string {
	t.Helper()
	if f.Disks == nil {
		return nil
	}
	d := f.Disks(t, id)
	if len(d) == 0 {
		t.Fatal("the domain has no private disk to look at")
	}
	return d
}

func defineRenews(t *testing.T, f *Fixture) {
	def := f.Define("a")
	id := f.started(t, def)
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	before := f.disks(t, id)
	def.Spec.MemoryBytes += 16 << 20
	must(t, "define anew", f.Driver.Define(f.context(t), def))
	if after := f.disks(t, id); !slices.Equal(before, after) {
		t.Errorf("disks %q became %q", before, after)
	}
	must(t, "start", f.Driver.Start(f.context(t), id))
	if d := f.wantState(t, id, pb.State_STATE_RUNNING); d.MemoryBytes != def.Spec.GetMemoryBytes() {
		t.Errorf("memory %d, want %d", d.MemoryBytes, def.Spec.GetMemoryBytes())
	}
}

func defineWhileRunning(t *testing.T, f *Fixture) {
	def := f.Define("a")
	memory := def.Spec.GetMemoryBytes()
	id := f.started(t, def)
	def.Spec.MemoryBytes += 16 << 20
	if err := f.Driver.Define(f.context(t), def); !errors.Is(err, hypervisor.ErrState) {
		t.Errorf("define something else while it runs: %v, want ErrState", err)
	}
	if d := f.wantState(t, id, pb.State_STATE_RUNNING); d.MemoryBytes != memory {
		t.Errorf("memory %d, want %d as before", d.MemoryBytes, memory)
	}
}

func start(t *testing.T, f *Fixture) {
	id := f.started(t, f.Define("a"))
	f.wantStarts(t, id, 1)
	f.ready(t, id)
	f.wantGuestGoesOn(t, id, Guest{})
}

// wantGuestGoesOn checks that the guest is the given one, or any, and that its counter moves on.
func (f *Fixture) wantGuestGoesOn(t *testing.T, id model.ObjectID, before Guest) Guest {
	t.Helper()
	if f.Guest == nil {
		return Guest{}
	}
	first := f.Guest(t, id)
	if before.BootID != "" && first.BootID != before.BootID {
		t.Fatalf("boot id %q, want %q: the RAM was not kept", first.BootID, before.BootID)
	}
	if first.Counter < before.Counter {
		t.Fatalf("counter fell from %d to %d", before.Counter, first.Counter)
	}
	var last Guest
	f.eventually(t, "the guest's counter goes up", func() bool {
		last = f.Guest(t, id)
		return last.Counter > first.Counter
	})
	return last
}

func startIdempotent(t *testing.T, f *Fixture) {
	id := f.started(t, f.Define("a"))
	must(t, "start again", f.Driver.Start(f.context(t), id))
	f.wantState(t, id, pb.State_STATE_RUNNING)
	f.wantStarts(t, id, 1)
}

func startConcurrently(t *testing.T, f *Fixture) {
	id := f.defined(t, f.Define("a"))
	ctx := f.context(t)
	// A repeated order may meet the call of an earlier one whose context ended.
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { _ = f.Driver.Start(ctx, id) })
	}
	wg.Wait()
	f.wantState(t, id, pb.State_STATE_RUNNING)
	f.wantStarts(t, id, 1)
}

func startAfterStop(t *testing.T, f *Fixture) {
	if f.Guest == nil {
		t.Skip("the fixture cannot read the guest")
	}
	id := f.started(t, f.Define("a"))
	f.ready(t, id)
	first := f.Guest(t, id)
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	must(t, "start", f.Driver.Start(f.context(t), id))
	f.ready(t, id)
	if second := f.Guest(t, id); second.BootID == first.BootID {
		t.Errorf("boot id %q after a cold start, as before", second.BootID)
	}
	f.wantStarts(t, id, 2)
}

func stopGraceful(t *testing.T, f *Fixture) {
	id := f.started(t, f.Define("a"))
	f.ready(t, id)
	began := time.Now()
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{Grace: f.Patience}))
	if took := time.Since(began); took >= f.Patience {
		t.Errorf("stop took %v: the guest was not asked to shut down", took)
	}
	f.wantState(t, id, pb.State_STATE_DEFINED)
}

func stopKillsAfterGrace(t *testing.T, f *Fixture) {
	if f.Stubborn == nil {
		t.Skip("the fixture has no stubborn guest")
	}
	id := f.started(t, f.Stubborn("a"))
	f.ready(t, id)
	const grace = 500 * time.Millisecond
	began := time.Now()
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{Grace: grace}))
	if took := time.Since(began); took < grace {
		t.Errorf("stop took %v, less than the grace of %v", took, grace)
	}
	f.wantState(t, id, pb.State_STATE_DEFINED)
}

func stopIdempotent(t *testing.T, f *Fixture) {
	id := f.defined(t, f.Define("a"))
	must(t, "stop what never ran", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{Grace: f.Patience}))
	must(t, "start", f.Driver.Start(f.context(t), id))
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	must(t, "stop again", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	f.wantState(t, id, pb.State_STATE_DEFINED)
}

func removeRefusesRunning(t *testing.T, f *Fixture) {
	id := f.started(t, f.Define("a"))
	if err := f.Driver.Remove(f.context(t), id); !errors.Is(err, hypervisor.ErrState) {
		t.Errorf("remove a running domain: %v, want ErrState", err)
	}
	f.wantState(t, id, pb.State_STATE_RUNNING)
	f.wantStarts(t, id, 1)
}

func removeIdempotent(t *testing.T, f *Fixture) {
	id := f.defined(t, f.Define("a"))
	must(t, "remove", f.Driver.Remove(f.context(t), id))
	must(t, "remove again", f.Driver.Remove(f.context(t), id))
}

func removeLeavesNothing(t *testing.T, f *Fixture) {
	if f.Inventory == nil {
		t.Skip("the fixture has no inventory")
	}
	before := f.Inventory(t)
	id := f.started(t, f.Define("a"))
	if diff := cmp.Diff(before, f.Inventory(t)); diff == "" {
		t.Error("the inventory does not show a running domain")
	}
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	must(t, "remove", f.Driver.Remove(f.context(t), id))
	if diff := cmp.Diff(before, f.Inventory(t)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}
