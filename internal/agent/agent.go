package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/agent/journal"
	"github.com/hotspare/hotspare/internal/agent/metadata"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/agent/session"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
)

// Options are what an agent needs. All fields but Version are required; Drivers may be empty.
type Options struct {
	// Name of the host, as the coordinators know it.
	Name    string
	Version string
	// Coordinators are gRPC targets: "c1.example:7443".
	Coordinators []string
	// DialOptions returns the credentials for one coordinator. It is asked once for each; credentials
	// that are renewed come from callbacks inside of them.
	DialOptions func(coordinator string) []grpc.DialOption
	Drivers     actuate.Drivers
	JournalPath string
	// BootID names the host's present boot (HostBootID).
	BootID string
	// Wall is the wall clock, and Boot the time since the host booted, including suspends (HostBoot).
	Wall func() time.Time
	Boot func() time.Duration
	// NewID makes a random identifier for a new journal.
	NewID func() string
	Log   *slog.Logger
}

// check returns everything that is missing.
func (o *Options) check() error {
	var all []error
	need := func(ok bool, what string) {
		if !ok {
			all = append(all, fmt.Errorf("agent options: %s is missing", what))
		}
	}
	need(o.Name != "", "the name of the host")
	need(len(o.Coordinators) > 0, "the list of coordinators")
	need(o.DialOptions != nil, "DialOptions")
	need(o.JournalPath != "", "the path of the journal")
	need(o.BootID != "", "the boot id")
	need(o.Wall != nil && o.Boot != nil, "a clock")
	need(o.NewID != nil, "NewID")
	need(o.Log != nil, "a logger")
	return errors.Join(all...)
}

// Agent is one agent.
type Agent struct {
	o        Options
	actuator *actuate.Actuator
}

// New checks the options and returns an agent that does not run yet.
func New(o Options) (*Agent, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	a := &Agent{o: o}
	a.actuator = actuate.New(&a.o.Drivers)
	return a, nil
}

// Run opens the journal and works until the context ends, which is no error. Guests are left as
// they are; calls under way are cancelled, and their objects are read back at the next start. It
// returns an error when the journal cannot be opened or written: nothing is done that is not in it.
func (a *Agent) Run(ctx context.Context) error {
	j, content, err := journal.Open(a.o.JournalPath, journal.Options{NewID: a.o.NewID})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := a.runtime(ctx, j)
	var all sync.WaitGroup
	defer func() {
		cancel()
		all.Wait()
		r.wait()
		if err := j.Close(); err != nil {
			a.o.Log.Warn("journal not closed", "error", err)
		}
	}()
	core, effects := reconcile.New(reconcile.Config{BootID: a.o.BootID, RestoredAt: r.now()}, content)
	r.core = core
	r.client = session.New(session.Options{
		Coordinators: a.o.Coordinators, DialOptions: a.o.DialOptions, Handler: r, Boot: a.o.Boot, Log: a.o.Log, Console: r.console,
		Era: core.Marks().Era, Term: core.Marks().Term,
	})
	r.publish()
	if m, ok := a.o.Drivers.Networks.(sdn.Metadata); ok {
		r.metadata = metadata.New(metadata.Options{Networks: m, Asked: r.guestAsked, Ready: r.guestReady, Wall: a.o.Wall, Log: a.o.Log})
		r.metadata.Publish(core.Guests(), core.LentNetworks())
		all.Go(func() { r.metadata.Run(ctx) })
	}
	a.o.Log.Info("agent started", "host", a.o.Name, "boot_id", a.o.BootID, "journal_id", j.ID(),
		"objects", len(content.Records), "era", core.Marks().Era, "generation", core.Marks().Generation)
	if err := r.execute(effects); err != nil {
		return err
	}
	if a.o.Drivers.Hypervisor != nil {
		all.Go(func() { r.watch(ctx, a.o.Drivers.Hypervisor) })
		all.Go(func() { r.measure(ctx, a.o.Drivers.Hypervisor) })
	}
	sessions := make(chan error, 1)
	all.Go(func() { sessions <- r.client.Run(ctx) })
	return r.loop(sessions)
}

// runtime is what runs around one core.
func (a *Agent) runtime(ctx context.Context, j *journal.Journal) *runtime {
	return &runtime{
		ctx: ctx, o: &a.o, actuator: a.actuator, journal: j, inputs: make(chan input),
		running: map[running]context.CancelFunc{}, probes: map[string]context.CancelFunc{},
		consoles: make(chan struct{}, maxConsoles),
	}
}

// Hello implements session.Handler.
func (r *runtime) Hello() *pb.Hello { return r.hello.Load() }

// Leader implements session.Handler.
func (r *runtime) Leader(w *pb.Welcome) {
	r.submit(func() []reconcile.Effect {
		r.reportFull = true
		// The first permit must not wait for the ticker: it is on the way of every start.
		r.beat()
		return r.core.LeaderSeen(w, r.now())
	})
}

// Orders implements session.Handler.
func (r *runtime) Orders(o *pb.Orders) {
	r.submit(func() []reconcile.Effect {
		r.changed = true
		r.o.Log.Info("orders received", "host", r.o.Name, "era", o.GetEra(), "term", o.GetTerm(),
			"full", o.GetFull(), "orders", len(o.GetOrders()), "forget", len(o.GetForget()))
		return r.core.Orders(o, r.now())
	})
}

// guestAsked tells the core that a guest listens.
func (r *runtime) guestAsked(id model.ObjectID) {
	r.submit(func() []reconcile.Effect { return r.core.GuestAsked(id, r.now()) })
}

// guestReady tells the core that a guest may be taken.
func (r *runtime) guestReady(id model.ObjectID) {
	r.submit(func() []reconcile.Effect {
		r.o.Log.Info("guest is ready", "host", r.o.Name, "object", id)
		return r.core.GuestReady(id, r.now())
	})
}

// Permit implements session.Handler.
func (r *runtime) Permit(until time.Duration) {
	r.submit(func() []reconcile.Effect {
		r.permitUntil = max(r.permitUntil, until)
		return r.core.PermitGranted(until, r.now())
	})
}
