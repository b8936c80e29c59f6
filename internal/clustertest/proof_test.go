package clustertest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

func (s *site) status() *pb.GetStatusResponse {
	s.t.Helper()
	var st *pb.GetStatusResponse
	s.call(func(ctx context.Context, c *grpc.ClientConn) (err error) {
		st, err = pb.NewSiteServiceClient(c).GetStatus(ctx, &pb.GetStatusRequest{})
		return err
	})
	return st
}

// A host that is down when the leader changes stays down to the next one, once agents had the time to come: it does not
// count in the proof, is an alarm, and gets nothing. Until then nothing is known of it (R5).
func TestHostIsDownAtAnElection(t *testing.T) {
	bubble(t, 3, func(s *site) {
		s.cutAgent("h1")
		s.until("the host is missed", time.Minute, func() bool { return s.state().Guarantee().GetWord() == "Degraded(0)" })
		s.crashLeader()
		s.allMembersUp()
		s.sleep(time.Minute)
		st := s.status()
		if st.GetGuarantee() != "Degraded(0)" || s.state().Guarantee().GetWord() != "Degraded(0)" {
			t.Errorf("without h1 the next leader says %s, and keeps %s", st.GetGuarantee(), s.state().Guarantee().GetWord())
		}
		if !strings.Contains(strings.Join(st.GetAlarms(), "\n"), "agent h1 is silent") {
			t.Errorf("alarms: %q", st.GetAlarms())
		}
		f := s.declare("webshop")
		for _, p := range f.GetPlacements() {
			if p.GetHost() == "h1" {
				t.Errorf("%s is placed on a host that is down", p.GetWorkload())
			}
		}
		s.completes(f.GetName())
		s.healAgent("h1")
		s.over(f.GetName())
		s.ready()
	})
}

// Two hosts that are cordoned at the same moment: each alone would leave a proof, both do not.
func TestCordonsAtOnce(t *testing.T) {
	bubble(t, 3, func(s *site) {
		errs := map[string]error{}
		var mu sync.Mutex
		var set sync.WaitGroup
		for _, host := range []string{"h1", "h2"} {
			req := &pb.UpdateHostRequest{RequestId: s.request(), Name: host, Action: "cordon", Reason: "ram", UseTolerance: true, Lasts: durationpb.New(2 * time.Hour)}
			set.Go(func() {
				err := s.try(func(ctx context.Context, c *grpc.ClientConn) error {
					_, err := pb.NewSiteServiceClient(c).UpdateHost(ctx, req)
					return err
				})
				mu.Lock()
				defer mu.Unlock()
				errs[host] = err
			})
		}
		set.Wait()
		if (errs["h1"] == nil) == (errs["h2"] == nil) {
			t.Errorf("want one of them refused: %v", errs)
		}
		if w := s.status().GetGuarantee(); w != "Degraded(0)" {
			t.Errorf("then the site is %s", w)
		}
		s.sleep(2*time.Hour + time.Minute)
		s.ready()
	})
}

// What the proof rests on besides plans and hosts cannot be taken away either.
func TestReachAndLabelsAreKept(t *testing.T) {
	bubble(t, 3, func(s *site) {
		s.apply(constrained)
		s.apply(workloads("resources: {vcpus: 1, memory: 1GiB}, requires: {disk: fast}"))
		s.ready()
		err := s.asks("apiVersion: hotspare/v1\nkind: Pool\nmetadata: {name: west}\nspec: {agent: store1, exportAddress: \"10.77.0.9:10809\", hosts: [h1]}\n")
		if err == nil || !strings.Contains(err.Error(), "pool west") {
			t.Errorf("a pool that fewer hosts reach: %v", err)
		}
		req := &pb.DeleteResourceRequest{RequestId: s.request(), Kind: "host", Name: "h3"}
		err = s.try(func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewResourceServiceClient(c).DeleteResource(ctx, req)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "plan asked") {
			t.Errorf("a host whose labels a plan needs: %v", err)
		}
		s.ready()
	})
}
