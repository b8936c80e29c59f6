package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotspare/hotspare/e2e/site"
)

// repeats is how often the same alert comes; Alertmanager repeats for as long as it fires.
const repeats = 100

// alert is Alertmanager's payload for one alert that began at a time.
func alert(name, status string, startsAt time.Time) string {
	return fmt.Sprintf(`{"version":"4","status":%[2]q,"groupKey":"{}","receiver":"hotspare","alerts":[{"status":%[2]q,`+
		`"labels":{"alertname":%[1]q,"site":"east"},"annotations":{"summary":"lost"},"startsAt":%[3]q,`+
		`"endsAt":"0001-01-01T00:00:00Z","fingerprint":"5ca1ab1e"}]}`, name, status, startsAt.UTC().Format(time.RFC3339Nano))
}

// alerts is a round without any misfortune, with the plan whose fence destroys production. It posts to real coordinators what must
// not declare, then the same alert a hundred times, from two Alertmanagers and to every member: one failover, and none
// after it went back.
func alerts(ctx context.Context, t *testing.T, r *round) {
	s, began := r.Site, time.Now()
	refuse(ctx, t, s, began)
	if out := run(ctx, t, s, "failover", "list"); strings.Contains(out, "fo-") {
		t.Fatalf("something that must not declare did:\n%s", out)
	}
	r.play(ctx, t, acts{plan: "static", declare: func() { postAll(ctx, t, s, began) }, look: func() {
		out := run(ctx, t, s, "failover", "describe", "fo-1")
		if strings.Count(out, "its room on ") != 1 || strings.Count(out, "preempted as a whole") != 1 {
			t.Errorf("one VM is in the way, the other only belongs to the same lease:\n%s", out)
		}
	}, restore: func() {
		// The plan's fence destroyed the production VM; its people start it again.
		if err := s.StartProduction(ctx); err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{began, began.Add(time.Second), time.Now()} {
			code, answer, err := s.Post(ctx, s.Coordinators[1], "page-down", site.Token, alert("PageDown", "firing", at))
			t.Logf("after the failback: %d %s %v", code, answer, err)
		}
		if out := run(ctx, t, s, "failover", "list"); strings.Count(out, "fo-") != 1 {
			t.Errorf("one failover was to be seen:\n%s", out)
		}
		if _, err := s.AwaitProduction(ctx, site.ProductionAddress); err != nil {
			t.Fatal(err)
		}
	}})
	run(ctx, t, s, "delete", "trigger", "page-down")
	run(ctx, t, s, "delete", "plan", "static")
	applyPlan(ctx, t, s, "sworn", swornPage)
}

// postAll posts the same alert again and again.
func postAll(ctx context.Context, t *testing.T, s *site.Site, began time.Time) {
	t.Helper()
	var posts sync.WaitGroup
	for i := range repeats {
		posts.Go(func() {
			// The second Alertmanager noticed a little later.
			at := began.Add(time.Duration(i%2) * time.Second)
			code, answer, err := s.Post(ctx, s.Coordinators[i%3], "page-down", site.Token, alert("PageDown", "firing", at))
			if err != nil || code != http.StatusOK {
				t.Errorf("alert %d was answered %d %s %v", i, code, answer, err)
			}
		})
	}
	posts.Wait()
}

// refuse posts what must be refused, or taken without an effect.
func refuse(ctx context.Context, t *testing.T, s *site.Site, began time.Time) {
	t.Helper()
	firing := alert("PageDown", "firing", began)
	for what, c := range map[string]struct {
		trigger, token, body string
		code                 int
	}{
		"wrong token":       {"page-down", "wrong", firing, http.StatusUnauthorized},
		"unknown trigger":   {"nowhere", site.Token, firing, http.StatusUnauthorized},
		"truncated payload": {"page-down", site.Token, firing[:len(firing)/2], http.StatusUnprocessableEntity},
		"no payload":        {"page-down", site.Token, "", http.StatusUnprocessableEntity},
		"resolved":          {"page-down", site.Token, alert("PageDown", "resolved", began), http.StatusOK},
	} {
		for _, member := range s.Coordinators {
			code, answer, err := s.Post(ctx, member, c.trigger, c.token, c.body)
			if err != nil || code != c.code {
				t.Errorf("%s to %s was answered %d %s %v, want %d", what, member.Name, code, answer, err, c.code)
			}
		}
	}
}

// The alert rules that we ship are rules to Prometheus itself.
func TestAlertRules(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", "../deploy/prometheus/hotspare.rules.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
