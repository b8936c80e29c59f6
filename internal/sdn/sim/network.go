package sim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/sdn"
)

// Networks is the network side of one simulated host.
type Networks struct {
	*fault.Faults
	answers func(address string) bool

	mu sync.Mutex
	// The rest is guarded by mu.
	networks map[string]*network
	// foreign holds bridges that somebody else made.
	foreign map[string]bool
	// listeners are the open metadata listeners by network, and admitted who may connect.
	listeners map[string]*listener
	admitted  map[string][]sdn.Card
}

// network is what Ensure made; a part that somebody deleted is false.
type network struct {
	spec   *pb.NetworkSpec
	bridge bool
	probe  bool
}

var _ sdn.Driver = (*Networks)(nil)

// NewNetworks makes the networks of one host. The function answers says for each "host:port" whether
// a machine behind it answers now; nil means that none does. It is called without any lock held.
func NewNetworks(answers func(address string) bool) *Networks {
	if answers == nil {
		answers = func(string) bool { return false }
	}
	return &Networks{
		Faults:   &fault.Faults{},
		answers:  answers,
		networks: map[string]*network{},
		foreign:  map[string]bool{},

		listeners: map[string]*listener{},
		admitted:  map[string][]sdn.Card{},
	}
}

// List implements sdn.Driver.
func (n *Networks) List(ctx context.Context) ([]string, error) {
	var names []string
	err := n.Through(ctx, List, "", func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		names = slices.Sorted(maps.Keys(n.networks))
		return nil
	})
	return names, err
}

// Inspect implements sdn.Driver.
func (n *Networks) Inspect(ctx context.Context, spec *pb.NetworkSpec) (*pb.NetworkStatus, error) {
	var status *pb.NetworkStatus
	err := n.Through(ctx, Inspect, spec.GetName(), func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		have := n.networks[spec.GetName()]
		if have == nil || !have.bridge || !have.probe || !proto.Equal(have.spec, spec) {
			return fmt.Errorf("inspect network %s: %w", spec.GetName(), sdn.ErrNotFound)
		}
		status = &pb.NetworkStatus{Bridge: spec.GetBridge()}
		return nil
	})
	if err == nil && status == nil {
		// A lie: the driver says that all is well.
		status = &pb.NetworkStatus{Bridge: spec.GetBridge()}
	}
	return status, err
}

// Ensure implements sdn.Driver.
func (n *Networks) Ensure(ctx context.Context, spec *pb.NetworkSpec) error {
	return n.Through(ctx, Ensure, spec.GetName(), func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.foreign[spec.GetBridge()] {
			return fmt.Errorf("ensure network %s: bridge %s is not ours: %w",
				spec.GetName(), spec.GetBridge(), sdn.ErrConflict)
		}
		if have := n.networks[spec.GetName()]; have == nil || !have.bridge || !have.probe || !proto.Equal(have.spec, spec) {
			n.drop(spec.GetName()) // What is made anew has no listener.
			n.networks[spec.GetName()] = &network{spec: proto.CloneOf(spec), bridge: true, probe: true}
		}
		return nil
	})
}

// Remove implements sdn.Driver.
func (n *Networks) Remove(ctx context.Context, spec *pb.NetworkSpec) error {
	return n.Through(ctx, Remove, spec.GetName(), func(context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.drop(spec.GetName())
		return nil
	})
}

// Dial implements sdn.Driver. The connection answers one HTTP request with 200 and "ok".
func (n *Networks) Dial(ctx context.Context, name, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Through(ctx, Dial, name, func(context.Context) error {
		n.mu.Lock()
		have := n.networks[name]
		present := have != nil && have.bridge && have.probe
		n.mu.Unlock()
		if !present {
			return fmt.Errorf("dial %s from network %s: %w", address, name, sdn.ErrNotFound)
		}
		if !n.answers(address) {
			return fmt.Errorf("dial %s from network %s: nothing answers", address, name)
		}
		near, far := net.Pipe()
		go serve(far)
		conn = near
		return nil
	})
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, err
	}
	if conn == nil {
		// A lie: something accepts the connection and closes it.
		near, far := net.Pipe()
		far.Close()
		conn = near
	}
	return conn, nil
}

// serve answers one request and ends with the connection: the caller that closes its end ends it.
func serve(conn net.Conn) {
	defer conn.Close()
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	request.Body.Close()
	// The reader may have gone; then nobody is left to tell.
	_, _ = io.WriteString(conn,
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

// DeleteBridge is somebody's hand: it deletes the bridge of a network and leaves the rest.
func (n *Networks) DeleteBridge(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if have := n.networks[name]; have != nil {
		have.bridge = false
	}
}

// AddForeign is somebody's hand: it makes a bridge that is not ours.
func (n *Networks) AddForeign(bridge string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.foreign[bridge] = true
}

// Inventory lists everything on the host, ours and not, in order; what a residue check compares.
func (n *Networks) Inventory() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for bridge := range n.foreign {
		all = append(all, "bridge "+bridge)
	}
	for name, have := range n.networks {
		if have.bridge {
			all = append(all, "bridge "+have.spec.GetBridge())
		}
		if have.probe {
			all = append(all, "probe "+name)
		}
	}
	slices.Sort(all)
	return all
}
