package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// GetClock tells another member this one's time.
func (s *Server) GetClock(context.Context, *pb.GetClockRequest) (*pb.GetClockResponse, error) {
	return &pb.GetClockResponse{Time: timestamppb.New(s.site.Now())}, nil
}
