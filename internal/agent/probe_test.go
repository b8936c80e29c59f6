package agent

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func TestProbeInterval(t *testing.T) {
	for name, c := range map[string]struct {
		healthy bool
		spec    time.Duration
		since   time.Duration
		want    time.Duration
	}{
		"just started":                  {since: 0, want: 50 * time.Millisecond},
		"two per cent of a boot":        {since: 10 * time.Second, want: 200 * time.Millisecond},
		"a long boot":                   {since: time.Minute, want: 500 * time.Millisecond},
		"never slower than asked for":   {spec: 100 * time.Millisecond, since: time.Minute, want: 100 * time.Millisecond},
		"healthy":                       {healthy: true, since: time.Minute, want: 2 * time.Second},
		"healthy, asked for more often": {healthy: true, spec: time.Second, since: time.Minute, want: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := &pb.Health{}
			if c.spec > 0 {
				h.Interval = durationpb.New(c.spec)
			}
			v := verdict{healthy: c.healthy}
			if got := v.interval(h, c.since); got != c.want {
				t.Errorf("the next probe comes after %v, want %v", got, c.want)
			}
		})
	}
}

func TestProbePatience(t *testing.T) {
	for since, want := range map[time.Duration]time.Duration{
		0: 100 * time.Millisecond, 10 * time.Second: 500 * time.Millisecond, time.Hour: 2 * time.Second,
	} {
		if got := (&verdict{}).patience(since); got != want {
			t.Errorf("%v after the start a connection may take %v, want %v", since, got, want)
		}
	}
	if got := (&verdict{healthy: true}).patience(0); got != 2*time.Second {
		t.Errorf("of a healthy guest a connection may take %v", got)
	}
}

func TestProbeSaysWhyAStartTakesLong(t *testing.T) {
	pending, healthy := pb.HealthState_HEALTH_STATE_PENDING, pb.HealthState_HEALTH_STATE_HEALTHY
	refused := report{pending, "refused", 6 * time.Second}
	for name, c := range map[string]struct {
		said, now report
		want      bool
	}{
		"a quick start":                {report{state: pending}, report{pending, "refused", 4 * time.Second}, false},
		"a slow one":                   {report{state: pending}, refused, true},
		"the same again":               {refused, report{pending, "refused", time.Minute}, false},
		"another reason, soon":         {refused, report{pending, "it answered 503", 8 * time.Second}, false},
		"another reason":               {refused, report{pending, "it answered 503", 11 * time.Second}, true},
		"the same by another port":     {report{pending, "read tcp 10.0.0.9:4001->10.0.0.1:80: reset", 6 * time.Second}, report{pending, "read tcp 10.0.0.9:4002->10.0.0.1:80: reset", time.Minute}, false},
		"healthy at once":              {refused, report{healthy, "", 6 * time.Second}, true},
		"a lost packet of a healthy":   {report{healthy, "", 0}, report{healthy, "timeout", time.Hour}, false},
		"unhealthy for another reason": {report{pb.HealthState_HEALTH_STATE_UNHEALTHY, "refused", 0}, report{pb.HealthState_HEALTH_STATE_UNHEALTHY, "timeout", time.Hour}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.said.outdated(c.now); got != c.want {
				t.Errorf("%+v after %+v is told: %v", c.now, c.said, got)
			}
		})
	}
}
