package manifest

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/strictyaml"
)

// APIVersion is what every document must say.
const APIVersion = "hotspare/v1"

// MaxResources bounds one call: more could not be one entry of the replicated log (R7).
const MaxResources = 1000

// File is one manifest file; several documents are parted by "---".
type File struct {
	// Name for messages: a path, or "-" for the standard input.
	Name string
	Data []byte
}

// Decode reads all documents of the files, in their order. The error is a *strictyaml.Error with every
// fault found; no resource is returned then, so that a part is never applied.
func Decode(files ...File) ([]*pb.Resource, error) {
	d := decoder{problems: &strictyaml.Problems{}, first: map[string]strictyaml.Position{}}
	for _, f := range files {
		for _, n := range strictyaml.Parse(f.Name, f.Data, d.problems) {
			d.document(n)
		}
	}
	if len(d.out) > MaxResources {
		d.problems.Add(strictyaml.Position{File: files[0].Name}, "%d resources in one call, at most %d are accepted", len(d.out), MaxResources)
	}
	if err := d.problems.Err(); err != nil {
		return nil, err
	}
	return d.out, nil
}

type decoder struct {
	problems *strictyaml.Problems
	out      []*pb.Resource
	// first is where each resource was first declared.
	first map[string]strictyaml.Position
	// places of the document in hand.
	places strictyaml.Places
}

var documentFields = []string{"apiVersion", "kind", "metadata", "spec"}

func (d *decoder) document(n *strictyaml.Node) {
	faults := d.problems.Len()
	if n.Kind != strictyaml.Map {
		d.problems.Add(n.At, "a manifest is a mapping with %s, this is %s", strings.Join(documentFields, ", "), n.Kind)
		return
	}
	kind, ok := d.header(n)
	if !ok {
		return
	}
	d.places = strictyaml.Places{"": n.At}
	r := &pb.Resource{}
	rm := r.ProtoReflect()
	fd := resourceField(rm, kind)
	msg := rm.Mutable(fd).Message()
	body := &strictyaml.Node{Kind: strictyaml.Map, At: n.At}
	for _, e := range n.Entries {
		if e.Key == "metadata" || e.Key == "spec" {
			body.Entries = append(body.Entries, e)
		}
	}
	d.message(msg, body, "")
	if d.problems.Len() > faults {
		return // checks of the meaning would only repeat the faults of the form
	}
	for _, f := range model.ValidateResource(r) {
		d.problems.Add(d.places.Find(f.Path), "%s: %s", f.Path, f.Message)
	}
	key := model.ResourceKey(r)
	if before, seen := d.first[key]; seen {
		d.problems.Add(n.At, "%s is declared twice, first at %s", key, before)
	}
	d.first[key] = n.At
	d.out = append(d.out, r)
}

// header checks apiVersion, kind and the names of the top level.
func (d *decoder) header(n *strictyaml.Node) (model.ResourceKind, bool) {
	for _, e := range n.Entries {
		if !slices.Contains(documentFields, e.Key) {
			d.problems.Add(e.At, "%s", strictyaml.UnknownField(e.Key, documentFields))
		}
	}
	if v := n.Get("apiVersion"); v == nil {
		d.problems.Add(n.At, "apiVersion is missing: write %q", APIVersion)
	} else if v.Text != APIVersion {
		d.problems.Add(v.At, "apiVersion is %q, want %q", v.Text, APIVersion)
	}
	var words []string
	for _, k := range model.ResourceKinds() {
		words = append(words, k.Manifest())
	}
	v := n.Get("kind")
	if v == nil {
		d.problems.Add(n.At, "kind is missing: one of %s", strings.Join(words, ", "))
		return "", false
	}
	for _, k := range model.ResourceKinds() {
		if k.Manifest() == v.Text {
			return k, true
		}
	}
	if s := model.Nearest(v.Text, words); s != "" {
		d.problems.Add(v.At, "unknown kind %q, did you mean %q?", v.Text, s)
	} else {
		d.problems.Add(v.At, "unknown kind %q, known: %s", v.Text, strings.Join(words, ", "))
	}
	return "", false
}

// resourceField finds the member of the oneof for a kind by its message, so that a kind that is in
// the proto but not here is a panic in the first test.
func resourceField(rm protoreflect.Message, kind model.ResourceKind) protoreflect.FieldDescriptor {
	fields := rm.Descriptor().Fields()
	for i := range fields.Len() {
		if word := strings.ReplaceAll(string(fields.Get(i).Name()), "_", ""); word == string(kind) {
			return fields.Get(i)
		}
	}
	panic(fmt.Sprintf("manifest: resource kind %q is not in the proto", kind))
}

func (d *decoder) message(m protoreflect.Message, n *strictyaml.Node, path string) {
	if n.Kind != strictyaml.Map {
		d.wrongKind(n, path, "a mapping")
		return
	}
	fields := fieldsOf(m.Descriptor())
	for _, e := range n.Entries {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == e.Key })
		if i < 0 {
			var names []string
			for _, f := range fields {
				names = append(names, f.name)
			}
			d.problems.Add(e.At, "%s", strictyaml.UnknownField(e.Key, names))
			continue
		}
		sub := e.Key
		if path != "" {
			sub = path + "." + e.Key
		}
		d.places[sub] = e.Value.At
		d.field(m, fields[i], e.Value, sub)
	}
}

func (d *decoder) field(m protoreflect.Message, f field, n *strictyaml.Node, path string) {
	switch {
	case f.desc.IsMap():
		if n.Kind != strictyaml.Map {
			d.wrongKind(n, path, "a mapping")
			return
		}
		values := m.Mutable(f.desc).Map()
		for _, e := range n.Entries {
			d.places[path+"."+e.Key] = e.Value.At
			if v, ok := d.scalar(field{desc: f.desc.MapValue(), size: f.size}, e.Value, path+"."+e.Key); ok {
				values.Set(protoreflect.ValueOfString(e.Key).MapKey(), v)
			}
		}
	case f.desc.IsList():
		if n.Kind != strictyaml.List {
			d.wrongKind(n, path, "a list")
			return
		}
		list := m.Mutable(f.desc).List()
		for i, item := range n.Items {
			sub := fmt.Sprintf("%s[%d]", path, i)
			d.places[sub] = item.At
			if f.desc.Message() != nil {
				d.message(list.AppendMutable().Message(), item, sub)
			} else if v, ok := d.scalar(f, item, sub); ok {
				list.Append(v)
			}
		}
	case f.desc.Message() != nil && f.desc.Message().FullName() != durationMessage:
		d.message(m.Mutable(f.desc).Message(), n, path)
	default:
		if v, ok := d.scalar(f, n, path); ok {
			m.Set(f.desc, v)
		}
	}
}

func (d *decoder) wrongKind(n *strictyaml.Node, path, want string) {
	hint := ""
	switch {
	case n.Kind == strictyaml.Null:
		d.problems.Add(n.At, "%s has no value, want %s", path, want)
		return
	case want == "text" && n.Kind != strictyaml.Map && n.Kind != strictyaml.List:
		hint = ": put it in quotes"
	}
	d.problems.Add(n.At, "%s is %s, want %s%s", path, n.Kind, want, hint)
}

// scalar reads one value of a field that is no message, or of a duration.
func (d *decoder) scalar(f field, n *strictyaml.Node, path string) (protoreflect.Value, bool) {
	var none protoreflect.Value
	want := wanted(f)
	textual := want == "text"
	if textual && n.Kind != strictyaml.String || n.Kind == strictyaml.Map || n.Kind == strictyaml.List || n.Kind == strictyaml.Null {
		d.wrongKind(n, path, want)
		return none, false
	}
	v, err := scalarValue(f, n.Text)
	if err != nil {
		d.problems.Add(n.At, "%s is %q, want %s", path, n.Text, want)
		return none, false
	}
	return v, true
}

func wanted(f field) string {
	switch f.desc.Kind() {
	case protoreflect.MessageKind:
		return "a duration such as 90s"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.EnumKind:
		return "one of " + strings.Join(slices.Sorted(maps.Keys(enumWords(f.desc.Enum()))), ", ")
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		if f.size {
			return "a size with a unit, for example 32GiB"
		}
		return "a whole number"
	case protoreflect.DoubleKind:
		return "a number"
	default:
		return "text"
	}
}

func scalarValue(f field, text string) (protoreflect.Value, error) {
	switch f.desc.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text), nil
	case protoreflect.MessageKind:
		dur, err := model.ParseDuration(text)
		return protoreflect.ValueOfMessage(durationpb.New(dur).ProtoReflect()), err
	case protoreflect.BoolKind:
		b, err := strconv.ParseBool(text)
		return protoreflect.ValueOfBool(b), err
	case protoreflect.EnumKind:
		n, ok := enumWords(f.desc.Enum())[text]
		if !ok {
			return protoreflect.Value{}, strconv.ErrSyntax
		}
		return protoreflect.ValueOfEnum(n), nil
	case protoreflect.Uint32Kind:
		n, err := strconv.ParseUint(text, 10, 32)
		return protoreflect.ValueOfUint32(uint32(n)), err
	case protoreflect.Uint64Kind:
		if f.size {
			n, err := model.ParseBytes(text)
			return protoreflect.ValueOfUint64(n), err
		}
		n, err := strconv.ParseUint(text, 10, 64)
		return protoreflect.ValueOfUint64(n), err
	case protoreflect.DoubleKind:
		x, err := strconv.ParseFloat(text, 64)
		if err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
			err = strconv.ErrRange
		}
		return protoreflect.ValueOfFloat64(x), err
	default:
		panic(fmt.Sprintf("manifest: field %s has a kind that manifests do not know", f.desc.FullName()))
	}
}

// durationOf reads a duration field for Encode.
func durationOf(v protoreflect.Value) time.Duration {
	if dur, ok := v.Message().Interface().(*durationpb.Duration); ok {
		return dur.AsDuration()
	}
	return 0
}
