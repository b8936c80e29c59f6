package agent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/agent/journal"
	"github.com/hotspare/hotspare/internal/agent/metadata"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/agent/session"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	// heartbeatEvery asks for a permit often enough that one lost answer does not let it lapse.
	heartbeatEvery = time.Second
	// maxBatch bounds the inputs that share one write of the journal.
	maxBatch = 64
	// A full disk may get free again; after these tries the process ends and its supervisor starts it
	// anew. Meanwhile there are no heartbeats, so permits lapse.
	persistTries = 10
	persistWait  = 200 * time.Millisecond
	// stopLimit is how long drivers may take to let go at the end; they promise a second.
	stopLimit = 5 * time.Second
)

// input is one input of the core; it runs in the loop's goroutine.
type input func() []reconcile.Effect

// running names a driver call or a reading under way.
type running struct {
	object model.ObjectID
	seq    uint64
}

// runtime is the loop around a core. The fields below the blank line belong to the loop's goroutine.
type runtime struct {
	ctx      context.Context //nolint:containedctx // The runtime is the run's lifetime.
	o        *Options
	actuator *actuate.Actuator
	journal  *journal.Journal
	client   *session.Client
	// inputs has size 0: who gives an input waits until the loop takes it, which bounds what waits.
	inputs chan input
	hello  atomic.Pointer[pb.Hello]
	// calls counts the goroutines that call drivers and probe.
	calls sync.WaitGroup
	// metadata serves the lent VMs; nil when no driver lets them reach it.
	metadata *metadata.Server
	// consoles holds a token for each console that is being read.
	consoles chan struct{}

	core    *reconcile.Core
	running map[running]context.CancelFunc
	probes  map[string]context.CancelFunc
	// returned holds inputs that the loop makes itself.
	returned    []input
	permitUntil time.Duration
	capacity    *pb.Capacity
	// sendCapacity: the next heartbeat carries it.
	sendCapacity bool
	// changed: Hello has to be made anew. reportFull: a leader waits for all statuses. tell: guests may see
	// something else.
	changed, reportFull, tell bool
}

func (r *runtime) now() reconcile.Now {
	return reconcile.Now{Wall: r.o.Wall(), Boot: r.o.Boot()}
}

// submit gives an input to the loop, or drops it when the agent ends.
func (r *runtime) submit(in input) {
	select {
	case r.inputs <- in:
	case <-r.ctx.Done():
	}
}

// loop feeds the core until the context ends.
func (r *runtime) loop(sessions <-chan error) error {
	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	for {
		var effects []reconcile.Effect
		tick := time.NewTimer(r.core.NextTick(r.now()))
		select {
		case <-r.ctx.Done():
			tick.Stop()
			return nil
		case err := <-sessions:
			tick.Stop()
			if r.ctx.Err() != nil {
				return nil
			}
			return err
		case in := <-r.inputs:
			effects = r.batch(in)
		case <-tick.C:
			effects = r.core.Tick(r.now())
		case <-heartbeat.C:
			r.beat()
		}
		tick.Stop()
		if err := r.settle(effects); err != nil {
			return err
		}
	}
}

// batch takes the inputs that wait, so that they share one write of the journal.
func (r *runtime) batch(first input) []reconcile.Effect {
	effects := first()
	for range maxBatch {
		select {
		case in := <-r.inputs:
			effects = append(effects, in()...)
		default:
			return effects
		}
	}
	return effects
}

// settle executes effects, and what they led to in the loop itself.
func (r *runtime) settle(effects []reconcile.Effect) error {
	for {
		if err := r.execute(effects); err != nil {
			return err
		}
		if len(r.returned) == 0 {
			break
		}
		effects = nil
		for _, in := range r.returned {
			effects = append(effects, in()...)
		}
		r.returned = nil
	}
	r.republish()
	if r.tell && r.metadata != nil {
		r.metadata.Publish(r.core.Guests(), r.core.LentNetworks())
	}
	r.tell = false
	if r.reportFull {
		r.reportFull = false
		r.client.ReportFull(r.core.Statuses())
	}
	return nil
}

// republish makes the Hello anew if it has to be.
func (r *runtime) republish() {
	if r.changed {
		r.changed = false
		r.publish()
	}
}

// publish makes the Hello of the next streams.
func (r *runtime) publish() {
	m := r.core.Marks()
	r.hello.Store(&pb.Hello{
		Agent: r.o.Name, BootId: r.o.BootID, JournalId: r.journal.ID(), Version: r.o.Version,
		Era: m.Era, Generation: m.Generation, Term: m.Term, OrdersDigest: model.OrdersDigest(r.core.Held()),
		Capacity: r.capacity, Offer: r.o.Drivers.Offer(),
	})
}

func (r *runtime) beat() {
	var c *pb.Capacity
	if r.sendCapacity && r.client.Following() {
		c, r.sendCapacity = r.capacity, false
	}
	r.client.Heartbeat(c)
}

// execute does what the core asked for. All that has to be durable is written in one transaction at
// the place of the first; what stands before it does not depend on it.
func (r *runtime) execute(effects []reconcile.Effect) error {
	var writes []reconcile.Persist
	for _, e := range effects {
		if p, ok := e.(reconcile.Persist); ok {
			writes = append(writes, p)
			r.tell = r.tell || len(p.Put)+len(p.Delete) > 0
		}
	}
	for _, e := range effects {
		if _, ok := e.(reconcile.Persist); !ok {
			r.do(e)
			continue
		}
		if err := r.persist(writes); err != nil {
			return err
		}
		writes = nil
		// Before a report: a Hello must never know less than what was confirmed (R13).
		r.republish()
	}
	return nil
}

// persist writes to the journal, and tries again for a while.
func (r *runtime) persist(writes []reconcile.Persist) error {
	if len(writes) == 0 {
		return nil
	}
	var err error
	for range persistTries {
		if err = r.journal.Persist(writes...); err == nil {
			return nil
		}
		r.o.Log.Error("journal not written; trying again", "host", r.o.Name, "error", err)
		select {
		case <-r.ctx.Done():
			return nil
		case <-time.After(persistWait):
		}
	}
	return fmt.Errorf("%w (nothing was begun that is not written down; make room on its file system and start the agent)", err)
}

// do executes one effect that is not a Persist.
func (r *runtime) do(e reconcile.Effect) {
	switch e := e.(type) {
	case reconcile.Observe:
		r.observe(e)
	case reconcile.Call:
		r.call(e)
	case reconcile.Cancel:
		if cancel := r.running[running{e.Object, e.Seq}]; cancel != nil {
			r.o.Log.Warn("driver did not answer in time; its call is cancelled", "host", r.o.Name, "object", e.Object)
			cancel()
		}
	case reconcile.Report:
		r.client.Report(e.Status)
	case reconcile.ProbeStart:
		r.startProbe(e)
	case reconcile.ProbeStop:
		r.stopProbe(string(e.Object))
	default:
		panic(fmt.Sprintf("agent: an effect of type %T is not known", e))
	}
}

// observe reads an object in a goroutine of its own.
func (r *runtime) observe(e reconcile.Observe) {
	ctx, done := r.begin(running{e.Object, e.Seq})
	r.calls.Go(func() {
		obs, err := r.actuator.Observe(ctx, e.Object, e.Spec)
		r.submit(func() []reconcile.Effect {
			done()
			return r.core.Observed(e.Object, e.Seq, obs, err, r.now())
		})
	})
}

// call makes a driver call in a goroutine of its own. The permit is looked at once more: writing the
// journal may have taken longer than it lasted.
func (r *runtime) call(e reconcile.Call) {
	t := e.Transition
	if t.Acquiring && r.o.Boot() >= r.permitUntil {
		r.returned = append(r.returned, func() []reconcile.Effect {
			return r.core.CallReturned(e.Object, e.Seq, reconcile.ErrNoPermit, r.now())
		})
		return
	}
	log := r.o.Log.With("host", r.o.Name, "object", e.Object, "from", model.StateName(t.From),
		"to", model.StateName(t.To), "generation", e.Generation, "epoch", e.Epoch)
	log.Info("driver call began")
	ctx, done := r.begin(running{e.Object, e.Seq})
	began := r.o.Boot()
	r.calls.Go(func() {
		err := r.actuator.Do(ctx, e)
		took := r.o.Boot() - began
		if err != nil {
			log.Warn("driver call returned an error", "took", took, "error", err)
		} else {
			log.Info("driver call returned", "took", took)
		}
		r.submit(func() []reconcile.Effect {
			done()
			return r.core.CallReturned(e.Object, e.Seq, err, r.now())
		})
	})
}

// begin makes the context of a driver call; done is called in the loop when it returned.
func (r *runtime) begin(key running) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(r.ctx)
	r.running[key] = cancel
	return ctx, func() {
		cancel()
		delete(r.running, key)
	}
}

// wait waits for the goroutines of drivers and probes, but not for ever: a driver that hangs must not
// keep the process from ending.
func (r *runtime) wait() {
	done := make(chan struct{})
	go func() {
		r.calls.Wait()
		close(done)
	}()
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		r.o.Log.Warn("drivers did not let go; the agent ends without them", "host", r.o.Name)
	}
}
