package strictyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/model"
)

// MaxProblems bounds how many faults one reading reports: more than a screen helps nobody.
const MaxProblems = 20

// Position is a place in a file. Lines and columns count from one; a zero line means the whole file.
type Position struct {
	File         string
	Line, Column int
}

// String returns "file:line:column", as compilers write it.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one fault of a file.
type Problem struct {
	At      Position
	Message string
}

// Problems collects faults. Its zero value is ready; it is an error only through Err.
type Problems struct {
	list []Problem
	more int
}

// Add records one fault; faults beyond MaxProblems are only counted.
func (p *Problems) Add(at Position, format string, args ...any) {
	if len(p.list) >= MaxProblems {
		p.more++
		return
	}
	p.list = append(p.list, Problem{At: at, Message: fmt.Sprintf(format, args...)})
}

// Len returns how many faults were added.
func (p *Problems) Len() int { return len(p.list) + p.more }

// Err returns nil when there is no fault, else an *Error with the faults in the order of the files
// first named and, within a file, of lines.
func (p *Problems) Err() error {
	if len(p.list) == 0 {
		return nil
	}
	var files []string
	for _, x := range p.list {
		if !slices.Contains(files, x.At.File) {
			files = append(files, x.At.File)
		}
	}
	list := slices.Clone(p.list)
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(slices.Index(files, a.At.File), slices.Index(files, b.At.File)),
			cmp.Compare(a.At.Line, b.At.Line),
			cmp.Compare(a.At.Column, b.At.Column))
	})
	return &Error{Problems: list, More: p.more}
}

// Error is every fault of one reading.
type Error struct {
	Problems []Problem
	// More faults that were found beyond MaxProblems.
	More int
}

// Error writes one line for each fault.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s: %s", p.At, p.Message)
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.More)
	}
	return b.String()
}

// UnknownField words the fault of a field that does not exist, with the nearest valid one, or all of
// them when none is near.
func UnknownField(name string, valid []string) string {
	if s := model.Nearest(name, valid); s != "" {
		return fmt.Sprintf("unknown field %q, did you mean %q?", name, s)
	}
	if len(valid) == 0 {
		return fmt.Sprintf("unknown field %q, none is valid here", name)
	}
	return fmt.Sprintf("unknown field %q, valid here: %s", name, strings.Join(valid, ", "))
}
