package sdn

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func value(ttl time.Duration, values ...string) *pb.EndpointValue {
	return &pb.EndpointValue{Values: values, Ttl: durationpb.New(ttl)}
}

func TestJudge(t *testing.T) {
	ours, before := value(time.Second, "a", "b"), value(time.Minute, "x")
	for name, c := range map[string]struct {
		has, replaceable *pb.EndpointValue
		want             Verdict
	}{
		"ours":                       {ours, before, VerdictDone},
		"ours in another order":      {value(time.Second, "b", "a"), before, VerdictDone},
		"ours with another ttl":      {value(time.Hour, "a", "b"), before, VerdictChange},
		"the pre-image":              {value(time.Minute, "x"), before, VerdictChange},
		"pre-image with another ttl": {value(time.Hour, "x"), before, VerdictChange},
		"somebody else's":            {value(time.Minute, "y"), before, VerdictConflict},
		"part of ours":               {value(time.Second, "a"), before, VerdictConflict},
		"more than the pre-image":    {value(time.Minute, "x", "y"), before, VerdictConflict},
		"deleted by hand":            {&pb.EndpointValue{}, before, VerdictConflict},
		"did not exist before":       {&pb.EndpointValue{}, &pb.EndpointValue{}, VerdictChange},
		"exists, should not have":    {before, &pb.EndpointValue{}, VerdictConflict},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Judge(c.has, ours, c.replaceable); got != c.want {
				t.Errorf("verdict %d, want %d", got, c.want)
			}
		})
	}
	if got := Judge(nil, &pb.EndpointValue{Ttl: durationpb.New(time.Hour)}, ours); got != VerdictDone {
		t.Errorf("absent and to be absent: verdict %d, want done whatever the TTL", got)
	}
}
