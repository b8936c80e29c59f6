package agent

import (
	"testing"
	"testing/synctest"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/journal"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/agent/session"
)

// TestHelloKnowsWhatWasReported: a stream that begins right after a report says at least as much, or its
// leader would take the journal for an older copy.
func TestHelloKnowsWhatWasReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1)
		a, err := New(s.options)
		if err != nil {
			t.Fatal(err)
		}
		j, content, err := journal.Open(s.options.JournalPath, journal.Options{NewID: s.options.NewID})
		if err != nil {
			t.Fatal(err)
		}
		r := a.runtime(t.Context(), j)
		r.core, _ = reconcile.New(reconcile.Config{BootID: "boot-1", RestoredAt: r.now()}, content)
		r.client = session.New(session.Options{Handler: r, Boot: s.options.Boot, Log: s.options.Log})
		r.publish()
		in := make(chan input, 1)
		go func() { in <- <-r.inputs }()
		r.Orders(&pb.Orders{Era: 1, Term: 1, Orders: []*pb.Order{instance(7, vmA, pb.State_STATE_STOPPED)}})
		if err := r.execute((<-in)()); err != nil {
			t.Fatal(err)
		}
		if h := r.Hello(); h.GetGeneration() != 7 {
			t.Errorf("order 7 was reported, and hello knows %d", h.GetGeneration())
		}
		for _, cancel := range r.running {
			cancel()
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
}
