package demand_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// Handlers read older versions of the state while the newest one is applied: whoever reads which version after which, the
// site is the one that is read without a memo.
func TestMemoOfManyVersions(t *testing.T) {
	w := fixture.New(t)
	versions := []*state.State{w.State}
	note := func() { versions = append(versions, w.State) }
	plan := w.State.Plan("webshop")
	names := []string{w.Lease(1, 2, 4<<30), w.Lease(2, 1, 1<<30)}
	note()
	w.Quiesce()
	note()
	run := w.Declare("webshop").GetName()
	w.Quiesce()
	note()
	if err := w.Failback(run); err != nil {
		t.Fatal(err)
	}
	w.Quiesce() // What its starts took is known now.
	note()
	site, _ := demand.Base(w.State, nil)
	for _, v := range site.Workloads {
		if target := plan.GetSpec().GetRtoTarget().AsDuration(); v.Plan == "webshop" && v.Budget != target {
			t.Errorf("%s, which served at once, has the budget %v of %v", v.Name, v.Budget, target)
		}
	}
	plan.Spec.Workloads[0].Resources.Devices = map[string]uint32{"gpu": 1} // One dimension more.
	apply(w, &pb.Resource{Resource: &pb.Resource_Plan{Plan: plan}})
	note()
	w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "h2", Action: "cordon"}}})
	note()
	w.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: lease.End(w.State.Lease(names[0]), "released", w.Now)}})
	note()
	w.Declare("webshop")
	w.Quiesce()
	note()
	w.Wait(lease.Retention + time.Hour) // The ended one is forgotten.
	note()
	var readers sync.WaitGroup
	for reader := range uint64(4) {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(reader, 1))
			for range 60 {
				s := versions[r.IntN(len(versions))]
				var silent []string
				if r.IntN(3) == 0 {
					silent = []string{"h1"}
				}
				got, want := demand.Site(s, silent), demand.Site(demand.Anew(s), silent)
				if !cmp.Equal(got, want) {
					t.Errorf("version %d with %v silent: %s", s.Index(), silent, cmp.Diff(want, got))
					return
				}
				_, sum := demand.Base(s, silent)
				if _, same := demand.Base(demand.Anew(s), silent); !cmp.Equal(sum, same) {
					t.Errorf("version %d with %v silent: the fingerprints differ", s.Index(), silent)
				}
			}
		})
	}
	readers.Wait()
}
