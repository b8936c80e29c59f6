package render

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// columnGap is the blank between two columns.
const columnGap = 2

// minFlex is what remains of the flexible column on a narrow screen.
const minFlex = 8

// Table lays out rows under a header. One column, the flexible one, is cut when the table would be
// wider than the screen.
type Table struct {
	header []string
	rows   [][]string
	flex   int
}

// NewTable makes a table; flex is the index of the column that may be cut.
func NewTable(flex int, header ...string) *Table { return &Table{header: header, flex: flex} }

// Row adds a row; empty cells are shown as "-".
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.header))
	for i := range row {
		row[i] = "-"
		if i < len(cells) && cells[i] != "" {
			row[i] = oneLine(cells[i])
		}
	}
	t.rows = append(t.rows, row)
}

// Len returns how many rows there are.
func (t *Table) Len() int { return len(t.rows) }

// Text returns the table, each line ended.
func (t *Table) Text(width int) string {
	total, flex := 0, 0
	for i := range t.header {
		w := utf8.RuneCountInString(t.header[i])
		for _, r := range t.rows {
			w = max(w, utf8.RuneCountInString(r[i]))
		}
		total += w + columnGap
		if i == t.flex {
			flex = w
		}
	}
	limit := flex
	if over := total - columnGap - width; width > 0 && over > 0 {
		limit = max(minFlex, flex-over)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, columnGap, ' ', 0)
	for _, r := range append([][]string{t.header}, t.rows...) {
		line := append([]string(nil), r...)
		line[t.flex] = Cut(line[t.flex], limit)
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	_ = w.Flush() // a strings.Builder never fails
	return b.String()
}

// Cut shortens a text to a number of characters and marks that it did.
func Cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	r := []rune(s)
	return string(r[:max(0, width-1)]) + "…"
}

// oneLine keeps a cell on its line, and keeps control characters that a guest or a label may have put
// into a message away from the terminal.
func oneLine(s string) string {
	return strings.NewReplacer("\r", "", "\n", " ", "\t", " ").Replace(Plain(s))
}

// Plain takes out of a text what could steer a terminal: control characters but for tab and the ends of lines, and
// bytes that are no character.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\r' && r != '\n' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// fields writes "key  value" lines with the values aligned; pairs with an empty value are left out.
func fields(pairs ...string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, columnGap, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], oneLine(pairs[i+1]))
		}
	}
	_ = w.Flush()
	return b.String()
}

// section writes a heading and an indented body; nothing for an empty body.
func section(heading, body string) string {
	if body == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n" + heading + "\n")
	for line := range strings.Lines(body) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// Seconds writes a duration as the time line does: milliseconds below a tenth, tenths of a second below a minute, then minutes and seconds.
func Seconds(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Seconds(-d)
	case d > 0 && d < 100*time.Millisecond:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute-50*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour-500*time.Millisecond:
		s := int(d.Round(time.Second).Seconds())
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	default:
		m := int(d.Round(time.Minute).Minutes())
		return fmt.Sprintf("%dh%02dm", m/60, m%60)
	}
}

// Age writes a duration roughly, as tables do: "42s", "5m", "3h", "12d".
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// Left writes what is left of a term: with minutes below a day, so that 8h do not read as 7h at once.
func Left(d time.Duration) string {
	if d >= 2*time.Hour && d < 24*time.Hour {
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return Age(d)
}

// since writes how long ago a time was, or "" when it is not set.
func since(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	return Age(now.Sub(t.AsTime()))
}

// at writes a moment with its date in UTC.
func at(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format("2006-01-02 15:04:05 UTC")
}

// word writes an enumeration's value without its prefix, in lower case with blanks: "failing back".
func word(s fmt.Stringer, prefix string) string {
	w := strings.TrimPrefix(s.String(), prefix)
	if w == "UNSPECIFIED" {
		return ""
	}
	return strings.ToLower(strings.ReplaceAll(w, "_", " "))
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
