package simulation

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// chaos lets users act and things break for a while. How often which thing happens differs from seed
// to seed, so that some cycles see many reboots and others only slow disks.
func (s *sim) chaos() {
	s.misbehave = pick(s, []float64{0, 0.02, 0.05, 0.15})
	mishap := pick(s, []time.Duration{3 * time.Second, 8 * time.Second, 20 * time.Second, time.Hour})
	pace := pick(s, []time.Duration{2 * time.Second, 4 * time.Second})
	mishaps := mishapActs()
	for i := range mishaps {
		mishaps[i].weight *= s.number(0, 3)
	}
	mishaps = append(mishaps, act{1, "", func(*sim) {}})
	end := s.now + s.between(30*time.Second, 4*time.Minute)
	for range s.number(0, 4) {
		s.createLease()
		s.run(s.now + time.Second)
	}
	nextUser, nextMishap := s.now+s.exponential(pace), s.now+s.exponential(mishap)
	users := userActs()
	for s.now < end {
		s.run(min(nextUser, nextMishap, end))
		if s.now >= nextUser {
			s.draw(users)
			nextUser = s.now + s.exponential(pace)
		}
		if s.now >= nextMishap {
			s.draw(mishaps)
			nextMishap = s.now + s.exponential(mishap)
		}
	}
	s.logf("=== the chaos ends")
}

// exponential draws the time until the next of many independent things.
func (s *sim) exponential(mean time.Duration) time.Duration {
	return time.Duration(s.rng.ExpFloat64() * float64(mean))
}

// mishapActs are what breaks.
func mishapActs() []act {
	return []act{
		{2, "power loss", (*sim).hostCrash},
		{2, "agent killed", (*sim).agentKilled},
		{3, "agent dies at a write", (*sim).dieAtWrite},
		{2, "link cut", (*sim).cutLink},
		{2, "leader dies", (*sim).leaderDies},
		{1, "leader cut off", (*sim).leaderCutOff},
		{1, "follower dies", (*sim).followerDies},
		{1, "disaster", (*sim).disaster},
		{1, "old site returns", (*sim).oldSiteReturns},
		{1, "power switches away", (*sim).switchesAway},
		{1, "foreign hand", (*sim).foreignHand},
		{1, "guest dies", (*sim).guestDies},
	}
}

func (s *sim) hostCrash() {
	a := pick(s, s.agents)
	a.crash()
	s.after(s.between(10*time.Second, 2*time.Minute), func() {
		if !a.up && (a.name != oldAgent || s.world.old.alive) {
			a.boot()
		}
	})
}

func (s *sim) agentKilled() {
	a := pick(s, s.agents)
	a.kill("killed")
	s.after(s.between(restartAfter, 30*time.Second), a.start)
}

func (s *sim) dieAtWrite() {
	a := pick(s, s.agents)
	a.dieIn, a.dieAfter = s.number(1, 4), s.chance(0.5)
}

func (s *sim) cutLink() {
	a := pick(s, s.agents)
	l := s.links[a.name]
	way := s.number(0, 2)
	l.upCut, l.downCut = l.upCut || way != 0, l.downCut || way != 1
	s.logf("link of %s cut, up %v down %v", a.name, l.upCut, l.downCut)
	s.after(s.between(time.Second, 40*time.Second), func() { s.healLink(a) })
}

func (s *sim) healLink(a *agent) {
	l := s.links[a.name]
	if !l.upCut && !l.downCut {
		return
	}
	l.upCut, l.downCut = false, false
	s.logf("link of %s healed", a.name)
	seen := map[*session]bool{}
	for _, m := range s.members {
		if x := m.sessions[a.name]; x != nil {
			seen[x] = true
			x.healed()
		}
	}
	if x := a.session; x != nil && !seen[x] {
		x.healed()
	}
}

func (s *sim) leaderDies() {
	s.depose(true, s.between(200*time.Millisecond, 8*time.Second))
}

func (s *sim) leaderCutOff() {
	s.depose(false, s.between(200*time.Millisecond, 8*time.Second))
}

func (s *sim) followerDies() {
	for _, m := range s.members {
		if m.up && m != s.raft.leader && !m.cutOff {
			m.up = false
			m.resign()
			s.after(s.between(time.Second, 20*time.Second), m.restart)
			return
		}
	}
}

func (s *sim) disaster() {
	s.logf("the protected site dies")
	s.agentOf(oldAgent).crash()
	s.world.die()
	s.world.old.reach = s.chance(0.5)
}

// oldSiteReturns turns everything at the protected site on again that no fence holds off.
func (s *sim) oldSiteReturns() {
	old := s.world.old
	if old.alive {
		return
	}
	s.logf("the protected site returns")
	old.alive, old.reach = true, true
	s.agentOf(oldAgent).boot()
	s.after(s.between(0, 20*time.Second), s.world.startOld)
}

func (s *sim) switchesAway() {
	s.world.old.reach = false
	s.after(s.between(5*time.Second, time.Minute), func() { s.world.old.reach = true })
}

// foreignHand changes a DNS record that is ours to repoint.
func (s *sim) foreignHand() {
	key := pick(s, []string{"www." + zoneName + " A", "pay." + zoneName + " A"})
	v := &pb.EndpointValue{Values: []string{pick(s, []string{"192.0.2.7", "192.0.2.8"})}, Ttl: durationpb.New(time.Minute)}
	s.world.records[key] = v
	s.checks.byHand[key] = v
	s.logf("somebody sets %s to %s", key, v.GetValues()[0])
}

// guestDies lets a guest end by itself.
func (s *sim) guestDies() {
	h := s.world.hosts[pick(s, s.site.hosts)]
	for _, id := range h.ids() {
		if d := h.domains[id]; d.running {
			d.running, d.ram = false, 0
			h.changed(id)
			return
		}
	}
}

// What the site is doing, as the table of faults names it.
const (
	quiet, failedOver, goingBack = "quiet", "failed over", "going back"
)

// phase says what the site is doing, for the table of faults.
func (s *sim) phase() string {
	out := quiet
	for f := range s.state.OpenFailovers() {
		switch f.GetPhase() {
		case pb.RunPhase_RUN_PHASE_FAILING_BACK, pb.RunPhase_RUN_PHASE_ABORTING:
			return goingBack
		default:
			out = failedOver
		}
	}
	return out
}
