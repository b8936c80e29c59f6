package stream

import (
	"regexp"
	"unicode/utf8"

	"github.com/hotspare/hotspare/internal/cli/render"
)

// steering are the sequences that make a terminal do something. What is left of others after that is without its
// escape character, and so only text.
var steering = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-~]")

// begun is an escape sequence whose end is not there yet.
var begun = regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*|\\][^\x07\x1b]*|[ -/]*)$")

// maxHeld bounds what is held back of a sequence that does not end.
const maxHeld = 256

// filter takes out of a text what would steer a terminal; a sequence or a character may be cut between two parts of
// the text.
type filter struct{ held []byte }

func (f *filter) harmless(text []byte) []byte {
	text = append(f.held, text...)
	f.held = nil
	if at := begun.FindIndex(text); at != nil && len(text)-at[0] <= maxHeld {
		f.held, text = text[at[0]:], text[:at[0]]
	} else if n := incomplete(text); n > 0 {
		f.held, text = text[len(text)-n:], text[:len(text)-n]
	}
	return []byte(render.Plain(string(steering.ReplaceAll(text, nil))))
}

// incomplete is how many bytes at the end begin a character and do not end it.
func incomplete(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
