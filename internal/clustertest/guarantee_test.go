package clustertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/manifest"
)

// constrained gives the hosts of a site what plans can ask for: h1 and h2 are in one rack, h1 and h3 have
// fast disks, and one network does not reach h3.
const constrained = `
apiVersion: hotspare/v1
kind: Host
metadata: {name: h1, labels: {disk: fast, cpu: old}}
spec: {failureDomain: rack1, overcommit: 1, reserveMemory: 0B}
---
apiVersion: hotspare/v1
kind: Host
metadata: {name: h2}
spec: {failureDomain: rack1, overcommit: 1, reserveMemory: 0B}
---
apiVersion: hotspare/v1
kind: Host
metadata: {name: h3, labels: {disk: fast}}
spec: {failureDomain: rack2, overcommit: 1, reserveMemory: 0B}
---
apiVersion: hotspare/v1
kind: Network
metadata: {name: prod-20}
spec: {role: production, bridge: br-prod20, uplink: eth1, subnet: 10.30.0.0/24, gateway: 10.30.0.1, hosts: [h1, h2], probeAddresses: [10.30.0.201/24, 10.30.0.202/24]}
---
apiVersion: hotspare/v1
kind: Network
metadata: {name: prod-30}
spec: {role: production, bridge: br-prod30, uplink: eth1, subnet: 10.40.0.0/24, gateway: 10.40.0.1, hosts: [h1], probeAddresses: [10.40.0.201/24]}
---
apiVersion: hotspare/v1
kind: Pool
metadata: {name: near}
spec: {agent: store1, exportAddress: "10.77.0.9:10810", hosts: [h2, h3]}
---
apiVersion: hotspare/v1
kind: Pool
metadata: {name: far}
spec: {agent: store1, exportAddress: "10.77.0.9:10811", hosts: [h2]}
`

// workloads is a plan of these workloads, w0 and so on.
func workloads(each ...string) string {
	text := "apiVersion: hotspare/v1\nkind: Plan\nmetadata: {name: asked}\nspec:\n  fencing: [{oath: {}}]\n  workloads:\n"
	for i, w := range each {
		text += fmt.Sprintf("  - {name: w%d, image: debian-12, %s}\n", i, w)
	}
	return text
}

// scenario is one with this specification, to follow a plan.
func scenario(spec string) string {
	return "---\napiVersion: hotspare/v1\nkind: Scenario\nmetadata: {name: asked}\nspec: " + spec + "\n"
}

// asks is what an apply of the manifests would answer; nothing is changed.
func (s *site) asks(text string) error {
	s.t.Helper()
	resources, err := manifest.Decode(manifest.File{Name: "asked.yaml", Data: []byte(text)})
	s.must(err)
	req := &pb.ApplyRequest{RequestId: s.request(), Resources: resources, DryRun: true}
	return s.try(func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewResourceServiceClient(c).Apply(ctx, req)
		return err
	})
}

// Each kind of constraint, once as it fits on the three hosts with one of them lost, and once as it does not:
// refused, in words that say what is short.
func TestConstraints(t *testing.T) {
	const small = "resources: {vcpus: 2, memory: 4GiB}"
	bubble(t, 3, func(s *site) {
		s.apply(constrained)
		s.ready()
		for name, c := range map[string]struct{ fits, not, says string }{
			"vcpus":  {workloads("resources: {vcpus: 8, memory: 1GiB}"), workloads("resources: {vcpus: 17, memory: 1GiB}"), "vcpu"},
			"memory": {workloads("resources: {vcpus: 1, memory: 40GiB}"), workloads("resources: {vcpus: 1, memory: 65GiB}"), "memory"},
			"all of them together": {
				workloads("resources: {vcpus: 2, memory: 16GiB}", "resources: {vcpus: 2, memory: 16GiB}"),
				workloads("resources: {vcpus: 2, memory: 40GiB}", "resources: {vcpus: 2, memory: 40GiB}", "resources: {vcpus: 2, memory: 40GiB}") +
					scenario("{plans: [asked], tolerate: {hosts: 1}}"), "memory",
			},
			"local disk": {
				workloads("resources: {vcpus: 2, memory: 4GiB, localDisk: 1TiB}"), workloads("resources: {vcpus: 2, memory: 4GiB, localDisk: 3TiB}"), "local disk",
			},
			"another local pool": { // Half of it is for leases.
				workloads("resources: {vcpus: 2, memory: 4GiB, localDisks: {ssd: 400GiB}}"),
				workloads("resources: {vcpus: 2, memory: 4GiB, localDisks: {ssd: 600GiB}}"), "ssd disk",
			},
			"a local pool that no host has": {workloads(small), workloads("resources: {vcpus: 2, memory: 4GiB, localDisks: {nvme: 1GiB}}"), "nvme disk"},
			"devices": {
				workloads("resources: {vcpus: 2, memory: 4GiB, devices: {gpu: 1}}", "resources: {vcpus: 2, memory: 4GiB, devices: {gpu: 1}}"),
				workloads("resources: {vcpus: 2, memory: 4GiB, devices: {gpu: 2}}"), "gpu",
			},
			"a device that no host has": {workloads(small), workloads("resources: {vcpus: 2, memory: 4GiB, devices: {fpga: 1}}"), "fpga"},
			"label": {
				workloads(small + ", requires: {disk: fast}"), workloads(small + ", requires: {cpu: old}"), "w0",
			},
			"network reach": {
				workloads(small + ", nics: [{network: prod-20, address: 10.30.0.20/24}]"),
				workloads(small + ", nics: [{network: prod-30, address: 10.40.0.20/24}]"), "w0",
			},
			"pool reach": {
				workloads(small + ", volumes: [{name: root, pool: near, replica: asked-root}]"),
				workloads(small + ", volumes: [{name: root, pool: far, replica: asked-root}]"), "w0",
			},
			"hosts apart": {
				workloads(small + ", replicas: 2, antiAffinity: host"), workloads(small + ", replicas: 3, antiAffinity: host"), "keep apart",
			},
			"failure domains apart": {
				workloads(small+", replicas: 2, antiAffinity: failureDomain") + scenario("{plans: [asked], tolerate: {hosts: 0}}"),
				workloads(small+", replicas: 2, antiAffinity: failureDomain") + scenario("{plans: [asked], tolerate: {failureDomains: 1}}"), "failure domain",
			},
			"named workloads apart": {
				workloads(small+", apart: [brains]", small+", apart: [brains]"),
				workloads(small+", apart: [brains]", small+", apart: [brains]", small+", apart: [brains]"), "keep apart",
			},
			"together": {
				workloads("resources: {vcpus: 6, memory: 4GiB}, together: pair", "resources: {vcpus: 6, memory: 4GiB}, together: pair"),
				workloads("resources: {vcpus: 9, memory: 4GiB}, together: pair", "resources: {vcpus: 9, memory: 4GiB}, together: pair"), "vcpu",
			},
			"a failure domain lost": {
				workloads("resources: {vcpus: 4, memory: 30GiB}") + scenario("{plans: [asked], tolerate: {failureDomains: 1}}"),
				workloads("resources: {vcpus: 4, memory: 30GiB}", "resources: {vcpus: 4, memory: 30GiB}", "resources: {vcpus: 4, memory: 30GiB}") +
					scenario("{plans: [asked], tolerate: {failureDomains: 1}}"), "memory",
			},
			"two hosts lost": {
				workloads("resources: {vcpus: 4, memory: 30GiB}") + scenario("{plans: [asked], tolerate: {hosts: 2}}"),
				workloads("resources: {vcpus: 4, memory: 40GiB}", "resources: {vcpus: 4, memory: 40GiB}") + scenario("{plans: [asked], tolerate: {hosts: 2}}"), "memory",
			},
		} {
			if err := s.asks(c.fits); err != nil {
				t.Errorf("%s: refused what fits: %v", name, err)
			}
			switch err := s.asks(c.not); {
			case err == nil:
				t.Errorf("%s: accepted what does not fit", name)
			case !strings.Contains(err.Error(), c.says), !strings.Contains(err.Error(), "plan asked"):
				t.Errorf("%s: %q does not name the plan and %q", name, err, c.says)
			}
		}
	})
}

// What a lease has of its host's disk and devices is its own: no plan gets it, and no other lease.
func TestLeasesOfDiskAndDevices(t *testing.T) {
	bubble(t, 3, func(s *site) {
		s.apply(constrained)
		s.apply("apiVersion: hotspare/v1\nkind: Host\nmetadata: {name: h2}\nspec: {failureDomain: rack1, lending: {localDisk: 100GiB, devices: {gpu: 1}}}\n")
		s.ready()
		gpu := func(spec *pb.LeaseSpec) { spec.Resources.Devices = map[string]uint32{"gpu": 1} }
		refused := func(what, says string, count uint32, change func(*pb.LeaseSpec)) {
			t.Helper()
			if _, err := s.tryLease(count, 1, 1, change); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", what, err, says)
			}
		}
		l := s.lease(1, 10, 50, gpu)
		if h := l.GetInstances()[0].GetHost(); h != "h2" {
			t.Fatalf("it is on %s, which lends no gpu", h)
		}
		s.until("it runs", time.Minute, func() bool { return s.leaseRuns(l) })
		refused("a second gpu", "has left for leases is 0 gpu, it needs 1 gpu", 1, gpu)
		refused("a device that nobody has", "no host has a device fpga", 1, func(spec *pb.LeaseSpec) { spec.Resources.Devices = map[string]uint32{"fpga": 1} })
		refused("RAM with a device", "cannot be saved", 1, func(spec *pb.LeaseSpec) {
			gpu(spec)
			spec.OnPreempt = pb.ReclaimAction_RECLAIM_ACTION_SAVE
		})
		refused("a disk larger than any", "local disk", 1, func(spec *pb.LeaseSpec) { spec.Resources.LocalDiskBytes = 5 << 40 })
		pool := func(bytes uint64) func(*pb.LeaseSpec) {
			return func(spec *pb.LeaseSpec) { spec.Resources.LocalDisksBytes = map[string]uint64{"ssd": bytes} }
		}
		refused("more than is lent of a local pool", "512GiB ssd disk", 1, pool(600<<30))
		refused("a local pool that nobody has", "no host has a local pool nvme", 1, func(spec *pb.LeaseSpec) {
			spec.Resources.LocalDisksBytes = map[string]uint64{"nvme": 1 << 30}
		})
		refused("the host's own disk by its name", `disk in local pool "local"`, 1, func(spec *pb.LeaseSpec) {
			spec.Resources.LocalDisksBytes = map[string]uint64{"local": 1 << 30}
		})
		for range 3 { // One on each host: then what is lent of the pool is given away.
			s.lease(1, 1, 1, pool(500<<30))
		}
		refused("what others have of a local pool", "ssd disk", 1, pool(500<<30))
		less := s.asks("apiVersion: hotspare/v1\nkind: Host\nmetadata: {name: h2}\nspec: {failureDomain: rack1, lending: {localDisk: 100GiB}}\n")
		if less == nil || !strings.Contains(less.Error(), "leases keep 1 gpu there, and 0 gpu are lent") {
			t.Errorf("what is lent is taken from under a lease: %v", less)
		}
		f := s.declare("webshop", "billing")
		s.until("the failover is complete", 5*time.Minute, func() bool { return s.state().Failover(f.GetName()).GetPhase() == pb.RunPhase_RUN_PHASE_COMPLETED })
		refused("the gpu of a lease, preempted or not", "gpu", 1, func(spec *pb.LeaseSpec) { spec.Resources.Devices = map[string]uint32{"gpu": 2} })
		s.failback(f.GetName(), true)
		s.until("the lease is back", 10*time.Minute, func() bool { return s.leasePhase(l) == leaseActive && s.leaseRuns(l) })
	})
}

// Leases wait in line through the loss of the leader, and start by themselves when there is room.
func TestQueue(t *testing.T) {
	bubble(t, 3, func(s *site) {
		var hold []*pb.Lease
		for range 3 {
			hold = append(hold, s.lease(1, 2, 55, nil))
		}
		ask := func(gib uint64) *pb.Lease {
			req := &pb.CreateLeaseRequest{RequestId: s.request(), Project: "web", Queue: true, Spec: &pb.LeaseSpec{
				Count: 1, Resources: &pb.Resources{Vcpus: 1, MemoryBytes: gib << 30}, Image: "debian-12",
			}}
			var l *pb.Lease
			for range 2 { // A repeat of the request changes nothing.
				s.call(func(ctx context.Context, c *grpc.ClientConn) error {
					resp, err := pb.NewLeaseServiceClient(c).CreateLease(ctx, req)
					l = resp.GetLease()
					return err
				})
			}
			return l
		}
		first, second := ask(40), ask(41)
		if q := second.GetQueue(); second.GetPhase() != pb.LeasePhase_LEASE_PHASE_QUEUED || q.GetPosition() != 2 || q.GetOf() != 2 || q.GetReason() == "" {
			t.Fatalf("the second one is %v, told %v", second.GetPhase(), q)
		}
		if n := s.status().GetLent().GetQueued(); n != 2 {
			t.Errorf("the status has %d in the queue", n)
		}
		s.crashLeader()
		s.allMembersUp()
		s.ready()
		release := &pb.ReleaseLeaseRequest{RequestId: s.request(), Name: hold[1].GetName()}
		s.call(func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewLeaseServiceClient(c).ReleaseLease(ctx, release)
			return err
		})
		s.until("the first one starts", time.Minute, func() bool {
			l := s.state().Lease(first.GetName())
			return l.GetPhase() == leaseActive && s.leaseRuns(l)
		})
		if p := s.leasePhase(second); p != pb.LeasePhase_LEASE_PHASE_QUEUED {
			t.Errorf("the second one is %v", p)
		}
		withdraw := &pb.ReleaseLeaseRequest{RequestId: s.request(), Name: second.GetName()}
		for _, when := range []string{"at once", "once it is gone"} { // A repeat is told the first outcome.
			var l *pb.Lease
			s.call(func(ctx context.Context, c *grpc.ClientConn) error {
				resp, err := pb.NewLeaseServiceClient(c).ReleaseLease(ctx, withdraw)
				l = resp.GetLease()
				return err
			})
			if l.GetName() != second.GetName() || l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ENDED || l.GetReason() == "" {
				t.Errorf("withdrawn %s: the answer is %v", when, l)
			}
			s.until("nothing of it is left", time.Minute, func() bool { return s.state().Lease(second.GetName()) == nil })
		}
	})
}

// A host is drained: refused where the plans need it, tried dry first, and its leases are taken back and return.
func TestDrain(t *testing.T) {
	bubble(t, 3, func(s *site) {
		ask := func(change func(*pb.UpdateHostRequest)) (*pb.UpdateHostResponse, error) {
			req := &pb.UpdateHostRequest{RequestId: s.request(), Name: "h1", Action: "drain", Reason: "new memory"}
			change(req)
			var resp *pb.UpdateHostResponse
			err := s.try(func(ctx context.Context, c *grpc.ClientConn) (err error) {
				resp, err = pb.NewSiteServiceClient(c).UpdateHost(ctx, req)
				return err
			})
			return resp, err
		}
		s.ready()
		l := s.lease(3, 2, 20, nil)
		s.until("it runs", time.Minute, func() bool { return s.leaseRuns(l) })
		if _, err := ask(func(*pb.UpdateHostRequest) {}); err == nil || !strings.Contains(err.Error(), "Degraded(0)") || !strings.Contains(err.Error(), "--use-tolerance") {
			t.Fatalf("drained although the plans need it: %v", err)
		}
		tolerant := func(r *pb.UpdateHostRequest) { r.UseTolerance, r.Lasts = true, durationpb.New(2*time.Hour) }
		resp, err := ask(func(r *pb.UpdateHostRequest) {
			tolerant(r)
			r.DryRun = true
		})
		s.must(err)
		if resp.GetBefore().GetGuarantee() != "Proven(1)" || resp.GetAfter().GetGuarantee() != "Degraded(0)" || len(resp.GetVictims()) != 3 {
			t.Errorf("the dry run says %v", resp)
		}
		if s.state().Host("h1").GetCordoned() || s.leasePhase(l) != leaseActive {
			t.Fatal("a dry run changed something")
		}
		resp, err = ask(tolerant)
		s.must(err)
		run := resp.GetHost().GetLive().GetDrain()
		s.until("everything is taken back", 5*time.Minute, func() bool {
			return s.state().Failover(run).GetPhase() == pb.RunPhase_RUN_PHASE_COMPLETED && s.leasePhase(l) == pb.LeasePhase_LEASE_PHASE_PREEMPTED
		})
		s.crashLeader()
		s.allMembersUp()
		s.sleep(time.Hour)
		if s.leasePhase(l) != pb.LeasePhase_LEASE_PHASE_PREEMPTED {
			t.Error("the lease came back early")
		}
		s.sleep(time.Hour)
		s.until("the lease is back", 5*time.Minute, func() bool { return s.leasePhase(l) == leaseActive && s.leaseRuns(l) })
		s.ready()
	})
}

// A firm lease survives every failover: it is refused where a plan would not.
func TestFirmLeases(t *testing.T) {
	bubble(t, 3, func(s *site) {
		firm := func(vcpus uint32) error {
			req := &pb.CreateLeaseRequest{RequestId: s.request(), Project: "web", Class: pb.LeaseClass_LEASE_CLASS_FIRM, Spec: &pb.LeaseSpec{
				Count: 1, Resources: &pb.Resources{Vcpus: vcpus, MemoryBytes: 1 << 30}, Image: "debian-12",
			}}
			return s.try(func(ctx context.Context, c *grpc.ClientConn) error {
				_, err := pb.NewLeaseServiceClient(c).CreateLease(ctx, req)
				return err
			})
		}
		s.must(firm(2))
		granted := 1
		var err error
		for ; err == nil && granted < 20; granted++ {
			err = firm(8)
		}
		if err == nil || !strings.Contains(err.Error(), "for good beside the recovery plans") {
			t.Errorf("after %d firm leases: %v", granted, err)
		}
		s.ready()
		// One that was released comes back only where a new one would be admitted.
		s.call(func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewLeaseServiceClient(c).ReleaseLease(ctx, &pb.ReleaseLeaseRequest{RequestId: "release", Name: "web-1"})
			return err
		})
		for err = firm(1); err == nil; err = firm(1) {
		}
		err = s.try(func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewLeaseServiceClient(c).UndeleteLease(ctx, &pb.UndeleteLeaseRequest{RequestId: "undelete", Name: "web-1"})
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "the site would be") && !strings.Contains(err.Error(), "no room now") {
			t.Errorf("undeleted beside what took its place: %v", err)
		}
		s.ready()
	})
}

// usesTolerance cordons a host although fewer losses are survived then, a second one in vain, and waits until that
// has ended by itself.
func (s *site) usesTolerance(word func() string) {
	s.t.Helper()
	cordon := func(host string) error {
		req := &pb.UpdateHostRequest{RequestId: s.request(), Name: host, Action: "cordon", Reason: "ram", UseTolerance: true, Lasts: durationpb.New(2 * time.Hour)}
		return s.try(func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := pb.NewSiteServiceClient(c).UpdateHost(ctx, req)
			return err
		})
	}
	s.must(cordon("h1"))
	if w := word(); w != "Degraded(0)" {
		s.t.Errorf("with a host cordoned the site is %s", w)
	}
	if err := cordon("h2"); err == nil || !strings.Contains(err.Error(), "GuaranteeLost") {
		s.t.Errorf("nothing is proven any more: %v", err)
	}
	s.sleep(2*time.Hour - time.Minute)
	if !s.state().Host("h1").GetCordoned() {
		s.t.Error("the cordon ended early")
	}
	s.sleep(2 * time.Minute)
	if s.state().Host("h1").GetCordoned() {
		s.t.Error("the cordon did not end")
	}
	s.ready()
}

// One host after the other falls silent: the guarantee goes down, says why, and heals by itself. What an operator
// asks for meanwhile is refused, and a dry run says so beforehand.
func TestGuaranteeLost(t *testing.T) {
	bubble(t, 3, func(s *site) {
		cordon := func(host string, dry bool) (after *pb.SiteProof, err error) {
			req := &pb.UpdateHostRequest{RequestId: s.request(), Name: host, Action: "cordon", DryRun: dry}
			err = s.try(func(ctx context.Context, c *grpc.ClientConn) error {
				resp, err := pb.NewSiteServiceClient(c).UpdateHost(ctx, req)
				after = resp.GetAfter()
				return err
			})
			return after, err
		}
		word := func() string {
			st := s.status()
			if st.GetGuarantee() != "Proven(1)" && st.GetGuaranteeReason() == "" {
				t.Errorf("%s without a reason", st.GetGuarantee())
			}
			if (len(st.GetMargins()) == 0) != (st.GetGuarantee() == "GuaranteeLost") {
				t.Errorf("%s with margins %v", st.GetGuarantee(), st.GetMargins())
			}
			return st.GetGuarantee()
		}
		for _, dry := range []bool{true, false} {
			if _, err := cordon("h1", dry); err == nil || !strings.Contains(err.Error(), "Degraded(0)") {
				t.Fatalf("cordoned, dry run %v: %v", dry, err)
			}
		}
		if h := s.state().Host("h1"); h.GetCordoned() {
			t.Error("cordoned by a dry run")
		}
		s.usesTolerance(word)
		s.cutAgent("h1")
		s.until("one host is silent", time.Minute, func() bool { return word() == "Degraded(0)" })
		s.cutAgent("h2")
		s.until("two hosts are silent", time.Minute, func() bool { return word() == "GuaranteeLost" })
		s.until("all members keep that", time.Minute, func() bool { return s.state().Guarantee().GetWord() == "GuaranteeLost" })
		if _, err := s.tryLease(1, 1, 1, nil); err == nil || !strings.Contains(err.Error(), "lends nothing") {
			t.Errorf("lent without a guarantee: %v", err)
		}
		s.healAgent("h1")
		s.healAgent("h2")
		s.ready()
		s.until("it has healed", time.Minute, func() bool { return s.state().Guarantee().GetWord() == "Proven(1)" })
		kept := s.state().Guarantee()
		s.crashLeader()
		s.allMembersUp()
		s.ready()
		s.sleep(time.Minute)
		if now := s.state().Guarantee(); !now.GetSince().AsTime().Equal(kept.GetSince().AsTime()) {
			t.Errorf("a new leader made it %s since %v, it was since %v", now.GetWord(), now.GetSince().AsTime(), kept.GetSince().AsTime())
		}
	})
}
