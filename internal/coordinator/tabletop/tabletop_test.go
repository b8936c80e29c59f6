package tabletop_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/tabletop"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// ask asks, and makes sure that nothing was changed.
func ask(t *testing.T, w *fixture.World, req *pb.TabletopRequest) (*pb.TabletopResponse, error) {
	t.Helper()
	before := fixture.Bytes(t, w.State)
	out, err := tabletop.Answer(w.State, w.View, w.Now, req, "user/operator/ann")
	if !bytes.Equal(before, fixture.Bytes(t, w.State)) {
		t.Error("a tabletop changed the state")
	}
	return out, err
}

func TestRefusals(t *testing.T) {
	w := fixture.New(t)
	for name, c := range map[string]struct {
		req  *pb.TabletopRequest
		want model.Fault
		says string
	}{
		"no such host":     {&pb.TabletopRequest{LoseHosts: []string{"h9"}}, model.FaultNotFound, "h1"},
		"a gateway":        {&pb.TabletopRequest{LoseHosts: []string{"gateway1"}}, model.FaultNotFound, "known: h1, h2, h3"},
		"no such domain":   {&pb.TabletopRequest{LoseFailureDomains: []string{"rack9"}}, model.FaultNotFound, "failure domain"},
		"an empty domain":  {&pb.TabletopRequest{LoseFailureDomains: []string{""}}, model.FaultNotFound, "failure domain"},
		"no such plan":     {&pb.TabletopRequest{Plans: []string{"x"}}, model.FaultNotFound, "no such plan"},
		"a plan and a not": {&pb.TabletopRequest{Plans: []string{"webshop", "x"}}, model.FaultNotFound, "no such plan"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ask(t, w, c.req); model.FaultOf(err) != c.want || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A tabletop says what a declaration then does.
func TestItSaysWhatHappens(t *testing.T) {
	w := fixture.New(t)
	w.Lease(2, 16, 40<<30)
	w.Quiesce()
	said, err := ask(t, w, &pb.TabletopRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if said.GetNow().GetGuarantee() != "Proven(1)" || said.GetAfterLosses() != nil || said.GetAfterDeclare() == nil {
		t.Errorf("proofs %v, %v, %v", said.GetNow(), said.GetAfterLosses(), said.GetAfterDeclare())
	}
	done := w.Declare("webshop")
	if len(done.GetVictims()) != len(said.GetFailover().GetVictims()) || len(done.GetPlacements()) == 0 {
		t.Errorf("said %v, done %v", said.GetFailover(), done)
	}
	for i, p := range done.GetPlacements() {
		if q := said.GetFailover().GetPlacements()[i]; q.GetHost() != p.GetHost() || q.GetWorkload() != p.GetWorkload() {
			t.Errorf("said %v, done %v", q, p)
		}
	}
	w.Quiesce()
	again, err := ask(t, w, &pb.TabletopRequest{})
	if err != nil || again.GetFailover() != nil {
		t.Errorf("everything runs already: %v, %v", again, err)
	}
}

func TestLosses(t *testing.T) {
	w := fixture.New(t)
	name := w.Lease(1, 2, 4<<30)
	w.Quiesce()
	host := w.State.Lease(name).GetInstances()[0].GetHost()
	said, err := ask(t, w, &pb.TabletopRequest{LoseHosts: []string{host, host}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(said.GetLostHosts(), []string{host}) || !slices.Equal(said.GetLostLeases(), []string{name}) || said.GetAfterLosses().GetGuarantee() == "" {
		t.Errorf("lost %v, %v, then %v", said.GetLostHosts(), said.GetLostLeases(), said.GetAfterLosses())
	}
	for _, p := range said.GetFailover().GetPlacements() {
		if p.GetHost() == host {
			t.Errorf("%s is placed on a host that is lost", p.GetWorkload())
		}
	}
	said, err = ask(t, w, &pb.TabletopRequest{LoseHosts: fixture.Hosts()})
	if err != nil {
		t.Fatal(err)
	}
	if said.GetAfterLosses().GetGuarantee() != "GuaranteeLost" || len(said.GetFailover().GetPlacements()) > 0 || len(said.GetFailover().GetUnplaced()) == 0 {
		t.Errorf("without any host: %v, %v", said.GetAfterLosses(), said.GetFailover())
	}
	if said, err = ask(t, w, &pb.TabletopRequest{LoseHosts: []string{host}, LoseOnly: true}); err != nil || said.GetFailover() != nil || said.GetAfterDeclare() != nil {
		t.Errorf("declared all the same: %v, %v", said, err)
	}
	f := w.Declare("webshop").GetName()
	w.Quiesce()
	on := w.State.Failover(f).GetPlacements()[0].GetHost()
	said, err = ask(t, w, &pb.TabletopRequest{LoseHosts: []string{on}})
	if err != nil || len(said.GetOpen()) != 1 || said.GetOpen()[0].GetName() != f || said.GetFailover() != nil {
		t.Fatalf("an open run loses a host: %v, %v", said, err)
	}
	for _, p := range said.GetOpen()[0].GetPlacements() {
		if p.GetHost() == on {
			t.Errorf("%s stays on a host that is lost", p.GetWorkload())
		}
	}
}

func TestReclaim(t *testing.T) {
	w := fixture.New(t)
	w.Lease(3, 2, 60<<30)
	w.Quiesce()
	said, err := ask(t, w, &pb.TabletopRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(said.GetReclaim()) == 0 || len(said.GetFailover().GetVictims()) == 0 {
		t.Fatalf("nobody is in the way: %v", said.GetFailover())
	}
	for _, r := range said.GetReclaim() {
		if r.GetBound() != nil || r.GetSaveBytes() != 60<<30 || len(r.GetLeases()) != 1 {
			t.Errorf("a save at an unknown rate: %v", r)
		}
	}
}
