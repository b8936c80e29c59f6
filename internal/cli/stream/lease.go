package stream

import (
	"context"
	"fmt"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/render"
)

// Lease writes where a lease stands, a line for each change, until the context ends or the lease is gone.
func Lease(ctx context.Context, site Site, name string, write func(*pb.Lease, string) error, o Options) error {
	last := ""
	return keep(ctx, site, o.Patience, func(ctx context.Context) (got bool, err error) {
		s, err := pb.NewLeaseServiceClient(site).WatchLease(ctx, &pb.WatchLeaseRequest{Name: name})
		if err != nil {
			return false, err
		}
		for {
			m, err := s.Recv()
			if err != nil {
				return got, err
			}
			got = true
			line := render.LeaseLine(m.GetLease(), o.Now())
			if line == last {
				continue // What changed is nothing that it says.
			}
			last = line
			if err := write(m.GetLease(), fmt.Sprintf("%s  %s", o.Now().Local().Format("15:04:05"), line)); err != nil {
				return got, err
			}
		}
	})
}
