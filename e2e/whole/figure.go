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
// opening of a step's last gate to the beginning of its driver call, and from the call's return to
// the moment at which the step counts as done. The second value is the whole failover.
func OurPart(f *pb.Failover) (own, whole time.Duration) {
	for _, id := range render.CriticalPath(f) {
		i := slices.IndexFunc(f.GetSteps(), func(st *pb.Step) bool { return st.GetId() == id })
		st := f.GetSteps()[i]
		if st.GetCallBegan() == nil || st.GetCallReturned() == nil {
			continue
		}
		own += max(0, st.GetCallBegan().AsTime().Sub(st.GetReleasedAt().AsTime()))
		own += max(0, st.GetDoneAt().AsTime().Sub(st.GetCallReturned().AsTime()))
	}
	return own, f.GetCompletedAt().AsTime().Sub(f.GetDeclaredAt().AsTime())
}
