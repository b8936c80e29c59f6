package state_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// TestAnyCommandIsPureAndRepeatable applies random commands, most of them nonsense about things that
// exist: none may panic, change the state that it was given, or give two outcomes.
func TestAnyCommandIsPureAndRepeatable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := fixture.New(t)
		w.Lease(1, 1, 1<<30)
		w.Declare("webshop")
		w.Strict = true
		names := words(w.State)
		for range rapid.IntRange(1, 12).Draw(t, "commands") {
			c := &pb.Command{}
			m := c.ProtoReflect()
			fields := m.Descriptor().Oneofs().ByName("body").Fields()
			f := fields.Get(rapid.IntRange(0, fields.Len()-1).Draw(t, "body"))
			fill(t, m.Mutable(f).Message(), names, 0)
			c.RequestId = rapid.SampledFrom([]string{"", "", "r1", "r2"}).Draw(t, "request")
			w.Do("ann", c)
		}
		w.CheckReplay()
	})
}

// words are the names that nonsense is made of.
func words(s *state.State) []string {
	out := []string{"", "nobody", "webshop", "web", "h1", "store1", "east-down", "fo-1", "fo-2", "cordon", "readmit", "remove", "plan", "fence east-bmc"}
	for o := range s.Objects() {
		out = append(out, o.GetId())
	}
	for l := range s.Leases() {
		out = append(out, l.GetName())
	}
	return out
}

const maxDepth = 5

// fill sets each field of a message, or leaves it out.
func fill(t *rapid.T, m protoreflect.Message, names []string, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.IsMap() || depth > maxDepth || rapid.IntRange(0, 3).Draw(t, "set") == 0 {
			continue
		}
		switch {
		case f.IsList() && f.Message() != nil:
			fill(t, m.Mutable(f).List().AppendMutable().Message(), names, depth+1)
		case f.IsList():
			m.Mutable(f).List().Append(scalar(t, f, names))
		case f.Message() != nil:
			fill(t, m.Mutable(f).Message(), names, depth+1)
		default:
			m.Set(f, scalar(t, f, names))
		}
	}
}

func scalar(t *rapid.T, f protoreflect.FieldDescriptor, names []string) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.SampledFrom(names).Draw(t, "name"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(rapid.SampledFrom([]string{"token-h1", "x", ""}).Draw(t, "bytes")))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32Range(0, 16).Draw(t, "enum")))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.SampledFrom([]uint64{0, 1, 2, 3, 1 << 40, 1<<64 - 1}).Draw(t, "uint64"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.SampledFrom([]uint32{0, 1, 2, 1<<32 - 1}).Draw(t, "uint32"))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.SampledFrom([]int64{-1, 0, 1, 3600, 1<<62 + 1}).Draw(t, "int64"))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(rapid.SampledFrom([]int32{-1, 0, 1, 1<<31 - 1}).Draw(t, "int32"))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rapid.SampledFrom([]float64{0, 1.5, -1}).Draw(t, "double"))
	default:
		return f.Default()
	}
}

// FuzzReadSnapshot: whatever the bytes are, an error or a state that writes itself again.
func FuzzReadSnapshot(f *testing.F) {
	w := fixture.New(f)
	good := fixture.Bytes(f, w.State)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := state.ReadSnapshot(bytes.NewReader(data))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := s.WriteSnapshot(&out); err != nil {
			t.Fatalf("accepted, and cannot be written: %v", err)
		}
	})
}

// FuzzCommand: what decodes never panics, and gives one outcome.
func FuzzCommand(f *testing.F) {
	w := fixture.New(f)
	w.Lease(1, 1, 1<<30)
	w.Declare("webshop")
	for _, c := range w.Log {
		data, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c pb.Command
		if proto.Unmarshal(data, &c) != nil {
			return
		}
		a, _ := w.State.Apply(w.State.Index()+1, 1, &c)
		b, _ := w.State.Apply(w.State.Index()+1, 1, &c)
		if !bytes.Equal(fixture.Bytes(t, a), fixture.Bytes(t, b)) {
			t.Fatal("one command, two outcomes")
		}
	})
}
