package bench

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// BenchmarkDeclare measures from the call of Declare to the first order in the agent's hands, on three
// members with TLS and fsync. The limit is one raft commit (of an entry of about the same size) and one
// gRPC round trip, measured between the declarations of the same run; x/limit is the ratio of medians.
func BenchmarkDeclare(b *testing.B) {
	s := newSite(b)
	agent := newObedient(b, s, "h1")
	apply(b, s, &pb.Resource{Resource: &pb.Resource_Image{Image: &pb.Image{
		Metadata: &pb.Metadata{Name: "guest"}, Spec: &pb.ImageSpec{Disk: "/image"},
	}}}, &pb.Resource{Resource: &pb.Resource_FenceTarget{FenceTarget: &pb.FenceTarget{
		Metadata: &pb.Metadata{Name: "old"}, Spec: &pb.FenceTargetSpec{Agent: "h1"},
	}}}, plan(planName(0)))
	await(b, "the host and the fence to be known", func() bool {
		return s.leader.State().Host("h1").GetCapacity() != nil && s.leader.State().Object("fence/old") != nil
	})
	failovers, health := pb.NewFailoverServiceClient(s.conn), grpc_health_v1.NewHealthClient(s.conn)
	var declares, commits, trips []time.Duration
	for b.Loop() {
		began := time.Now()
		resp := must(failovers.Declare(b.Context(), &pb.DeclareRequest{RequestId: uuid.NewString(), Plans: []string{planName(0)}, Reason: "bench"}))(b)
		declares = append(declares, (<-agent.orders).Sub(began))

		name := resp.GetFailover().GetName()
		phase := func() pb.RunPhase { return s.leader.State().Failover(name).GetPhase() }
		await(b, "the run to complete", func() bool { return phase() == pb.RunPhase_RUN_PHASE_COMPLETED })
		must(failovers.Failback(b.Context(), &pb.FailbackRequest{RequestId: uuid.NewString(), Name: name}))(b)
		await(b, "the run to end", func() bool {
			return !model.Open(phase()) && s.leader.State().Object(resp.GetFailover().GetPlacements()[0].GetObject()) == nil
		})
		for len(agent.orders) > 0 {
			<-agent.orders
		}

		began = time.Now()
		must(s.leader.Propose(b.Context(), "bench", &pb.Command{Body: &pb.Command_StoreToken{StoreToken: &pb.StoreToken{
			TokenHash: make([]byte, 1<<10), Host: "h1", ExpiresAt: timestamppb.New(began.Add(time.Second)),
		}}}))(b)
		commits = append(commits, time.Since(began))
		began = time.Now()
		must(health.Check(b.Context(), &grpc_health_v1.HealthCheckRequest{}))(b)
		trips = append(trips, time.Since(began))
	}
	d, c, t := median(declares), median(commits), median(trips)
	b.ReportMetric(ms(d), "declare-ms")
	b.ReportMetric(ms(c), "commit-ms")
	b.ReportMetric(ms(t), "roundtrip-ms")
	b.ReportMetric(ms(c+t), "limit-ms")
	b.ReportMetric(float64(d)/float64(c+t), "x/limit")
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
