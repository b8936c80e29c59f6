package clustertest

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/follow"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
)

// turning is the CLI's own connection, with a count of how often a stream broke and it had to turn to
// another coordinator.
type turning struct {
	*client.Client
	turns int
}

func (t *turning) Next() {
	t.turns++
	t.Client.Next()
}

// watched is how a watcher's wait ended.
type watched struct {
	f   *pb.Failover
	err error
	at  time.Time
}

// watch follows a run to its completion, first at the member named.
func (s *site) watch(name, first string) (*turning, chan watched) {
	endpoints := []string{first + ":api"}
	for _, n := range s.names {
		if n != first {
			endpoints = append(endpoints, n+":api")
		}
	}
	files := filepath.Join(s.dir, "olga.pem") // Certificate, key and authority in one.
	c, err := client.New(client.Target{Endpoints: endpoints, CACert: files, Cert: files, Key: files}, client.Options{Dial: s.wire.dialer("ops")})
	s.must(err)
	site := &turning{Client: c}
	out := make(chan watched, 1)
	go func() {
		f, err := follow.Run(s.ctx, site, name, follow.Completed, follow.Options{Out: io.Discard, Quiet: true, Now: time.Now, Patience: time.Minute})
		out <- watched{f, errors.Join(err, c.Close()), time.Now()}
	}()
	return site, out
}

// watchLimit is how long after the end of a run a watcher may hear of it, over a change of the leader.
const watchLimit = 30 * time.Second

func (s *site) sees(out chan watched, completed time.Time) {
	s.t.Helper()
	var w watched
	s.until("the watcher's end", watchLimit+time.Minute, func() bool {
		select {
		case w = <-out:
			return true
		default:
			return false
		}
	})
	switch {
	case w.err != nil:
		s.t.Errorf("the watcher ended with %v", w.err)
	case w.f.GetPhase() != pb.RunPhase_RUN_PHASE_COMPLETED:
		s.t.Errorf("the watcher saw %v at the end", w.f.GetPhase())
	case w.at.Sub(completed) > watchLimit:
		s.t.Errorf("the watcher heard of the end %v late", w.at.Sub(completed))
	}
}

func (s *site) aFollower() string { return s.followers()[0] }

// A watcher at a follower is answered by the leader, on one stream to the end.
func TestWatchAtAFollower(t *testing.T) {
	fillAndFail(t, nil, func(s *site, f *pb.Failover) {
		site, out := s.watch(f.GetName(), s.aFollower())
		s.completes(f.GetName())
		s.sees(out, time.Now())
		if site.turns > 0 {
			t.Errorf("the watcher had to turn to another member %d times", site.turns)
		}
	})
}

// Whatever happens to the leader, a watcher hears of the end.
func TestWatchSurvivesTheLeader(t *testing.T) {
	for name, c := range map[string]struct {
		// at is the member that is asked first; harm is done when the first volume was promoted.
		at   func(s *site) string
		harm func(s *site, leader string)
	}{
		"killed, watched at a follower":          {(*site).aFollower, (*site).crash},
		"killed, watched at the leader":          {func(s *site) string { return s.leader().name }, (*site).crash},
		"partitioned, watched at a follower":     {(*site).aFollower, (*site).partition},
		"partitioned, watched at the leader":     {func(s *site) string { return s.leader().name }, (*site).partition},
		"silent for everybody, at a follower":    {(*site).aFollower, (*site).silence},
		"the follower that is watched at killed": {(*site).aFollower, func(s *site, _ string) { s.crash(s.aFollower()) }},
	} {
		t.Run(name, func(t *testing.T) {
			fillAndFail(t, func(s *site) {
				s.world.at(point{method: "Promote", object: "*", after: true}, func(point) {
					if l := s.leader(); l != nil {
						c.harm(s, l.name)
					}
				})
			}, func(s *site, f *pb.Failover) {
				_, out := s.watch(f.GetName(), c.at(s))
				s.completes(f.GetName())
				s.sees(out, time.Now())
				for _, n := range s.names {
					s.heal(n)
					s.unsilence(n)
				}
			})
		})
	}
}

// silence cuts a member off from everybody without a word, as when its switch dies.
func (s *site) silence(name string) {
	s.partition(name)
	for _, n := range append(s.world.agents(), "ops") {
		s.wire.block(name, n)
		s.wire.block(n, name)
	}
}

func (s *site) unsilence(name string) {
	for _, n := range append(s.world.agents(), "ops") {
		s.wire.unblock(name, n)
		s.wire.unblock(n, name)
	}
}

// Whoever describes or watches a run is told why a VM is not healthy yet, before its time is over.
func TestWhyAStartTakesLong(t *testing.T) {
	bubble(t, 3, func(s *site) {
		const object = "instance/webshop-db-e1"
		for _, h := range s.world.hosts {
			h.SetGuest(object, sim.GuestBehaviour{HealthyAfter: 40 * time.Second})
		}
		f := s.declare("webshop")
		reason := func(live []*pb.Status) string {
			for _, st := range live {
				if st.GetObject() == object {
					return st.GetInstance().GetHealthMessage()
				}
			}
			return ""
		}
		stream, err := pb.NewFailoverServiceClient(s.conn(s.leader().name)).WatchFailover(s.ctx, &pb.WatchFailoverRequest{Name: f.GetName()})
		s.must(err)
		for told := ""; told == ""; {
			r, err := stream.Recv()
			s.must(err)
			before := f.GetVersion()
			if f = r.GetFailover(); f.GetVersion() == before { // Nothing else has changed.
				told = reason(r.GetLive())
			}
			if f.GetPhase() == pb.RunPhase_RUN_PHASE_COMPLETED {
				t.Fatalf("%s is complete and nobody was told why it took so long", f.GetName())
			}
		}
		s.call(func(ctx context.Context, c *grpc.ClientConn) error {
			r, err := pb.NewFailoverServiceClient(c).GetFailover(ctx, &pb.GetFailoverRequest{Name: f.GetName()})
			if err == nil && reason(r.GetLive()) == "" {
				t.Errorf("%v", r.GetLive())
			}
			return err
		})
		s.completes(f.GetName())
		s.over(f.GetName())
	})
}
