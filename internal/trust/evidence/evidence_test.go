package evidence_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/trust/evidence"
)

// chain makes n entries.
func chain(n int) []*pb.Evidence {
	var out []*pb.Evidence
	var prev []byte
	for i := range n {
		e := &pb.Evidence{
			Sequence: uint64(i + 1), Time: timestamppb.New(time.Unix(int64(1000+i), 7)), Actor: "operator/alice",
			Action: "declare", Object: fmt.Sprint("failover/fo-", i), Reason: "fire", Epoch: uint64(i), PreviousHash: prev,
		}
		e.Hash = evidence.ChainHash(prev, e)
		prev = e.GetHash()
		out = append(out, e)
	}
	return out
}

func TestVerifyChain(t *testing.T) {
	entries := chain(5)
	last, err := evidence.VerifyChain(entries)
	if err != nil || !bytes.Equal(last, entries[4].GetHash()) {
		t.Fatal(err)
	}
	if _, err := evidence.VerifyChain(entries[2:]); err != nil {
		t.Errorf("a later part: %v", err)
	}
	if last, err := evidence.VerifyChain(nil); err != nil || last != nil {
		t.Errorf("none: %v", err)
	}
}

// The hash is a promise to whoever kept an export: it must never change.
func TestHashIsPinned(t *testing.T) {
	const want = "17abce957fb3adf385a97801c95f8dfe3523d7c23fb4d63456db8cfdbc2eb2ac"
	if got := fmt.Sprintf("%x", chain(2)[1].GetHash()); got != want {
		t.Errorf("hash %s, pinned %s: exported chains would no longer verify", got, want)
	}
}

// Every field must be covered, also those that somebody adds later.
func TestEveryFieldIsHashed(t *testing.T) {
	fields := (&pb.Evidence{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Name() == "hash" {
			continue
		}
		t.Run(string(f.Name()), func(t *testing.T) {
			entries := chain(3)
			e := entries[1].ProtoReflect()
			switch f.Kind() {
			case protoreflect.Uint64Kind:
				e.Set(f, protoreflect.ValueOfUint64(e.Get(f).Uint()+1))
			case protoreflect.StringKind:
				e.Set(f, protoreflect.ValueOfString(e.Get(f).String()+"x"))
			case protoreflect.BytesKind:
				e.Set(f, protoreflect.ValueOfBytes([]byte("x")))
			case protoreflect.MessageKind:
				entries[1].Time = timestamppb.New(entries[1].GetTime().AsTime().Add(1))
			default:
				t.Fatalf("extend ChainHash and this test for kind %v", f.Kind())
			}
			if _, err := evidence.VerifyChain(entries); err == nil {
				t.Error("the change was not seen")
			}
		})
	}
}

func TestVerifyChainFinds(t *testing.T) {
	cases := map[string]struct {
		change func([]*pb.Evidence) []*pb.Evidence
		say    string
	}{
		"a missing entry":  {func(e []*pb.Evidence) []*pb.Evidence { return append(e[:1], e[2:]...) }, "followed by"},
		"swapped entries":  {func(e []*pb.Evidence) []*pb.Evidence { e[1], e[2] = e[2], e[1]; return e }, "followed by"},
		"a repeated entry": {func(e []*pb.Evidence) []*pb.Evidence { return append(e, e[3]) }, "followed by"},
		"a changed entry":  {func(e []*pb.Evidence) []*pb.Evidence { e[1].Reason = "flood"; return e }, "entry 2 was changed"},
		"a rehashed entry": {func(e []*pb.Evidence) []*pb.Evidence {
			e[1].Reason = "flood"
			e[1].Hash = evidence.ChainHash(e[1].GetPreviousHash(), e[1])
			return e
		}, "entry 3 does not follow"},
		"another beginning": {func(e []*pb.Evidence) []*pb.Evidence {
			e[0].PreviousHash = []byte("x")
			e[0].Hash = evidence.ChainHash(e[0].GetPreviousHash(), e[0])
			return e
		}, "entry 1 does not follow"},
		"no number": {func(e []*pb.Evidence) []*pb.Evidence { e[0].Sequence = 0; return e }, "no sequence"},
		"a field from the future": {func(e []*pb.Evidence) []*pb.Evidence {
			e[3].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
			return e
		}, "does not cover"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			entries := chain(4)
			_, err := evidence.VerifyChain(c.change(entries))
			if err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, want %q", err, c.say)
			}
		})
	}
}
