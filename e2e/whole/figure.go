package whole

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/render"
)

// tellOurPart says how much of the time to recover was hotspare's own.
func (s *Story) tellOurPart(ctx context.Context) error {
	out, err := s.Site.Run(ctx, "failover", "describe", "webshop", "-o", "json")
	if err != nil {
		return err
	}
	var f pb.Failover
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(out), &f); err != nil {
		return fmt.Errorf("read the failover: %w", err)
	}
	own, whole := OurPart(&f)
	s.Say("of these %.1f s hotspare itself took %d ms (%.1f %%): gate open to driver call, driver call to next gate",
		whole.Seconds(), own.Milliseconds(), 100*own.Seconds()/whole.Seconds())
	return nil
}

// OurPart sums along the critical path what is neither a driver's call nor a guest's boot: from the
// opening of a step's last gate to the beginning of its driver call, and from the call's return to the
// opening of the next step's gate, or to the end of the run. The second value is the whole failover.
func OurPart(f *pb.Failover) (own, whole time.Duration) {
	var path []*pb.Step
	for _, id := range render.CriticalPath(f) {
		i := slices.IndexFunc(f.GetSteps(), func(st *pb.Step) bool { return st.GetId() == id })
		path = append(path, f.GetSteps()[i])
	}
	for i, st := range path {
		began, returned := calls(st)
		opened := st.GetReleasedAt().AsTime()
		if i > 0 {
			if _, last := calls(path[i-1]); heldBy(st, path[i-1]) {
				opened = last
			}
		}
		own += max(0, began.Sub(opened))
		switch {
		case i == len(path)-1:
			own += between(returned, st, f.GetCompletedAt().AsTime())
		case !heldBy(path[i+1], st): // else the agent went on by itself
			own += between(returned, st, path[i+1].GetReleasedAt().AsTime())
		}
	}
	return own, f.GetCompletedAt().AsTime().Sub(f.GetDeclaredAt().AsTime())
}

// calls is when a step's driver call began and returned. A step that found everything done made none:
// then all of its time is ours.
func calls(st *pb.Step) (began, returned time.Time) {
	if st.GetCallBegan() == nil || st.GetCallReturned() == nil {
		return st.GetDoneAt().AsTime(), st.GetDoneAt().AsTime()
	}
	return st.GetCallBegan().AsTime(), st.GetCallReturned().AsTime()
}

// heldBy says whether a step, released already, waited on its host for another one: the gate that opened
// last is then the agent's own, and opens when the other's call returns.
func heldBy(st, by *pb.Step) bool {
	_, returned := calls(by)
	return slices.Contains(st.GetAfter(), by.GetId()) && returned.After(st.GetReleasedAt().AsTime())
}

// between is the time from a call's return to what it opened, without the boot of its guest.
func between(returned time.Time, st *pb.Step, opened time.Time) time.Duration {
	took := opened.Sub(returned)
	if st.GetHealthyAt() != nil {
		took -= st.GetHealthyAt().AsTime().Sub(st.GetDoneAt().AsTime())
	}
	return max(0, took)
}
