package e2e

import (
	"os"
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
