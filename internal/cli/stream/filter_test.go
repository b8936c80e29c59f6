package stream

import "testing"

// However a text is cut into parts, nothing of it steers a terminal, and what is harmless stays.
func TestHarmless(t *testing.T) {
	const text = "a\x1b[31mb\x1b]0;title\x07c\x1bPq#1\x1b\\d\u0090e\u009b2Jf\xc2\x1b[m\x9bg\x9bh\x00i\tgr\u00fc\u00dfe \u65e5\u672c\r\nend"
	whole := func(cut int) string {
		var f filter
		return string(f.harmless([]byte(text[:cut]))) + string(f.harmless([]byte(text[cut:])))
	}
	// Without what introduces it a sequence is text.
	const plain = "abcq#1de2Jfghi\tgr\u00fc\u00dfe \u65e5\u672c\r\nend"
	for cut := range len(text) + 1 {
		if got := whole(cut); got != plain {
			t.Errorf("cut at %d: %q, want %q", cut, got, plain)
		}
	}
}
