package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/hotspare/hotspare/internal/placement/pack"
)

// Bounds of what is read, far above published instances: a typing error must not fill the memory.
const (
	mostDimensions = 1000
	mostItems      = 5_000_000
	longestWord    = 64 // bytes; longer than any number
)

// space is what separates words.
const space = " \t\r\n\f\v"

// inputError is a fault of the input, with its line.
type inputError struct {
	line int
	text string
}

func (e *inputError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.text) }

// read reads an instance and checks that each item fits into an empty bin.
func read(from io.Reader) (pack.Problem, error) {
	r := &reader{in: bufio.NewReader(from), line: 1}
	dims := r.number("the number of dimensions", mostDimensions)
	if r.err == nil && dims == 0 {
		r.fault("the number of dimensions is 0: at least 1 is needed")
	}
	bin := pack.BinClass{Count: -1}
	for d := int64(0); d < dims && r.err == nil; d++ {
		bin.Capacity = append(bin.Capacity, r.number(fmt.Sprintf("the capacity in dimension %d", d), 1<<63-1))
	}
	types := r.number("the number of item types", mostItems)
	p := pack.Problem{Bins: []pack.BinClass{bin}}
	left := mostItems
	// Memory grows with what is there, not with what the header promises.
	for t := int64(0); t < types && r.err == nil; t++ {
		it := r.item(fmt.Sprintf("item type %d of %d", t, types), bin.Capacity)
		if left -= it.Count; left < 0 {
			r.fault("more than %d items in all", mostItems)
		}
		p.Items = append(p.Items, it)
	}
	if word := r.word(); word != "" {
		r.fault("%q after the last of %d item types", word, types)
	}
	if !errors.Is(r.err, io.EOF) {
		return pack.Problem{}, r.err
	}
	return p, nil
}

// reader gives the words of a text. After the first error it gives nothing more.
type reader struct {
	in    *bufio.Reader
	line  int
	ended bool // the last byte ended the line
	err   error
}

// fault records what is wrong at the present line.
func (r *reader) fault(format string, args ...any) {
	if r.err == nil {
		r.err = &inputError{r.line, fmt.Sprintf(format, args...)}
	}
}

// word is the next word, empty at the end.
func (r *reader) word() string {
	var word []byte
	for r.err == nil {
		if r.ended {
			r.line++
			r.ended = false
		}
		c, err := r.in.ReadByte()
		switch {
		case err != nil && (!errors.Is(err, io.EOF) || len(word) == 0):
			r.err = err
			return ""
		case err != nil:
			return string(word)
		case strings.IndexByte(space, c) >= 0:
			r.ended = c == '\n'
			if len(word) > 0 {
				return string(word)
			}
		case len(word) == longestWord:
			r.fault("%q… is too long for a number", word)
		default:
			word = append(word, c)
		}
	}
	return ""
}

// item reads a type: its demand and how many items there are of it.
func (r *reader) item(name string, capacity []int64) pack.ItemClass {
	it := pack.ItemClass{}
	for d := 0; d < len(capacity) && r.err == nil; d++ {
		what := fmt.Sprintf("%s: the demand in dimension %d", name, d)
		n := r.number(what, 1<<63-1)
		if n > capacity[d] {
			r.fault("%s is %d, more than the capacity %d", what, n, capacity[d])
		}
		it.Demand = append(it.Demand, n)
	}
	it.Count = int(r.number(name+": the number of items", mostItems))
	return it
}

// number is the next word as a whole number from 0 to most.
func (r *reader) number(what string, most int64) int64 {
	if r.err != nil {
		return 0
	}
	word := r.word()
	if errors.Is(r.err, io.EOF) {
		r.err = nil
		r.fault("the file ends before %s", what)
	}
	if r.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(word, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		r.fault("%s is %s, which is out of range", what, word)
	case err != nil, n >= 0 && word[0] < '0': // a sign before a number that needs none
		r.fault("%s is %q, not a whole number", what, word)
	case n < 0:
		r.fault("%s is %d, which is negative", what, n)
	case n > most:
		r.fault("%s is %d, more than %d", what, n, most)
	default:
		return n
	}
	return 0
}
