package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
	"github.com/hotspare/hotspare/e2e/story"
	"github.com/hotspare/hotspare/e2e/whole"
)

// TestWholeStory is `make demo` as a test: from an ordinary day to an empty difference.
func TestWholeStory(t *testing.T) {
	ctx, s := newSite(t, "e2ewhole")
	tale := &whole.Story{Site: s, Teller: &story.Teller{Out: os.Stdout, Began: time.Now(), Hotspare: s.Hotspare}}
	if err := tale.Tell(ctx); err != nil {
		t.Fatal(err)
	}
	if name, err := s.Name(ctx); err != nil || name != site.OldName {
		t.Errorf("the name server says %q, %v", name, err)
	}
	throwAway(ctx, t, s)
}

// throwAway fails over once more, by hand, and throws away what was written then: the old side goes on from the disk that it had.
func throwAway(ctx context.Context, t *testing.T, s *site.Site) {
	t.Helper()
	run(ctx, t, s, "failover", "declare", "webshop", "--reason", "once more", "--yes", "--wait")
	here, err := s.AwaitProduction(ctx, site.ProductionAddress)
	if err != nil {
		t.Fatal(err)
	}
	old, err := s.OldDisk(ctx)
	if err != nil {
		t.Fatal(err)
	}
	run(ctx, t, s, "failback", "webshop", "--discard-recovery-data", "--reason", "only a try", "--yes", "--wait")
	if after, err := s.OldDisk(ctx); err != nil || after.Last != old.Last {
		t.Errorf("the old disk ended with record %d, and does with %d after the failback: %v", old.Last, after.Last, err)
	}
	if err := s.StartProduction(ctx); err != nil {
		t.Fatal(err)
	}
	back, err := s.AwaitProduction(ctx, site.ProductionAddress)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("record %d here, %d on the old disk, %d after the failback", here.Disk.LastRecord, old.Last, back.Disk.LastRecord)
	if err := s.AwaitReady(ctx, "webshop"); err != nil {
		t.Fatal(err)
	}
}

// TestWholeStoryWithKills kills the leader and the storage host's agent at the moment at which the storage daemon exports the
// promoted volume, and on the way back the leader and the agents of both pools while the mirror copies. The story must come out the
// same: one promoted export, one start, nothing lost.
func TestWholeStoryWithKills(t *testing.T) {
	ctx, s := newSite(t, "e2ekill")
	tale := &whole.Story{Site: s, Teller: &story.Teller{Out: os.Stdout, Began: time.Now(), Hotspare: s.Hotspare}}
	tale.Strike = func(ctx context.Context) error {
		eventually(ctx, t, phaseLimit, "the promotion", func(ctx context.Context) error {
			if exports := s.Exports(ctx, s.Store); !slices.Contains(exports, "webshop-db-root") {
				return fmt.Errorf("the storage daemon exports %v", exports)
			}
			return nil
		})
		if err := s.Process(s.Store).Kill(ctx); err != nil {
			return err
		}
		killLeader(ctx, t, s)
		return s.StartAgent(s.Store)
	}
	tale.StrikeBack = func(ctx context.Context) error {
		eventually(ctx, t, phaseLimit, "the way back", func(ctx context.Context) error {
			if exports := s.Exports(ctx, s.East); !slices.Contains(exports, "webshop-db-root-e1@1") {
				return fmt.Errorf("the storage daemon of east exports %v", exports)
			}
			return nil
		})
		for _, h := range []*lab.Host{s.Store, s.East} {
			if err := s.Process(h).Kill(ctx); err != nil {
				return err
			}
		}
		killLeader(ctx, t, s)
		return errors.Join(s.StartAgent(s.Store), s.StartAgent(s.East))
	}
	if err := tale.Tell(ctx); err != nil {
		t.Fatal(err)
	}
}
