package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// leaderCheck is how often an open stream looks whether the leader that answers it leads still.
const leaderCheck = 500 * time.Millisecond

// Stream is the one place where a stream is authenticated, authorised, forwarded to the leader, and its
// error translated. One that the caller writes to, which is an agent's session, is served by every
// member; any other has one request and is answered by the leader.
//
// A stream ends as unavailable when its leader stops to lead, also when nothing changes any more and
// nobody says so: the caller opens another one and finds the new leader. It ends, too, when the caller's
// right to it does.
func Stream(leader Leader) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := identify(ss.Context(), leader, info.FullMethod)
		if err != nil {
			return Status(err)
		}
		s := &identified{ServerStream: ss, ctx: ctx}
		if info.IsClientStream || !ours(info.FullMethod) {
			return Status(next(srv, s))
		}
		return Status(s.answer(leader, info.FullMethod, func() error { return next(srv, s) }))
	}
}

// identified is a stream whose context knows who calls.
type identified struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // gRPC's own way to hand a context to a stream handler.
	// request was read already and is handed to who reads next.
	request proto.Message
}

// Context returns the stream's context with the caller's identity.
func (s *identified) Context() context.Context { return s.ctx }

// RecvMsg reads the next message.
func (s *identified) RecvMsg(m any) error {
	to, ok := m.(proto.Message)
	if s.request == nil || !ok {
		return s.ServerStream.RecvMsg(m)
	}
	proto.Merge(to, s.request)
	s.request = nil
	return nil
}

// answer reads the one request, and lets this member or the leader answer it.
func (s *identified) answer(leader Leader, method string, local func() error) error {
	req, err := newMessage(method, protoreflect.MethodDescriptor.Input)
	if err != nil {
		return err
	}
	if err := s.ServerStream.RecvMsg(req); err != nil {
		return err
	}
	id := identityFrom(s.ctx)
	if err := trust.AuthorizeRequest(id, req); err != nil {
		return err
	}
	if s.request = req; stale(req) {
		return local()
	}
	if leader.Leading() != nil {
		return s.forward(leader, certified(s.ctx), method)
	}
	who := certified(s.ctx)
	ctx, end := while(s.ctx, func() error {
		if _, err := Authorize(leader, who, method); err != nil {
			return err // Somebody took the right away meanwhile.
		}
		return leader.Leading()
	})
	defer end()
	s.ctx = ctx
	return why(ctx, local())
}

// forward lets the leader answer.
func (s *identified) forward(leader Leader, id trust.Identity, method string) error {
	conn, err := wayToLeader(s.ctx, leader)
	if err != nil {
		return err
	}
	ctx, end := while(s.ctx, func() error {
		if now, err := leader.LeaderConn(); err != nil {
			return err
		} else if now != conn {
			return model.Errorf(model.FaultUnavailable, "", "another coordinator leads now").WithRemedy("try again")
		}
		return nil
	})
	defer end()
	up, err := conn.NewStream(onBehalf(ctx, id), &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return why(ctx, err)
	}
	// A stream that breaks here says so at the first read.
	if err := errors.Join(up.SendMsg(s.request), up.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return why(ctx, err)
	}
	for {
		m, err := newMessage(method, protoreflect.MethodDescriptor.Output)
		if err != nil {
			return err
		}
		if err := up.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return why(ctx, err)
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

// while returns a context that lasts as long as nothing speaks against it; what does is its cause. The
// caller ends it.
func while(ctx context.Context, objection func() error) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(leaderCheck)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				if err := objection(); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-gone
	}
}

// why returns the reason for which a stream was ended instead of the error that this led to.
func why(ctx context.Context, err error) error {
	var reason *model.Error
	if err != nil && errors.As(context.Cause(ctx), &reason) {
		return reason
	}
	return err
}
