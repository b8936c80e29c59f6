package story_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/e2e/story"
)

func TestDifference(t *testing.T) {
	got := story.Difference("a\nb\nb\nc", "c\nb\na\nd\n")
	if diff := cmp.Diff([]string{"- b", "+ d"}, got); diff != "" {
		t.Errorf("difference (-want +got):\n%s", diff)
	}
	if got := story.Difference("a\nb", "b\na\n"); len(got) > 0 {
		t.Errorf("another order counts as a difference: %q", got)
	}
}

func TestThePageIsNotPassed(t *testing.T) {
	var page strings.Builder
	teller := &story.Teller{Out: &page, Hotspare: func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "printf", "%s\\n", strings.Repeat("é", story.Columns+1))
	}}
	long := strings.Fields(strings.Repeat("argument ", 30))
	for _, tell := range []func(context.Context, ...string) (string, error){teller.Run, teller.Follow} {
		out, err := tell(t.Context(), long...)
		if err != nil || !strings.Contains(out, strings.Repeat("é", story.Columns+1)) {
			t.Errorf("the caller gets %q, %v, want the whole line", out, err)
		}
	}
	for line := range strings.Lines(page.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > story.Columns {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	if strings.Count(page.String(), "argument") != 2*len(long) {
		t.Errorf("the command is not shown whole:\n%s", page.String())
	}
}

func TestCheckFails(t *testing.T) {
	var page strings.Builder
	teller := &story.Teller{Out: &page}
	if err := teller.Check(false, "it is %s", "so"); err == nil || !strings.Contains(err.Error(), "it is so") || page.Len() > 0 {
		t.Errorf("a claim that does not hold gives %v and tells %q", err, page.String())
	}
}
