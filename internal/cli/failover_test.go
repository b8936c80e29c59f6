package cli_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func TestDeclareAndWait(t *testing.T) {
	s := sampleSite()
	c := serve(t, s)
	if code := c.run(t, "failover", "declare", "webshop", "--reason", "flood", "--yes", "--wait"); code != 0 {
		t.Fatalf("exit code %d: %s", code, &c.err)
	}
	golden(t, "declare-wait", c.out.String()+"--- stderr\n"+c.err.String())
}

func TestWatchEnds(t *testing.T) {
	for name, c := range map[string]struct {
		phase pb.RunPhase
		args  []string
		want  int
	}{
		"completed":     {pb.RunPhase_RUN_PHASE_COMPLETED, []string{"failover", "watch", "webshop"}, 0},
		"incomplete":    {pb.RunPhase_RUN_PHASE_INCOMPLETE, []string{"failover", "watch", "webshop"}, 1},
		"aborted":       {pb.RunPhase_RUN_PHASE_ABORTED, []string{"failover", "watch", "webshop"}, 1},
		"failed back":   {pb.RunPhase_RUN_PHASE_FAILED_BACK, []string{"failover", "watch", "webshop"}, 0},
		"failback":      {pb.RunPhase_RUN_PHASE_FAILED_BACK, []string{"failback", "webshop", "--wait"}, 0},
		"abort on word": {pb.RunPhase_RUN_PHASE_ABORTED, []string{"failover", "abort", "webshop", "--reason", "x", "--wait", "--yes"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := sampleSite()
			s.failovers = []*pb.Failover{sampleRun(pb.RunPhase_RUN_PHASE_RUNNING), sampleRun(c.phase)}
			con := serve(t, s)
			if code := con.run(t, c.args...); code != c.want {
				t.Errorf("exit code %d, want %d: %s", code, c.want, &con.err)
			}
		})
	}
}

func TestWatchTimesOut(t *testing.T) {
	s := sampleSite()
	s.failovers, s.hold = s.failovers[:1], true
	c := serve(t, s)
	if code := c.run(t, "failover", "watch", "webshop", "--timeout", "200ms"); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	if !strings.Contains(c.err.String(), "failover fo-3 goes on; follow it with: hotspare failover watch fo-3") {
		t.Errorf("said %s", &c.err)
	}
}

func TestInterrupted(t *testing.T) {
	s := sampleSite()
	s.failovers, s.hold = s.failovers[:1], true
	c := serve(t, s)
	ctx, cancel := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(200*time.Millisecond, func() { cancel(errors.New("interrupt")) })
	defer timer.Stop()
	if code := c.runContext(ctx, "failover", "watch", "webshop"); code != 130 {
		t.Errorf("exit code %d, want 130: %s", code, &c.err)
	}
}

func TestWatchComesBack(t *testing.T) {
	s := sampleSite()
	s.fail = []error{nil, status.Error(codes.Unavailable, "the leader steps down")} // get, then watch
	c := serve(t, s)
	if code := c.run(t, "failover", "watch", "webshop", "-o", "name"); code != 0 || c.out.String() != "fo-3\n" {
		t.Errorf("exit code %d, wrote %q: %s", code, &c.out, &c.err)
	}
}

func TestWatchOnATerminal(t *testing.T) {
	s := sampleSite()
	c := serve(t, s)
	c.options.Terminal = true
	if code := c.run(t, "failover", "watch", "webshop"); code != 0 {
		t.Fatal(c.err.String())
	}
	if !strings.Contains(c.err.String(), "\x1b[") || strings.Contains(c.out.String(), "\x1b") {
		t.Errorf("wrote %q and %q", &c.err, &c.out)
	}
}

func TestConfirmation(t *testing.T) {
	for typed, want := range map[string]int{"webshop\n": 0, "webshop": 0, "webshpo\n": 1, "": 1} {
		s := sampleSite()
		c := serve(t, s)
		c.options.Terminal, c.options.In = true, strings.NewReader(typed)
		if code := c.run(t, "failover", "declare", "webshop", "--reason", "flood"); code != want {
			t.Errorf("typed %q: exit code %d, want %d: %s", typed, code, want, &c.err)
		}
		if declared := len(s.requests()) > 0; declared != (want == 0) {
			t.Errorf("typed %q: declared %v", typed, declared)
		}
	}
}

func TestDryRunThatDoesNotFit(t *testing.T) {
	s := sampleSite()
	s.failovers[0].Unplaced = []*pb.Unplaced{{Plan: "webshop", Workload: "web-1", Reason: "no host has 8 GiB left"}}
	c := serve(t, s)
	if code := c.run(t, "failover", "declare", "webshop", "--reason", "flood", "--dry-run"); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if !strings.Contains(c.out.String(), "no host has 8 GiB left") {
		t.Errorf("wrote %s", &c.out)
	}
}
