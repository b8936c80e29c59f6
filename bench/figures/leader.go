package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hotspare/hotspare/bench/figure"
	"github.com/hotspare/hotspare/e2e/lab"
	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// pagePlan is a plan that is done in seconds: a VM without data and without a probe, so that no guest's boot is
// measured, and a name that is repointed behind it. It has a fence, a victim, and steps on four agents.
const pagePlan = `apiVersion: hotspare/v1
kind: Plan
metadata: {name: page}
spec:
  rank: 20
  fencing:
  - {power: {target: east-power}, timeout: 20s}
  workloads:
  - name: page
    resources: {vcpus: 2, memory: 128MiB}
    image: tiny
    nics: [{network: prod-10, mac: "52:54:00:aa:00:02", address: 10.10.0.12/24}]
  endpoints:
  - dns: {zone: shop.example., name: page, type: A, values: [203.0.113.20], ttl: 30s, after: [page]}
`

const (
	pageName    = "page.shop.example."
	pageAddress = "203.0.113.20"
)

// measureLeader fails over with and without the leader killed right after the declaration, in turn.
func (b *bed) measureLeader(ctx context.Context, f *figures) error {
	// The fence has nothing to do in any round, instead of in the first one only.
	if _, err := b.East.Run(ctx, "virsh", "--connect", "qemu:///system", "destroy", productionDomain); err != nil {
		return err
	}
	if err := b.Apply(ctx, pagePlan); err != nil {
		return err
	}
	if err := b.AwaitReady(ctx, "page"); err != nil {
		return err
	}
	for n := range 2 * f.rounds {
		kill := n%2 == 1
		took, err := b.leaderRound(ctx, kill)
		if err != nil {
			return fmt.Errorf("round %d with the leader killed: %t: %w", n/2+1, kill, err)
		}
		word := map[bool]string{false: "no", true: "yes"}[kill]
		f.add(figure.Line{Name: "Leader/killed=" + word, Values: map[string]float64{"ns/op": float64(took)}})
	}
	if _, err := b.Run(ctx, "delete", "plan", "page"); err != nil {
		return err
	}
	return b.StartProduction(ctx)
}

// leaderRound is one failover and failback; it returns the time from the declaration to the name server's new answer.
func (b *bed) leaderRound(ctx context.Context, kill bool) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leader, err := b.leader(ctx)
	if err != nil {
		return 0, err
	}
	result := b.observe(ctx, "", pageName, pageAddress)
	began := time.Now()
	f, err := b.declare(ctx, "page")
	if err != nil {
		return 0, err
	}
	if kill {
		if err := b.Process(leader).Kill(ctx); err != nil {
			return 0, err
		}
	}
	saw, err := result()
	if err != nil {
		return 0, err
	}
	if kill {
		if err := b.StartCoordinator(leader); err != nil {
			return 0, err
		}
	}
	if _, err := b.awaitPhase(ctx, f.GetName(), pb.RunPhase_RUN_PHASE_COMPLETED); err != nil {
		return 0, err
	}
	if err := b.failBack(ctx, f.GetName()); err != nil {
		return 0, err
	}
	return saw.Named.Sub(began), b.awaitMember(ctx, leader)
}

// leader returns the member that leads.
func (b *bed) leader(ctx context.Context) (leader *lab.Host, err error) {
	err = await(ctx, "a leader", func(ctx context.Context) error {
		st, err := b.status.GetStatus(ctx, &pb.GetStatusRequest{})
		if err != nil {
			return err
		}
		for i, m := range st.GetMembers() {
			if m.GetLeader() {
				leader = b.Coordinators[i]
				if leader.Name != m.GetName() {
					return fmt.Errorf("member %d is %s, not %s", i, m.GetName(), leader.Name)
				}
				return nil
			}
		}
		return fmt.Errorf("nobody leads")
	})
	return leader, err
}

// awaitMember waits until a member that was started again follows: it then answers by asking the leader.
func (b *bed) awaitMember(ctx context.Context, member *lab.Host) error {
	conn, err := b.Connect(member)
	if err != nil {
		return err
	}
	defer conn.Close()
	return await(ctx, member.Name+" to follow", func(ctx context.Context) error {
		_, err := pb.NewSiteServiceClient(conn).GetStatus(ctx, &pb.GetStatusRequest{})
		return err
	})
}
