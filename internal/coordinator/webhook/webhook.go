// Package webhook takes alerts from monitoring systems and declares what their trigger allows. It
// authenticates with the trigger's bearer token, reads Alertmanager's payload (version 4) or a small
// generic one, and answers only after the declaration is committed.
//
// It never declares twice for one event, never takes `resolved` for a failback, and never answers
// success for something that is not stored. The coordinator's HTTPS server calls it.
package webhook

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Declare commits a declaration in the name of a trigger; any member may be asked.
type Declare func(ctx context.Context, trigger string, req *pb.DeclareRequest) (*pb.DeclareResponse, error)

// Options are what the handler needs.
type Options struct {
	// Trigger returns a declared trigger by name, or nil.
	Trigger func(name string) *pb.Trigger
	Declare Declare
	// Fault reads the fault out of an error of Declare.
	Fault func(err error) (model.Fault, string)
	Log   *slog.Logger
}

// maxBody bounds a payload; Alertmanager's largest groups stay far below.
const maxBody = 4 << 20

// declareTimeout is below Alertmanager's own, so that it hears an answer.
const declareTimeout = 9 * time.Second

// answer is what the caller gets as JSON.
type answer struct {
	Failover string `json:"failover,omitempty"`
	Joined   bool   `json:"joined,omitempty"`
	Message  string `json:"message"`
}

// Handler serves POST /v1/triggers/{name}:alertmanager and {name}:generic; Suffix tells whether a
// path is one of these.
func Handler(o Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, form, _ := Suffix(r.URL.Path)
		code, out := serve(o, r, name, form)
		if code == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(out); err != nil {
			o.Log.Debug("webhook answer not delivered", "trigger", name, "error", err)
		}
		o.Log.Info("webhook answered", "trigger", name, "code", code, "failover", out.Failover, "message", out.Message)
	})
}

// Suffix splits a webhook's path into the trigger's name and the form of its payload.
func Suffix(path string) (name, form string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v1/triggers/")
	if !ok {
		return "", "", false
	}
	for _, form := range []string{"alertmanager", "generic"} {
		if name, ok := strings.CutSuffix(rest, ":"+form); ok {
			return name, form, true
		}
	}
	return "", "", false
}

func serve(o Options, r *http.Request, name, form string) (int, answer) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, answer{Message: "use POST"}
	}
	t := o.Trigger(name)
	if !authentic(t, r.Header.Get("Authorization")) {
		return http.StatusUnauthorized, answer{Message: "unknown trigger or wrong token: send Authorization: Bearer TOKEN"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return http.StatusUnprocessableEntity, answer{Message: fmt.Sprintf("read payload: %v", err)}
	}
	e, err := read(form, body, t)
	if err != nil {
		return http.StatusUnprocessableEntity, answer{Message: err.Error()}
	}
	if !e.firing {
		return http.StatusOK, answer{Message: "resolved alerts never fail back by themselves: nothing to do"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), declareTimeout)
	defer cancel()
	resp, err := o.Declare(ctx, name, &pb.DeclareRequest{
		Plans: t.GetSpec().GetPlans(), Reason: e.reason, Trigger: name, Key: e.key, Since: timestamppb.New(e.since),
	})
	if err != nil {
		fault, message := o.Fault(err)
		return codeOf(fault), answer{Message: message}
	}
	f := resp.GetFailover()
	return http.StatusOK, answer{Failover: f.GetName(), Joined: resp.GetJoined(), Message: told(resp)}
}

// told says what the declaration did.
func told(resp *pb.DeclareResponse) string {
	f := resp.GetFailover()
	switch {
	case !resp.GetJoined():
		return "declared " + f.GetName()
	case model.Open(f.GetPhase()):
		return f.GetName() + " is open already: joined"
	default:
		return f.GetName() + " answered this alert before and has ended: nothing was declared"
	}
}

// authentic compares the bearer token's hash in constant time; an unknown trigger costs the same.
func authentic(t *pb.Trigger, header string) bool {
	token, ok := strings.CutPrefix(header, "Bearer ")
	sum := sha256.Sum256([]byte(token))
	want, err := hex.DecodeString(t.GetSpec().GetTokenSha256())
	if err != nil || len(want) != sha256.Size {
		want = make([]byte, sha256.Size)
		ok = false
	}
	return subtle.ConstantTimeCompare(sum[:], want) == 1 && ok
}

func codeOf(f model.Fault) int {
	switch f {
	case model.FaultPrecondition, model.FaultStale:
		return http.StatusConflict
	case model.FaultInvalid, model.FaultNotFound:
		return http.StatusUnprocessableEntity
	case model.FaultDenied:
		return http.StatusForbidden
	case model.FaultTooMany:
		return http.StatusTooManyRequests
	default:
		return http.StatusServiceUnavailable // Also for what is not known: the sender tries again, and a repeat is harmless.
	}
}

// event is what a payload says.
type event struct {
	firing bool
	key    string
	reason string
	since  time.Time
}

func read(form string, body []byte, t *pb.Trigger) (event, error) {
	if form == "generic" {
		return readGeneric(body)
	}
	return readAlertmanager(body, t)
}

// readGeneric reads {"key": "...", "reason": "...", "startsAt": "..."}.
func readGeneric(body []byte) (event, error) {
	var p struct {
		Key      string    `json:"key"`
		Reason   string    `json:"reason"`
		StartsAt time.Time `json:"startsAt"`
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return event{}, fmt.Errorf("payload is not the generic JSON: %w", err)
	}
	if p.Key == "" {
		return event{}, errors.New(`payload: "key" is missing: it names the event, so that a repeat is not a second one`)
	}
	return event{firing: true, key: p.Key, reason: p.Reason, since: p.StartsAt}, nil
}

// payload is Alertmanager's webhook message, as far as it is used.
// Source: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
type payload struct {
	Version string `json:"version"`
	Alerts  []struct {
		Status      string            `json:"status"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
		StartsAt    time.Time         `json:"startsAt"`
		Fingerprint string            `json:"fingerprint"`
	} `json:"alerts"`
}

// readAlertmanager finds the oldest firing alert that carries the trigger's labels.
func readAlertmanager(body []byte, t *pb.Trigger) (event, error) {
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		return event{}, fmt.Errorf("payload is not Alertmanager's JSON: %w", err)
	}
	if p.Version != "4" {
		return event{}, fmt.Errorf("payload version %q: this webhook reads version 4", p.Version)
	}
	var e event
	matched := false
	for _, a := range p.Alerts {
		if !matches(a.Labels, t.GetSpec().GetMatch()) {
			continue
		}
		if a.Fingerprint == "" {
			return event{}, errors.New("payload: an alert has no fingerprint")
		}
		matched = true
		if a.Status != "firing" || e.firing && !a.StartsAt.Before(e.since) {
			continue
		}
		e = event{
			firing: true, key: a.Fingerprint + "@" + a.StartsAt.UTC().Format(time.RFC3339Nano), since: a.StartsAt,
			reason: "alert " + a.Labels["alertname"] + ": " + firstOf(a.Annotations["summary"], a.Annotations["description"]),
		}
	}
	if !matched {
		return event{}, fmt.Errorf("payload: no alert carries the labels that the trigger asks for (%v)", t.GetSpec().GetMatch())
	}
	return e, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func matches(labels, want map[string]string) bool {
	for k, v := range want { // Any order: all must hold.
		if labels[k] != v {
			return false
		}
	}
	return true
}
