// Package sdn is the seam between an agent and networks: networks on a host, and endpoints (names
// and addresses) that are repointed. Drivers live in bridge/ (Linux bridges, nftables), dns/ (RFC
// 2136) and sim/; the conformance suites live in conformance/.
//
// A driver executes; it decides nothing. It never overwrites a value that neither we nor the
// committed pre-image put there, and never joins a lent or bubble network to a production one.
package sdn

import (
	"context"
	"errors"
	"net"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// ErrNotFound is returned by calls that name a network which does not exist on the host.
var ErrNotFound = errors.New("network not found")

// ErrConflict is returned when a value is neither ours nor the committed pre-image.
var ErrConflict = errors.New("changed by somebody else")

// Driver keeps the networks of one host. Every call obeys its context and is idempotent; Ensure
// reads back what it made before it returns.
type Driver interface {
	// List reports the names of all networks of ours on the host.
	List(ctx context.Context) ([]string, error)
	// Inspect reports one network; ErrNotFound when there is none or it is incomplete.
	Inspect(ctx context.Context, spec *pb.NetworkSpec) (*pb.NetworkStatus, error)
	// Ensure makes the bridge, its isolation from networks of other roles, and its probe port.
	Ensure(ctx context.Context, spec *pb.NetworkSpec) error
	// Remove takes away everything that Ensure made.
	Remove(ctx context.Context, spec *pb.NetworkSpec) error
	// Dial connects to an address from the network's probe port, not from the host's own stack.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// Endpoints keeps DNS records and the like. Changes are conditional (compare and set) and read back.
type Endpoints interface {
	// Read reports what the endpoint is now.
	Read(ctx context.Context, spec *pb.EndpointSpec) (*pb.EndpointValue, error)
	// Announce sets our values if the endpoint still has the committed pre-image (or ours already);
	// ErrConflict otherwise.
	Announce(ctx context.Context, spec *pb.EndpointSpec) error
	// Withdraw restores the pre-image if the endpoint still has our values; ErrConflict otherwise.
	Withdraw(ctx context.Context, spec *pb.EndpointSpec) error
}
