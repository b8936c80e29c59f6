package readiness_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/readiness"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// obstacles joins what the plan lacks, after every replica was given a consistent point.
func obstacles(w *fixture.World) string {
	for o := range w.State.Objects() {
		if o.GetKind() == pb.Kind_KIND_VOLUME && w.View.Current(o) != nil && !w.Stuck[o.GetId()] {
			w.Report(o.GetId(), func(s *pb.Status) {
				s.Details = &pb.Status_Volume{Volume: &pb.VolumeStatus{Point: &pb.ConsistentPoint{Layer: "1"}}}
			})
		}
	}
	_, _, proof := readiness.Guarantee(w.State, w.View)
	r := readiness.Plan(w.State, w.View, w.State.Plan("webshop"), proof)
	var out []string
	for _, o := range r.GetObstacles() {
		out = append(out, o.GetObject()+" "+o.GetWhat())
	}
	if r.GetReady() != (len(out) == 0) {
		out = append(out, "ready and not")
	}
	return strings.Join(out, "; ")
}

func TestReadiness(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *fixture.World)
		want   string
	}{
		"ready": {func(*fixture.World) {}, ""},
		"no consistent point": {func(w *fixture.World) {
			w.Stuck["volume/webshop-db-root"] = true
			w.Report("volume/webshop-db-root", nil)
		}, "volume/webshop-db-root has no consistent point yet"},
		"nobody connected": {func(w *fixture.World) {
			a := w.View.Agent("gateway1")
			a.Connected = false
			w.View = w.View.WithAgent(a)
		}, "fence/east-bmc agent gateway1 is not connected"},
		"not settled": {func(w *fixture.World) {
			w.Report("fence/east-bmc", func(s *pb.Status) { s.Phase, s.Message = pb.Phase_PHASE_FAILED, "no route to the BMC" })
		}, "no route to the BMC"},
		"runs here": {func(w *fixture.World) {
			w.Declare("webshop")
			w.Quiesce()
		}, "failover/fo-1 is completed"},
		"does not fit": {func(w *fixture.World) {
			for _, h := range fixture.Hosts() {
				w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: h, Action: "cordon"}}})
			}
		}, "plan/webshop does not fit"},
	} {
		t.Run(name, func(t *testing.T) {
			w := fixture.New(t)
			c.change(w)
			if got := obstacles(w); !strings.Contains(got, c.want) || c.want == "" && got != "" {
				t.Errorf("obstacles %q, want %q", got, c.want)
			}
		})
	}
}

func TestGuarantee(t *testing.T) {
	w := fixture.New(t)
	want := func(word string) {
		t.Helper()
		if got, reason, _ := readiness.Guarantee(w.State, w.View); got != word || (reason == "") != (got == "Proven(1)") {
			t.Errorf("%s %q, want %s", got, reason, word)
		}
	}
	cordon := func(host string) {
		w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: host, Action: "cordon"}}})
	}
	want("Proven(1)")
	cordon("h1")
	want("Degraded(0)")
	cordon("h2")
	want("GuaranteeLost")
}

// A disk that turns out slower than it was puts a host at risk: everybody sees it, nothing more is lent there, and
// nothing is preempted.
func TestAtRisk(t *testing.T) {
	w := fixture.New(t)
	w.Quiesce()
	name := w.Lease(1, 2, 40<<30)
	w.Quiesce()
	host := w.State.Lease(name).GetInstances()[0].GetHost()
	if risks := readiness.Risks(w.State, w.View); len(risks) > 0 {
		t.Fatalf("at risk from the start: %v", risks)
	}
	for _, h := range fixture.Hosts() {
		a := w.View.Agent(h)
		a.Capacity = proto.CloneOf(a.Capacity)
		a.Capacity.SaveBytesPerSecond = 256 << 20 // 160 s for 40 GiB, after 10 s of grace.
		w.View = w.View.WithAgent(a)
	}
	w.Quiesce()
	risks := readiness.Risks(w.State, w.View)
	if len(risks) != 1 || !strings.Contains(risks[host], "2m50s") || !strings.Contains(risks[host], "leave 1m0s") {
		t.Errorf("at risk is %v, want only %s", risks, host)
	}
	if all := strings.Join(readiness.Alarms(w.State, w.View), "; "); !strings.Contains(all, "host "+host+" is at risk") {
		t.Errorf("alarms: %q", all)
	}
	if l := w.State.Lease(name); l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ACTIVE {
		t.Errorf("the lease is %v", l.GetPhase())
	}
	if word, why, _ := readiness.Guarantee(w.State, w.View); word != "Proven(1)" {
		t.Errorf("the site is %s: %s", word, why)
	}
	if next := w.State.Lease(w.Lease(1, 2, 2<<30)).GetInstances()[0].GetHost(); next == host {
		t.Error("more is lent on the host at risk")
	}
}

func TestAlarms(t *testing.T) {
	w := fixture.New(t)
	if a := readiness.Alarms(w.State, w.View); len(a) > 0 {
		t.Errorf("%q", a)
	}
	a := w.View.Agent("h1")
	a.Held, a.Connected = "knows a higher order", false
	w.View = w.View.WithAgent(a)
	w.Report("endpoint/www.shop.example.A", func(s *pb.Status) {
		s.Details = &pb.Status_Endpoint{Endpoint: &pb.EndpointStatus{Conflict: true, Observed: &pb.EndpointValue{Values: []string{"192.0.2.9"}}}}
	})
	all := strings.Join(readiness.Alarms(w.State, w.View), "; ")
	for _, want := range []string{"h1 gets no orders", "h1 is silent", "192.0.2.9"} {
		if !strings.Contains(all, want) {
			t.Errorf("alarms %q do not say %q", all, want)
		}
	}
}
