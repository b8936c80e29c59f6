package strictyaml

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/hotspare/hotspare/internal/model"
)

// Bytes is a size in a file, written with its unit: "32GiB".
type Bytes uint64

// Places remembers where each field of a decoded file stands, for checks that come after decoding.
// Keys are paths as in messages: "zones[1].key_file".
type Places map[string]Position

// Find returns the place of a path, else of the nearest field around it.
func (p Places) Find(path string) Position {
	for path != "" {
		if at, ok := p[path]; ok {
			return at
		}
		path = parent(path)
	}
	return p[""]
}

func parent(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '.' || path[i] == '[' {
			return path[:i]
		}
	}
	return ""
}

// Decode fills a pointer to a struct from a node. Fields are named by the tag "yaml"; a field without
// one is not part of the file. It knows string, bool, int, float64, time.Duration, Bytes, map from
// string to string, structs, and slices of these. Faults are added to the problems.
func Decode(n *Node, into any, problems *Problems) Places {
	d := structDecoder{problems: problems, places: Places{"": n.At}}
	d.value(n, reflect.ValueOf(into).Elem(), "")
	return d.places
}

type structDecoder struct {
	problems *Problems
	places   Places
}

func (d *structDecoder) value(n *Node, v reflect.Value, path string) {
	d.places[path] = n.At
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		if !d.want(n, List) {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Items), len(n.Items)))
		for i, item := range n.Items {
			d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Map:
		if !d.want(n, Map) {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for _, e := range n.Entries {
			d.places[path+"."+e.Key] = e.Value.At
			if d.want(e.Value, String) {
				v.SetMapIndex(reflect.ValueOf(e.Key), reflect.ValueOf(e.Value.Text))
			}
		}
	default:
		if n.Kind == Map || n.Kind == List || n.Kind == Null {
			d.problems.Add(n.At, "is %s, want %s", n.Kind, wanted(v.Type()))
			return
		}
		if err := SetScalar(v, n.Text); err != nil {
			d.problems.Add(n.At, "%v", err)
		}
	}
}

func (d *structDecoder) want(n *Node, k Kind) bool {
	if n.Kind == k {
		return true
	}
	hint := ""
	if k == String && n.Kind != Map && n.Kind != List && n.Kind != Null {
		hint = ": put it in quotes"
	}
	d.problems.Add(n.At, "is %s, want %s%s", n.Kind, k, hint)
	return false
}

func (d *structDecoder) structure(n *Node, v reflect.Value, path string) {
	if !d.want(n, Map) {
		return
	}
	fields, names := structFields(v)
	for _, e := range n.Entries {
		field, ok := fields[e.Key]
		if !ok {
			d.problems.Add(e.At, "%s", UnknownField(e.Key, names))
			continue
		}
		sub := e.Key
		if path != "" {
			sub = path + "." + e.Key
		}
		d.value(e.Value, field, sub)
	}
}

func structFields(v reflect.Value) (map[string]reflect.Value, []string) {
	fields := map[string]reflect.Value{}
	var names []string
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
			fields[name] = v.Field(i)
			names = append(names, name)
		}
	}
	return fields, names
}

func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Bytes]():
		return "a size such as 32GiB"
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 90s"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}

// SetScalar sets one scalar field from text, as a file or an environment variable gives it.
func SetScalar(v reflect.Value, text string) error {
	bad := fmt.Errorf("is %q, want %s", text, wanted(v.Type()))
	switch v.Interface().(type) {
	case Bytes:
		n, err := model.ParseBytes(text)
		if err != nil {
			return bad
		}
		v.SetUint(n)
		return nil
	case time.Duration:
		dur, err := model.ParseDuration(text)
		if err != nil || dur < 0 {
			return bad
		}
		v.SetInt(int64(dur))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return bad
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return bad
		}
		v.SetInt(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return bad
		}
		v.SetFloat(f)
	default:
		panic(fmt.Sprintf("strictyaml: a field of type %s cannot be decoded", v.Type()))
	}
	return nil
}
