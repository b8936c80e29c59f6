package model

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// sizeUnits are the units of sizes, largest first. Only binary ones, so that 32GiB means one thing.
var sizeUnits = []struct {
	name  string
	shift uint
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}

// ParseBytes reads a size such as "32GiB" or "512MiB": a whole number and a binary unit.
func ParseBytes(s string) (uint64, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n > math.MaxUint64>>u.shift {
			break
		}
		return n << u.shift, nil
	}
	return 0, fmt.Errorf("read size %q: want a whole number with KiB, MiB, GiB or TiB, for example 32GiB", s)
}

// FormatBytes writes a size with the largest unit that keeps it a whole number, so that ParseBytes
// reads the same value again.
func FormatBytes(n uint64) string {
	for _, u := range sizeUnits {
		if n != 0 && n%(1<<u.shift) == 0 {
			return strconv.FormatUint(n>>u.shift, 10) + u.name
		}
	}
	return "0B"
}

// ApproxBytes writes a size for people: at most one decimal, in the largest fitting unit.
func ApproxBytes(n uint64) string {
	for _, u := range sizeUnits {
		if n >= 1<<u.shift && n != 0 {
			text := strconv.FormatFloat(float64(n)/float64(uint64(1)<<u.shift), 'f', 1, 64)
			return strings.TrimSuffix(text, ".0") + " " + u.name
		}
	}
	return "0 B"
}

// ParseDuration reads a duration as Go writes them, with an optional number of days of 24 hours in
// front: "90s", "8h", "3d", "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	want := "want for example 90s, 8h or 3d"
	days, rest, found := strings.Cut(s, "d")
	if !found {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, fmt.Errorf("read duration %q: %s", s, want)
		}
		return d, nil
	}
	n, err := strconv.ParseUint(days, 10, 16) // at most 65535 days, which no duration overflows
	if err != nil {
		return 0, fmt.Errorf("read duration %q: %s", s, want)
	}
	total := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-total {
		return 0, fmt.Errorf("read duration %q: %s", s, want)
	}
	return total + d, nil
}

// FormatDuration writes a duration without empty parts: "2m" and not "2m0s". ParseDuration reads
// the same value again.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
