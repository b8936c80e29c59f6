package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// connectLimit bounds one attempt to connect; a healthy coordinator answers in milliseconds.
	connectLimit = 2 * time.Second
	// attemptLimit bounds one attempt of a call, so that a coordinator that hangs does not use up the
	// whole time while another one could answer.
	attemptLimit = 10 * time.Second
	// roundPause is waited after all coordinators were tried: an election takes about a second.
	roundPause = 250 * time.Millisecond
	// maxMessageBytes bounds an answer; lists are paged, but one failover may hold 4 MiB.
	maxMessageBytes = 32 << 20
	// pingIdle and pingTimeout bound how long an open stream is believed in that brings nothing. Coordinators
	// cut off who pings more often than every 5 s.
	pingIdle, pingTimeout = 10 * time.Second, 5 * time.Second
)

// Dialer opens a connection to an endpoint.
type Dialer func(ctx context.Context, endpoint string) (net.Conn, error)

// Options tune a client.
type Options struct {
	// Timeout bounds one call with all its repeats. Zero means 30 s.
	Timeout time.Duration
	// Dial replaces the network in tests; connections made by it are neither encrypted nor verified when
	// the target names no certificates.
	Dial Dialer
}

// Client is a connection to a site. It is a grpc.ClientConnInterface, so the generated clients use it
// like a connection to one server.
type Client struct {
	endpoints []string
	conns     []*grpc.ClientConn
	timeout   time.Duration
	identity  *identity

	mu sync.Mutex
	// current is the coordinator that answered last; guarded by mu.
	current int
}

var _ grpc.ClientConnInterface = (*Client)(nil)

// NoAnswerError means that no coordinator answered in time. The request may have been carried out.
type NoAnswerError struct {
	Endpoints []string
	Waited    time.Duration
	// Last is what the last attempt ran into.
	Last error
}

func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("no coordinator answered within %s (tried %s): %s",
		e.Waited.Round(100*time.Millisecond), strings.Join(e.Endpoints, ", "), status.Convert(e.Last).Message())
}

// Unwrap returns what the last attempt ran into.
func (e *NoAnswerError) Unwrap() error { return e.Last }

// IdentityError means that we do not trust the coordinators, or they do not trust us.
type IdentityError struct{ Err error }

func (e *IdentityError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *IdentityError) Unwrap() error { return e.Err }

// New prepares connections to all endpoints of a target; nothing is dialled before the first call.
func New(t Target, o Options) (*Client, error) {
	c := &Client{endpoints: t.Endpoints, timeout: o.Timeout, identity: &identity{}}
	if c.timeout == 0 {
		c.timeout = 30 * time.Second
	}
	dial := o.Dial
	if dial == nil {
		dial = dialNetwork
	}
	for _, e := range t.Endpoints {
		creds := insecure.NewCredentials()
		if (o.Dial == nil || t.CACert != "") && !strings.HasPrefix(e, unixPrefix) {
			config, err := c.identity.tlsConfig(t)
			if err != nil {
				return nil, err
			}
			creds = credentials.NewTLS(config)
		}
		conn, err := grpc.NewClient("passthrough:///"+e,
			grpc.WithTransportCredentials(creds),
			grpc.WithContextDialer(dial),
			grpc.WithConnectParams(grpc.ConnectParams{
				MinConnectTimeout: connectLimit,
				Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			}),
			// A watcher waits for hours: a coordinator that lost its power ends no stream.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingIdle, Timeout: pingTimeout}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		)
		if err != nil {
			return nil, fmt.Errorf("prepare connection to %s: %w", e, err)
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

func dialNetwork(ctx context.Context, endpoint string) (net.Conn, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	if path, ok := strings.CutPrefix(endpoint, unixPrefix); ok {
		return d.DialContext(ctx, "unix", path)
	}
	return d.DialContext(ctx, "tcp", endpoint)
}

// Close ends all connections.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// Invoke calls the coordinators one after the other until one answers with anything but "unavailable",
// or the client's timeout ends with a *NoAnswerError.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var last error
	for attempt := 1; ; attempt++ {
		err := c.attempt(bounded, method, args, reply, opts)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !retryable(err) {
			return err
		}
		if bounded.Err() == nil || last == nil {
			last = err // the end of our own time says less than what was met before
		}
		c.Next()
		if attempt%len(c.conns) == 0 {
			if fault := c.identity.verdict(last); fault != nil {
				return &IdentityError{fault}
			}
			select {
			case <-bounded.Done():
			case <-time.After(roundPause):
			}
		}
		if bounded.Err() != nil {
			return &NoAnswerError{Endpoints: c.endpoints, Waited: time.Since(began), Last: last}
		}
	}
}

func (c *Client) attempt(ctx context.Context, method string, args, reply any, opts []grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	return c.conn().Invoke(ctx, method, args, reply, opts...)
}

// retryable says whether only the way to the coordinator was at fault: the same request id is sent
// again. Both codes leave open whether the request was carried out.
func retryable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

// NewStream opens a stream to the coordinator that answered last. Streams are not repeated: a watcher
// calls Next and opens another.
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.conn().NewStream(ctx, desc, method, opts...)
}

func (c *Client) conn() *grpc.ClientConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns[c.current]
}

// Next turns to the next coordinator.
func (c *Client) Next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = (c.current + 1) % len(c.conns)
}
