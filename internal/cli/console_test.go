package cli_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func TestConsole(t *testing.T) {
	// Of the last two each is a control character of its own, one cut by a sequence that is taken out.
	const steer = "\x1b[2J\x1b]0;title\x07\x1bc\x9b\a\u0090\u009f\xc2\x1b[m\x9b"
	s := sampleSite()
	s.consoleText = "kernel: hello" + steer + "\r\n\tready: grüße\n"
	c := serve(t, s)
	if code := c.run(t, "lease", "console", "web-3"); code != 0 || c.out.String() != s.consoleText || c.err.Len() > 0 {
		t.Errorf("into a file: code %d, %q, %s", code, &c.out, &c.err)
	}
	c.options.Terminal = true
	if code := c.run(t, "lease", "console", "web-3"); code != 0 || c.out.String() != "kernel: hello\r\n\tready: grüße\n" {
		t.Errorf("on a terminal: code %d, %q", code, &c.out)
	}
	s.leases = []*pb.Lease{sampleLease(pb.State_STATE_SAVED)}
	if code := c.run(t, "lease", "console", "web-3"); code != 0 || !strings.Contains(c.err.String(), "the VM is saved") {
		t.Errorf("of a VM that is off: code %d, %s", code, &c.err)
	}
	if code := c.run(t, "lease", "console", "web-3", "-o", "json"); code != 2 {
		t.Errorf("as JSON: code %d", code)
	}
	if code := c.run(t, "lease", "console"); code != 2 {
		t.Errorf("of nothing: code %d", code)
	}
}

// A console that is followed goes on where it was when the leader changes, and ends when its host is silent.
func TestConsoleFollow(t *testing.T) {
	s := sampleSite()
	s.consoleText = strings.Repeat("12345678\n", 5)
	c := serve(t, s)
	if code := c.run(t, "lease", "console", "web-3", "--follow"); code != 6 || !strings.Contains(c.err.String(), "fell silent") {
		t.Errorf("code %d, %s", code, &c.err)
	}
	if want := strings.Repeat("12345678\n", 5) + "more\nmore\nmore\n"; c.out.String() != want {
		t.Errorf("%q, want %q", &c.out, want)
	}
}

// A watch says each change once, over changes of the leader, until the lease is gone.
func TestWatchLease(t *testing.T) {
	s := sampleSite()
	taken := sampleLease(pb.State_STATE_RUNNING)
	taken.Phase, taken.PreemptedAt = pb.LeasePhase_LEASE_PHASE_PREEMPTED, timestamppb.New(now())
	taken.Preempting = []*pb.LeasePreemption{{
		Failover: "fo-3", Reason: "flood", DeclaredBy: "operator/ann", Action: pb.ReclaimAction_RECLAIM_ACTION_SAVE,
		Deadline: timestamppb.New(now().Add(10 * time.Second)), FailoverPhase: "running",
	}}
	taken.Live[0].Details = &pb.Status_Instance{Instance: &pb.InstanceStatus{GraceUntil: timestamppb.New(now()), Ready: true}}
	saved := sampleLease(pb.State_STATE_SAVED)
	saved.Phase, saved.Preempting = taken.GetPhase(), taken.GetPreempting()
	s.leases = []*pb.Lease{sampleLease(pb.State_STATE_RUNNING), sampleLease(pb.State_STATE_RUNNING), taken, saved}
	c := serve(t, s)
	if code := c.run(t, "lease", "watch", "web-3"); code != 1 || !strings.Contains(c.err.String(), "is deleted") {
		t.Errorf("code %d, %s", code, &c.err)
	}
	var said []string
	for line := range strings.Lines(c.out.String()) {
		said = append(said, strings.TrimSpace(line[len("15:04:05"):]))
	}
	want := []string{
		"web-3: active; ends 2026-11-20 18:04:00 UTC; web-3-0 running",
		"web-3: preempted by fo-3; save by 2026-11-20 10:04:10 UTC (flood); it returns by itself; web-3-0 running, its guest was told and is ready",
		"web-3: preempted by fo-3; save by 2026-11-20 10:04:10 UTC (flood); it returns by itself; web-3-0 saved",
	}
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
}
