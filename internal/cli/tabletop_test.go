package cli_test

import (
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func TestInvariants(t *testing.T) {
	s := sampleSite()
	s.verdicts = []*pb.InvariantVerdict{{Number: 1, Name: "single run", Result: pb.InvariantResult_INVARIANT_RESULT_HOLDS, Details: []string{"2 VMs"}}}
	c := serve(t, s)
	if code := c.run(t, "invariants", "check"); code != 0 || !strings.Contains(c.out.String(), "single run") {
		t.Errorf("exit code %d: %s%s", code, &c.out, &c.err)
	}
	s.verdicts[0].Result = pb.InvariantResult_INVARIANT_RESULT_VIOLATED
	if code := c.run(t, "invariants", "check"); code != 1 || !strings.Contains(c.out.String(), "VIOLATED") || !strings.Contains(c.err.String(), "1 of 1") {
		t.Errorf("exit code %d: %s%s", code, &c.out, &c.err)
	}
}

func TestTabletop(t *testing.T) {
	s := sampleSite()
	c := serve(t, s)
	if code := c.run(t, "tabletop"); code != 0 || !strings.HasPrefix(c.out.String(), "tabletop, nothing was changed\n") {
		t.Errorf("exit code %d: %s%s", code, &c.out, &c.err)
	}
	s.tabled = &pb.Failover{Unplaced: []*pb.Unplaced{{Plan: "webshop", Workload: "db", Reason: "fits on no host"}}}
	if code := c.run(t, "tabletop"); code != 7 || !strings.Contains(c.out.String(), "webshop/db") || !strings.Contains(c.err.String(), "1 workloads would have no room") {
		t.Errorf("exit code %d: %s%s", code, &c.out, &c.err)
	}
	for _, line := range []string{"tabletop --lose-only", "tabletop webshop --lose-host h1 --lose-only", "plan describe", "plan describe a b", "plan explain"} {
		if code := c.run(t, strings.Fields(line)...); code != 2 {
			t.Errorf("%s: exit code %d: %s", line, code, &c.err)
		}
	}
}
