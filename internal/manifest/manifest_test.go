package manifest_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/manifest"
	"github.com/hotspare/hotspare/internal/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got), run with -update when it should:\n%s", path, diff)
	}
}

func asJSON(t *testing.T, r *pb.Resource) []byte {
	t.Helper()
	raw, err := protojson.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil { // protojson's own indentation is random
		t.Fatal(err)
	}
	return append(out.Bytes(), '\n')
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	seen := map[model.ResourceKind]bool{}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			resources, err := manifest.Decode(manifest.File{Name: path, Data: data})
			if err != nil {
				t.Fatal(err)
			}
			var out []byte
			for _, r := range resources {
				seen[model.KindOfResource(r)] = true
				out = append(out, asJSON(t, r)...)
				checkRoundTrip(t, r)
			}
			golden(t, strings.TrimSuffix(filepath.Base(path), ".yaml")+".json", out)
		})
	}
	for _, k := range model.ResourceKinds() {
		if !seen[k] {
			t.Errorf("no example of a %s", k)
		}
	}
}

func checkRoundTrip(t *testing.T, r *pb.Resource) {
	t.Helper()
	text, err := manifest.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := manifest.Decode(manifest.File{Name: "again.yaml", Data: text})
	if err != nil {
		t.Fatalf("decode what was encoded: %v\n%s", err, text)
	}
	if len(again) != 1 || !proto.Equal(again[0], r) {
		t.Errorf("changed by encoding:\n%s\nwas %s", text, asJSON(t, r))
	}
}

func TestEncodeLeavesOutputFieldsOut(t *testing.T) {
	r := &pb.Resource{Resource: &pb.Resource_Trigger{Trigger: &pb.Trigger{
		Metadata: &pb.Metadata{Name: "t", ResourceVersion: 7, Revision: 2, Labels: map[string]string{"n": "010", "b": "true"}},
		Spec:     &pb.TriggerSpec{Plans: []string{"webshop"}, Match: map[string]string{"severity": "1e3"}},
		Status:   &pb.TriggerStatus{Disarmed: true},
	}}}
	text, err := manifest.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := manifest.Decode(manifest.File{Name: "t.yaml", Data: text})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want := proto.CloneOf(r)
	want.GetTrigger().Status = nil
	want.GetTrigger().Metadata.ResourceVersion = 0
	want.GetTrigger().Metadata.Revision = 0
	if !proto.Equal(again[0], want) {
		t.Errorf("got %s from\n%s", asJSON(t, again[0]), text)
	}
	if _, err := manifest.Encode(&pb.Resource{}); err == nil {
		t.Error("an empty resource was encoded")
	}
}

// TestFaults reads files of manifests with faults; the golden file beside each holds all messages.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad manifests: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			resources, err := manifest.Decode(manifest.File{Name: filepath.Base(path), Data: data})
			if err == nil {
				t.Fatal("was accepted")
			}
			if resources != nil {
				t.Error("resources came with an error")
			}
			golden(t, strings.TrimSuffix(filepath.Base(path), ".yaml")+".txt", []byte(err.Error()+"\n"))
		})
	}
}

func TestDeclaredTwiceInTwoFiles(t *testing.T) {
	text := []byte("apiVersion: hotspare/v1\nkind: FenceTarget\nmetadata: {name: a}\nspec: {agent: g}\n")
	_, err := manifest.Decode(manifest.File{Name: "one.yaml", Data: text}, manifest.File{Name: "two.yaml", Data: text})
	if err == nil || !strings.Contains(err.Error(), "two.yaml:1:1: fencetarget/a is declared twice, first at one.yaml:1:1") {
		t.Errorf("got %v", err)
	}
}

func TestBounds(t *testing.T) {
	deep := strings.Repeat("[", 100000)
	dashes := strings.Repeat("- ", 100000) + "x"
	many := strings.Repeat("apiVersion: hotspare/v1\nkind: Pool\nmetadata: {name: p}\nspec: {bad: 1}\n---\n", 100)
	for name, text := range map[string]string{"brackets": deep, "dashes": dashes} {
		_, err := manifest.Decode(manifest.File{Name: name, Data: []byte(text)})
		if err == nil || !strings.Contains(err.Error(), "nested too deeply") {
			t.Errorf("%s: got %.100v", name, err)
		}
	}
	_, err := manifest.Decode(manifest.File{Name: "many", Data: []byte(many)})
	if err == nil || strings.Count(err.Error(), "\n") != 20 || !strings.HasSuffix(err.Error(), "and 80 more") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("../../examples/*.yaml")
	bad, _ := filepath.Glob("testdata/bad-*.yaml")
	for _, path := range append(files, bad...) {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		resources, err := manifest.Decode(manifest.File{Name: "fuzz.yaml", Data: data})
		if err != nil {
			return
		}
		for _, r := range resources {
			checkRoundTrip(t, r)
		}
	})
}
