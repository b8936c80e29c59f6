package conformance

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

// obeysWithin is how soon every call must return after its context has ended.
const obeysWithin = time.Second

// namedCall is one method of the driver that names a domain.
type namedCall struct {
	name string
	do   func(ctx context.Context, id model.ObjectID) error
}

// calls returns every method that names an existing domain.
func (f *Fixture) calls() []namedCall {
	out := []namedCall{
		{"inspect", func(ctx context.Context, id model.ObjectID) error {
			_, err := f.Driver.Inspect(ctx, id)
			return err
		}},
		{"start", f.Driver.Start},
		{"stop", func(ctx context.Context, id model.ObjectID) error {
			return f.Driver.Stop(ctx, id, hypervisor.StopOptions{Grace: time.Second})
		}},
	}
	if s, ok := f.Driver.(hypervisor.Saver); ok {
		out = append(out, namedCall{"save", s.Save}, namedCall{"restore", s.Restore}, namedCall{"drop saved", s.DropSaved})
	}
	if c, ok := f.Driver.(hypervisor.Consoler); ok {
		out = append(out, namedCall{"console", func(ctx context.Context, id model.ObjectID) error {
			_, err := c.Console(ctx, id, 0, 100)
			return err
		}})
	}
	return out
}

func unknownDomain(t *testing.T, f *Fixture) {
	id := f.Define("nobody").ID
	for _, c := range f.calls() {
		if err := c.do(f.context(t), id); !errors.Is(err, hypervisor.ErrNotFound) {
			t.Errorf("%s an unknown domain: %v, want ErrNotFound", c.name, err)
		}
	}
	must(t, "remove an unknown domain", f.Driver.Remove(f.context(t), id))
}

func foreignDomain(t *testing.T, f *Fixture) {
	if f.Foreign == nil {
		t.Skip("the fixture cannot make a foreign domain")
	}
	before, err := f.Driver.Capacity(f.context(t))
	must(t, "capacity", err)
	alien := f.Foreign(t)
	after, err := f.Driver.Capacity(f.context(t))
	must(t, "capacity", err)
	if got := after.GetForeignVcpus() - before.GetForeignVcpus(); got != alien.VCPUs {
		t.Errorf("capacity counts %d foreign CPUs, want %d", got, alien.VCPUs)
	}
	if got := after.GetForeignMemoryBytes() - before.GetForeignMemoryBytes(); got < alien.MemoryBytes {
		t.Errorf("capacity counts %d bytes of foreign memory, want at least %d", got, alien.MemoryBytes)
	}
	if got := f.listed(t); len(got) != 0 {
		t.Errorf("list shows %q", got)
	}
	def := f.Define(alien.ID.Name())
	if def.ID != alien.ID {
		t.Fatalf("the fixture's definition is for %q, the foreign domain stands for %q", def.ID, alien.ID)
	}
	calls := append(f.calls(), namedCall{"remove", f.Driver.Remove},
		namedCall{"define", func(ctx context.Context, _ model.ObjectID) error { return f.Driver.Define(ctx, def) }})
	for _, c := range calls {
		if err := c.do(f.context(t), alien.ID); !errors.Is(err, hypervisor.ErrForeign) {
			t.Errorf("%s a foreign domain: %v, want ErrForeign", c.name, err)
		}
	}
	if !alien.Running() {
		t.Error("the foreign domain does not run any more")
	}
}

func capacity(t *testing.T, f *Fixture) {
	before, err := f.Driver.Capacity(f.context(t))
	must(t, "capacity", err)
	if before.GetVcpus() == 0 || before.GetVcpus() > 4096 {
		t.Errorf("%d CPUs", before.GetVcpus())
	}
	if before.GetMemoryBytes() < 64<<20 || before.GetMemoryBytes() > 1<<50 {
		t.Errorf("%d bytes of memory", before.GetMemoryBytes())
	}
	if before.GetCpuClass() == "" {
		t.Error("no CPU class")
	}
	if before.GetOverheadBytes() == 0 {
		t.Error("a guest costs no memory beyond its own")
	}
	f.started(t, f.Define("a"))
	after, err := f.Driver.Capacity(f.context(t))
	must(t, "capacity", err)
	if after.GetForeignVcpus() != before.GetForeignVcpus() || after.GetForeignMemoryBytes() != before.GetForeignMemoryBytes() {
		t.Errorf("a domain of ours counts as foreign: %v, before %v", after, before)
	}
	if after.GetMemoryBytes() != before.GetMemoryBytes() || after.GetVcpus() != before.GetVcpus() {
		t.Errorf("the size of the host changed with a guest: %v, before %v", after, before)
	}
}

func cancelledContext(t *testing.T, f *Fixture) {
	id := f.defined(t, f.Define("a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	def := f.Define("b")
	f.removeLater(t, def.ID)
	calls := append(f.calls(),
		namedCall{"define", func(ctx context.Context, _ model.ObjectID) error { return f.Driver.Define(ctx, def) }},
		namedCall{"remove", f.Driver.Remove},
		namedCall{"list", func(ctx context.Context, _ model.ObjectID) error {
			_, err := f.Driver.List(ctx)
			return err
		}},
		namedCall{"capacity", func(ctx context.Context, _ model.ObjectID) error {
			_, err := f.Driver.Capacity(ctx)
			return err
		}},
		namedCall{"watch", func(ctx context.Context, _ model.ObjectID) error {
			_, err := f.Driver.Watch(ctx)
			return err
		}},
	)
	for _, c := range calls {
		began := time.Now()
		if err := c.do(ctx, id); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", c.name, err)
		}
		if took := time.Since(began); took > obeysWithin {
			t.Errorf("%s with a cancelled context took %v", c.name, took)
		}
	}
	if got := f.listed(t); !slices.Equal(got, []model.ObjectID{id}) {
		t.Errorf("list: %q, want only %q", got, id)
	}
	f.wantState(t, id, pb.State_STATE_DEFINED)
}

func watchOutside(t *testing.T, f *Fixture) {
	if f.Kill == nil {
		t.Skip("the fixture cannot kill a guest")
	}
	id := f.started(t, f.Define("a"))
	events, err := f.Driver.Watch(t.Context())
	must(t, "watch", err)
	f.Kill(t, id)
	f.wantEvent(t, events, id, pb.State_STATE_DEFINED)
}

func watchOwn(t *testing.T, f *Fixture) {
	id := f.defined(t, f.Define("a"))
	events, err := f.Driver.Watch(t.Context())
	must(t, "watch", err)
	must(t, "start", f.Driver.Start(f.context(t), id))
	f.wantEvent(t, events, id, pb.State_STATE_RUNNING)
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	f.wantEvent(t, events, id, pb.State_STATE_DEFINED)
}

// wantEvent waits for an event after which the domain is in the state.
func (f *Fixture) wantEvent(t *testing.T, events <-chan model.ObjectID, id model.ObjectID, want pb.State) {
	t.Helper()
	deadline := time.NewTimer(f.Patience)
	defer deadline.Stop()
	for {
		select {
		case got, open := <-events:
			if !open {
				t.Fatal("the watch ended")
			}
			if got != id {
				t.Fatalf("event for %q, want %q", got, id)
			}
			if d, err := f.Driver.Inspect(f.context(t), id); err == nil && d.State == want {
				return
			}
		case <-deadline.C:
			t.Fatalf("no event within %v after which %q is %v", f.Patience, id, want)
		}
	}
}

func watchEnds(t *testing.T, f *Fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	events, err := f.Driver.Watch(ctx)
	must(t, "watch", err)
	cancel()
	deadline := time.NewTimer(f.Patience)
	defer deadline.Stop()
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		case <-deadline.C:
			t.Fatalf("the watch did not end within %v", f.Patience)
		}
	}
}

func console(t *testing.T, f *Fixture) {
	c, ok := f.Driver.(hypervisor.Consoler)
	if !ok {
		t.Skip("the driver shows no console")
	}
	id := f.defined(t, f.Define("a"))
	if got, err := c.Console(f.context(t), id, 0, 100); err != nil || len(got.Text) != 0 || got.End != 0 {
		t.Errorf("console of a domain that never ran: %q, %v", got.Text, err)
	}
	must(t, "start", f.Driver.Start(f.context(t), id))
	const limit = 20
	f.eventually(t, "the console shows something", func() bool {
		got, err := c.Console(f.context(t), id, 0, limit)
		must(t, "console", err)
		if len(got.Text) > limit {
			t.Fatalf("console gave %d bytes, asked for at most %d", len(got.Text), limit)
		}
		return len(got.Text) == limit
	})
	must(t, "stop", f.Driver.Stop(f.context(t), id, hypervisor.StopOptions{}))
	var all hypervisor.ConsoleText
	f.eventually(t, "the console of a domain that is off rests", func() bool {
		got, err := c.Console(f.context(t), id, 0, 1<<20)
		must(t, "console of a domain that is off", err)
		rests := got.End == all.End
		all = got
		return rests
	})
	if len(all.Text) < limit || all.End < uint64(len(all.Text)) {
		t.Fatalf("a domain that is off shows %q up to %d", all.Text, all.End)
	}
	const step = 7
	from := all.End - step
	part, err := c.Console(f.context(t), id, from, 1<<20)
	must(t, "console behind an offset", err)
	if want := all.Text[len(all.Text)-step:]; string(part.Text) != string(want) || part.End != all.End {
		t.Errorf("behind %d: %q up to %d, want %q", from, part.Text, part.End, want)
	}
	none, err := c.Console(f.context(t), id, all.End, 1<<20)
	must(t, "console behind its end", err)
	if len(none.Text) != 0 || none.End != all.End {
		t.Errorf("behind its end: %q up to %d", none.Text, none.End)
	}
	anew, err := c.Console(f.context(t), id, all.End+100, 1<<20)
	must(t, "console behind more than there is", err)
	if string(anew.Text) != string(all.Text) {
		t.Errorf("a log that was begun anew: %q, want all of it", anew.Text)
	}
}
