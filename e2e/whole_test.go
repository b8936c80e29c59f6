package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

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
}

// TestWholeStoryWithKills kills the leader and the storage host's agent at the moment at which the storage daemon exports the
// promoted volume. The story must come out the same: one promotion, one start, nothing lost.
func TestWholeStoryWithKills(t *testing.T) {
	ctx, s := newSite(t, "e2ekill")
	tale := &whole.Story{Site: s, Teller: &story.Teller{Out: os.Stdout, Began: time.Now(), Hotspare: s.Hotspare}}
	tale.Strike = func(ctx context.Context) error {
		eventually(ctx, t, phaseLimit, "the promotion", func(ctx context.Context) error {
			if exports := s.Exports(ctx); !slices.Contains(exports, "webshop-db-root") {
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
	if err := tale.Tell(ctx); err != nil {
		t.Fatal(err)
	}
}
