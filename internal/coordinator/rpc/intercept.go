package rpc

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// identityKey is where the interceptors leave who calls.
type identityKey struct{}

func identityFrom(ctx context.Context) trust.Identity {
	id, _ := ctx.Value(identityKey{}).(trust.Identity)
	return id
}

// digestKey is where the interceptor leaves the digest of the request.
type digestKey struct{}

// digestOf returns the digest of a request; empty for what is no message.
func digestOf(req any) []byte {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(data)
	return sum[:]
}

// hopKey is where identify leaves that a request was forwarded by another member: it is not sent on again.
type hopKey struct{}

// hopped marks a request that one member sent to the one that it takes for the leader.
const hopped = "hotspare-hop"

// CallerMetadata names the caller of a request that a coordinator makes on somebody's behalf. Only the
// certificate of a coordinator gives it weight.
func CallerMetadata(id trust.Identity) metadata.MD {
	return metadata.Pairs(forwardedBy, string(id.Role)+"/"+id.Name)
}

// Caller returns a context for such a request.
func Caller(ctx context.Context, id trust.Identity) context.Context {
	return metadata.NewOutgoingContext(ctx, CallerMetadata(id))
}

// forwardedBy is the metadata in which a member names the caller of a request that it forwards. Only
// a coordinator may send it.
const forwardedBy = "hotspare-caller"

// identify reads who calls and whether the method may be called at all.
func identify(ctx context.Context, leader Leader, method string) (context.Context, error) {
	id, err := trust.PeerIdentity(ctx)
	if err != nil {
		return ctx, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	caller := md.Get(forwardedBy)
	switch {
	case len(caller) > 0 && id.Role != trust.RoleCoordinator:
		return ctx, model.Errorf(model.FaultDenied, "", "only a coordinator may forward a request")
	case id.Role == trust.RoleCoordinator && len(caller) != 1 && ours(method) && !amongMembers(method):
		// A coordinator never asks for itself: without a caller this would be anybody with its full rights.
		return ctx, model.Errorf(model.FaultDenied, "", "a coordinator must name the caller of what it forwards")
	case len(caller) > 0:
		role, name, _ := strings.Cut(caller[0], "/")
		id = trust.Identity{Role: trust.Role(role), Name: name}
		if id != (trust.Identity{}) && (id.Validate() != nil || !id.Role.IsUser() && id.Role != trust.RoleAgent) {
			return ctx, model.Errorf(model.FaultDenied, "", "a request was forwarded for %s, who cannot ask", id)
		}
		ctx = context.WithValue(ctx, hopKey{}, len(md.Get(hopped)) > 0)
	}
	bound, err := Authorize(leader, id, method)
	if err != nil {
		return ctx, err
	}
	ctx = context.WithValue(ctx, certifiedKey{}, id)
	return context.WithValue(ctx, identityKey{}, bound), nil
}

// Authorize says as whom somebody may call a method, by the role bindings that this member knows. The
// leader, to which it is forwarded, judges by its own.
func Authorize(leader Leader, id trust.Identity, method string) (trust.Identity, error) {
	bound, err := trust.Bound(id, leader.Roles(id.Name))
	if err != nil {
		return id, err
	}
	return bound, trust.Authorize(bound, method)
}

// certifiedKey is where identify leaves who calls as the certificate says it: what is forwarded names that.
type certifiedKey struct{}

func certified(ctx context.Context) trust.Identity {
	id, _ := ctx.Value(certifiedKey{}).(trust.Identity)
	return id
}

// Leader reaches the member that leads.
type Leader interface {
	// Leading returns nil when this member leads.
	Leading() error
	// LeaderConn returns a connection to the leader, or why there is none.
	LeaderConn() (grpc.ClientConnInterface, error)
	// Roles are those that role bindings give a user.
	Roles(user string) []string
}

// staleReader is a request that may be answered by any member.
type staleReader interface{ GetStale() bool }

func stale(req any) bool {
	r, ok := req.(staleReader)
	return ok && r.GetStale()
}

// Unary is the one place where a call is authenticated, authorised, forwarded to the leader, and its
// error translated.
func Unary(leader Leader, log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := identify(ctx, leader, info.FullMethod)
		if err != nil {
			return nil, Status(err)
		}
		id := identityFrom(ctx)
		if err := trust.AuthorizeRequest(id, req); err != nil {
			return nil, Status(err)
		}
		if ours(info.FullMethod) && !amongMembers(info.FullMethod) && !stale(req) && leader.Leading() != nil {
			reply, err := forward(ctx, leader, certified(ctx), info.FullMethod, req)
			return reply, Status(err)
		}
		ctx = context.WithValue(ctx, digestKey{}, digestOf(req))
		reply, err := next(ctx, req)
		if err != nil {
			log.Debug("request refused", "method", info.FullMethod, "actor", id.String(), "error", err)
			return nil, Status(err)
		}
		return reply, nil
	}
}

// wayToLeader returns a connection to the leader, for what was not forwarded already.
func wayToLeader(ctx context.Context, leader Leader) (grpc.ClientConnInterface, error) {
	if hop, _ := ctx.Value(hopKey{}).(bool); hop {
		return nil, leader.Leading() // The sender's leader does not lead any more: it finds the new one by itself.
	}
	return leader.LeaderConn()
}

// onBehalf returns a context for a request that is forwarded for its caller.
func onBehalf(ctx context.Context, id trust.Identity) context.Context {
	return metadata.AppendToOutgoingContext(Caller(ctx, id), hopped, "1")
}

// forward sends a request to the leader, once.
func forward(ctx context.Context, leader Leader, id trust.Identity, method string, req any) (any, error) {
	conn, err := wayToLeader(ctx, leader)
	if err != nil {
		return nil, err
	}
	reply, err := newMessage(method, protoreflect.MethodDescriptor.Output)
	if err != nil {
		return nil, err
	}
	if err := conn.Invoke(onBehalf(ctx, id), method, req, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// newMessage makes an empty request or reply of a method.
func newMessage(method string, kind func(protoreflect.MethodDescriptor) protoreflect.MessageDescriptor) (proto.Message, error) {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil, fmt.Errorf("forward %s: %w", method, err)
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("forward %s: not a method", method)
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(kind(m).FullName())
	if err != nil {
		return nil, fmt.Errorf("forward %s: %w", method, err)
	}
	return t.New().Interface(), nil
}

// amongMembers says whether a method is what a member asks another one for itself.
func amongMembers(method string) bool {
	return strings.HasPrefix(method, "/hotspare.v1.MemberService/")
}

// ours says whether a method belongs to our own services, not to health or reflection.
func ours(method string) bool { return strings.HasPrefix(method, "/hotspare.v1.") }
