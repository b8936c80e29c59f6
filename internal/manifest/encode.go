package manifest

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Encode writes a resource as one manifest document that Decode reads back to the same resource.
// Fields that only the server fills in are left out, so that the text can be kept in Git.
func Encode(r *pb.Resource) ([]byte, error) {
	kind := model.KindOfResource(r)
	if kind == "" {
		return nil, fmt.Errorf("encode resource: it is empty")
	}
	rm := r.ProtoReflect()
	body := encodeMessage(rm.Get(resourceField(rm, kind)).Message())
	doc := append(yaml.MapSlice{
		{Key: "apiVersion", Value: APIVersion},
		{Key: "kind", Value: kind.Manifest()},
	}, body...)
	out, err := yaml.MarshalWithOptions(doc, yaml.Indent(2), yaml.IndentSequence(false))
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", model.ResourceKey(r), err)
	}
	return out, nil
}

func encodeMessage(m protoreflect.Message) yaml.MapSlice {
	out := yaml.MapSlice{}
	for _, f := range fieldsOf(m.Descriptor()) {
		if m.Has(f.desc) {
			out = append(out, yaml.MapItem{Key: f.name, Value: encodeField(f, m.Get(f.desc))})
		}
	}
	return out
}

func encodeField(f field, v protoreflect.Value) any {
	switch {
	case f.desc.IsMap():
		var keys []string
		v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			keys = append(keys, k.String())
			return true
		})
		slices.Sort(keys)
		out := yaml.MapSlice{}
		for _, k := range keys {
			value := v.Map().Get(protoreflect.ValueOfString(k).MapKey())
			out = append(out, yaml.MapItem{Key: k, Value: encodeScalar(field{desc: f.desc.MapValue(), size: f.size}, value)})
		}
		return out
	case f.desc.IsList():
		out := []any{}
		for i := range v.List().Len() {
			out = append(out, encodeScalar(f, v.List().Get(i)))
		}
		return out
	default:
		return encodeScalar(f, v)
	}
}

func encodeScalar(f field, v protoreflect.Value) any {
	switch f.desc.Kind() {
	case protoreflect.MessageKind:
		if f.desc.Message().FullName() == durationMessage {
			return model.FormatDuration(durationOf(v))
		}
		return encodeMessage(v.Message())
	case protoreflect.EnumKind:
		ed := f.desc.Enum()
		if d := ed.Values().ByNumber(v.Enum()); d != nil {
			return enumWord(ed, d)
		}
		return strconv.Itoa(int(v.Enum()))
	case protoreflect.Uint64Kind:
		if f.size {
			return model.FormatBytes(v.Uint())
		}
		return v.Uint()
	default:
		return v.Interface()
	}
}
