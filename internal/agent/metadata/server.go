package metadata

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
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
	serving := map[string]*served{}
	defer func() {
		for _, n := range serving { // Any order: each is ended.
			n.stop()
		}
	}()
	for {
		s.mu.Lock()
		wanted := map[string]bool{}
		for _, n := range s.networks {
			wanted[n] = true
		}
		s.mu.Unlock()
		for name, n := range serving { // Any order: each is ended, or told.
			if !wanted[name] {
				n.stop()
				delete(serving, name)
				continue
			}
			select {
			case n.changed <- struct{}{}:
			default:
			}
		}
		for name := range wanted { // Any order: each is begun.
			if serving[name] == nil {
				one, stop := context.WithCancel(ctx)
				n := &served{stop: stop, changed: make(chan struct{}, 1)}
				serving[name] = n
				all.Go(func() { s.keep(one, name, n.changed) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
	}
}

// served is one network that is served.
type served struct {
	stop context.CancelFunc
	// changed holds one signal: other guests may be there.
	changed chan struct{}
}

// keep serves one network, again when its listener ends.
func (s *Server) keep(ctx context.Context, network string, changed <-chan struct{}) {
	for ctx.Err() == nil {
		err := s.serve(ctx, network, changed)
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

func (s *Server) serve(ctx context.Context, network string, changed <-chan struct{}) error {
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
	// Each request is of the machine that was admitted when it was made; a kept connection would outlive that.
	server.SetKeepAlivesEnabled(false)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(&boundedListener{Listener: l, from: map[string]int{}}) }()
	err = s.admit(ctx, network, changed, ended)
	if closing := server.Close(); closing != nil {
		s.o.Log.Debug("metadata connections not closed", "network", network, "error", closing)
	}
	return err
}

// admit lets the guests of a network in, and others when there are others, until the server has ended.
func (s *Server) admit(ctx context.Context, network string, changed <-chan struct{}, ended <-chan error) error {
	var admitted []sdn.Card
	for first := true; ; first = false {
		cards := s.cards(network)
		if first || !slices.EqualFunc(cards, admitted, sameCard) {
			bounded, cancel := context.WithTimeout(ctx, askLimit)
			err := s.o.Networks.Admit(bounded, network, cards)
			cancel()
			if err != nil {
				return err
			}
			admitted = cards
		}
		if first {
			s.o.Log.Info("metadata served", "network", network)
		}
		select {
		case <-changed:
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func sameCard(a, b sdn.Card) bool { return a.Address == b.Address && slices.Equal(a.MAC, b.MAC) }

// cards are those of the guests on a network that have an address by which they can be known, in order.
func (s *Server) cards(network string) []sdn.Card {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []sdn.Card
	for _, g := range s.guests {
		for _, n := range g.Spec.GetNics() {
			prefix, err := netip.ParsePrefix(n.GetAddress())
			mac, macErr := net.ParseMAC(n.GetMac())
			if n.GetNetwork() == network && err == nil && macErr == nil && prefix.Addr().Is4() {
				out = append(out, sdn.Card{MAC: mac, Address: prefix.Addr()})
			}
		}
	}
	slices.SortFunc(out, func(a, b sdn.Card) int {
		return cmp.Or(a.Address.Compare(b.Address), slices.Compare(a.MAC, b.MAC))
	})
	return out
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
