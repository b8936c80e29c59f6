package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
)

// view is one answer in all its forms.
type view struct {
	// message is what -o json and yaml show.
	message proto.Message
	// yaml replaces the form made from the message, for manifests.
	yaml func() ([]byte, error)
	// names are what -o name shows, one on each line.
	names []string
	// text is what people see.
	text func(wide bool) string
}

// show writes an answer in the form that was asked for.
func (a *app) show(v view) error {
	switch a.output {
	case "json":
		out, err := toJSON(v.message)
		if err != nil {
			return err
		}
		return a.write(string(out) + "\n")
	case "yaml":
		out, err := v.toYAML()
		if err != nil {
			return err
		}
		return a.write(string(out))
	case "name":
		if len(v.names) == 0 {
			return nil
		}
		return a.write(strings.Join(v.names, "\n") + "\n")
	default:
		return a.write(v.text(a.output == "wide"))
	}
}

func (a *app) write(s string) error {
	if _, err := io.WriteString(a.Out, s); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// width is how wide tables may be: -o wide is for a file or a pager.
func (a *app) width(wide bool) int {
	if wide {
		return 0
	}
	return a.Width
}

// toJSON writes a message with the keys of the JSON API and stable blanks.
func toJSON(m proto.Message) ([]byte, error) {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return out.Bytes(), nil
}

// toJSONLine writes a message on one line, with stable blanks.
func toJSONLine(m proto.Message) (string, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("write JSON: %w", err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return "", fmt.Errorf("write JSON: %w", err)
	}
	return out.String() + "\n", nil
}

func (v view) toYAML() ([]byte, error) {
	if v.yaml != nil {
		return v.yaml()
	}
	raw, err := toJSON(v.message)
	if err != nil {
		return nil, err
	}
	out, err := yaml.JSONToYAML(raw)
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out, nil
}

// confirm asks a person to type a name before something that cannot be undone. Elsewhere than on a
// terminal --yes is needed.
func (a *app) confirm(what, name string) error {
	if a.yes {
		return nil
	}
	if !a.Terminal {
		return outcome.Usagef("%s cannot be undone: repeat with --yes", what)
	}
	fmt.Fprintf(a.Err, "%s cannot be undone. Type %q to go on: ", what, name)
	line, err := bufio.NewReader(io.LimitReader(a.In, 1024)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != name {
		return outcome.Exitf(outcome.Failed, "nothing was done: the name does not match")
	}
	return nil
}

// printError writes the error for a person, or as JSON.
func (a *app) printError(err error) {
	r := outcome.NewReport(err, a.requestID)
	if a.output == "json" {
		if out, jerr := json.MarshalIndent(map[string]outcome.Report{"error": r}, "", "  "); jerr == nil {
			fmt.Fprintf(a.Err, "%s\n", out)
			return
		}
	}
	fmt.Fprint(a.Err, render.Plain(r.Text()))
}
