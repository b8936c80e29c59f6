package strictyaml_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/internal/strictyaml"
)

// show writes a tree on one line, with the place of each node.
func show(n *strictyaml.Node) string {
	at := fmt.Sprintf("@%d:%d", n.At.Line, n.At.Column)
	switch n.Kind {
	case strictyaml.Map:
		var parts []string
		for _, e := range n.Entries {
			parts = append(parts, fmt.Sprintf("%s@%d:%d=%s", e.Key, e.At.Line, e.At.Column, show(e.Value)))
		}
		return "{" + strings.Join(parts, " ") + "}" + at
	case strictyaml.List:
		var parts []string
		for _, i := range n.Items {
			parts = append(parts, show(i))
		}
		return "[" + strings.Join(parts, " ") + "]" + at
	default:
		return fmt.Sprintf("%d:%q%s", n.Kind, n.Text, at)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1":                    `{a@1:1=3:"1"@1:4}@1:1`,
		"a: '1'\nb: yes\nc: true": `{a@1:1=2:"1"@1:4 b@2:1=2:"yes"@2:4 c@3:1=5:"true"@3:4}@1:1`,
		"a:":                      `{a@1:1=1:""@1:4}@1:1`,
		"- x\n- {y: 1.5}":         `[2:"x"@1:3 {y@2:4=4:"1.5"@2:7}@2:4]@1:1`,
		"a: |\n  two\n  lines\n":  `{a@1:1=2:"two\nlines\n"@1:4}@1:1`,
		"1: x":                    `{1@1:1=2:"x"@1:4}@1:1`,
		"a: 1 # why\n# end\n":     `{a@1:1=3:"1"@1:4}@1:1`,
		"a: {}\nb: []":            `{a@1:1={}@1:4 b@2:1=[]@2:4}@1:1`,
	} {
		var problems strictyaml.Problems
		docs := strictyaml.Parse("f", []byte(text), &problems)
		if problems.Err() != nil || len(docs) != 1 || show(docs[0]) != want {
			t.Errorf("%q: %v", text, problems.Err())
			for _, d := range docs {
				t.Errorf("got %s, want %s", show(d), want)
			}
		}
	}
}

// TestNoDocumentIsLost: goccy/go-yaml 1.19.2 drops all that follows an empty document.
func TestNoDocumentIsLost(t *testing.T) {
	for text, want := range map[string]int{
		"---\n---\na: 1\n":                      1,
		"a: 1\n---\n---\nb: 2\n":                2,
		"a: 1\n---\n# c\n---\n# d\n---\nb: 2\n": 2,
		"---\na: 1\n...\n---\n---\nb: 2\n...\n": 2,
		"a: 1\n---\n":                           1,
		"---\n# c\n---\n":                       0,
		"a: 1\n...\n...\nb: 2\n":                2,
	} {
		var problems strictyaml.Problems
		if docs := strictyaml.Parse("f", []byte(text), &problems); problems.Err() != nil || len(docs) != want {
			t.Errorf("%q: %d documents, want %d, %v", text, len(docs), want, problems.Err())
		}
	}
}

func TestDocuments(t *testing.T) {
	var problems strictyaml.Problems
	docs := strictyaml.Parse("f", []byte("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n"), &problems)
	if problems.Err() != nil || len(docs) != 2 || docs[1].At.Line != 7 {
		t.Errorf("%d documents, %v", len(docs), problems.Err())
	}
	if docs := strictyaml.Parse("f", nil, &problems); len(docs) != 0 || problems.Err() != nil {
		t.Errorf("an empty file has %d documents, %v", len(docs), problems.Err())
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1\nb: 2\na: 3":                `f:3:1: duplicate key "a", first at line 1`,
		"a: &x 1":                         "f:1:4: anchors and aliases are not supported",
		"a: !!str 1":                      "f:1:4: tags such as !!str are not supported",
		"a: {<<: {b: 1}}":                 "f:1:5: merge keys are not supported",
		"? [a, b]\n: 1":                   "found an invalid key",
		strings.Repeat("---\n", 3000):     "more than 2000 documents",
		"a: [1":                           "f:1:4: ",
		"a: 1\n b: 2":                     "f:1:4: ",
		"%YAML 1.1\n---\na: 1":            "",
		strings.Repeat("[", 40):           "nested too deeply",
		strings.Repeat("!a ", 5000) + "x": "nested too deeply",
		strings.Repeat("x", 2<<20):        "is larger than 1048576 bytes",
	} {
		var problems strictyaml.Problems
		strictyaml.Parse("f", []byte(text), &problems)
		err := problems.Err()
		if want == "" {
			continue // only must not panic
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", text, err, want)
		}
	}
}

type target struct {
	Name   string            `yaml:"name"`
	Size   strictyaml.Bytes  `yaml:"size"`
	Wait   time.Duration     `yaml:"wait"`
	Count  int               `yaml:"count"`
	Ratio  float64           `yaml:"ratio"`
	On     bool              `yaml:"on"`
	Words  []string          `yaml:"words"`
	Labels map[string]string `yaml:"labels"`
	Inner  struct {
		Deep []struct {
			X int `yaml:"x"`
		} `yaml:"deep"`
	} `yaml:"inner"`
	Hidden string
}

func TestDecode(t *testing.T) {
	text := "name: n\nsize: 4GiB\nwait: 1d\ncount: -3\nratio: 1.5\non: true\nwords: [a, b]\nlabels: {k: v}\ninner:\n  deep:\n  - x: 1\n  - x: 2\n"
	var problems strictyaml.Problems
	docs := strictyaml.Parse("f", []byte(text), &problems)
	var got target
	places := strictyaml.Decode(docs[0], &got, &problems)
	if problems.Err() != nil {
		t.Fatal(problems.Err())
	}
	want := target{Name: "n", Size: 4 << 30, Wait: 24 * time.Hour, Count: -3, Ratio: 1.5, On: true, Words: []string{"a", "b"}, Labels: map[string]string{"k": "v"}}
	if len(got.Inner.Deep) != 2 || got.Inner.Deep[1].X != 2 {
		t.Errorf("got %+v", got.Inner)
	}
	want.Inner = got.Inner
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for path, line := range map[string]int{"inner.deep[1].x": 12, "inner.deep[7].x": 11, "name": 1, "none": 1} {
		if at := places.Find(path); at.Line != line {
			t.Errorf("%s is at line %d, want %d", path, at.Line, line)
		}
	}
}

func TestDecodeFaults(t *testing.T) {
	text := "name: [a]\nsize: 4\nwait: -1s\ncount: x\nratio: y\non: yes\nwords: a\nlabels: {k: 1}\ninner: 7\nHidden: x\nnmae: x\n"
	var problems strictyaml.Problems
	docs := strictyaml.Parse("f", []byte(text), &problems)
	var got target
	strictyaml.Decode(docs[0], &got, &problems)
	want := `f:1:7: is a list, want text
f:2:7: is "4", want a size such as 32GiB
f:3:7: is "-1s", want a duration such as 90s
f:4:8: is "x", want a number
f:5:8: is "y", want a number
f:6:5: is "yes", want true or false
f:7:8: is text, want a list
f:8:13: is a number, want text: put it in quotes
f:9:8: is a number, want a mapping
f:10:1: unknown field "Hidden", valid here: name, size, wait, count, ratio, on, words, labels, inner
f:11:1: unknown field "nmae", did you mean "name"?`
	if diff := cmp.Diff(want, fmt.Sprint(problems.Err())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"a: 1", "- {b: [c, 'd']}", "? x\n: y", "a: &b c\nd: *b", "a: |\n x\n---\n%TAG", "<<: {}", "!!a b"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var problems strictyaml.Problems
		for _, d := range strictyaml.Parse("f", data, &problems) {
			var got target
			strictyaml.Decode(d, &got, &problems)
		}
		_ = problems.Err()
	})
}
