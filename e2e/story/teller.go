// Package story tells what a demonstration does while it does it: a heading, a sentence, the
// command with its output, and a check that must hold. The demo and the end-to-end tests
// use it, so that what a reader sees is what the tests check. It decides nothing and
// keeps nothing; it must not use product code.
package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
	"unicode/utf8"
)

// Columns is how wide the story may be; longer lines of a command's output are cut.
const Columns = 80

// pollEvery is the pause between two looks at a condition that a story waits for.
const pollEvery = 200 * time.Millisecond

// Teller tells one story.
type Teller struct {
	// Out gets the story.
	Out io.Writer
	// Hotspare is the command line tool with what it needs to reach the site: program and first arguments.
	Hotspare func(ctx context.Context, args ...string) *exec.Cmd
	// Began is when the story began; headings show the time since.
	Began time.Time
}

// Head begins a chapter.
func (t *Teller) Head(format string, args ...any) {
	fmt.Fprintf(t.Out, "\n== %3.0fs  %s\n", time.Since(t.Began).Seconds(), fmt.Sprintf(format, args...))
}

// Say tells one thing in plain words.
func (t *Teller) Say(format string, args ...any) {
	fmt.Fprintf(t.Out, "   %s\n", fmt.Sprintf(format, args...))
}

// Run shows a command of hotspare, runs it and shows its output, which it also returns. What the command wrote to
// standard error is shown only when it fails; a failure is an error.
func (t *Teller) Run(ctx context.Context, args ...string) (string, error) {
	t.command(args)
	out, err := t.Ask(ctx, args...)
	for line := range strings.Lines(strings.TrimRight(out, "\n") + "\n") {
		t.line(strings.TrimRight(line, "\n"))
	}
	return out, err
}

// Follow is Run for a command that tells its progress on standard error, which is shown too, as it comes.
func (t *Teller) Follow(ctx context.Context, args ...string) (string, error) {
	t.command(args)
	cmd := t.Hotspare(ctx, args...)
	var out bytes.Buffer
	cut := &cutter{to: t.Out}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, cut), cut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("hotspare %s: %w", quoted(args), err)
	}
	return out.String(), nil
}

// Ask runs a command of hotspare without telling.
func (t *Teller) Ask(ctx context.Context, args ...string) (string, error) {
	cmd := t.Hotspare(ctx, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("hotspare %s: %w: %s", quoted(args), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.String(), nil
}

// AskUntil repeats a command without telling until its output satisfies the condition; the context bounds it.
func (t *Teller) AskUntil(ctx context.Context, what string, holds func(out string) bool, args ...string) (string, error) {
	for {
		out, err := t.Ask(ctx, args...)
		if err == nil && holds(out) {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return out, fmt.Errorf("wait for %s: %w; hotspare %s last answered %q %w", what, ctx.Err(), quoted(args), out, errors.Join(err))
		case <-time.After(pollEvery):
		}
	}
}

// Check tells that something is as it should be, or returns an error.
func (t *Teller) Check(holds bool, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if !holds {
		return errors.New("not as told: " + what)
	}
	t.Say("✓ %s", what)
	return nil
}

// command shows a command as one would type it, broken where the page ends.
func (t *Teller) command(args []string) {
	line := "$ hotspare"
	for _, arg := range args {
		word := quoted([]string{arg})
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > Columns-2 {
			fmt.Fprintln(t.Out, line+" \\")
			line = "   "
		}
		line += " " + word
	}
	fmt.Fprintln(t.Out, line)
}

// line shows one line of a command, cut to the page.
func (t *Teller) line(text string) {
	fmt.Fprintln(t.Out, cutLine(text, Columns))
}

func cutLine(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// cutter cuts the lines that pass through it.
type cutter struct {
	to   io.Writer
	rest []byte
}

func (c *cutter) Write(p []byte) (int, error) {
	c.rest = append(c.rest, p...)
	for {
		line, after, found := bytes.Cut(c.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		if _, err := fmt.Fprintln(c.to, cutLine(string(line), Columns)); err != nil {
			return 0, err
		}
		c.rest = after
	}
}

// quoted is a command line as one would type it.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = a
		if a == "" || strings.ContainsAny(a, " '\"$&|;()*?") {
			words[i] = `"` + a + `"`
		}
	}
	return strings.Join(words, " ")
}

// Difference returns the lines that only one of two texts has, with + or - before them.
func Difference(before, after string) []string {
	count := map[string]int{}
	var order []string
	note := func(text string, by int) {
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, " \n")
			if _, seen := count[line]; !seen {
				order = append(order, line)
			}
			count[line] += by
		}
	}
	note(before, -1)
	note(after, 1)
	var out []string
	for _, line := range order {
		for n := count[line]; n > 0; n-- {
			out = append(out, "+ "+line)
		}
		for n := count[line]; n < 0; n++ {
			out = append(out, "- "+line)
		}
	}
	return out
}
