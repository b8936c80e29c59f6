package rpc

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// watchPause is the least time between two messages of one watch: a burst of changes costs one.
const watchPause = 100 * time.Millisecond

// WatchLease sends the lease as GetLease shows it, now and at each change.
func (s *Server) WatchLease(req *pb.WatchLeaseRequest, stream grpc.ServerStreamingServer[pb.WatchLeaseResponse]) error {
	ctx := stream.Context()
	if _, err := s.read(ctx, false); err != nil {
		return err
	}
	var sent *pb.Lease
	for {
		changed := s.site.Changed()
		l := s.placed(s.show(ctx, s.site.State().Lease(req.GetName())))[0]
		switch {
		case l == nil && sent == nil:
			return model.Errorf(model.FaultNotFound, "lease/"+req.GetName(), "no such lease").WithRemedy("see: hotspare lease list")
		case l == nil && len(sent.GetInstances()) == 0:
			return model.Errorf(model.FaultNotFound, "lease/"+req.GetName(), "is withdrawn from the queue, nothing of it is kept")
		case l == nil:
			return model.Errorf(model.FaultNotFound, "lease/"+req.GetName(), "is deleted, its disks with it")
		case !proto.Equal(l, sent):
			sent = l
			if err := stream.Send(&pb.WatchLeaseResponse{Lease: l}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchPause):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
