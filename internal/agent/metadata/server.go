package metadata

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
)

const (
	// listenRetry is the wait before a port is opened again: its network is not there yet, or was made anew.
	listenRetry = time.Second
	// askLimit bounds what the driver is asked for.
	askLimit = 5 * time.Second
	// requestLimit bounds one request, from its connection to its answer.
	requestLimit = 5 * time.Second
	// maxHeader and maxBody bound what a guest may send.
	maxHeader, maxBody = 8 << 10, 1 << 10
	// maxConns and maxConnsEach bound the connections of one network and of one address.
	maxConns, maxConnsEach = 64, 4
	// askedEvery is how often the core hears that a guest asks.
	askedEvery = 10 * time.Second
)

// Options are what a server needs.
type Options struct {
	Networks sdn.Metadata
	// Asked and Ready tell the core what a guest did.
	Asked, Ready func(model.ObjectID)
	Wall         func() time.Time
	Log          *slog.Logger
}

// Server serves the lent networks of one host.
type Server struct {
	o Options
	// changed holds one signal: other networks are wanted.
	changed chan struct{}

	mu       sync.Mutex // guards what follows
	guests   []reconcile.Guest
	networks []string
	asked    map[model.ObjectID]time.Time
}

// New returns a server that serves nothing yet.
func New(o Options) *Server {
	return &Server{o: o, changed: make(chan struct{}, 1), asked: map[model.ObjectID]time.Time{}}
}

// Publish takes the newest guests and the networks to serve. It does not block.
func (s *Server) Publish(guests []reconcile.Guest, networks []string) {
	s.mu.Lock()
	s.guests, s.networks = guests, networks
	if len(s.asked) > 2*len(guests) {
		clear(s.asked) // Of guests that are gone; the others are noted anew.
	}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	serving := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range serving { // Any order: each is ended.
			stop()
		}
	}()
	for {
		s.mu.Lock()
		wanted := map[string]bool{}
		for _, n := range s.networks {
			wanted[n] = true
		}
		s.mu.Unlock()
		for n, stop := range serving { // Any order: each is ended.
			if !wanted[n] {
				stop()
				delete(serving, n)
			}
		}
		for n := range wanted { // Any order: each is begun.
			if serving[n] == nil {
				one, stop := context.WithCancel(ctx)
				serving[n] = stop
				all.Go(func() { s.keep(one, n) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
	}
}

// keep serves one network, again when its listener ends.
func (s *Server) keep(ctx context.Context, network string) {
	for ctx.Err() == nil {
		err := s.serve(ctx, network)
		if ctx.Err() != nil {
			return
		}
		s.o.Log.Debug("metadata not served; trying again", "network", network, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(listenRetry):
		}
	}
}

func (s *Server) serve(ctx context.Context, network string) error {
	bounded, cancel := context.WithTimeout(ctx, askLimit)
	l, err := s.o.Networks.ListenMetadata(bounded, network)
	cancel()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.handler(network), ReadTimeout: requestLimit, WriteTimeout: requestLimit, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), // Guests can make as many errors as they like.
	}
	// Each request is identified by its connection's answers; a kept one would outlive that.
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() {
		if err := server.Close(); err != nil {
			s.o.Log.Debug("metadata connections not closed", "network", network, "error", err)
		}
	})
	defer stop()
	s.o.Log.Info("metadata served", "network", network)
	err = server.Serve(&boundedListener{Listener: l, from: map[string]int{}})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return errors.Join(err, server.Close())
}

// boundedListener closes what comes beyond the bounds at once.
type boundedListener struct {
	net.Listener

	mu   sync.Mutex
	all  int
	from map[string]int
}

// Accept returns the next connection that is within the bounds.
func (b *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		if err == nil && b.enter(host) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { b.leave(host) })}, nil
		}
		// It said nothing that counts.
		_ = c.Close()
	}
}

func (b *boundedListener) enter(host string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= maxConns || b.from[host] >= maxConnsEach {
		return false
	}
	b.all++
	b.from[host]++
	return true
}

func (b *boundedListener) leave(host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.from[host]--; b.from[host] == 0 {
		delete(b.from, host)
	}
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	leave func()
}

// Close ends the connection.
func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
