package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
)

// chainPlan has a workload that depends on another, and a name behind both. One host has room for both.
const chainPlan = `apiVersion: hotspare/v1
kind: Plan
metadata: {name: chain}
spec:
  rank: 30
  fencing:
  - {oath: {}}
  workloads:
  - name: page
    resources: {vcpus: 1, memory: 128MiB}
    image: tiny
    dependsOn: [back]
    nics: [{network: prod-10, mac: "52:54:00:aa:00:02", address: 10.10.0.12/24}]
    healthy: {http: "http://{address}/health", within: 2m}
  - name: back
    resources: {vcpus: 1, memory: 128MiB}
    image: tiny
    nics: [{network: prod-10, mac: "52:54:00:aa:00:31", address: 10.10.0.31/24}]
    healthy: {http: "http://{address}/health", within: 2m}
  endpoints:
  - dns: {zone: shop.example., name: www, type: A, values: [203.0.113.10], ttl: 30s, after: [page]}
`

// dependents fails over a plan whose second VM may start only when the first one serves, and whose name may move only when the
// second one does. The agent of the first one's host is killed while it boots.
func dependents(ctx context.Context, t *testing.T, r *round) {
	run(ctx, t, r.Site, "delete", "plan", "sworn") // Both together do not survive the loss of a host.
	applyPlan(ctx, t, r.Site, "chain", chainPlan)
	named := func(want string) {
		t.Helper()
		if name, err := r.Name(ctx); err != nil || name != want {
			t.Errorf("the name server says %q, %v, want %s", name, err, want)
		}
	}
	r.play(ctx, t, acts{
		plan: "chain", others: []string{"back"},
		strike: func(ctx context.Context, t *testing.T, s *site.Site) {
			h := r.awaitStart(ctx, t, "back")
			if err := s.Process(h).Kill(ctx); err != nil {
				t.Fatal(err)
			}
			if n := r.startsOf(t, "page"); n != 0 {
				t.Errorf("page was started %d times while back boots", n)
			}
			named(site.OldName)
			if err := s.StartAgent(h); err != nil {
				t.Fatal(err)
			}
			r.awaitStart(ctx, t, "page")
			if _, err := s.AskProduction(ctx, "10.10.0.31"); err != nil {
				t.Errorf("page was started and back does not serve: %v", err)
			}
		},
		look: func() { named(site.NewName) },
	})
	named(site.OldName)
	run(ctx, t, r.Site, "delete", "plan", "chain")
}

// domain is the name of the domain of a workload of the plan chain in this round.
func (r *round) domain(workload string) string {
	return fmt.Sprintf("hs-chain-%s-e%d", workload, r.number)
}

func (r *round) startsOf(t *testing.T, workload string) int { return r.starts(t)[r.domain(workload)] }

// awaitStart waits until libvirt has started a workload's VM, and returns its host.
func (r *round) awaitStart(ctx context.Context, t *testing.T, workload string) (host *lab.Host) {
	t.Helper()
	eventually(ctx, t, phaseLimit, "the start of "+workload, func(context.Context) error {
		for _, h := range []*lab.Host{r.H1, r.H2} {
			starts, err := site.QEMUStartsOn(h)
			if err != nil {
				return err
			}
			if starts[r.domain(workload)] > 0 {
				host = h
				return nil
			}
		}
		return fmt.Errorf("no host has started %s", r.domain(workload))
	})
	return host
}
