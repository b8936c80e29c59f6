package coordinator

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/failover"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/upkeep"
	"github.com/hotspare/hotspare/internal/model"
)

const (
	// verifyEvery is how often the quorum confirms leadership for the permits of the agents.
	verifyEvery = 500 * time.Millisecond
	// tickEvery is how often the controllers look at the clock when nothing else wakes them.
	tickEvery = 500 * time.Millisecond
	// placeEvery is how often room is searched for what open runs had to leave out.
	placeEvery = time.Second
	// proveEvery is how often the leader looks whether the guarantee has to be proven again.
	proveEvery = time.Second
	// improveAfter is after how many looks without a new proof a better one is looked for.
	improveAfter = 30
	// queueEvery is how often the leases that wait are tried.
	queueEvery = time.Second
	// barrierRetry is the pause before a new leader tries again to catch up with the log.
	barrierRetry = 100 * time.Millisecond
)

// controllerActor is who the log of evidence names for what the controllers decide.
const controllerActor = "coordinator/controllers"

// followLeadership only drains leadership: everything that may wait runs in the set it starts, which
// it ends as a whole before it starts the next.
func (c *Coordinator) followLeadership(ctx context.Context) {
	var services leaderServices
	defer services.end()
	for {
		select {
		case <-ctx.Done():
			return
		case leads, open := <-c.node.Leadership():
			services.end()
			c.setLeads(false)
			if !open {
				return
			}
			if !leads {
				c.fleet.Resign()
				c.o.Log.Info("leadership lost", "coordinator", c.o.Name)
				continue
			}
			services.start(ctx, c.lead)
		}
	}
}

// leaderServices are what runs while this member leads; they start and end as one set.
type leaderServices struct {
	cancel context.CancelFunc
	set    sync.WaitGroup
}

func (l *leaderServices) start(ctx context.Context, run func(context.Context)) {
	ctx, l.cancel = context.WithCancel(ctx)
	l.set.Go(func() { run(ctx) })
}

func (l *leaderServices) end() {
	if l.cancel != nil {
		l.cancel()
	}
	l.set.Wait()
}

func (c *Coordinator) setLeads(leads bool) {
	c.mu.Lock()
	c.leads = leads
	c.mu.Unlock()
	c.notify()
}

// lead runs the leader's services until the context ends.
func (c *Coordinator) lead(ctx context.Context) {
	said := ""
	for {
		err := c.node.Barrier(ctx)
		if err == nil {
			break
		}
		if text := err.Error(); text != said && ctx.Err() == nil { // Each reason once, not ten times a second.
			said = text
			c.o.Log.Warn("elected, but not caught up with the log yet", "coordinator", c.o.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(barrierRetry):
		}
	}
	c.fleet.Lead()
	since := c.clock.look(c.State().Time()).site
	if !c.o.Alone {
		c.fleet.Clock(live.Clock{Doubt: "it was not compared with the other members' yet", SiteSince: since})
	}
	c.setLeads(true)
	c.o.Log.Info("leading", "coordinator", c.o.Name, "term", c.node.Term(), "index", c.State().Index())
	carriedOn(c.o.Log, c.State())
	var set sync.WaitGroup
	set.Go(func() { c.verifyLoop(ctx) })
	set.Go(func() { c.clockLoop(ctx, since) })
	set.Go(func() { c.controlLoop(ctx) })
	set.Go(func() { c.proveLoop(ctx) })
	set.Go(func() { c.queueLoop(ctx) })
	set.Wait()
}

// verifyLoop keeps the permits of the agents alive while a quorum confirms this leader (R10).
func (c *Coordinator) verifyLoop(ctx context.Context) {
	t := time.NewTicker(verifyEvery)
	defer t.Stop()
	for {
		at := c.o.Now()
		if err := c.node.VerifyLeader(ctx); err == nil {
			c.fleet.Verified(at)
			c.fleet.Miss()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// proveLoop keeps the proof of the guarantee. It is a loop of its own, since a proof of a large site takes a
// while, and no failover waits for it.
func (c *Coordinator) proveLoop(ctx context.Context) {
	t := time.NewTicker(proveEvery)
	defer t.Stop()
	var lookedAt uint64
	var silentThen []string
	keeper := standing.Keeper{Fault: func(err error) {
		c.o.Log.Error("a certificate that was made here is wrong and was dropped", "error", err)
	}}
	quiet := 0 // Looks since the last proof, or since a better one was looked for.
	for {
		s := c.State()
		v, _ := c.seen()
		if silent := standing.Silent(s, v); s.Index() != lookedAt || !slices.Equal(silent, silentThen) {
			lookedAt, silentThen = s.Index(), silent
			began := time.Now()
			cmds := keeper.Advance(s, v)
			if len(cmds) > 0 {
				c.metrics.Proved(time.Since(began))
				quiet = 0
			}
			done := c.proposeProof(ctx, cmds)
			if !done {
				lookedAt = 0 // Once more.
			}
		}
		if quiet >= improveAfter {
			c.proposeProof(ctx, keeper.Improve(s, v))
			quiet = 0
		}
		quiet++
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// proposeProof proposes what was proven. It says whether that is kept.
func (c *Coordinator) proposeProof(ctx context.Context, cmds []*pb.Command) (done bool) {
	done = true
	for _, cmd := range cmds {
		_, err := c.Propose(ctx, controllerActor, cmd)
		done = done && err == nil
		if err != nil && !isShutdown(err) && model.FaultOf(err) != model.FaultStale {
			c.o.Log.Error("the proof of the guarantee was not kept", "error", err)
		}
	}
	return done
}

// queueLoop starts leases that wait as soon as they fit, and announced drains at their time. It is a loop of its own as the proof is: it admits under
// one, and no failover waits for it.
func (c *Coordinator) queueLoop(ctx context.Context) {
	t := time.NewTicker(queueEvery)
	defer t.Stop()
	for {
		if c.waiting(ctx, lease.Dequeue) || c.waiting(ctx, failover.Due) {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// waiting proposes what has waited for its time or for room. It says whether it did something.
func (c *Coordinator) waiting(ctx context.Context, decide func(*state.State, live.View, time.Time) *pb.Command) bool {
	v, now := c.seen()
	cmd := decide(c.State(), v, now)
	if cmd == nil {
		return false
	}
	_, err := c.Propose(ctx, controllerActor, cmd)
	if err != nil && !isShutdown(err) && model.FaultOf(err) != model.FaultStale {
		c.o.Log.Error("what has waited was not begun", "error", err)
	}
	return err == nil
}

// controlLoop runs the controllers whenever something changed, one proposal at a time, so that at
// most one placement-changing command of theirs is in flight (R3).
func (c *Coordinator) controlLoop(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		changed := c.Changed()
		if c.control(ctx) {
			continue // What was committed may have opened the next gate: look again at once.
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-t.C:
		}
	}
}

// control asks each controller once and proposes what it returns; it says whether anything was committed.
func (c *Coordinator) control(ctx context.Context) (committed bool) {
	place := func(s *state.State, v live.View, now time.Time) []*pb.Command {
		if now.Sub(c.placed).Abs() < placeEvery {
			return nil
		}
		c.placed = now
		return failover.Place(s, v)
	}
	controllers := []func(*state.State, live.View, time.Time) []*pb.Command{
		func(*state.State, live.View, time.Time) []*pb.Command { return c.authority() },
		failover.Advance, place, lease.Advance, upkeep.Advance,
	}
	for _, decide := range controllers {
		v, now := c.seen()
		for _, cmd := range decide(c.State(), v, now) {
			_, err := c.Propose(ctx, controllerActor, cmd)
			switch {
			case err == nil:
				committed = true
			case isShutdown(err):
				return false
			case model.FaultOf(err) == model.FaultStale:
				// Decided on what has changed meanwhile: the next round decides anew.
			default:
				c.o.Log.Error("a controller's command was refused", "error", err)
			}
		}
	}
	return committed
}

// authority stores the certificate authority of a new site.
func (c *Coordinator) authority() []*pb.Command {
	if c.o.Authority == nil || len(c.State().Meta().GetAuthorityKey()) > 0 {
		return nil
	}
	cert, key, err := c.o.Authority.Encode()
	if err != nil {
		c.o.Log.Error("the certificate authority cannot be stored", "error", err)
		return nil
	}
	return []*pb.Command{{Body: &pb.Command_SetAuthority{SetAuthority: &pb.SetAuthority{Certificate: cert, Key: key}}}}
}
