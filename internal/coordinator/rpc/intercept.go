package rpc

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// identityKey is where the interceptors leave who calls.
type identityKey struct{}

func identityFrom(ctx context.Context) trust.Identity {
	id, _ := ctx.Value(identityKey{}).(trust.Identity)
	return id
}

// WithIdentity returns a context as the interceptors make it, for callers inside the coordinator (the
// webhook, which authenticates by itself).
func WithIdentity(ctx context.Context, id trust.Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// forwardedBy is the metadata in which a member names the caller of a request that it forwards. Only
// a coordinator may send it.
const forwardedBy = "hotspare-caller"

// identify reads who calls and whether the method may be called at all.
func identify(ctx context.Context, method string) (context.Context, error) {
	id, err := trust.PeerIdentity(ctx)
	if err != nil {
		return ctx, err
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get(forwardedBy)) > 0 {
		if id.Role != trust.RoleCoordinator {
			return ctx, model.Errorf(model.FaultDenied, "", "only a coordinator may forward a request")
		}
		role, name, _ := strings.Cut(md.Get(forwardedBy)[0], "/")
		id = trust.Identity{Role: trust.Role(role), Name: name}
	}
	if err := trust.Authorize(id, method); err != nil {
		return ctx, err
	}
	return WithIdentity(ctx, id), nil
}

// Forwarder sends a request to the leader.
type Forwarder interface {
	// Forward invokes the method on the leader; it returns false when this member leads and must
	// answer itself.
	Forward(ctx context.Context, caller trust.Identity, method string, req, reply any) (forwarded bool, err error)
}

// staleReader is a request that may be answered by any member.
type staleReader interface{ GetStale() bool }

// Unary is the one place where a call is authenticated, authorised, forwarded to the leader, and its
// error translated.
func Unary(fwd Forwarder, newReply func(method string) any, log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := identify(ctx, info.FullMethod)
		if err != nil {
			return nil, Status(err)
		}
		id := identityFrom(ctx)
		if err := trust.AuthorizeRequest(id, req); err != nil {
			return nil, Status(err)
		}
		if r, ok := req.(staleReader); ours(info.FullMethod) && (!ok || !r.GetStale()) {
			reply := newReply(info.FullMethod)
			if done, err := fwd.Forward(ctx, id, info.FullMethod, req, reply); done {
				return reply, Status(err)
			}
		}
		reply, err := next(ctx, req)
		if err != nil {
			log.Debug("request refused", "method", info.FullMethod, "actor", id.String(), "error", err)
			return nil, Status(err)
		}
		return reply, nil
	}
}

// ours says whether a method belongs to our own services, not to health or reflection.
func ours(method string) bool { return strings.HasPrefix(method, "/hotspare.v1.") }

// Stream authenticates and authorises streams. Sessions of agents are served by every member;
// watches are answered by the leader only.
func Stream() grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := identify(ss.Context(), info.FullMethod)
		if err != nil {
			return Status(err)
		}
		return Status(next(srv, &identified{ServerStream: ss, ctx: ctx}))
	}
}

// identified is a stream whose context knows who calls.
type identified struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // gRPC's own way to hand a context to a stream handler.
}

// Context returns the stream's context with the caller's identity.
func (s *identified) Context() context.Context { return s.ctx }
