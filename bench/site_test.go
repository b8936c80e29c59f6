package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/join"
	"github.com/hotspare/hotspare/internal/coordinator"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/trust"
)

// limit bounds every wait of a benchmark.
const limit = 30 * time.Second

// site is three coordinators on loopback with real TLS and real fsyncs, and a client of the leader.
type site struct {
	leader *coordinator.Coordinator
	// api is the leader's address, conn a connection to it as root.
	api  string
	conn *grpc.ClientConn
}

func newSite(b *testing.B) *site {
	b.Helper()
	dir := b.TempDir()
	authority := must(trust.NewAuthority(time.Now()))(b)
	names := []string{"c1", "c2", "c3"}
	addresses := map[string]string{}
	listeners := map[string]coordinator.Listeners{}
	transports := map[string]raftnode.Transport{}
	keepers := map[string]*trust.Keeper{}
	for _, n := range names {
		keepers[n] = identity(b, authority, n, filepath.Join(dir, n+".pem"))
		l := coordinator.Listeners{
			API:    must(net.Listen("tcp", "127.0.0.1:0"))(b),
			Socket: must(net.Listen("unix", filepath.Join(dir, n+".sock")))(b),
		}
		listeners[n], addresses[n] = l, l.API.Addr().String()
		transports[n] = must(raftnode.NewTLSTransport(raftnode.TLSOptions{
			Listen: "127.0.0.1:0", Server: keepers[n].RaftServer(), Client: keepers[n].RaftClient(), Logger: slog.New(slog.DiscardHandler),
		}))(b)
	}
	var members []*coordinator.Coordinator
	for _, n := range names {
		c := must(coordinator.Start(b.Context(), coordinator.Options{
			Name: n, Dir: filepath.Join(dir, n), Transport: transports[n], Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Authority: authority, Addresses: addresses,
		}))(b)
		servers := must(c.Serve(coordinator.ServeOptions{
			Listeners: listeners[n], Server: keepers[n].Server(), Client: keepers[n].Client(), Local: trust.NewLocal(0),
		}))(b)
		b.Cleanup(func() { servers.Stop(); must(0, c.Stop())(b) })
		members = append(members, c)
	}
	var others []raftnode.Member
	for _, n := range names[1:] {
		others = append(others, raftnode.Member{Name: n, Address: string(transports[n].LocalAddr())})
	}
	must(0, members[0].Bootstrap(b.Context(), others...))(b)
	s := &site{}
	await(b, "a leader with an authority", func() bool {
		for i, c := range members {
			if c.Leading() == nil && len(c.State().Meta().GetAuthorityKey()) > 0 {
				s.leader, s.api = c, addresses[names[i]]
				s.conn = must(grpc.NewClient("unix:"+filepath.Join(dir, names[i]+".sock"), grpc.WithTransportCredentials(insecure.NewCredentials())))(b)
				return true
			}
		}
		return false
	})
	b.Cleanup(func() { must(0, s.conn.Close())(b) })
	return s
}

func identity(b *testing.B, a *trust.Authority, name, path string) *trust.Keeper {
	b.Helper()
	key := must(trust.NewKey())(b)
	cert := must(a.Sign(trust.Order{
		Request: must(trust.NewRequest(key))(b), Identity: trust.Identity{Role: trust.RoleCoordinator, Name: name},
		Life: trust.DaemonLife, Now: time.Now(),
	}))(b)
	must(0, trust.SaveIdentity(path, key, cert, a.CertificatePEM()))(b)
	return must(trust.OpenKeeper(path, time.Now))(b)
}

// must ends the benchmark on an error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// await waits until a condition holds.
func await(b *testing.B, what string, holds func() bool) {
	b.Helper()
	for end := time.Now().Add(limit); !holds(); {
		if time.Now().After(end) {
			b.Fatalf("waited %v for %s", limit, what)
		}
		<-time.After(time.Millisecond)
	}
}

// obedient is an agent that does everything at once: what it measures is only the way of an order.
type obedient struct {
	stream pb.AgentService_SessionClient
	orders chan time.Time // when the first order of an open epoch arrived
}

func newObedient(b *testing.B, s *site, name string) *obedient {
	b.Helper()
	token := must(pb.NewSiteServiceClient(s.conn).CreateToken(b.Context(), &pb.CreateTokenRequest{RequestId: uuid.NewString(), Host: name}))(b)
	path := filepath.Join(b.TempDir(), "agent.pem")
	must(0, join.Join(b.Context(), join.Options{
		Name: name, Token: token.GetToken(), Coordinators: []string{s.api}, Path: path, Now: time.Now,
	}))(b)
	keeper := must(trust.OpenKeeper(path, time.Now))(b)
	conn := must(grpc.NewClient(s.api, grpc.WithTransportCredentials(credentials.NewTLS(keeper.Client()))))(b)
	b.Cleanup(func() { must(0, conn.Close())(b) })
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	a := &obedient{stream: must(pb.NewAgentServiceClient(conn).Session(ctx))(b), orders: make(chan time.Time, 1000)}
	must(0, a.stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: &pb.Hello{
		Agent: name, BootId: "boot", JournalId: "journal", Capacity: &pb.Capacity{Vcpus: 64, MemoryBytes: 1 << 40},
		Offer: &pb.AgentOffer{Hypervisor: true},
	}}}))(b)
	must(0, a.report(&pb.StatusReport{Full: true}))(b)
	go a.obey()
	go func() {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for n := uint64(0); ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			if a.stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Heartbeat{Heartbeat: &pb.Heartbeat{Sequence: n}}}) != nil {
				return
			}
		}
	}()
	return a
}

func (a *obedient) report(r *pb.StatusReport) error {
	return a.stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Statuses{Statuses: r}})
}

// obey answers each order with the status that it asks for.
func (a *obedient) obey() {
	for {
		m, err := a.stream.Recv()
		if err != nil {
			return
		}
		at, report, open := time.Now(), &pb.StatusReport{}, false
		for _, o := range m.GetOrders().GetOrders() {
			open = open || o.GetEpoch() > 0
			status := &pb.Status{
				Object: o.GetObject(), Era: m.GetOrders().GetEra(), Generation: o.GetGeneration(), BootId: "boot",
				State: o.GetSpec().GetState(), Phase: pb.Phase_PHASE_SETTLED,
			}
			if f := o.GetSpec().GetFence(); f != nil { // Evidence counts for one epoch only.
				status.Details = &pb.Status_Fence{Fence: &pb.FenceStatus{Epoch: f.GetEpoch(), Evidence: "off", ObservedAt: timestamppb.New(at)}}
			}
			report.Statuses = append(report.Statuses, status)
		}
		if open {
			a.orders <- at
		}
		if len(report.GetStatuses()) > 0 && a.report(report) != nil {
			return
		}
	}
}

// plan is a recovery plan of one VM.
func plan(name string) *pb.Resource {
	return &pb.Resource{Resource: &pb.Resource_Plan{Plan: &pb.Plan{
		Metadata: &pb.Metadata{Name: name},
		Spec: &pb.PlanSpec{Fencing: []*pb.Fencing{{Power: &pb.PowerFencing{Target: "old"}}}, Workloads: []*pb.Workload{{
			Name: "vm", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30}, Image: "guest",
		}}},
	}}}
}

func apply(b *testing.B, s *site, rs ...*pb.Resource) {
	b.Helper()
	must(pb.NewResourceServiceClient(s.conn).Apply(b.Context(), &pb.ApplyRequest{
		RequestId: uuid.NewString(), Resources: rs, AcceptUnproven: true,
	}))(b)
}

func planName(i int) string { return fmt.Sprintf("p%d", i) }
