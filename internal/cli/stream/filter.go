package stream

import "regexp"

// steering is what makes a terminal do something: escape sequences, and control characters other than tab and
// the ends of lines.
var steering = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b[ -/]*[0-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\u009b|\u009d")

// begun is an escape sequence whose end is not there yet.
var begun = regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*|\\][^\x07\x1b]*|[ -/]*)$")

// maxHeld bounds what is held back of a sequence that does not end.
const maxHeld = 256

// filter takes out of a text what would steer a terminal; a sequence may be cut between two parts of the text.
type filter struct{ held []byte }

func (f *filter) harmless(text []byte) []byte {
	text = append(f.held, text...)
	f.held = nil
	if at := begun.FindIndex(text); at != nil && len(text)-at[0] <= maxHeld {
		f.held, text = text[at[0]:], text[:at[0]]
	}
	return steering.ReplaceAll(text, nil)
}
