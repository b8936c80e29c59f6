package coordinator

import (
	"context"
	"sync"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/clock"
	"github.com/hotspare/hotspare/internal/coordinator/live"
)

const (
	// clockEvery is how often the leader reads the other members' clocks.
	clockEvery = 2 * time.Second
	// clockWait bounds one reading: half the round trip is how wrong it may be.
	clockWait = time.Second
	// clockMemory is how long a reading counts of a member that does not answer any more: clocks drift slowly.
	clockMemory = time.Minute
	// clockPatience is how long a new leader may be without readings before it says so.
	clockPatience = 15 * time.Second
	// clockStep is a difference between the wall clock and the time that passed that only setting the clock makes.
	clockStep = time.Second
)

// siteClock gives the times of commands. The wall clock may be set back, and an earlier leader's may have
// been ahead: the time of commands then goes on at half speed until the wall clock has caught up, because
// what waits for a timeout must not wait for that.
type siteClock struct {
	wall func() time.Time

	mu       sync.Mutex // guards what follows
	lastWall time.Time
	lastMono time.Time
	site     time.Time
	steps    uint64
}

// instant is one look at a siteClock.
type instant struct {
	wall, site time.Time
	// steps counts how often the wall clock was set.
	steps uint64
}

// look returns the times now; the site's is not before floor.
func (s *siteClock) look(floor time.Time) instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	mono, wall := time.Now(), s.wall().Round(0) // Without its monotonic part: that would hide a step.
	if !s.lastMono.IsZero() {
		passed := mono.Sub(s.lastMono)
		if (wall.Sub(s.lastWall) - passed).Abs() > clockStep {
			s.steps++
		}
		s.site = s.site.Add(passed / 2)
	}
	s.lastMono, s.lastWall = mono, wall
	for _, t := range []time.Time{wall, floor} {
		if t.After(s.site) {
			s.site = t
		}
	}
	return instant{wall, s.site, s.steps}
}

// clocks are the readings of the other members' clocks.
type clocks struct {
	c       *Coordinator
	began   time.Time // all times here are this process's own: they need not be right, only go on
	read    map[string]clockReading
	steps   uint64
	members int
}

type clockReading struct {
	ahead time.Duration
	at    time.Time
}

// clockLoop compares this leader's clock with the other members' (R1).
func (c *Coordinator) clockLoop(ctx context.Context, since time.Time) {
	k := &clocks{c: c, began: time.Now(), read: map[string]clockReading{}}
	t := time.NewTicker(clockEvery)
	defer t.Stop()
	for {
		if k.readAll(ctx) {
			j := k.judge()
			j.SiteSince = since
			c.judged(j, k.steps)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// readAll reads all clocks anew; it says whether ours was left alone meanwhile.
func (k *clocks) readAll(ctx context.Context) bool {
	before := k.c.clock.look(time.Time{}).steps
	if before != k.steps {
		clear(k.read) // What was read is about a clock that was set since.
	}
	var mu sync.Mutex
	var set sync.WaitGroup
	k.members = 0
	for _, m := range k.c.Members() {
		k.members++
		if m.GetSelf() {
			continue
		}
		set.Go(func() {
			if ahead, err := k.c.readClock(ctx, m.GetName()); err == nil {
				mu.Lock()
				k.read[m.GetName()] = clockReading{ahead, time.Now()}
				mu.Unlock()
			}
		})
	}
	set.Wait()
	k.steps = k.c.clock.look(time.Time{}).steps
	if k.steps != before {
		clear(k.read)
		return false
	}
	return true
}

// readClock returns how far another member's clock is ahead of ours; it may have answered any time of the
// round trip.
func (c *Coordinator) readClock(ctx context.Context, name string) (time.Duration, error) {
	c.mu.Lock()
	peer := c.peer
	c.mu.Unlock()
	if peer == nil {
		return 0, errNotServing
	}
	conn, err := peer(name)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, clockWait)
	defer cancel()
	before := c.o.Now()
	resp, err := pb.NewMemberServiceClient(conn).GetClock(ctx, &pb.GetClockRequest{})
	if err != nil {
		return 0, err
	}
	return resp.GetTime().AsTime().Sub(before.Add(c.o.Now().Sub(before) / 2)), nil
}

func (k *clocks) judge() live.Clock {
	var readings []clock.Reading
	for _, m := range k.c.Members() { // In their order, not the map's.
		if r, ok := k.read[m.GetName()]; ok && time.Since(r.at) <= clockMemory {
			readings = append(readings, clock.Reading{Member: m.GetName(), Ahead: r.ahead})
		}
	}
	return clock.Judge(k.c.o.Name, k.members, readings, time.Since(k.began) > clockPatience)
}

// judged keeps what was found out about this leader's clock while it was set so many times.
func (c *Coordinator) judged(j live.Clock, steps uint64) {
	before := c.Live().Clock.Doubt
	c.fleet.Clock(j)
	c.mu.Lock()
	c.judgedSteps = steps
	c.mu.Unlock()
	switch {
	case j.Doubt != "" && j.Doubt != before && len(j.Alarms) > 0:
		c.o.Log.Error("the clock is in doubt", "coordinator", c.o.Name, "reason", j.Doubt)
	case j.Doubt == "" && before != "":
		c.o.Log.Info("the clock agrees with the other members'", "coordinator", c.o.Name)
	}
}

// seen returns the live view for the controllers, with the times that they decide by.
func (c *Coordinator) seen() (live.View, time.Time) {
	now, v := c.clock.look(c.State().Time()), c.Live()
	c.mu.Lock()
	stepped := now.steps != c.judgedSteps
	c.mu.Unlock()
	if stepped && v.Clock.Doubt == "" && !c.o.Alone {
		v.Clock.Doubt = "the clock was set and not compared yet"
	}
	v.Clock.SiteAhead = now.site.Sub(now.wall)
	return v, now.wall
}
