package archtest

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// hosts are registries and mirrors: which one a machine uses is its own setting.
func hosts() []string {
	return []string{
		"proxy.golang" + ".org", "sum.golang" + ".org", "goproxy" + ".io", "goproxy" + ".cn",
		"registry.npmjs" + ".org", "pypi" + ".org", "static.crates" + ".io", "docker" + ".io", "ghcr" + ".io",
		"deb.debian" + ".org", "snapshot.debian" + ".org",
	}
}

// machinePaths are folders of the machines that this was written on.
func machinePaths() []string { return []string{"/wor" + "k/", "/roo" + "t/", "/home" + "/"} }

func textRules() []rule {
	return []rule{
		{
			name: "machine-path",
			why:  "a path of one machine means nothing on the next",
			check: func(_ *testing.T, t *tree) []finding {
				return t.eachText("the path", machinePaths())
			},
			wrong: []sources{{"docs/a.md": "see /wor" + "k/main\n"}, {"a.go": "package a\n\nvar _ = \"/roo" + "t/x\"\n"}},
			right: sources{"docs/a.md": "see /var/lib/hotspare, docs/work/a.md and ~/x, https://example.test/work/a\n"},
		},
		{
			name: "registry-host",
			why:  "which registry or mirror is used is a setting of the machine",
			check: func(_ *testing.T, t *tree) []finding {
				return t.eachText("the host", hosts())
			},
			wrong: []sources{{"Makefile": "GOPROXY=https://proxy.golang" + ".org\n"}},
			right: sources{"tools/go.sum": "proxy.golang" + ".org\n", "Makefile": "go build\n"},
		},
		{
			name:  "todo",
			why:   "what is left to do stands in an issue, not in a comment",
			check: checkTodo,
			wrong: []sources{{"internal/x/a.go": "package x\n\n// TO" + "DO: later\n"}, {"tools/a.sh": "# FIX" + "ME\n"}},
			right: sources{"internal/x/a.go": "package x\n\nconst _ = \"TODO\" // later is never\n"},
		},
	}
}

// eachText finds words in all text files except checksums and licences. A word that begins with
// a slash must not be the middle of a longer path.
func (t *tree) eachText(what string, words []string) []finding {
	var out []finding
	for _, f := range t.files {
		if strings.HasSuffix(f.path, ".sum") || f.path == "LICENSE" {
			continue
		}
		for _, word := range words {
			if line := lineOf(f.text, word); line > 0 {
				out = append(out, finding{
					key: f.path + " " + word, at: fmt.Sprintf("%s:%d", f.path, line),
					text: fmt.Sprintf("has %s %s", what, word),
				})
			}
		}
	}
	return out
}

// lineOf is the number of the first line that has the word, or 0.
func lineOf(text []byte, word string) int {
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(word))
		if i < 0 {
			return 0
		}
		at := from + i
		if word[0] != '/' || at == 0 || !partOfPath(text[at-1]) {
			return 1 + bytes.Count(text[:at], []byte("\n"))
		}
		from = at + 1
	}
}

// partOfPath says whether a slash after this byte continues a path or a URL.
func partOfPath(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || bytes.IndexByte([]byte("._~/})$-"), b) >= 0
}

func checkTodo(_ *testing.T, t *tree) []finding {
	marks := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"}
	var out []finding
	for _, f := range t.files {
		if f.isGo() {
			for _, group := range f.syntax.Comments {
				for _, mark := range marks {
					if slices.Contains(strings.FieldsFunc(group.Text(), notLetter), mark) {
						out = append(out, finding{key: f.path, at: t.at(group), text: "has a comment with " + mark})
					}
				}
			}
			continue
		}
		if !slices.Contains([]string{".sh", ".yaml", ".yml", ".proto", ""}, path.Ext(f.path)) || f.path == "LICENSE" {
			continue
		}
		for _, mark := range marks {
			if line := lineOf(f.text, mark); line > 0 {
				out = append(out, finding{key: f.path, at: fmt.Sprintf("%s:%d", f.path, line), text: "has " + mark})
			}
		}
	}
	return out
}

func notLetter(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }
