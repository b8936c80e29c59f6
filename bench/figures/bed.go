package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/hotspare/hotspare/e2e/lab"
	"github.com/hotspare/hotspare/e2e/site"
	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
)

const (
	// waitLimit bounds every wait for the site to come to rest or to finish; 15 s were seen.
	waitLimit = 2 * time.Minute
	// askEvery is how often the site is asked outside of what is measured.
	askEvery = 100 * time.Millisecond
)

// bed is the site with everything that the rounds need.
type bed struct {
	*site.Site
	conn      *client.Client
	failovers pb.FailoverServiceClient
	status    pb.SiteServiceClient
	leases    pb.LeaseServiceClient
}

// onSite makes a site, measures on it, and removes it whatever happens.
func (f *figures) onSite(ctx context.Context, wanted []string) (err error) {
	if missing := lab.Missing(lab.FeatureLibvirt, lab.FeatureKnot); len(missing) > 0 {
		return fmt.Errorf("real parts cannot run here: %s", strings.Join(missing, ", "))
	}
	say("making a site of real parts")
	s, err := site.New(ctx, site.Options{Name: "hsfig", Bin: f.bin, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = errors.Join(err, s.Logs())
		}
		err = errors.Join(err, s.Close())
	}()
	conn, err := s.Connect(s.Coordinators...)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := &bed{
		Site: s, conn: conn, failovers: pb.NewFailoverServiceClient(conn), status: pb.NewSiteServiceClient(conn), leases: pb.NewLeaseServiceClient(conn),
	}
	// One lent VM on each host, and no room left.
	for range 2 {
		if _, err := b.Run(ctx, "lease", "create", "-p", "web", "--vm", "2cpu,128MiB", "--image", "tiny", "--term", "1h",
			"--on-preempt", "save", "--grace", "1s", "--wait"); err != nil {
			return err
		}
	}
	if slices.Contains(wanted, "leader") {
		if err := b.measureLeader(ctx, f); err != nil {
			return err
		}
	}
	if slices.Contains(wanted, "failover") {
		return b.measureFailover(ctx, f)
	}
	return nil
}

// await waits until a condition holds.
func await(ctx context.Context, what string, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(askEvery):
		}
	}
}

// declare declares a failover and returns when it was acknowledged.
func (b *bed) declare(ctx context.Context, plan string) (*pb.Failover, error) {
	resp, err := b.failovers.Declare(ctx, &pb.DeclareRequest{RequestId: uuid.NewString(), Plans: []string{plan}, Reason: "figures"})
	return resp.GetFailover(), err
}

// awaitPhase waits until a failover is in a phase.
func (b *bed) awaitPhase(ctx context.Context, name string, phase pb.RunPhase) (f *pb.Failover, err error) {
	err = await(ctx, name+" to be "+phase.String(), func(ctx context.Context) error {
		resp, err := b.failovers.GetFailover(ctx, &pb.GetFailoverRequest{Name: name})
		if err != nil {
			return err
		}
		if f = resp.GetFailover(); f.GetPhase() != phase {
			return fmt.Errorf("it is %s", f.GetPhase())
		}
		return nil
	})
	return f, err
}

// failBack goes back and waits until the lent VMs are there again.
func (b *bed) failBack(ctx context.Context, name string) error {
	_, err := b.failovers.Failback(ctx, &pb.FailbackRequest{
		RequestId: uuid.NewString(), Name: name, Reason: "figures", DiscardRecoveryData: true,
	})
	if err != nil {
		return err
	}
	if _, err := b.awaitPhase(ctx, name, pb.RunPhase_RUN_PHASE_FAILED_BACK); err != nil {
		return err
	}
	return b.awaitRest(ctx)
}

// awaitRest waits until all agents are connected and all leases are active.
func (b *bed) awaitRest(ctx context.Context) error {
	return await(ctx, "the site to come to rest", func(ctx context.Context) error {
		st, err := b.status.GetStatus(ctx, &pb.GetStatusRequest{})
		if err != nil {
			return err
		}
		if st.GetHosts() != st.GetHostsConnected() {
			return fmt.Errorf("%d of %d agents are connected", st.GetHostsConnected(), st.GetHosts())
		}
		leases, err := b.leases.ListLeases(ctx, &pb.ListLeasesRequest{})
		if err != nil {
			return err
		}
		for _, l := range leases.GetLeases() {
			if l.GetPhase() != pb.LeasePhase_LEASE_PHASE_ACTIVE {
				return fmt.Errorf("lease %s is %s", l.GetName(), l.GetPhase())
			}
		}
		return nil
	})
}

// replicated waits until the protected volume has a newer synchronisation than a given one, in sync,
// and returns its number. The status of a moment before may still tell of a mirror that has just died.
func (b *bed) replicated(ctx context.Context, volume string, after uint64) (number uint64, err error) {
	err = await(ctx, "volume "+volume+" to be replicated anew", func(ctx context.Context) error {
		resp, err := b.status.ListObjects(ctx, &pb.ListObjectsRequest{})
		if err != nil {
			return err
		}
		statuses := map[string]*pb.VolumeStatus{}
		for _, o := range resp.GetObjects() {
			statuses[o.GetObject().GetId()] = o.GetStatus().GetVolume()
		}
		replica, source := statuses["volume/"+volume], statuses["volume/"+volume+"@source"]
		number = replica.GetResync()
		if number <= after || source.GetResync() != number || !source.GetInSync() || replica.GetPoint() == nil {
			return fmt.Errorf("synchronisation %d: replica %v, source %v", number, replica, source)
		}
		return nil
	})
	return number, err
}

// daemons are the machines with a process of hotspare.
func (b *bed) daemons() []*lab.Host {
	return append(slices.Clone(b.Coordinators), b.H1, b.H2, b.Store, b.GW, b.East)
}

// signal sends a signal to every process of hotspare.
func (b *bed) signal(s syscall.Signal) error {
	var errs []error
	for _, h := range b.daemons() {
		errs = append(errs, b.Process(h).Signal(s))
	}
	return errors.Join(errs...)
}
