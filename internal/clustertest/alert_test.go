package clustertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// hook posts to the webhook of one coordinator over HTTPS, as a monitoring system without a
// certificate does, and returns code and body.
func (s *site) hook(coordinator, path, token, body string) (int, string) {
	s.t.Helper()
	config := s.operator.Client()
	config.GetClientCertificate = nil
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			raw, err := s.wire.dial(ctx, "alertmanager", coordinator+":http")
			if err != nil {
				return nil, err
			}
			conn := tls.Client(raw, config)
			return conn, conn.HandshakeContext(ctx)
		},
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+coordinator+path, bytes.NewBufferString(body))
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	s.must(err)
	return resp.StatusCode, string(text)
}

const (
	hookPath  = "/v1/triggers/east-down:alertmanager"
	hookToken = "dev-token"
)

func alert(startsAt time.Time) string {
	b, err := json.Marshal(map[string]any{
		"version": "4",
		"alerts": []any{map[string]any{
			"status": "firing", "labels": map[string]string{"alertname": "SiteDown"}, "fingerprint": "feed",
			"startsAt": startsAt, "annotations": map[string]string{"summary": "east is gone"},
		}},
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestAlertAHundredTimes(t *testing.T) {
	bubble(t, 3, func(s *site) {
		leases := s.fill()
		guests := s.guests(leases...)
		began := time.Now()
		answers := map[string]int{}
		for i := range 100 {
			// Two Alertmanagers that noticed at different times, and any member.
			code, body := s.hook(s.names[i%3], hookPath, hookToken, alert(began.Add(time.Duration(i%2)*7*time.Second)))
			if code != http.StatusOK {
				t.Fatalf("alert %d: %d %s", i, code, body)
			}
			var a struct{ Failover string }
			s.must(json.Unmarshal([]byte(body), &a))
			answers[a.Failover]++
			if i%10 == 0 {
				s.sleep(time.Second)
			}
		}
		if len(answers) != 1 || answers["fo-1"] != 100 || s.state().Meta().GetLastEpoch() != 1 {
			t.Errorf("answers %v", answers)
		}
		s.completes("fo-1")
		s.over("fo-1")
		s.kept(guests, leases)
		// The alert still fires, and a new one comes: nothing until somebody arms the trigger.
		code, body := s.hook("c1", hookPath, hookToken, alert(began))
		t.Logf("the same alert after the failback: %d %s", code, body)
		if code, body := s.hook("c2", hookPath, hookToken, alert(time.Now())); code != http.StatusConflict {
			t.Errorf("a disarmed trigger answers %d %s", code, body)
		}
		if n := s.state().Meta().GetLastEpoch(); n != 1 {
			t.Fatalf("a disarmed trigger declared: %d runs", n)
		}
		s.call(func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewFailoverServiceClient(c).Arm(ctx, &pb.ArmRequest{RequestId: s.request(), Trigger: "east-down", Reason: "repaired"})
			return err
		})
		s.ready()
		if code, body := s.hook("c3", hookPath, hookToken, alert(time.Now())); code != http.StatusOK {
			t.Errorf("an armed trigger answers %d %s", code, body)
		}
		s.completes("fo-2")
		s.over("fo-2")
	})
}

// The leader dies with the alert in its hands: Alertmanager tries again.
func TestAlertOverLeaderKill(t *testing.T) {
	bubble(t, 3, func(s *site) {
		s.fill()
		at := time.Now()
		dead := s.leader().name
		time.AfterFunc(2*time.Millisecond, func() { s.crash(dead) })
		s.until("the alert is taken", time.Minute, func() bool {
			for _, n := range s.names {
				if code, _ := s.hook(n, hookPath, hookToken, alert(at)); code == http.StatusOK {
					return true
				}
			}
			return false
		})
		s.completes("fo-1")
		if n := s.state().Meta().GetLastEpoch(); n != 1 {
			t.Errorf("%d runs", n)
		}
		s.over("fo-1")
	})
}

func TestBadAlertsChangeNothing(t *testing.T) {
	bubble(t, 3, func(s *site) {
		index := s.state().Meta().GetEvidenceSequence()
		good := alert(time.Now())
		cases := []struct {
			name, path, token, body string
			want                    int
		}{
			{"wrong token", hookPath, "guess", good, http.StatusUnauthorized},
			{"no token", hookPath, "", good, http.StatusUnauthorized},
			{"unknown trigger", "/v1/triggers/west-down:alertmanager", hookToken, good, http.StatusUnauthorized},
			{"not JSON", hookPath, hookToken, "{", http.StatusUnprocessableEntity},
			{"cut short", hookPath, hookToken, good[:len(good)/2], http.StatusUnprocessableEntity},
			{"another version", hookPath, hookToken, `{"version":"5"}`, http.StatusUnprocessableEntity},
			{"no alert of ours", hookPath, hookToken, `{"version":"4","alerts":[]}`, http.StatusUnprocessableEntity},
			{"generic without a key", "/v1/triggers/east-down:generic", hookToken, `{"reason":"x"}`, http.StatusUnprocessableEntity},
		}
		for i, c := range cases {
			if code, body := s.hook(s.names[i%3], c.path, c.token, c.body); code != c.want {
				t.Errorf("%s: %d %s, want %d", c.name, code, body, c.want)
			}
		}
		for _, req := range []*pb.DeclareRequest{{}, {Plans: []string{"nothing"}}, {Plans: []string{"webshop", "nothing"}}} {
			req.Reason, req.RequestId = "x", s.request()
			err := s.try(func(ctx context.Context, c *grpc.ClientConn) error {
				_, err := pb.NewFailoverServiceClient(c).Declare(ctx, req)
				return err
			})
			if err == nil {
				t.Errorf("%v was accepted", req)
			}
		}
		for _, path := range []string{"/v1/failovers", "/v1/leases"} {
			if code, body := s.hook("c1", path, "", "{}"); code == http.StatusOK {
				t.Errorf("%s without a certificate: %s", path, body)
			}
		}
		if now := s.state().Meta().GetEvidenceSequence(); now != index || s.state().Meta().GetLastEpoch() != 0 {
			t.Errorf("something was decided: %s", fmt.Sprint(now-index))
		}
	})
}
