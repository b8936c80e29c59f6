package standing_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/lease"
	"github.com/hotspare/hotspare/internal/coordinator/live"
	"github.com/hotspare/hotspare/internal/coordinator/standing"
	"github.com/hotspare/hotspare/internal/coordinator/state"
	"github.com/hotspare/hotspare/internal/coordinator/state/witness"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/simulation/fixture"
)

// silence takes the agent of a host away from what the leader sees, or gives it back.
func silence(w *fixture.World, host string, silent bool) {
	a := w.View.Agent(host)
	a.Connected = !silent
	w.View = w.View.WithAgent(a)
}

func last(w *fixture.World) (e *pb.Evidence) {
	for e = range w.State.Evidence(0) {
	}
	return e
}

// The guarantee is kept with its certificate, goes down with the hosts, says so in the log of evidence, and heals.
func TestItIsKept(t *testing.T) {
	w := fixture.New(t)
	g := w.State.Guarantee()
	if g.GetWord() != "Proven(1)" || g.GetCertificate() == nil || g.GetSince() == nil || len(new(standing.Keeper).Advance(w.State, w.View)) > 0 {
		t.Fatalf("kept %v", g)
	}
	since := g.GetSince().AsTime()
	w.Lease(1, 2, 4<<30)
	w.Quiesce()
	if w.State.Guarantee() != g {
		t.Error("a preemptible lease changed the proof")
	}
	w.Wait(60e9)
	for _, c := range []struct {
		host   string
		silent bool
		word   string
	}{{"h1", true, "Degraded(0)"}, {"h2", true, "GuaranteeLost"}, {"h2", false, "Degraded(0)"}, {"h1", false, "Proven(1)"}} {
		silence(w, c.host, c.silent)
		w.Controllers()
		g := w.State.Guarantee()
		if g.GetWord() != c.word || (g.GetReason() == "") != (c.word == "Proven(1)") || !g.GetSince().AsTime().After(since) {
			t.Fatalf("%s silent %v: %s since %v: %s", c.host, c.silent, g.GetWord(), g.GetSince().AsTime(), g.GetReason())
		}
		if e := last(w); e.GetAction() != "guarantee" || !strings.HasPrefix(e.GetReason(), c.word) {
			t.Errorf("evidence %v", e)
		}
	}
	f := w.Declare("webshop")
	w.Quiesce()
	if g := w.State.Guarantee(); len(new(standing.Keeper).Advance(w.State, w.View)) > 0 || g.GetWord() != "Proven(1)" {
		t.Errorf("with %s open: %v", f.GetName(), g)
	}
	w.CheckReplay()
}

// Whoever leads, a certificate that does not hold for the state is refused by every member.
func TestForgeries(t *testing.T) {
	w := fixture.New(t)
	silence(w, "h3", true)
	good := new(standing.Keeper).Advance(w.State, w.View)[0]
	for name, forge := range map[string]func(g *pb.Guarantee){
		"a better word": func(g *pb.Guarantee) { g.Word = "Proven(1)" },
		"more losses": func(g *pb.Guarantee) {
			g.Proven, g.Word, g.Answer = 1, "Proven(1)", pb.GuaranteeAnswer_GUARANTEE_ANSWER_FITS
		},
		"fewer asked": func(g *pb.Guarantee) {
			g.Asked, g.Word, g.Answer = 0, "Proven(0)", pb.GuaranteeAnswer_GUARANTEE_ANSWER_FITS
		},
		"nonsense":             func(g *pb.Guarantee) { g.Proven = -7 },
		"no certificate":       func(g *pb.Guarantee) { g.Certificate = nil },
		"a scenario less":      func(g *pb.Guarantee) { g.Certificate.Scenarios = nil },
		"a plan less":          func(g *pb.Guarantee) { g.Certificate.Scenarios[0].AllPlans = false },
		"all on one host":      func(g *pb.Guarantee) { clear(g.Certificate.Witness) },
		"a host that is not":   func(g *pb.Guarantee) { g.Certificate.Witness[0] = 99 },
		"nowhere":              func(g *pb.Guarantee) { g.Certificate.Witness[0] = -1 },
		"a workload less":      func(g *pb.Guarantee) { g.Certificate.Witness = g.Certificate.Witness[1:] },
		"no obligations":       func(g *pb.Guarantee) { clear(g.Certificate.Obligations) },
		"too few obligations":  func(g *pb.Guarantee) { g.Certificate.Obligations = g.Certificate.Obligations[1:] },
		"too few budgets":      func(g *pb.Guarantee) { g.Certificate.Budgets = g.Certificate.Budgets[1:] },
		"half a move":          func(g *pb.Guarantee) { g.Certificate.Patterns = []*pb.CertificatePattern{{Unit: 1, Moves: []int32{1}}} },
		"a pattern of nothing": func(g *pb.Guarantee) { g.Certificate.Patterns = []*pb.CertificatePattern{{}} },
		"a pattern out of bounds": func(g *pb.Guarantee) {
			g.Certificate.Patterns = []*pb.CertificatePattern{{Unit: 1, Spares: []*pb.Spares{{Hosts: []int32{99}}}, Moves: []int32{-5, 77}}}
		},
		"an unknown host": func(g *pb.Guarantee) { g.SilentHosts = append(g.SilentHosts, "h9") },
	} {
		t.Run(name, func(t *testing.T) {
			c := proto.CloneOf(good)
			forge(c.GetRecordGuarantee().GetGuarantee())
			_, res := w.State.Apply(w.State.Index()+1, 1, c)
			if model.FaultOf(res.Err) != model.FaultInvalid {
				t.Errorf("%v", res.Err)
			}
		})
	}
	if res := w.Do("controllers", good); res.Err != nil {
		t.Errorf("the true one: %v", res.Err)
	}
}

// A snapshot carries the guarantee, and one whose guarantee does not hold is refused. One of an older version has none.
func TestSnapshots(t *testing.T) {
	w := fixture.New(t)
	again, err := state.ReadSnapshot(bytes.NewReader(fixture.Bytes(t, w.State)))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(again.Guarantee(), w.State.Guarantee()) {
		t.Errorf("kept %v, read %v", w.State.Guarantee(), again.Guarantee())
	}
	g := w.State.Guarantee()
	was := g.Certificate.Witness[0]
	g.Certificate.Witness[0] = -1 // As a bug of an earlier version might have kept it.
	text := fixture.Bytes(t, w.State)
	g.Certificate.Witness[0] = was
	if _, err := state.ReadSnapshot(bytes.NewReader(text)); err == nil || !strings.Contains(err.Error(), "does not hold") {
		t.Errorf("a wrong guarantee was read: %v", err)
	}
	empty := fixture.Empty(t)
	if empty.State.Guarantee() != nil {
		t.Error("a new site claims something")
	}
	if c := new(standing.Keeper).Advance(empty.State, empty.View); len(c) != 1 || c[0].GetRecordGuarantee().GetGuarantee().GetWord() == "" {
		t.Errorf("a new site: %v", c)
	}
}

// A snapshot of a state that has gone on since its guarantee: nobody can check it when it is read, and nobody uses it
// unchecked when the state comes back.
func TestSnapshotThatHasGoneOn(t *testing.T) {
	for name, wrong := range map[string]bool{"a true guarantee": false, "a wrong one": true} {
		w := fixture.New(t)
		turn := func(action string) {
			w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "h2", Action: action}}})
		}
		turn("cordon")
		if wrong {
			w.State.Guarantee().Certificate.Witness[0] = -1
		}
		again, err := state.ReadSnapshot(bytes.NewReader(fixture.Bytes(t, w.State)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w.State = again
		turn("uncordon")
		if proves := len(new(standing.Keeper).Advance(w.State, w.View)) > 0; proves != wrong {
			t.Errorf("%s: proven anew: %v", name, proves)
		}
		site, d := standing.Site(w.State, w.View)
		if err := witness.Verify(site, witness.Encode(d)); err != nil {
			t.Errorf("%s: what is used does not hold: %v", name, err)
		}
	}
}

// Leases that come between a proof and its entry do not keep it from being kept; what changes the site does.
func TestLeasesDoNotOvertake(t *testing.T) {
	w := fixture.New(t)
	silence(w, "h1", true)
	c := new(standing.Keeper).Advance(w.State, w.View)[0]
	w.Lease(1, 1, 1<<30)
	if err := w.Do("controllers", c).Err; err != nil || w.State.Guarantee().GetWord() != "Degraded(0)" {
		t.Errorf("%s, %v", w.State.Guarantee().GetWord(), err)
	}
	silence(w, "h1", false)
	c = new(standing.Keeper).Advance(w.State, w.View)[0]
	w.Must("ann", &pb.Command{Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: "h2", Action: "cordon"}}})
	if err := w.Do("controllers", c).Err; model.FaultOf(err) != model.FaultStale {
		t.Errorf("the site has changed: %v", err)
	}
}

// seats says where the witness has the workloads.
func seats(w *fixture.World) map[string]string {
	out := map[string]string{}
	site, d := standing.Site(w.State, w.View)
	for i, at := range d.Certificate.Witness {
		out[site.Workloads[i].Name] = site.Hosts[at].Name
	}
	return out
}

// When it is quiet, the witness leaves a host on which leases would have to go for one on which none would.
func TestLeasesAreSpared(t *testing.T) {
	w := fixture.New(t)
	for _, host := range []string{"h4", "h5"} {
		w.Join(host, &pb.AgentOffer{Hypervisor: true})
	}
	w.Quiesce()
	project := proto.CloneOf(w.State.Resource("project/web").GetProject())
	project.Spec.Quota.MemoryBytes = 512 << 30
	w.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: []*pb.Resource{{Resource: &pb.Resource_Project{Project: project}}}}}})
	full := map[string]string{}
	for range 5 { // Nothing that is protected has room beside one.
		name := w.Lease(1, 2, 59<<30)
		full[w.State.Lease(name).GetInstances()[0].GetHost()] = name
	}
	w.Quiesce()
	var kept standing.Keeper
	kept.Advance(w.State, w.View)
	w.Wait(time.Hour) // What they do unsaved has a price.
	if c := kept.Improve(w.State, w.View); len(c) > 0 {
		t.Fatalf("leases are everywhere, and it changes: %v", c)
	}
	used := map[string]bool{}
	for _, host := range seats(w) {
		used[host] = true
	}
	for host, name := range full {
		if !used[host] {
			w.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: lease.End(w.State.Lease(name), "released", w.Now)}})
		}
	}
	w.Quiesce()
	commands := kept.Improve(w.State, w.View)
	if len(commands) != 1 || commands[0].GetRecordGuarantee().GetChange() == nil {
		t.Fatalf("%v with leases %v, seats %v", commands, full, seats(w))
	}
	from := seats(w)["webshop/db"]
	w.Must("controllers", commands[0])
	for name, host := range seats(w) {
		if host == from {
			t.Errorf("%s stays on %s", name, host)
		}
	}
	if w.State.Guarantee().GetWord() != "Proven(1)" || len(kept.Improve(w.State, w.View)) > 0 {
		t.Errorf("%s, and it is not at rest", w.State.Guarantee().GetWord())
	}
	spared := seats(w)
	apply(w, smallPlan()) // Before it is seen that the better one is kept.
	for _, c := range kept.Advance(w.State, w.View) {
		w.Must("controllers", c)
	}
	for name, host := range spared {
		if seats(w)[name] != host {
			t.Errorf("%s goes back from %s to %s", name, host, seats(w)[name])
		}
	}
	if f := w.Declare("webshop"); len(f.GetVictims()) > 0 {
		t.Errorf("for %v went %v", f.GetPlacements(), f.GetVictims())
	}
}

// A firm lease on a host that is silent is in nobody's way now, and would be when the host is back: it may not be brought
// back. To take the silent host away is no worse for it.
func TestLookBeyondSilence(t *testing.T) {
	w := fixture.New(t)
	body, expects, err := lease.Create(w.State, w.View, w.Now, &pb.CreateLeaseRequest{
		Project: "web", Class: pb.LeaseClass_LEASE_CLASS_FIRM,
		Spec: &pb.LeaseSpec{Image: "debian-12", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 26 << 30}},
	}, "carol")
	if err != nil {
		t.Fatal(err)
	}
	name := w.Must("carol", &pb.Command{Expects: expects, Body: &pb.Command_CreateLease{CreateLease: body}})
	w.Quiesce()
	host := w.State.Lease(name).GetInstances()[0].GetHost()
	w.Must("carol", &pb.Command{Body: &pb.Command_EndLease{EndLease: lease.End(w.State.Lease(name), "released", w.Now)}})
	plan := &pb.Plan{Metadata: &pb.Metadata{Name: "large"}, Spec: &pb.PlanSpec{
		Fencing: []*pb.Fencing{{Oath: &pb.OathFencing{}}},
		Workloads: []*pb.Workload{
			{Name: "a", Image: "debian-12", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 28 << 30}},
			{Name: "b", Image: "debian-12", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 28 << 30}},
		},
	}}
	apply(w, plan)
	w.Quiesce()
	if word := standing.Proof(w.State, w.View).Word(); word != "Proven(1)" {
		t.Fatal(word)
	}
	look := func(c *pb.Command) standing.Outlook {
		next, res := w.State.Apply(w.State.Index()+1, 1, c)
		if res.Err != nil {
			t.Fatal(res.Err)
		}
		return standing.Look(w.State, next, w.View)
	}
	undelete := &pb.Command{Time: timestamppb.New(w.Now), Level: state.SupportedLevel, Body: &pb.Command_UndeleteLease{UndeleteLease: &pb.UndeleteLeaseRequest{Name: name}}}
	cordon := &pb.Command{Time: timestamppb.New(w.Now), Level: state.SupportedLevel, Body: &pb.Command_UpdateHost{UpdateHost: &pb.UpdateHostRequest{Name: host, Action: "cordon"}}}
	if o := look(undelete); !o.Worse() || len(o.Once) > 0 {
		t.Errorf("with all hosts: %v", o)
	}
	if o := look(cordon); !o.Worse() || len(o.Once) > 0 {
		t.Errorf("with all hosts cordoned: %v", o)
	}
	silence(w, host, true)
	w.Controllers()
	if o := look(undelete); !o.Worse() || !slices.Equal(o.Once, []string{host}) || !strings.HasPrefix(o.String(), "Degraded(0): once "+host+" can be reached again, plan ") {
		t.Errorf("while %s is silent: %v", host, o)
	}
	if o := look(cordon); o.Worse() {
		t.Errorf("it is silent, and cannot be cordoned: %v", o)
	}
	w.View = w.View.WithAgent(live.Agent{Name: "ghost"}) // It was a host once.
	if o := look(undelete); !slices.Equal(o.Once, []string{host}) {
		t.Errorf("with one that is no host: %v", o)
	}
}

// What a forged change makes of the certificate is refused like a forged certificate.
func forgeChanges(t *testing.T, w *fixture.World, good *pb.Command) {
	t.Helper()
	for name, forge := range map[string]func(c *pb.CertificateChange, g *pb.Guarantee){
		"of another one":         func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Of++ },
		"beside a certificate":   func(_ *pb.CertificateChange, g *pb.Guarantee) { g.Certificate = w.State.Guarantee().GetCertificate() },
		"nothing has come":       func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Workloads = nil },
		"what never was is gone": func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Hosts.Gone = []int32{77} },
		"gone twice":             func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Hosts.Gone = []int32{0, 0} },
		"it has no seat":         func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Seats = nil },
		"half a seat":            func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Seats = c.Seats[1:] },
		"a seat of nobody":       func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Seats[0] = 99 },
		"a seat nowhere":         func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Seats[1] = -1 },
		"a host that is not":     func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Seats[1] = 99 },
		"no duty":                func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Duties = nil },
		"a duty of nobody":       func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Duties[0].Host = -1 },
		"half a duty":            func(c *pb.CertificateChange, _ *pb.Guarantee) { c.Duties[0].Obligation = c.Duties[0].Obligation[1:] },
		"a pattern that is not": func(c *pb.CertificateChange, _ *pb.Guarantee) {
			c.Patterns = append(c.Patterns, &pb.PatternChange{Pattern: 99})
		},
		"half a move": func(c *pb.CertificateChange, _ *pb.Guarantee) {
			c.Patterns = []*pb.PatternChange{{Moves: []int32{0}}}
		},
		"moved to nowhere": func(c *pb.CertificateChange, _ *pb.Guarantee) {
			c.Patterns = []*pb.PatternChange{{Moves: []int32{0, -7}}}
		},
	} {
		c := proto.CloneOf(good)
		forge(c.GetRecordGuarantee().GetChange(), c.GetRecordGuarantee().GetGuarantee())
		_, res := w.State.Apply(w.State.Index()+1, 1, c)
		if f := model.FaultOf(res.Err); f != model.FaultInvalid && f != model.FaultStale {
			t.Errorf("%s: %v", name, res.Err)
		}
	}
}

func apply(w *fixture.World, p *pb.Plan) {
	w.Must("ann", &pb.Command{Body: &pb.Command_ApplyResources{ApplyResources: &pb.ApplyResources{Resources: []*pb.Resource{{Resource: &pb.Resource_Plan{Plan: p}}}}}})
}

func smallPlan() *pb.Plan {
	return &pb.Plan{Metadata: &pb.Metadata{Name: "a-small-one"}, Spec: &pb.PlanSpec{
		Fencing:   []*pb.Fencing{{Oath: &pb.OathFencing{}}},
		Workloads: []*pb.Workload{{Name: "w", Image: "debian-12", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30}}},
	}}
}

// A proposal that comes to nothing, and one that comes late: what follows is made of what is kept, whatever that is.
func TestProposalsAreLost(t *testing.T) {
	w := fixture.New(t)
	kept := new(standing.Keeper)
	kept.Advance(w.State, w.View)
	apply(w, smallPlan())
	lost := kept.Advance(w.State, w.View)
	other := smallPlan()
	other.Metadata.Name = "b-small-one"
	apply(w, other)
	second := kept.Advance(w.State, w.View)
	if len(lost) != 1 || len(second) != 1 || lost[0].GetRecordGuarantee().GetChange() == nil || second[0].GetRecordGuarantee().GetChange() != nil {
		t.Fatalf("%v, then, of what was not kept, %v", lost, second)
	}
	w.Must("controllers", second[0])
	if err := w.Do("controllers", lost[0]).Err; model.FaultOf(err) != model.FaultStale {
		t.Errorf("the first one comes late: %v", err)
	}
	if n := len(seats(w)); n != len(seats(fixture.New(t)))+2 || w.State.Guarantee().GetWord() != "Proven(1)" {
		t.Errorf("%d seats, %s", n, w.State.Guarantee().GetWord())
	}
}

// A plan more or less, a host that falls silent and is back: the proof is repaired and stays where it was, by whoever
// keeps it in mind, and packed anew when it is quiet.
func TestItIsRepaired(t *testing.T) {
	w := fixture.New(t)
	kept := new(standing.Keeper)
	keep := func(commands []*pb.Command) (n int) {
		for _, c := range commands {
			w.Must("controllers", c)
			n++
		}
		return n
	}
	seats := func() map[string]string { return seats(w) }
	if keep(kept.Advance(w.State, w.View)) > 0 {
		t.Fatal("the site is not proven from the start")
	}
	before := seats()
	apply(w, smallPlan())
	changes := kept.Advance(w.State, w.View)
	if c := changes[0].GetRecordGuarantee(); c.GetChange() == nil || c.GetGuarantee().GetCertificate() != nil {
		t.Errorf("the entry carries all of it: %v", c)
	}
	forgeChanges(t, w, changes[0])
	if n := keep(changes); n != 1 || w.State.Guarantee().GetWord() != "Proven(1)" {
		t.Fatalf("%d entries, %v", n, w.State.Guarantee())
	}
	if err := w.Do("controllers", changes[0]).Err; model.FaultOf(err) != model.FaultStale {
		t.Errorf("the same change once more: %v", err)
	}
	after := seats()
	if len(after) != len(before)+1 {
		t.Errorf("%d workloads, then %d", len(before), len(after))
	}
	for name, host := range before {
		if after[name] != host {
			t.Errorf("%s goes from %s to %s for another one's sake", name, host, after[name])
		}
	}
	keep(kept.Advance(w.State, w.View))
	keep(kept.Improve(w.State, w.View))
	if n := keep(kept.Improve(w.State, w.View)) + keep(kept.Advance(w.State, w.View)); n != 0 || w.State.Guarantee().GetWord() != "Proven(1)" {
		t.Errorf("it is improved again and again: %d entries, %v", n, w.State.Guarantee().GetWord())
	}
	w.Must("ann", &pb.Command{Body: &pb.Command_DeleteResource{DeleteResource: &pb.DeleteResourceRequest{Kind: "plan", Name: "a-small-one"}}})
	if n := keep(kept.Advance(w.State, w.View)); n != 1 || w.State.Guarantee().GetWord() != "Proven(1)" {
		t.Fatalf("%d entries, %v", n, w.State.Guarantee())
	}
	silence(w, "h1", true) // Fewer losses are survived: that takes a full proof.
	if n := keep(kept.Advance(w.State, w.View)); n != 1 || w.State.Guarantee().GetWord() != "Degraded(0)" {
		t.Fatalf("%d entries, %v", n, w.State.Guarantee())
	}
	w.CheckReplay()
}
