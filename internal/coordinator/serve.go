package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/rpc"
	"github.com/hotspare/hotspare/internal/coordinator/webhook"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// Listeners are where a coordinator is reached. Nil ones are not served.
type Listeners struct {
	// API is gRPC over TLS for agents, users and other coordinators.
	API net.Listener
	// HTTP is JSON over HTTPS and the webhooks.
	HTTP net.Listener
	// Socket is gRPC for local users without certificates.
	Socket net.Listener
}

// ServeOptions say how the servers authenticate and reach each other.
type ServeOptions struct {
	Listeners Listeners
	// Server and Client are TLS configurations with this coordinator's certificate.
	Server, Client *tls.Config
	// Local are the credentials of the socket.
	Local credentials.TransportCredentials
	// Dial adds options to connections between members; tests use it for in-memory networks.
	Dial []grpc.DialOption
}

// Servers are the running servers of a coordinator.
type Servers struct {
	c    *Coordinator
	o    ServeOptions
	grpc []*grpc.Server
	http *http.Server
	done sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns map[string]*grpc.ClientConn
}

const (
	// minPing is how often an agent may ping without being cut off ("too many pings").
	minPing = 5 * time.Second
	// pingIdle and pingTimeout bound how long a connection is kept whose other side lost its power.
	pingIdle, pingTimeout = 10 * time.Second, 5 * time.Second
	// connectLimit bounds one attempt to reach another member, connectPause the time between two.
	connectLimit, connectPause = 2 * time.Second, 500 * time.Millisecond
	// maxMessage bounds a request and a forwarded answer; an apply of many manifests and a page of leases are the largest.
	maxMessage = 16 << 20
	// headerTimeout and idleTimeout bound how long an HTTPS connection is kept that says nothing.
	headerTimeout, idleTimeout = 10 * time.Second, 2 * time.Minute
	// stopWait bounds how long open requests may take when the servers stop.
	stopWait = 2 * time.Second
)

// Serve starts the servers.
func (c *Coordinator) Serve(o ServeOptions) (*Servers, error) {
	s := &Servers{c: c, o: o, conns: map[string]*grpc.ClientConn{}}
	c.mu.Lock()
	c.peer = s.conn
	c.mu.Unlock()
	if o.Listeners.API != nil {
		s.start(o.Listeners.API, credentials.NewTLS(o.Server))
	}
	if o.Listeners.Socket != nil {
		s.start(o.Listeners.Socket, o.Local)
	}
	if o.Listeners.HTTP != nil {
		handler, err := s.handler()
		if err != nil {
			s.Stop()
			return nil, err
		}
		config := o.Server.Clone()
		config.NextProtos = []string{"h2", "http/1.1"}
		s.http = &http.Server{
			Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
			ErrorLog: slog.NewLogLogger(c.o.Log.Handler(), slog.LevelDebug), // Failed handshakes, mostly: anybody can make them.
		}
		s.done.Go(func() {
			if err := s.http.Serve(tls.NewListener(o.Listeners.HTTP, config)); !errors.Is(err, http.ErrServerClosed) {
				c.o.Log.Error("the HTTPS server ended", "error", err)
			}
		})
	}
	return s, nil
}

func (s *Servers) start(l net.Listener, creds credentials.TransportCredentials) {
	g := grpc.NewServer(
		grpc.Creds(creds), grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingIdle, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(rpc.Unary(s, s.c.o.Log)), grpc.ChainStreamInterceptor(rpc.Stream(s)),
	)
	s.c.rpc.Register(g)
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	reflection.Register(g)
	s.grpc = append(s.grpc, g)
	s.done.Go(func() {
		if err := g.Serve(l); err != nil {
			s.c.o.Log.Error("a gRPC server ended", "address", l.Addr().String(), "error", err)
		}
	})
}

// Stop ends the servers; requests under way get a moment to finish.
func (s *Servers) Stop() {
	if s.http != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopWait)
		if err := s.http.Shutdown(ctx); err != nil {
			s.c.o.Log.Debug("open HTTPS requests were cut", "error", err)
		}
		cancel()
	}
	for _, g := range s.grpc {
		g.Stop() // Not graceful: sessions of agents never end by themselves.
	}
	s.mu.Lock()
	for _, conn := range s.conns { // Any order: each is closed.
		if err := conn.Close(); err != nil {
			s.c.o.Log.Debug("a connection was closed already", "error", err)
		}
	}
	s.mu.Unlock()
	s.done.Wait()
}

// Leading returns nil when this member leads.
func (s *Servers) Leading() error { return s.c.Leading() }

// Roles are those that role bindings give a user.
func (s *Servers) Roles(user string) []string {
	var out []string
	for r := range s.c.State().Resources(string(model.ResourceRoleBinding)) {
		if spec := r.GetRoleBinding().GetSpec(); slices.Contains(spec.GetUsers(), user) {
			out = append(out, spec.GetRole())
		}
	}
	return out
}

// LeaderConn returns a connection to the leader.
func (s *Servers) LeaderConn() (grpc.ClientConnInterface, error) {
	name, _ := s.c.node.Leader()
	if name == "" || name == s.c.o.Name {
		return nil, model.Errorf(model.FaultUnavailable, "", "no coordinator leads now").WithRemedy("it is decided within seconds; try again")
	}
	return s.conn(name)
}

func (s *Servers) conn(name string) (*grpc.ClientConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if conn := s.conns[name]; conn != nil {
		return conn, nil
	}
	address := s.c.o.Addresses[name]
	if address == "" {
		return nil, model.Errorf(model.FaultUnavailable, "coordinator/"+name, "leads, but its address is not in this member's configuration").
			WithRemedy("add it under members in coordinator.yaml")
	}
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(s.o.Client)),
		// A leader that lost its power ends no connection: what was forwarded to it must not wait for TCP.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingIdle, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectLimit, Backoff: backoff.Config{
			BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectPause,
		}}),
	}, s.o.Dial...)
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		return nil, fmt.Errorf("reach coordinator %s at %s: %w", name, address, err)
	}
	s.conns[name] = conn
	return conn, nil
}

// handler serves JSON for every public RPC, the webhooks and the probes of process managers.
func (s *Servers) handler() (http.Handler, error) {
	own, err := s.conn(s.c.o.Name)
	if err != nil {
		return nil, err
	}
	// The gateway calls with this coordinator's certificate: who really asks travels as metadata, made
	// from the certificate of the HTTPS request and from nothing that the request itself says.
	gateway := runtime.NewServeMux(
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(_ context.Context, r *http.Request) metadata.MD {
			id, err := trust.IdentityOf(*r.TLS)
			if err != nil {
				id = trust.Identity{} // Nobody: refused by the interceptor.
			}
			return rpc.CallerMetadata(id)
		}),
	)
	ctx := context.Background() // The handlers live as long as the connection.
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		pb.RegisterLeaseServiceHandler, pb.RegisterResourceServiceHandler, pb.RegisterFailoverServiceHandler, pb.RegisterSiteServiceHandler,
	} {
		if err := register(ctx, gateway, own); err != nil {
			return nil, fmt.Errorf("register the JSON gateway: %w", err)
		}
	}
	hooks := webhook.Handler(webhook.Options{
		Trigger: func(name string) *pb.Trigger { return s.c.State().Resource("trigger/" + name).GetTrigger() },
		Declare: func(ctx context.Context, trigger string, req *pb.DeclareRequest) (*pb.DeclareResponse, error) {
			caller := trust.Identity{Role: trust.RoleMonitor, Name: trigger}
			return pb.NewFailoverServiceClient(own).Declare(rpc.Caller(ctx, caller), req)
		},
		Fault: faultOf, Log: s.c.o.Log,
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if name, _ := s.c.node.Leader(); name == "" {
			http.Error(w, "no coordinator leads", http.StatusServiceUnavailable)
		}
	})
	shown := s.c.metrics.Handler()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		id, err := trust.IdentityOf(*r.TLS)
		if err == nil {
			_, err = rpc.Authorize(s, id, pb.SiteService_GetStatus_FullMethodName) // They tell what the status does.
		}
		switch {
		case model.FaultOf(err) == model.FaultUnauthenticated:
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		shown.ServeHTTP(w, r)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := webhook.Suffix(r.URL.Path); ok {
			hooks.ServeHTTP(w, r)
			return
		}
		// The gateway reads the request before anybody has looked at who asks.
		r.Body = http.MaxBytesReader(w, r.Body, maxMessage)
		gateway.ServeHTTP(w, r)
	})
	return mux, nil
}

// faultOf reads fault and message out of an error that came over gRPC.
func faultOf(err error) (model.Fault, string) {
	st := status.Convert(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == model.ErrorDomain {
			return model.FaultOfReason(info.GetReason()), st.Message()
		}
	}
	if st.Code() == codes.InvalidArgument {
		return model.FaultInvalid, st.Message()
	}
	return model.FaultUnavailable, st.Message()
}
