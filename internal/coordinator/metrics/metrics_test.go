package metrics_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/metrics"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// site shows a fixture as a follower does: from the replicated state alone.
type site struct{ w *fixture.World }

func (s site) State() *state.State { return s.w.State }
func (s site) Live() live.View     { return s.w.View }
func (site) Leads() bool           { return false }

// What waits is counted by project, one that waits for its time too; a project that nothing waits for is zero.
func TestQueuedByProject(t *testing.T) {
	w := fixture.New(t)
	w.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: []*pb.Resource{
		{Resource: &pb.Resource_Project{Project: &pb.Project{Metadata: &pb.Metadata{Name: "data"}, Spec: &pb.ProjectSpec{Network: "lent"}}}},
	}}}})
	body, expects, err := lease.Create(w.State, w.View, w.Now, &pb.CreateLeaseRequest{
		Project: "web", StartAt: timestamppb.New(w.Now.Add(time.Hour)), Spec: &pb.LeaseSpec{
			Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30}, Image: "debian-12", Term: durationpb.New(time.Hour),
		},
	}, "carol")
	if err != nil {
		t.Fatal(err)
	}
	w.Must("carol", &pb.Command{Expects: expects, Body: &pb.Command_CreateLease{CreateLease: body}})
	r := httptest.NewRecorder()
	metrics.New(site{w}).Handler().ServeHTTP(r, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	for _, want := range []string{`hotspare_leases_queued{project="web"} 1`, `hotspare_leases_queued{project="data"} 0`, `hotspare_leases{phase="queued"} 1`} {
		if !strings.Contains(r.Body.String(), want) {
			t.Errorf("%q is missing in\n%s", want, r.Body)
		}
	}
}
