package cli_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli"
	"github.com/hotspare/hotspare/internal/model"
)

// site is a small coordinator: it answers what it was given and remembers what it was asked.
type site struct {
	pb.UnimplementedLeaseServiceServer
	pb.UnimplementedResourceServiceServer
	pb.UnimplementedFailoverServiceServer
	pb.UnimplementedSiteServiceServer

	mu sync.Mutex
	// asked holds all requests in order; guarded by mu.
	asked []proto.Message
	// fail answers the next calls with these errors, then it answers properly; guarded by mu.
	fail []error
	// failovers are what a watch shows one after the other; the last is what Get shows.
	failovers []*pb.Failover
	// leases are what GetLease shows one after the other; the last one stays.
	leases    []*pb.Lease
	resources []*pb.Resource
	// consoleText is what a guest wrote; guarded by mu once the site is served.
	consoleText string
	// tabled is what a tabletop would declare.
	tabled   *pb.Failover
	verdicts []*pb.InvariantVerdict
	// hold keeps a watch open after its last message.
	hold bool
}

// ask records a request and returns the error that it shall meet.
func (s *site) ask(m proto.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, m)
	if len(s.fail) == 0 {
		return nil
	}
	err := s.fail[0]
	s.fail = s.fail[1:]
	return err
}

func (s *site) requests() []proto.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]proto.Message(nil), s.asked...)
}

func (s *site) newest() *pb.Failover { return s.failovers[len(s.failovers)-1] }

func (s *site) Apply(_ context.Context, r *pb.ApplyRequest) (*pb.ApplyResponse, error) {
	answer := &pb.ApplyResponse{}
	for _, x := range r.GetResources() {
		answer.Outcomes = append(answer.Outcomes, &pb.ApplyOutcome{Key: model.ResourceKey(x), Action: "created"})
	}
	return answer, s.ask(r)
}

func (s *site) GetResource(_ context.Context, r *pb.GetResourceRequest) (*pb.GetResourceResponse, error) {
	return &pb.GetResourceResponse{Resource: s.resources[0], Readiness: &pb.Readiness{
		Plan:      r.GetName(),
		Obstacles: []*pb.Obstacle{{Object: "volume/x", What: "no consistent point", Remedy: "start the replication"}},
	}}, s.ask(r)
}

func (s *site) ListResources(_ context.Context, r *pb.ListResourcesRequest) (*pb.ListResourcesResponse, error) {
	if r.GetPageToken() == "" { // two pages
		return &pb.ListResourcesResponse{Resources: s.resources[:1], NextPageToken: "more"}, s.ask(r)
	}
	return &pb.ListResourcesResponse{Resources: s.resources[1:]}, s.ask(r)
}

func (s *site) DeleteResource(_ context.Context, r *pb.DeleteResourceRequest) (*pb.DeleteResourceResponse, error) {
	return &pb.DeleteResourceResponse{}, s.ask(r)
}

func (s *site) CreateLease(_ context.Context, r *pb.CreateLeaseRequest) (*pb.CreateLeaseResponse, error) {
	return &pb.CreateLeaseResponse{Lease: s.leases[0]}, s.ask(r)
}

func (s *site) GetLease(_ context.Context, r *pb.GetLeaseRequest) (*pb.GetLeaseResponse, error) {
	err := s.ask(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[0]
	if len(s.leases) > 1 {
		s.leases = s.leases[1:]
	}
	return &pb.GetLeaseResponse{Lease: l}, err
}

func (s *site) ListLeases(_ context.Context, r *pb.ListLeasesRequest) (*pb.ListLeasesResponse, error) {
	return &pb.ListLeasesResponse{Leases: s.leases}, s.ask(r)
}

func (s *site) ExtendLease(_ context.Context, r *pb.ExtendLeaseRequest) (*pb.ExtendLeaseResponse, error) {
	return &pb.ExtendLeaseResponse{Lease: s.leases[0]}, s.ask(r)
}

func (s *site) ReleaseLease(_ context.Context, r *pb.ReleaseLeaseRequest) (*pb.ReleaseLeaseResponse, error) {
	return &pb.ReleaseLeaseResponse{Lease: s.leases[0]}, s.ask(r)
}

func (s *site) UndeleteLease(_ context.Context, r *pb.UndeleteLeaseRequest) (*pb.UndeleteLeaseResponse, error) {
	return &pb.UndeleteLeaseResponse{Lease: s.leases[0]}, s.ask(r)
}

// WatchLease shows all leases one after the other, each on a stream of its own; the last is gone.
func (s *site) WatchLease(r *pb.WatchLeaseRequest, stream pb.LeaseService_WatchLeaseServer) error {
	if err := s.ask(r); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leases) == 0 {
		return fault(codes.NotFound, model.FaultNotFound, "lease/web-3: is deleted, its disks with it")
	}
	l := s.leases[0]
	s.leases = s.leases[1:]
	if err := stream.Send(&pb.WatchLeaseResponse{Lease: l}); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "the leader went away")
}

// ReadConsole gives the text in two parts; with more calls each gives what lies behind the offset asked for.
func (s *site) ReadConsole(r *pb.ReadConsoleRequest, stream pb.LeaseService_ReadConsoleServer) error {
	if err := s.ask(r); err != nil {
		return err
	}
	s.mu.Lock()
	text, state := s.consoleText[min(r.GetAfter(), uint64(len(s.consoleText))):], s.leases[0].GetLive()[0].GetState()
	s.mu.Unlock()
	half := len(text) / 2
	for _, end := range []int{half, len(text)} {
		m := &pb.ReadConsoleResponse{Text: []byte(text[:end]), End: r.GetAfter() + uint64(end), State: state}
		if end == len(text) {
			m.Text = []byte(text[half:])
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	if !r.GetFollow() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.consoleText += "more\n"; len(s.consoleText) > 60 {
		return fault(codes.FailedPrecondition, model.FaultPrecondition, "host/h1: its agent fell silent")
	}
	return status.Error(codes.Unavailable, "the leader went away")
}

func (s *site) Declare(_ context.Context, r *pb.DeclareRequest) (*pb.DeclareResponse, error) {
	return &pb.DeclareResponse{Failover: s.failovers[0]}, s.ask(r)
}

func (s *site) GetFailover(_ context.Context, r *pb.GetFailoverRequest) (*pb.GetFailoverResponse, error) {
	return &pb.GetFailoverResponse{Failover: s.newest()}, s.ask(r)
}

func (s *site) ListFailovers(_ context.Context, r *pb.ListFailoversRequest) (*pb.ListFailoversResponse, error) {
	return &pb.ListFailoversResponse{Failovers: s.failovers}, s.ask(r)
}

func (s *site) WatchFailover(r *pb.WatchFailoverRequest, stream pb.FailoverService_WatchFailoverServer) error {
	if err := s.ask(r); err != nil {
		return err
	}
	for _, f := range s.failovers {
		if err := stream.Send(&pb.WatchFailoverResponse{Failover: f}); err != nil {
			return err
		}
	}
	if s.hold {
		<-stream.Context().Done()
	}
	return nil
}

func (s *site) Swear(_ context.Context, r *pb.SwearRequest) (*pb.SwearResponse, error) {
	return &pb.SwearResponse{Failover: s.newest()}, s.ask(r)
}

func (s *site) Control(_ context.Context, r *pb.ControlRequest) (*pb.ControlResponse, error) {
	return &pb.ControlResponse{Failover: s.newest()}, s.ask(r)
}

func (s *site) Failback(_ context.Context, r *pb.FailbackRequest) (*pb.FailbackResponse, error) {
	return &pb.FailbackResponse{Failover: s.newest()}, s.ask(r)
}

func (s *site) Arm(_ context.Context, r *pb.ArmRequest) (*pb.ArmResponse, error) {
	return &pb.ArmResponse{Trigger: &pb.Trigger{
		Metadata: &pb.Metadata{Name: r.GetTrigger()}, Spec: &pb.TriggerSpec{Plans: []string{"webshop"}},
		Status: &pb.TriggerStatus{Disarmed: r.GetDisarm(), Reason: r.GetReason()},
	}}, s.ask(r)
}

func (s *site) GetStatus(_ context.Context, r *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	return &pb.GetStatusResponse{Guarantee: "Proven(1)", Index: 7, Members: []*pb.Member{{Name: "c1", Leader: true}}, Lent: &pb.Lent{}}, s.ask(r)
}

func (s *site) ListHosts(_ context.Context, r *pb.ListHostsRequest) (*pb.ListHostsResponse, error) {
	return &pb.ListHostsResponse{Hosts: []*pb.Host{{Name: "h1"}, {Name: "h2"}}}, s.ask(r)
}

func (s *site) UpdateHost(_ context.Context, r *pb.UpdateHostRequest) (*pb.UpdateHostResponse, error) {
	return &pb.UpdateHostResponse{Host: &pb.Host{Name: r.GetName(), Cordoned: r.GetAction() == "cordon"}}, s.ask(r)
}

func (s *site) Tabletop(_ context.Context, r *pb.TabletopRequest) (*pb.TabletopResponse, error) {
	return &pb.TabletopResponse{Now: &pb.SiteProof{Guarantee: "Proven(1)"}, Failover: s.tabled}, s.ask(r)
}

func (s *site) CheckInvariants(_ context.Context, r *pb.CheckInvariantsRequest) (*pb.CheckInvariantsResponse, error) {
	return &pb.CheckInvariantsResponse{Verdicts: s.verdicts}, s.ask(r)
}

func (s *site) CreateToken(_ context.Context, r *pb.CreateTokenRequest) (*pb.CreateTokenResponse, error) {
	return &pb.CreateTokenResponse{Token: "secret-token", ExpiresAt: timestamppb.New(now()), Authority: []byte("authority\n")}, s.ask(r)
}

func (s *site) IssueClient(_ context.Context, r *pb.IssueClientRequest) (*pb.IssueClientResponse, error) {
	return &pb.IssueClientResponse{Certificate: []byte("certificate\n"), Authority: []byte("authority\n")}, s.ask(r)
}

func (s *site) ListObjects(_ context.Context, r *pb.ListObjectsRequest) (*pb.ListObjectsResponse, error) {
	return &pb.ListObjectsResponse{Objects: []*pb.ObjectView{{Object: &pb.Object{Id: "instance/a", Agent: "h1"}}}}, s.ask(r)
}

// ListEvidence has five entries and gives two at a time.
func (s *site) ListEvidence(_ context.Context, r *pb.ListEvidenceRequest) (*pb.ListEvidenceResponse, error) {
	answer := &pb.ListEvidenceResponse{}
	for n := r.GetAfterSequence() + 1; n <= 5 && len(answer.Entries) < 2; n++ {
		answer.Entries = append(answer.Entries, &pb.Evidence{Sequence: n, Time: timestamppb.New(now()), Actor: "user/operator/ann", Action: "declare", Hash: []byte{1}})
	}
	return answer, s.ask(r)
}

// now is the time in all tests.
func now() time.Time { return time.Date(2026, 11, 20, 10, 4, 0, 0, time.UTC) }

// console runs commands against a site.
type console struct {
	options cli.Options
	out     bytes.Buffer
	err     bytes.Buffer
}

// serve starts a site in memory and returns a console for it.
func serve(t *testing.T, s *site) *console {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	pb.RegisterLeaseServiceServer(server, s)
	pb.RegisterResourceServiceServer(server, s)
	pb.RegisterFailoverServiceServer(server, s)
	pb.RegisterSiteServiceServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // returns when Stop closes the listener
	}()
	t.Cleanup(func() { server.Stop(); <-done })
	c := &console{}
	c.options = cli.Options{
		In: strings.NewReader(""), Out: &c.out, Err: &c.err, Width: 80, Now: now, Version: "1.2.3",
		Env: func(string) string { return "" },
		Dial: func(ctx context.Context, endpoint string) (net.Conn, error) {
			if endpoint != "unix:/c1" {
				return nil, &net.OpError{Op: "dial", Net: "unix", Err: net.ErrClosed}
			}
			return listener.DialContext(ctx)
		},
	}
	return c
}

// run runs one command line and returns its exit code; outputs are those of this command only.
func (c *console) run(t *testing.T, args ...string) int {
	t.Helper()
	return c.runContext(t.Context(), args...)
}

func (c *console) runContext(ctx context.Context, args ...string) int {
	c.out.Reset()
	c.err.Reset()
	return cli.Run(ctx, c.options, append([]string{"--endpoint", "unix:/c1"}, args...))
}

// fault makes an error as the coordinator answers it.
func fault(code codes.Code, f model.Fault, text string) error {
	st, err := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Domain: model.ErrorDomain, Reason: f.Reason()})
	if err != nil {
		panic(err)
	}
	return st.Err()
}
