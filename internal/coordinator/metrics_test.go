package coordinator_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hotspare/hotspare/internal/trust"
)

// Metrics are for those who may see the status, at every coordinator, named as Prometheus wants it.
func TestMetrics(t *testing.T) {
	s := newSite(t)
	olga := s.browser(t, identity(t, s.authority, trust.RoleOperator, "olga"))
	if a := ask(t, olga, http.MethodPost, "https://"+s.leader().https+"/v1/leases", strings.NewReader(`{"requestId": "r1", "project": "none"}`)); a.code != http.StatusNotFound {
		t.Fatalf("a lease for no project: %d", a.code)
	}
	for _, c := range []struct {
		role trust.Role
		want int
	}{{trust.RoleMonitor, 200}, {trust.RoleDeveloper, 200}, {trust.RoleAgent, 403}} {
		k := identity(t, s.authority, c.role, "someone")
		if a := ask(t, s.browser(t, k), http.MethodGet, "https://"+s.leader().https+"/metrics", nil); a.code != c.want {
			t.Errorf("%s: %d", c.role, a.code)
		}
	}
	if a := ask(t, s.browser(t, nil), http.MethodGet, "https://"+s.leader().https+"/metrics", nil); a.code != http.StatusUnauthorized {
		t.Errorf("nobody: %d", a.code)
	}
	await(t, "the guarantee to be kept", func() bool { return s.follower().State().Guarantee() != nil })
	for m, wants := range map[*member][]string{
		s.leader():   {"hotspare_leads 1\n", "hotspare_guarantee_losses_to_survive 1\n", "hotspare_guarantee_losses_proven ", "hotspare_guarantee_proven_timestamp_seconds ", `hotspare_lease_refusals_total{reason="NOT_FOUND"} 1`, `hotspare_plans{ready="true"} 0`, "hotspare_alarms ", "hotspare_proof_duration_seconds_count "},
		s.follower(): {"hotspare_leads 0\n", "hotspare_guarantee_losses_to_survive 1\n", `hotspare_leases{phase="active"} 0`},
	} {
		a := ask(t, olga, http.MethodGet, "https://"+m.https+"/metrics", nil)
		for _, want := range wants {
			if !strings.Contains(a.body, want) {
				t.Errorf("%q is missing in\n%s", want, a.body)
			}
		}
		problems, err := promlint.New(strings.NewReader(a.body)).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
	}
}
