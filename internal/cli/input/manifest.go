package input

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/manifest"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/strictyaml"
)

// Manifests reads files, directories (not those within) and, for "-", the standard input.
func Manifests(stdin io.Reader, paths []string) ([]manifest.File, error) {
	if len(paths) == 0 {
		return nil, outcome.Usagef("say what to apply: -f FILE, -f DIR or -f -")
	}
	var files []manifest.File
	for _, p := range paths {
		if p == "-" {
			data, err := io.ReadAll(io.LimitReader(stdin, strictyaml.MaxBytes+1))
			if err != nil {
				return nil, fmt.Errorf("read the standard input: %w", err)
			}
			files = append(files, manifest.File{Name: "-", Data: data})
			continue
		}
		names, err := manifestNames(p)
		if err != nil {
			return nil, outcome.Usagef("read manifests: %v", err)
		}
		for _, name := range names {
			data, err := Bounded(name)
			if err != nil {
				return nil, outcome.Usagef("read manifest: %v", err)
			}
			files = append(files, manifest.File{Name: name, Data: data})
		}
	}
	return files, nil
}

func manifestNames(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no *.yaml or *.yml in %s", path)
	}
	return names, nil
}

// Kind reads a kind of resources as users write it.
func Kind(word string) (model.ResourceKind, error) {
	kind, ok := model.ParseResourceKind(word)
	if ok {
		return kind, nil
	}
	var words []string
	for _, k := range model.ResourceKinds() {
		words = append(words, string(k))
	}
	switch strings.TrimSuffix(strings.ToLower(word), "s") {
	case "lease", "failover":
		return "", outcome.Usagef("%s are not declared in manifests: use hotspare %s list", word, strings.TrimSuffix(strings.ToLower(word), "s"))
	}
	hint := ""
	if s := model.Nearest(word, words); s != "" {
		hint = fmt.Sprintf(", did you mean %q?", s)
	}
	return "", outcome.Usagef("unknown kind %q%s; known: %s", word, hint, strings.Join(words, ", "))
}
