package sdn

import (
	"slices"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Verdict says what a conditional change of an endpoint has to do.
type Verdict int

// The verdicts. The zero value is none.
const (
	// VerdictDone: the endpoint is what it should be.
	VerdictDone Verdict = iota + 1
	// VerdictChange: the endpoint is ours to change, on the condition that it still has the values seen.
	VerdictChange
	// VerdictConflict: somebody else's values stand there.
	VerdictConflict
)

// Judge compares what an endpoint has with what it should have and with the only other value that
// may be replaced. The values decide whose an endpoint is; the TTL is set together with them, because
// a conditional DNS update cannot compare it. Values must be in one canonical form; their order does
// not matter, and no values at all means that the endpoint does not exist.
func Judge(has, want, replaceable *pb.EndpointValue) Verdict {
	switch {
	case SameValues(has, want):
		if len(want.GetValues()) == 0 || ttl(has) == ttl(want) {
			return VerdictDone
		}
		return VerdictChange
	case SameValues(has, replaceable):
		return VerdictChange
	default:
		return VerdictConflict
	}
}

// SameValues reports whether both have the same set of values, whatever their TTL.
func SameValues(a, b *pb.EndpointValue) bool {
	return slices.Equal(sorted(a), sorted(b))
}

func sorted(v *pb.EndpointValue) []string {
	s := slices.Clone(v.GetValues())
	slices.Sort(s)
	return slices.Compact(s)
}

func ttl(v *pb.EndpointValue) time.Duration { return v.GetTtl().AsDuration() }
