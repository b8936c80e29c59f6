package rpc

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hotspare/hotspare/internal/model"
)

// codeOf is the one table from faults to gRPC codes.
var codeOf = map[model.Fault]codes.Code{
	model.FaultInvalid:         codes.InvalidArgument,
	model.FaultNotFound:        codes.NotFound,
	model.FaultExists:          codes.AlreadyExists,
	model.FaultStale:           codes.Aborted,
	model.FaultPrecondition:    codes.FailedPrecondition,
	model.FaultNoFit:           codes.ResourceExhausted,
	model.FaultQuota:           codes.ResourceExhausted,
	model.FaultUnauthenticated: codes.Unauthenticated,
	model.FaultDenied:          codes.PermissionDenied,
	model.FaultUnavailable:     codes.Unavailable,
	model.FaultUnsupported:     codes.Unimplemented,
	model.FaultTooMany:         codes.ResourceExhausted,
}

// Status turns an error into what a client sees: a code, the message, and the fault's reason with the
// object and the remedy, so that clients need not read the text.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	var e *model.Error
	if !errors.As(err, &e) {
		return status.Error(codes.Internal, err.Error())
	}
	st, detailErr := status.New(codeOf[e.Fault], err.Error()).WithDetails(&errdetails.ErrorInfo{
		Domain: model.ErrorDomain, Reason: e.Fault.Reason(), Metadata: map[string]string{"object": e.Object, "remedy": e.Remedy},
	})
	if detailErr != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return st.Err()
}
