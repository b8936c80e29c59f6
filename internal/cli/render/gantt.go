package render

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Widths of the chart's parts, in columns.
const (
	minBar  = 12
	maxBar  = 100
	minStep = 16
)

// GanttOptions say how a time line is drawn.
type GanttOptions struct {
	// Columns of the screen; zero means 80.
	Width int
	// The present, up to which unfinished steps are drawn.
	Now time.Time
	// Back draws the way back (failback or abort) instead of the way there.
	Back bool
}

// span is one step on the time line. Times count from the beginning of the run.
type span struct {
	step *pb.Step
	// number in the chart, from 1.
	number int
	// released, then working once the step's local gates are open, done, and healthy where it is probed.
	released, working, done, end time.Duration
	// begun: it was released. finished: it will not change any more.
	begun, finished, failed bool
	critical                bool
	// opener is the step, or the event in words, that let this one go.
	opener     *span
	openerText string
}

// Gantt draws the time line of a run: a bar for each step, the step that opened its last gate, and the
// critical path, which is what the time to recover consists of.
func Gantt(f *pb.Failover, o GanttOptions) string {
	if o.Width == 0 {
		o.Width = 80
	}
	spans := timeLine(f, o)
	begun := 0
	var end time.Duration
	for _, s := range spans {
		if s.begun {
			begun++
			end = max(end, s.end)
		}
	}
	if begun == 0 {
		return "no step has begun\n"
	}
	end = max(end, time.Millisecond)
	var path []*span
	if !o.Back { // the way back is not measured against a target
		path = criticalPath(spans)
	}
	var b strings.Builder
	c := newChart(spans, o.Width, end)
	b.WriteString(c.axis())
	for _, s := range spans {
		b.WriteString(c.row(s))
	}
	b.WriteString(c.legend())
	if len(path) > 0 {
		head := "critical path"
		if f.GetCompletedAt() == nil {
			head += " so far"
		}
		b.WriteString("\n" + pathText(head, path, o.Width))
	}
	return b.String()
}

// CriticalPath returns the ids of the steps that the time to recover consists of, in order of time.
func CriticalPath(f *pb.Failover) []string {
	var out []string
	for _, s := range criticalPath(timeLine(f, GanttOptions{})) {
		out = append(out, s.step.GetId())
	}
	return out
}

// timeLine works out the spans of all steps: what began first comes first, what has not begun last.
func timeLine(f *pb.Failover, o GanttOptions) []*span {
	zero := f.GetDeclaredAt().AsTime()
	if o.Back {
		zero = f.GetFailbackAt().AsTime()
		if f.GetFailbackAt() == nil {
			zero = firstReverting(f, zero)
		}
	}
	var spans []*span
	for _, st := range f.GetSteps() {
		if st.GetWayBack() && !o.Back {
			continue
		}
		s := forward(st, zero, o.Now)
		if o.Back && !st.GetWayBack() {
			s = backward(st, zero, o.Now)
		}
		spans = append(spans, s)
	}
	slices.SortStableFunc(spans, func(a, b *span) int {
		if a.begun != b.begun {
			if a.begun {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.released, b.released), cmp.Compare(a.end, b.end))
	})
	byID := map[string]*span{}
	for i, s := range spans {
		s.number = i + 1
		byID[s.step.GetId()] = s
	}
	if !o.Back {
		for _, s := range spans {
			s.findOpener(byID)
		}
	}
	return spans
}

func firstReverting(f *pb.Failover, otherwise time.Time) time.Time {
	first := otherwise
	found := false
	for _, st := range f.GetSteps() {
		if t := st.GetRevertingAt(); t != nil && (!found || t.AsTime().Before(first)) {
			first, found = t.AsTime(), true
		}
	}
	return first
}

// forward measures a step's way there. The agent's clock (call_began) is only trusted between the
// coordinator's two times.
func forward(st *pb.Step, zero, now time.Time) *span {
	s := &span{step: st}
	if st.GetReleasedAt() == nil {
		return s
	}
	s.begun = true
	s.released = offset(st.GetReleasedAt(), zero)
	s.done = max(now.Sub(zero), s.released)
	s.failed = st.GetPhase() == pb.StepPhase_STEP_PHASE_FAILED
	probed := st.GetSpec().GetInstance().GetHealth() != nil
	switch {
	case st.GetDoneAt() != nil:
		s.done = max(offset(st.GetDoneAt(), zero), s.released)
		s.finished = !probed || st.GetHealthyAt() != nil
	case s.failed || st.GetPhase() == pb.StepPhase_STEP_PHASE_SKIPPED:
		if t := st.GetCallReturned(); t != nil {
			s.done = max(offset(t, zero), s.released)
		} else if d := st.GetTimeout(); d != nil {
			s.done = s.released + d.AsDuration()
		}
		s.finished = true
	}
	s.end = s.done
	switch {
	case st.GetHealthyAt() != nil:
		s.end = max(offset(st.GetHealthyAt(), zero), s.done)
	case probed && st.GetDoneAt() != nil && !s.failed:
		s.end = max(now.Sub(zero), s.done)
	}
	s.working = s.released
	if st.GetCallBegan() != nil {
		s.working = min(max(offset(st.GetCallBegan(), zero), s.released), s.done)
	}
	return s
}

func backward(st *pb.Step, zero, now time.Time) *span {
	s := &span{step: st}
	if st.GetRevertingAt() == nil {
		return s
	}
	s.begun = true
	s.released = offset(st.GetRevertingAt(), zero)
	s.done = max(now.Sub(zero), s.released)
	if st.GetRevertedAt() != nil {
		s.done = max(offset(st.GetRevertedAt(), zero), s.released)
		s.finished = true
	}
	s.working, s.end = s.released, s.done
	return s
}

func offset(t *timestamppb.Timestamp, zero time.Time) time.Duration {
	return max(0, t.AsTime().Sub(zero))
}

// findOpener finds what the step really waited for: the last of its local gates when that held it back
// after the release, else the gate that the coordinator recorded.
func (s *span) findOpener(byID map[string]*span) {
	if !s.begun {
		return
	}
	for _, id := range s.step.GetAfter() {
		a := byID[id]
		if a == nil || !a.begun || a.done <= s.released {
			continue
		}
		if s.opener == nil || a.done > s.opener.done {
			s.opener = a
		}
	}
	if s.opener != nil {
		return
	}
	by := s.step.GetOpenedBy()
	if a := byID[by]; a != nil {
		s.opener = a
		return
	}
	s.openerText = by
}

// criticalPath marks and returns the spans from the first to the last finished required step, each
// opened by the one before.
func criticalPath(spans []*span) []*span {
	var last *span
	for _, s := range spans {
		if !s.begun || !s.finished || s.failed || s.step.GetOptional() {
			continue
		}
		if last == nil || s.end > last.end {
			last = s
		}
	}
	var path []*span
	for s := last; s != nil && !s.critical; s = s.opener {
		s.critical = true
		path = append(path, s)
	}
	slices.Reverse(path)
	return path
}

func pathText(head string, path []*span, width int) string {
	var parts []string
	for i, s := range path {
		// A step that the agent held back, or whose opener finished early, shows what is its own.
		from := s.working
		if i > 0 {
			from = max(from, s.released)
		}
		text := fmt.Sprintf("%s %s", oneLine(s.step.GetId()), Seconds(s.done-from))
		if s.end > s.done {
			text += fmt.Sprintf(" + healthy %s", Seconds(s.end-s.done))
		}
		if s.failed {
			text += " failed"
		}
		if s.openerText != "" {
			text = oneLine(s.openerText) + " > " + text
		}
		parts = append(parts, text)
	}
	head += fmt.Sprintf(", %s: ", Seconds(path[len(path)-1].end))
	return wrap(head, parts, " > ", width)
}

// wrap joins parts and breaks lines between them, with the following lines indented.
func wrap(head string, parts []string, join string, width int) string {
	var b strings.Builder
	b.WriteString(head)
	column := len(head)
	for i, p := range parts {
		if i > 0 {
			p = strings.TrimLeft(join, " ") + p
			if column+1+len(p) > width {
				b.WriteString("\n  ")
				column = 2
			} else {
				b.WriteByte(' ')
				column++
			}
		}
		b.WriteString(p)
		column += len(p)
	}
	b.WriteByte('\n')
	return b.String()
}

// chart knows the widths of the columns.
type chart struct {
	number, step, after, begin, took, bar int
	end                                   time.Duration
	used                                  map[byte]bool
}

func newChart(spans []*span, width int, end time.Duration) *chart {
	c := &chart{number: 2, after: len("after"), begin: len("begin"), took: len("took"), end: end, used: map[byte]bool{}}
	longest := minStep
	for _, s := range spans {
		c.number = max(c.number, len(strconv.Itoa(s.number)))
		longest = max(longest, len([]rune(oneLine(s.step.GetId()))))
		c.after = max(c.after, len(openerWord(s)))
		c.begin = max(c.begin, len(Seconds(s.released)))
		c.took = max(c.took, len(Seconds(s.end-s.released)))
	}
	// Mark, blanks between the columns and the two rims of the bar.
	fixed := 1 + c.number + c.after + c.begin + c.took + 5*columnGap + 2
	c.step = longest
	c.bar = min(maxBar, width-fixed-c.step)
	if c.bar < minBar {
		c.step = max(minStep, c.step-(minBar-c.bar))
		c.bar = max(minBar, width-fixed-c.step)
	}
	return c
}

func openerWord(s *span) string {
	switch {
	case s.opener != nil:
		return strconv.Itoa(s.opener.number)
	case s.openerText != "":
		word, _, _ := strings.Cut(oneLine(s.openerText), " ")
		return Cut(word, 8)
	default:
		return "-"
	}
}

func (c *chart) line(mark, number, step, after, begin, took, bar string) string {
	text := fmt.Sprintf("%1s%*s  %s  %*s  %*s  %*s  %s", mark, c.number, number,
		pad(Cut(oneLine(step), c.step), c.step), c.after, after, c.begin, begin, c.took, took, bar)
	return strings.TrimRight(text, " ") + "\n"
}

// pad fills with blanks up to a width in characters, which fmt would count in bytes for some fonts.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-len([]rune(s))))
}

func (c *chart) axis() string {
	left, right := "0s", Seconds(c.end)
	scale := left + strings.Repeat(" ", max(1, c.bar+2-len(left)-len(right))) + right
	if mid := Seconds(c.end / 2); c.bar >= 30 {
		at := (c.bar+2)/2 - len(mid)/2
		scale = scale[:at] + mid + scale[at+len(mid):]
	}
	return c.line("", "#", "step", "after", "begin", "took", scale)
}

func (c *chart) row(s *span) string {
	mark := ""
	if s.critical {
		mark = "*"
		c.used['*'] = true
	}
	if !s.begun {
		return c.line(mark, strconv.Itoa(s.number), s.step.GetId(), "", "", "", waitText(s.step))
	}
	return c.line(mark, strconv.Itoa(s.number), s.step.GetId(), openerWord(s),
		Seconds(s.released), Seconds(s.end-s.released), "|"+c.bars(s)+"|")
}

func waitText(st *pb.Step) string {
	switch st.GetPhase() {
	case pb.StepPhase_STEP_PHASE_SKIPPED:
		return "skipped"
	case pb.StepPhase_STEP_PHASE_REVERTED:
		return "reverted"
	default:
		return "not begun"
	}
}

// bars draws one row between the rims.
func (c *chart) bars(s *span) string {
	row := []byte(strings.Repeat(" ", c.bar))
	column := func(d time.Duration) int { return int(int64(d) * int64(c.bar) / int64(c.end)) }
	fill := func(from, to time.Duration, with byte) {
		if from >= to {
			return
		}
		first := min(column(from), c.bar-1)
		for i := first; i < max(first+1, column(to)) && i < c.bar; i++ {
			row[i] = with
		}
		c.used[with] = true
	}
	work := byte('=')
	if s.critical {
		work = '#'
	}
	fill(s.released, s.working, '.')
	fill(s.done, s.end, '+')
	fill(s.working, max(s.done, s.working+1), work)
	last := min(max(column(s.end)-1, column(s.released)), c.bar-1)
	switch {
	case s.failed:
		row[last] = '!'
		c.used['!'] = true
	case !s.finished:
		row[last] = '>'
		c.used['>'] = true
	}
	return string(row)
}

func (c *chart) legend() string {
	var parts []string
	for _, l := range []struct {
		mark byte
		text string
	}{
		{'*', "* # critical path"},
		{'=', "= working"},
		{'.', ". waiting on host"},
		{'+', "+ until healthy"},
		{'>', "> goes on"},
		{'!', "! failed"},
	} {
		if c.used[l.mark] {
			parts = append(parts, l.text)
		}
	}
	return strings.Join(parts, "  ") + "\n"
}
