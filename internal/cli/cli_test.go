package cli_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust/evidence"
)

func sampleRun(phase pb.RunPhase) *pb.Failover {
	at := func(s int) *timestamppb.Timestamp {
		return timestamppb.New(now().Add(time.Duration(s-60) * time.Second))
	}
	f := &pb.Failover{
		Name: "fo-3", Phase: phase, Plans: []*pb.PlanRevision{{Plan: "webshop", Revision: 1}}, DeclaredAt: at(0), DeclaredBy: "ann",
		Steps: []*pb.Step{
			{Id: "fence webshop power east-bmc", Phase: pb.StepPhase_STEP_PHASE_DONE, ReleasedAt: at(0), DoneAt: at(4)},
			{Id: "promote webshop/db root", Kind: pb.Kind_KIND_VOLUME, Spec: &pb.Spec{State: pb.State_STATE_PRIMARY}, OpenedBy: "fence webshop power east-bmc"},
		},
	}
	if phase == pb.RunPhase_RUN_PHASE_COMPLETED {
		f.CompletedAt = at(9)
		f.Steps[1].Phase, f.Steps[1].ReleasedAt, f.Steps[1].DoneAt = pb.StepPhase_STEP_PHASE_DONE, at(4), at(9)
	}
	return f
}

func sampleLease(state pb.State) *pb.Lease {
	return &pb.Lease{
		Name: "web-3", Project: "web", Phase: pb.LeasePhase_LEASE_PHASE_ACTIVE, EndsAt: timestamppb.New(now().Add(8 * time.Hour)),
		Instances: []*pb.LeaseInstance{{Object: "instance/web-3-0", Host: "h1", Address: "10.20.0.10/24"}},
		Live:      []*pb.Status{{Object: "instance/web-3-0", State: state, Phase: pb.Phase_PHASE_SETTLED}},
	}
}

func sampleSite() *site {
	pool := func(name string) *pb.Resource {
		return &pb.Resource{Resource: &pb.Resource_Pool{Pool: &pb.Pool{
			Metadata: &pb.Metadata{Name: name, Revision: 2},
			Spec:     &pb.PoolSpec{Agent: "store1", ExportAddress: "10.77.0.9:10809"},
		}}}
	}
	return &site{
		failovers: []*pb.Failover{sampleRun(pb.RunPhase_RUN_PHASE_RUNNING), sampleRun(pb.RunPhase_RUN_PHASE_COMPLETED)},
		leases:    []*pb.Lease{sampleLease(pb.State_STATE_RUNNING)},
		resources: []*pb.Resource{pool("west"), pool("north")},
	}
}

// publicKey is one that ssh-keygen made.
const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIELe3te6SvjGjeiLoAz5SK0xIU1cOiblEVfk2f/Gn2Bn carol"

// TestRequests runs each verb and checks what the site is asked, but for the request id.
func TestRequests(t *testing.T) {
	key := filepath.Join(t.TempDir(), "id.pub")
	if err := os.WriteFile(key, []byte("# mine\n"+publicKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := &pb.LeaseSpec{
		Count: 2, Resources: &pb.Resources{Vcpus: 4, MemoryBytes: 8 << 30}, Image: "debian-12", CloneOf: "webshop/db",
		OnPreempt: pb.ReclaimAction_RECLAIM_ACTION_SAVE, Term: durationpb.New(8 * time.Hour), SshKeys: []string{publicKey},
	}
	for line, want := range map[string]proto.Message{
		"lease create -p web --vm 2x4cpu,8GiB --image debian-12 --term 8h --clone-of webshop/db --on-preempt save --ssh-key " + key: &pb.CreateLeaseRequest{
			Project: "web", Spec: spec, Class: pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE,
		},
		"lease list -p web --all":      &pb.ListLeasesRequest{Project: "web", All: true, PageSize: 500},
		"lease describe web-3 --stale": &pb.GetLeaseRequest{Name: "web-3", Stale: true},
		"lease extend web-3 --by 1d":   &pb.ExtendLeaseRequest{Name: "web-3", By: durationpb.New(24 * time.Hour)},
		"lease release web-3":          &pb.ReleaseLeaseRequest{Name: "web-3"},
		"lease undelete web-3":         &pb.UndeleteLeaseRequest{Name: "web-3"},
		"lease console web-3 --vm 1":   &pb.ReadConsoleRequest{Name: "web-3", Vm: 1},
		"failover list":                &pb.ListFailoversRequest{PageSize: 500},
		"failover describe webshop":    &pb.GetFailoverRequest{Name: "webshop"},
		"failover pause fo-3":          &pb.ControlRequest{Name: "fo-3", Action: pb.ControlAction_CONTROL_ACTION_PAUSE},
		"failover resume fo-3":         &pb.ControlRequest{Name: "fo-3", Action: pb.ControlAction_CONTROL_ACTION_RESUME},
		"failover retry fo-3":          &pb.ControlRequest{Name: "fo-3", Action: pb.ControlAction_CONTROL_ACTION_RETRY},
		"failover retry fo-3 promote":  &pb.ControlRequest{Name: "fo-3", Action: pb.ControlAction_CONTROL_ACTION_RETRY, Step: "promote"},
		"failback fo-3":                &pb.FailbackRequest{Name: "fo-3"},
		"trigger arm east-down":        &pb.ArmRequest{Trigger: "east-down"},
		"host list":                    &pb.ListHostsRequest{},
		"host cordon h7 --reason ram":  &pb.UpdateHostRequest{Name: "h7", Action: "cordon", Reason: "ram"},
		"host cordon h7 --dry-run":     &pb.UpdateHostRequest{Name: "h7", Action: "cordon", DryRun: true},
		"invariants check":             &pb.CheckInvariantsRequest{},
		"tabletop":                     &pb.TabletopRequest{},
		"plan describe webshop":        &pb.TabletopRequest{Plans: []string{"webshop"}},
		"tabletop webshop --lose-host h7 --lose-host h8 --lose-failure-domain rack2": &pb.TabletopRequest{
			Plans: []string{"webshop"}, LoseHosts: []string{"h7", "h8"}, LoseFailureDomains: []string{"rack2"},
		},
		"tabletop --lose-host h7 --lose-only": &pb.TabletopRequest{LoseHosts: []string{"h7"}, LoseOnly: true},
		"host cordon h7 --use-tolerance --for 2h --reason ram": &pb.UpdateHostRequest{
			Name: "h7", Action: "cordon", Reason: "ram", UseTolerance: true, Lasts: durationpb.New(2 * time.Hour),
		},
		"host uncordon h7":             &pb.UpdateHostRequest{Name: "h7", Action: "uncordon"},
		"host readmit h7":              &pb.UpdateHostRequest{Name: "h7", Action: "readmit"},
		"host remove h7 --yes":         &pb.UpdateHostRequest{Name: "h7", Action: "remove"},
		"agent token create --host h7": &pb.CreateTokenRequest{Host: "h7"},
		"objects list --agent h1":      &pb.ListObjectsRequest{Agent: "h1"},
		"status --stale":               &pb.GetStatusRequest{Stale: true},
		"get pool west":                &pb.GetResourceRequest{Kind: "pool", Name: "west"},
		"describe Pools west":          &pb.GetResourceRequest{Kind: "pool", Name: "west"},
		"delete fencetarget east-bmc":  &pb.DeleteResourceRequest{Kind: "fencetarget", Name: "east-bmc"},
		"apply -f ../../examples/webshop.yaml --dry-run --accept-unproven": nil,
		"failover declare webshop billing --reason flood --yes":            &pb.DeclareRequest{Plans: []string{"webshop", "billing"}, Reason: "flood"},
		"failover declare webshop --reason flood --dry-run":                &pb.DeclareRequest{Plans: []string{"webshop"}, Reason: "flood", DryRun: true},
		"failover swear fo-3 --reason dark --plan webshop --yes":           &pb.SwearRequest{Name: "fo-3", Reason: "dark", Plan: "webshop"},
		"failover skip fo-3 promote --reason broken --yes":                 &pb.ControlRequest{Name: "fo-3", Action: pb.ControlAction_CONTROL_ACTION_SKIP, Step: "promote", Reason: "broken"},
		"failover abort fo-3 --reason false-alarm --yes":                   &pb.ControlRequest{Name: "fo-3", Action: pb.ControlAction_CONTROL_ACTION_ABORT, Reason: "false-alarm"},
		"failback fo-3 --discard-recovery-data --reason test --yes":        &pb.FailbackRequest{Name: "fo-3", DiscardRecoveryData: true, Reason: "test"},
		"trigger disarm east-down --reason maintenance":                    &pb.ArmRequest{Trigger: "east-down", Disarm: true, Reason: "maintenance"},
	} {
		t.Run(line, func(t *testing.T) {
			s := sampleSite()
			c := serve(t, s)
			if code := c.run(t, strings.Fields(line)...); code != 0 {
				t.Fatalf("exit code %d: %s", code, &c.err)
			}
			asked := s.requests()
			got := asked[len(asked)-1]
			if want == nil {
				want = got
			}
			checkRequestID(t, got)
			if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(got, requestIDField(got)...)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for text := range strings.Lines(c.out.String()) {
				if len([]rune(text)) > 81 {
					t.Errorf("wider than 80 columns: %q", text)
				}
			}
		})
	}
}

func requestIDField(m proto.Message) []protoreflect.Name {
	if m.ProtoReflect().Descriptor().Fields().ByName("request_id") == nil {
		return nil
	}
	return []protoreflect.Name{"request_id"}
}

// checkRequestID checks that a changing request carries an id.
func checkRequestID(t *testing.T, m proto.Message) {
	t.Helper()
	if fd := m.ProtoReflect().Descriptor().Fields().ByName("request_id"); fd != nil && len(m.ProtoReflect().Get(fd).String()) != 36 {
		t.Errorf("request id is %q", m.ProtoReflect().Get(fd))
	}
}

func TestUsage(t *testing.T) {
	private := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(private, []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	create := "lease create -p web --image i --vm 4cpu,8GiB --term 8h "
	for line, want := range map[string]string{
		create + "--ssh-key " + file("text", "# mine\nhello world\n"):         "line 2 is no ssh public key",
		create + "--ssh-key " + file("cut", publicKey[:50]+"\n"):              "line 1 is no ssh public key",
		create + "--ssh-key " + file("empty", "\n# nothing\n"):                "holds no ssh key",
		create + "--ssh-key /nowhere":                                         "no such file",
		create + "--user-data " + file("over", strings.Repeat("x", 64<<10+1)): "user data has 65537 bytes, at most 65536",
		"statsu":                        "unknown command \"statsu\" for hotspare, did you mean \"status\"?",
		"lease creat":                   "unknown command \"creat\" for hotspare lease, did you mean \"create\"?",
		"lease describe":                "LEASE is missing",
		"lease describe a b":            "\"b\" is one argument too many",
		"status --outptu json":          "unknown flag: --outptu",
		"status -o xml":                 "output \"xml\" is not table",
		"status --request-id 7":         "is not a UUID",
		"lease create":                  "say for which project: -p PROJECT",
		"lease create -p web":           "say what to start from",
		"lease create -p web --image i": "--vm \"\": want for example 4cpu,8GiB",
		"lease create -p web --image i --vm 0x4cpu,8GiB":                              "--vm \"0x4cpu,8GiB\": want",
		"lease create -p web --image i --vm 4cpu,8GB":                                 "--vm \"4cpu,8GB\": want",
		"lease create -p web --image i --vm 4cpu,8GiB":                                "say for how long: --term 8h",
		"lease create -p web --image i --vm 4cpu,8GiB --term -8h":                     "--term \"-8h\": want",
		"lease create -p web --image i --vm 4cpu,8GiB --term 8h --class x":            "--class \"x\" is not preemptible or firm",
		"lease create -p web --image i --vm 4cpu,8GiB --term 8h --on-preempt x":       "--on-preempt \"x\" is not save, shutdown or discard",
		"lease create -p web --image i --vm 4cpu,8GiB --term 8h --ssh-key " + private: "is a private key",
		"lease extend web-3":                      "say by how much",
		"failover declare":                        "PLAN is missing",
		"failover declare webshop":                "say why",
		"failover declare webshop --reason flood": "a failover cannot be undone: repeat with --yes",
		"failover skip fo-3 step --reason x":      "skipping a step cannot be undone: repeat with --yes",
		"failover abort fo-3 --reason x":          "aborting after a promotion cannot be undone: repeat with --yes",
		"failover swear fo-3":                     "say what you saw",
		"failback fo-3 --discard-recovery-data":   "say why what was written here may be lost",
		"host remove h7":                          "removing a host cannot be undone: repeat with --yes",
		"trigger disarm x":                        "say why",
		"get plann":                               "unknown kind \"plann\", did you mean \"plan\"?",
		"get leases":                              "use hotspare lease list",
		"get":                                     "KIND is missing",
		"apply":                                   "say what to apply",
		"apply -f /nowhere":                       "no such file",
		"apply -f ../manifest/testdata/bad-cycle.yaml": "bad-cycle.yaml:7:77: spec.workloads[0].dependsOn: workloads wait for each other: db -> web -> db",
		"agent token create":                           "say for which agent",
		"client issue ann --role king":                 "--role \"king\" is not developer, operator, monitor",
		"client issue ../ann --role operator":          "cannot be the name of a file",
	} {
		t.Run(line, func(t *testing.T) {
			s := sampleSite()
			c := serve(t, s)
			if code := c.run(t, strings.Fields(line)...); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if !strings.Contains(c.err.String(), want) {
				t.Errorf("said %q, want %q", &c.err, want)
			}
			if c.out.Len() > 0 {
				t.Errorf("wrote %q", &c.out)
			}
			for _, m := range s.requests() {
				if requestIDField(m) != nil {
					t.Errorf("asked for a change: %v", m)
				}
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"invalid":         {fault(codes.InvalidArgument, model.FaultInvalid, "x"), 2},
		"not found":       {fault(codes.NotFound, model.FaultNotFound, "x"), 1},
		"exists":          {fault(codes.AlreadyExists, model.FaultExists, "x"), 6},
		"stale":           {fault(codes.Aborted, model.FaultStale, "x"), 6},
		"precondition":    {fault(codes.FailedPrecondition, model.FaultPrecondition, "x"), 6},
		"no fit":          {fault(codes.FailedPrecondition, model.FaultNoFit, "x"), 7},
		"quota":           {fault(codes.ResourceExhausted, model.FaultQuota, "x"), 7},
		"unauthenticated": {fault(codes.Unauthenticated, model.FaultUnauthenticated, "x"), 4},
		"denied":          {fault(codes.PermissionDenied, model.FaultDenied, "x"), 4},
		"unsupported":     {fault(codes.Unimplemented, model.FaultUnsupported, "x"), 1},
		"too many":        {fault(codes.ResourceExhausted, model.FaultTooMany, "x"), 1},
		"no reason":       {status.Error(codes.FailedPrecondition, "x"), 6},
		"internal":        {status.Error(codes.Internal, "x"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := sampleSite()
			s.fail = []error{c.err}
			con := serve(t, s)
			if code := con.run(t, "status", "-o", "json"); code != c.want {
				t.Errorf("exit code %d, want %d: %s", code, c.want, &con.err)
			}
			var got map[string]struct {
				ExitCode int
				Message  string
			}
			if err := json.Unmarshal(con.err.Bytes(), &got); err != nil || got["error"].ExitCode != c.want || !strings.HasSuffix(got["error"].Message, "x") {
				t.Errorf("wrote %s (%v)", &con.err, err)
			}
		})
	}
}

func TestRepeatsTheSameRequest(t *testing.T) {
	s := sampleSite()
	s.fail = []error{fault(codes.Unavailable, model.FaultUnavailable, "no leader"), status.Error(codes.Unavailable, "election")}
	c := serve(t, s)
	if code := c.run(t, "--endpoint", "unix:/dead", "lease", "release", "web-3"); code != 0 {
		t.Fatalf("exit code %d: %s", code, &c.err)
	}
	asked := s.requests()
	if len(asked) != 3 {
		t.Fatalf("asked %d times, want 3", len(asked))
	}
	for _, m := range asked[1:] {
		if !proto.Equal(asked[0], m) {
			t.Errorf("the repeat differs: %v and %v", asked[0], m)
		}
	}
}

func TestNoCoordinator(t *testing.T) {
	s := sampleSite()
	c := serve(t, s)
	c.options.Dial = nil
	c.out.Reset()
	code := cli.Run(t.Context(), c.options, []string{"--socket", filepath.Join(t.TempDir(), "none"), "--timeout", "300ms", "lease", "release", "web-3"})
	if code != 3 {
		t.Errorf("exit code %d, want 3: %s", code, &c.err)
	}
	if !strings.Contains(c.err.String(), "no coordinator answered within 0.3s") && !strings.Contains(c.err.String(), "no coordinator answered within 300ms") {
		t.Errorf("said %s", &c.err)
	}
	if !strings.Contains(c.err.String(), "--request-id 0") {
		t.Errorf("does not say how to repeat it: %s", &c.err)
	}
}

func TestRequestIDIsTaken(t *testing.T) {
	s := sampleSite()
	c := serve(t, s)
	const id = "0196b2f4-8c3e-7d10-9f5e-0a1b2c3d4e5f"
	if code := c.run(t, "lease", "release", "web-3", "--request-id", id); code != 0 {
		t.Fatal(c.err.String())
	}
	if got := s.requests()[0].(*pb.ReleaseLeaseRequest).GetRequestId(); got != id {
		t.Errorf("sent %q", got)
	}
}

func TestLeaseWait(t *testing.T) {
	create := strings.Fields("lease create -p web --image i --vm 4cpu,8GiB --term 8h --wait")
	t.Run("runs", func(t *testing.T) {
		s := sampleSite()
		s.leases = []*pb.Lease{sampleLease(pb.State_STATE_DEFINED), sampleLease(pb.State_STATE_RUNNING)}
		c := serve(t, s)
		if code := c.run(t, create...); code != 0 || len(s.requests()) != 3 {
			t.Errorf("exit code %d after %d requests: %s", code, len(s.requests()), &c.err)
		}
	})
	t.Run("goes on", func(t *testing.T) {
		s := sampleSite()
		s.leases = []*pb.Lease{sampleLease(pb.State_STATE_DEFINED)}
		c := serve(t, s)
		if code := c.run(t, append(create, "--timeout", "100ms")...); code != 5 || !strings.Contains(c.err.String(), "hotspare lease describe web-3") {
			t.Errorf("exit code %d: %s", code, &c.err)
		}
	})
	t.Run("ended", func(t *testing.T) {
		s := sampleSite()
		ended := sampleLease(pb.State_STATE_ABSENT)
		ended.Phase, ended.Reason = pb.LeasePhase_LEASE_PHASE_LOST, "host h1 was destroyed"
		s.leases = []*pb.Lease{ended}
		c := serve(t, s)
		if code := c.run(t, create...); code != 1 || !strings.Contains(c.err.String(), "host h1 was destroyed") {
			t.Errorf("exit code %d: %s", code, &c.err)
		}
	})
}

func TestClientIssue(t *testing.T) {
	s := sampleSite()
	c := serve(t, s)
	dir := filepath.Join(t.TempDir(), "new")
	if code := c.run(t, "client", "issue", "ann", "--role", "operator", "--out", dir); code != 0 {
		t.Fatalf("exit code %d: %s", code, &c.err)
	}
	for name, mode := range map[string]os.FileMode{"ann.key": 0o600, "ann.crt": 0o644, "ca.crt": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "ann.key"))
	if err != nil || !strings.Contains(string(key), "PRIVATE KEY") {
		t.Errorf("key is %q", key)
	}
	r := s.requests()[0].(*pb.IssueClientRequest)
	if csr, err := x509.ParseCertificateRequest(r.GetCsr()); err != nil || csr.CheckSignature() != nil {
		t.Errorf("sent %v: %v", r, err)
	}
	if code := c.run(t, "client", "issue", "ann", "--role", "operator", "--out", dir); code != 2 || !strings.Contains(c.err.String(), "exists") {
		t.Errorf("an old key was overwritten: exit code %d, %s", code, &c.err)
	}
}

func TestDev(t *testing.T) {
	c := serve(t, sampleSite())
	if code := c.run(t, "dev"); code != 2 {
		t.Errorf("without a site to run: exit code %d", code)
	}
	var got cli.DevOptions
	c.options.Dev = func(_ context.Context, o cli.DevOptions) error { got = o; return nil }
	if code := c.run(t, "dev", "--hosts", "5"); code != 0 || got.Hosts != 5 {
		t.Errorf("exit code %d with %+v: %s", code, got, &c.err)
	}
	if code := c.run(t, "dev", "--hosts", "0"); code != 2 {
		t.Errorf("no hosts: exit code %d", code)
	}
}

func TestCompletion(t *testing.T) {
	c := serve(t, sampleSite())
	for line, want := range map[string]string{
		"__complete get pool ":       "west",
		"__complete get p":           "project",
		"__complete lease describe ": "web-3",
		"__complete failover watch ": "fo-3",
		"__complete host cordon ":    "h2",
	} {
		args := strings.Split(line, " ")
		c.out.Reset()
		if code := cli.Run(t.Context(), c.options, slices.Insert(args, 1, "--endpoint", "unix:/c1")); code != 0 || !strings.Contains(c.out.String(), want) {
			t.Errorf("%s: exit code %d, wrote %q, %q", line, code, &c.out, &c.err)
		}
	}
}

func TestEvidenceVerify(t *testing.T) {
	var lines []string
	var previous []byte
	for n := uint64(1); n <= 3; n++ {
		e := &pb.Evidence{Sequence: n, Time: timestamppb.New(now()), Actor: "user/operator/ann", Action: "declare", PreviousHash: previous}
		e.Hash = evidence.ChainHash(previous, e)
		previous = e.GetHash()
		raw, err := protojson.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(raw)+"\n")
	}
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"whole":   {strings.Join(lines, ""), 0},
		"tail":    {lines[1] + lines[2], 0},
		"changed": {lines[0] + strings.Replace(lines[1], "ann", "bob", 1) + lines[2], 1},
		"removed": {lines[0] + lines[2], 1},
		"text":    {"hello\n", 1},
		"empty":   {"", 1},
	} {
		t.Run(name, func(t *testing.T) {
			con := serve(t, sampleSite())
			con.options.In = strings.NewReader(c.text)
			if code := con.run(t, "evidence", "verify", "-"); code != c.want {
				t.Errorf("exit code %d, want %d: %s%s", code, c.want, &con.out, &con.err)
			}
		})
	}
}
