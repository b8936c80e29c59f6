package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	neturl "net/url"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
)

const (
	// Until the first success the time between probes is a fixed part of the time since the start, so that
	// a start seems to take two per cent longer than it took, whether it takes a second or a minute.
	startPart = 50
	// firstInterval and startInterval bound it: a probe costs a thread and a connection.
	firstInterval = 50 * time.Millisecond
	startInterval = 500 * time.Millisecond
	// steadyInterval is the time between probes of what was healthy, unless the spec says another.
	steadyInterval = 2 * time.Second
	// probeLimit bounds one probe.
	probeLimit = 2 * time.Second
	// Until the first success a connection may take a part of the time since the start, at least firstDial: a
	// guest that has just said that it is there may lose the first packet, which TCP repeats after a second.
	dialPart  = 20
	firstDial = 100 * time.Millisecond
	// defaultWithin is how long a start may take when the spec says nothing.
	defaultWithin = 2 * time.Minute
	// failuresUntilUnhealthy in a row: a single lost packet is no verdict.
	failuresUntilUnhealthy = 3
	// reasonEvery is how often a start that is not healthy yet says why, if that has changed: a quick one says nothing.
	reasonEvery = 5 * time.Second
)

// verdict is the pure part of a probe: what a row of successes and failures means.
type verdict struct {
	within   time.Duration
	healthy  bool
	failures int
}

// take adds the outcome of one probe, begun a time after the instance was seen to run.
func (v *verdict) take(err error, since time.Duration) pb.HealthState {
	if err == nil {
		v.healthy, v.failures = true, 0
		return pb.HealthState_HEALTH_STATE_HEALTHY
	}
	v.failures++
	switch {
	case v.healthy && v.failures < failuresUntilUnhealthy:
		return pb.HealthState_HEALTH_STATE_HEALTHY
	case !v.healthy && since < v.within:
		return pb.HealthState_HEALTH_STATE_PENDING
	default:
		return pb.HealthState_HEALTH_STATE_UNHEALTHY
	}
}

// interval returns the wait before the next probe, a time after the instance was seen to run.
func (v *verdict) interval(h *pb.Health, since time.Duration) time.Duration {
	steady := steadyInterval
	if d := h.GetInterval().AsDuration(); d > 0 {
		steady = d
	}
	if v.healthy {
		return steady
	}
	return min(max(since/startPart, firstInterval), startInterval, steady)
}

// patience returns how long the next probe waits for its connection.
func (v *verdict) patience(since time.Duration) time.Duration {
	if v.healthy {
		return probeLimit
	}
	return min(max(since/dialPart, firstDial), probeLimit)
}

func (r *runtime) startProbe(e reconcile.ProbeStart) {
	r.stopProbe(string(e.Object))
	ctx, cancel := context.WithCancel(r.ctx)
	r.probes[string(e.Object)] = cancel
	r.calls.Go(func() { r.probe(ctx, e) })
}

func (r *runtime) stopProbe(object string) {
	if cancel := r.probes[object]; cancel != nil {
		cancel()
		delete(r.probes, object)
	}
}

// report is what is known about an instance's health, a time after it was seen to run.
type report struct {
	state   pb.HealthState
	message string
	since   time.Duration
}

// outdated says whether there is news worth telling: another state, or another reason why a start takes so long.
func (r report) outdated(now report) bool {
	return now.state != r.state ||
		now.state == pb.HealthState_HEALTH_STATE_PENDING && now.cause() != r.cause() && now.since-r.since >= reasonEvery
}

// cause is the innermost of a chain of errors: what is around it may have a port in it that is another one each time.
func (r report) cause() string { return r.message[strings.LastIndex(": "+r.message, ": "):] }

// probe asks again and again, and tells the core about changes.
func (r *runtime) probe(ctx context.Context, e reconcile.ProbeStart) {
	v := verdict{within: defaultWithin}
	if d := e.Health.GetWithin().AsDuration(); d > 0 {
		v.within = d
	}
	began := r.o.Boot()
	said := report{state: pb.HealthState_HEALTH_STATE_PENDING}
	for ctx.Err() == nil {
		since := r.o.Boot() - began
		err := r.ask(ctx, e, v.patience(since))
		if ctx.Err() != nil {
			return
		}
		now := report{v.take(err, since), "", since}
		if err != nil {
			now.message = err.Error()
		}
		if said.outdated(now) {
			said = now
			state, message := now.state, now.message
			r.o.Log.Info("health seen", "host", r.o.Name, "object", e.Object, "health", state, "error", message)
			r.submit(func() []reconcile.Effect {
				if ctx.Err() != nil {
					return nil
				}
				return r.core.HealthChanged(e.Object, state, message, r.now())
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(v.interval(e.Health, since)):
		}
	}
}

// ask makes one probe from the instance's own network, which waits so long for a connection.
func (r *runtime) ask(ctx context.Context, e reconcile.ProbeStart, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	networks := r.o.Drivers.Networks
	if networks == nil {
		return fmt.Errorf("probe %s: this agent has no network driver to probe from", e.Object)
	}
	dial := func(ctx context.Context, _, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return networks.Dial(ctx, e.Network, address)
	}
	if tcp := e.Health.GetTcp(); tcp != "" {
		conn, err := dial(ctx, "tcp", strings.ReplaceAll(tcp, "{address}", e.Address))
		if err != nil {
			return fmt.Errorf("probe %s: %w", tcp, err)
		}
		// It answered; how the connection ends says nothing about the guest.
		_ = conn.Close()
		return nil
	}
	url := strings.ReplaceAll(e.Health.GetHttp(), "{address}", e.Address)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("probe %s: %w", url, err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		if wrapped := (*neturl.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // It repeats the URL.
		}
		return fmt.Errorf("probe %s: %w", url, err)
	}
	// Only the status counts; the connection is not used again.
	_ = answer.Body.Close()
	if answer.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("probe %s: it answered %s", url, answer.Status)
	}
	return nil
}
