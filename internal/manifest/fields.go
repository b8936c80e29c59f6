package manifest

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Well-known message that manifests write as text.
const durationMessage protoreflect.FullName = "google.protobuf.Duration"

// outputOnly names the fields that the server fills in. They are neither read nor written.
var outputOnly = map[protoreflect.FullName]bool{
	"hotspare.v1.Metadata.resource_version": true,
	"hotspare.v1.Metadata.revision":         true,
	"hotspare.v1.Trigger.status":            true,
}

// field is one field of a message under its name in manifests.
type field struct {
	name string
	desc protoreflect.FieldDescriptor
	// size is true for numbers of bytes, and mappings to them, which manifests write with a unit.
	size bool
}

// fieldsOf lists the fields of a message that a manifest may set, in the order of the proto.
func fieldsOf(md protoreflect.MessageDescriptor) []field {
	var out []field
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if outputOnly[fd.FullName()] {
			continue
		}
		f := field{name: fd.JSONName(), desc: fd}
		if fd.Kind() == protoreflect.Uint64Kind || fd.IsMap() && fd.MapValue().Kind() == protoreflect.Uint64Kind {
			f.name, f.size = strings.CutSuffix(f.name, "Bytes")
		}
		out = append(out, f)
	}
	return out
}

// enumWords lists the words of an enumeration without its common prefix, in lower case; the unset
// value is not among them.
func enumWords(ed protoreflect.EnumDescriptor) map[string]protoreflect.EnumNumber {
	out := map[string]protoreflect.EnumNumber{}
	for i := range ed.Values().Len() {
		v := ed.Values().Get(i)
		if v.Number() != 0 {
			out[enumWord(ed, v)] = v.Number()
		}
	}
	return out
}

func enumWord(ed protoreflect.EnumDescriptor, v protoreflect.EnumValueDescriptor) string {
	prefix := strings.TrimSuffix(string(ed.Values().ByNumber(0).Name()), "UNSPECIFIED")
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
}
