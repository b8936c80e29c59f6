package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const small = "2  10 8  3  5 2 4  5 4 2  1 4 2"

// invoke runs the program; its clock ticks once for each look at it.
func invoke(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	ticks := time.Duration(0)
	code = run(args, strings.NewReader(stdin), &out, &errs, func() time.Duration { ticks += 100 * time.Millisecond; return ticks })
	return code, out.String(), errs.String()
}

func TestPrintsAPacking(t *testing.T) {
	file := filepath.Join(t.TempDir(), "small.vbp")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(small, " ", "\r\n\t")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"-"}, {file}, {"-limit", "0s"}, {"--limit=10s", file}} {
		code, out, errs := invoke(small, args...)
		if code != 0 || out != "4\n" || errs != "" {
			t.Errorf("%v: exit %d, printed %q, complained %q", args, code, out, errs)
		}
		code, out, errs = invoke(small, append([]string{"-solution"}, args...)...)
		if err := verify(small, out); code != 0 || errs != "" || err != nil {
			t.Errorf("%v: exit %d, complained %q: %v in\n%s", args, code, errs, err, out)
		}
	}
}

func TestHelpShowsAnExampleThatIsTrue(t *testing.T) {
	code, out, errs := invoke("", "--help")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d, complained %q", code, errs)
	}
	_, shown, _ := strings.Cut(out, "$ printf '"+small+"' | hotspare-pack -solution\n")
	_, real, _ := invoke(small, "-solution")
	if strings.ReplaceAll(shown, "  ", "") != real {
		t.Errorf("the help shows\n%s\nand the program prints\n%s", shown, real)
	}
}

func TestBadInput(t *testing.T) {
	for _, tc := range []struct {
		name, text, says string
		args             []string
	}{
		{name: "empty", says: "line 1: the file ends before the number of dimensions"},
		{name: "no dimension", text: "0 1", says: "line 1: the number of dimensions is 0"},
		{name: "too many dimensions", text: "1001", says: "1001, more than 1000"},
		{name: "no capacity", text: "2\n10\n", says: "line 3: the file ends before the capacity in dimension 1"},
		{name: "no types", text: "1 10", says: "before the number of item types"},
		{name: "truncated in a vector", text: "2 9 9\n2\n1 1 1\n1", says: "line 4: the file ends before item type 1 of 2: the demand in dimension 1"},
		{name: "truncated before a count", text: "1 9\n1\n1\n\n", says: "line 5: the file ends before item type 0 of 1: the number of items"},
		{name: "negative demand", text: "1 9\n1\n-1 1", says: "line 3: item type 0 of 1: the demand in dimension 0 is -1, which is negative"},
		{name: "negative count", text: "1 9 1 1 -1", says: "the number of items is -1"},
		{name: "too large for a bin", text: "2 9 8 1\n9 9 1", says: "line 2: item type 0 of 1: the demand in dimension 1 is 9, more than the capacity 8"},
		{name: "overflow", text: "1 9223372036854775808 1 1 1", says: "the capacity in dimension 0 is 9223372036854775808, which is out of range"},
		{name: "too many items", text: "1 9 2\n1 3000000\n1 3000000", says: "line 3: more than 5000000 items"},
		{name: "trailing junk", text: "1 9 1\n1 1\nx", says: `line 3: "x" after the last of 1 item types`},
		{name: "not a number", text: "1 9 1 1.5 1", says: `is "1.5", not a whole number`},
		{name: "a sign", text: "1 9 1 +1 1", says: `is "+1", not a whole number`},
		{name: "a long word", text: strings.Repeat("9", 100), says: "is too long for a number"},
		{name: "two files", args: []string{"a", "b"}, says: "one file at a time"},
		{name: "negative limit", args: []string{"-limit=-1s"}, says: "the limit -1s is negative"},
		{name: "unknown flag", args: []string{"-bins"}, says: "see hotspare-pack --help"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errs := invoke(tc.text, tc.args...)
			if code != exitBad || out != "" || !strings.Contains(errs, tc.says) {
				t.Errorf("exit %d, printed %q, complained %q; want exit %d and %q", code, out, errs, exitBad, tc.says)
			}
		})
	}
}

// Very many different items are packed by the time that is left, and rightly: the clock is up before the
// first packing is done, or after a few looks at it.
func TestTimeIsUpAmongManyItems(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var text strings.Builder
	text.WriteString("6\n1000 1000 1000 1000 1000 1000\n30000\n")
	for range 30_000 {
		for range 6 {
			fmt.Fprint(&text, 20+r.IntN(280), " ")
		}
		text.WriteString("1\n")
	}
	for _, limit := range []string{"0s", "1s", "60s"} {
		code, out, errs := invoke(text.String(), "-solution", "-limit="+limit)
		if err := verify(text.String(), out); code != 0 || errs != "" || err != nil {
			t.Errorf("limit %s: exit %d, complained %q: %v", limit, code, errs, err)
		}
	}
}

func TestCannotReadOrWrite(t *testing.T) {
	if code, _, errs := invoke("", filepath.Join(t.TempDir(), "none.vbp")); code != exitFailed || !strings.Contains(errs, "none.vbp") {
		t.Errorf("a missing file: exit %d, complained %q", code, errs)
	}
	broken := errors.New("broken disk")
	var out, errs bytes.Buffer
	clock := func() time.Duration { return time.Hour }
	if code := run(nil, iotest.ErrReader(broken), &out, &errs, clock); code != exitFailed || !strings.Contains(errs.String(), "broken disk") {
		t.Errorf("a broken disk: exit %d, complained %q", code, errs.String())
	}
	errs.Reset()
	if code := run(nil, strings.NewReader(small), full{}, &errs, clock); code != exitFailed || !strings.Contains(errs.String(), "disk full") {
		t.Errorf("a full disk: exit %d, complained %q", code, errs.String())
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// FuzzRead packs what the reader accepts and verifies the printed packing against the text.
func FuzzRead(f *testing.F) {
	for _, text := range []string{small, "1 5 1 5 3", "1 0 1 0 2", "3 1 1 1 0", "1 9 2\n1 1\n9 0", "2 9", "1 9 1 -1 1", "1 -0 0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := read(strings.NewReader(text))
		if err != nil {
			if bad := (*inputError)(nil); !errors.As(err, &bad) || bad.line < 1 {
				t.Fatalf("an error without a line: %v", err)
			}
			return
		}
		items := 0
		for _, it := range p.Items {
			items += it.Count
		}
		if items > 1000 || len(p.Items) > 1000 {
			return
		}
		code, out, errs := invoke(text, "-solution", "-limit=300ms")
		if err := verify(text, out); code != 0 || errs != "" || err != nil {
			t.Fatalf("exit %d, complained %q: %v in\n%s", code, errs, err, out)
		}
	})
}

// verify says what is wrong with a printed packing. It reads both texts itself.
func verify(instance, printed string) error {
	var n []uint64
	for word := range strings.FieldsSeq(instance) {
		v, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return err
		}
		n = append(n, v)
	}
	dims := int(n[0])
	capacity, types := n[1:1+dims], n[2+dims:]
	left := make([]uint64, n[1+dims])
	for t := range left {
		left[t] = types[t*(dims+1)+dims]
	}
	lines := strings.Split(strings.TrimSuffix(printed, "\n"), "\n")
	if lines[0] != strconv.Itoa(len(lines)-1) {
		return fmt.Errorf("%s bins announced, %d listed", lines[0], len(lines)-1)
	}
	for _, line := range lines[1:] {
		load := make([]uint64, dims)
		for pair := range strings.FieldsSeq(line) {
			var t int
			var count uint64
			if _, err := fmt.Sscanf(pair, "%d:%d", &t, &count); err != nil || count == 0 || count > left[t] {
				return fmt.Errorf("bad pair %q with %d left: %w", pair, left[t], err)
			}
			left[t] -= count
			for d := range load {
				load[d] += count * types[t*(dims+1)+d]
				if load[d] > capacity[d] {
					return fmt.Errorf("bin %q: dimension %d holds %d of %d", line, d, load[d], capacity[d])
				}
			}
		}
	}
	for t, count := range left {
		if count > 0 {
			return fmt.Errorf("%d items of type %d are in no bin", count, t)
		}
	}
	return nil
}
