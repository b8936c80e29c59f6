package whole

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// at is a time in milliseconds after the declaration.
func at(ms int) *timestamppb.Timestamp { return timestamppb.New(time.UnixMilli(1_000_000 + int64(ms))) }

// step is a step that is done; the times are its release, the two ends of its call, and its end.
func step(id, opener string, released, began, returned, done int) *pb.Step {
	return &pb.Step{
		Id: id, OpenedBy: opener, Phase: pb.StepPhase_STEP_PHASE_DONE,
		ReleasedAt: at(released), CallBegan: at(began), CallReturned: at(returned), DoneAt: at(done),
	}
}

// run is a failover with the steps of the demo: a fence, a promotion, a start that also waits for a save on its host until its
// guest is healthy, and a name behind it.
func run(save, promote *pb.Step) *pb.Failover {
	start := step("start", "promote", 1010, max(1013, int(save.GetCallReturned().AsTime().Sub(at(0).AsTime()).Milliseconds())+2), 2400, 2403)
	start.After = []string{"save"}
	start.Spec = &pb.Spec{Parameters: &pb.Spec_Instance{Instance: &pb.InstanceSpec{Health: &pb.Health{}}}}
	start.HealthyAt = at(5000)
	return &pb.Failover{
		DeclaredAt: at(0), CompletedAt: at(5012),
		Steps: []*pb.Step{save, step("fence", "", 0, 4, 990, 993), promote, start, step("announce", "start", 5001, 5003, 5008, 5012)},
	}
}

func TestOurPart(t *testing.T) {
	promote := func() *pb.Step { return step("promote", "fence", 993, 997, 1005, 1010) }
	instant := promote()
	instant.CallBegan, instant.CallReturned = nil, nil
	for name, c := range map[string]struct {
		f    *pb.Failover
		want time.Duration
	}{
		// fence 4+3, promote 4+5, start 3 and 3+1 around the boot, announce 2+4.
		"the coordinator opens every gate": {run(step("save", "", 0, 5, 900, 902), promote()), 29 * time.Millisecond},
		// save 5, then the agent goes on by itself after 2; start 3+1, announce 2+4. The start was released long before.
		"the agent opens the last gate": {run(step("save", "", 0, 5, 2000, 2090), promote()), 17 * time.Millisecond},
		// A step that made no call is ours as a whole.
		"nothing to promote": {run(step("save", "", 0, 5, 900, 902), instant), 37 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			own, whole := OurPart(c.f)
			if own != c.want || whole != 5012*time.Millisecond {
				t.Errorf("ours are %v of %v, want %v of 5.012s", own, whole, c.want)
			}
		})
	}
}
