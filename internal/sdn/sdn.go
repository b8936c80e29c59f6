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
	"net/netip"

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

// MetadataAddress is where a machine of a lent network reaches the metadata service of its own host's agent.
const MetadataAddress = "169.254.169.254"

// MetadataPort is the only port that answers there.
const MetadataPort = 80

// Card is what a machine of this host has on a network.
type Card struct {
	MAC net.HardwareAddr
	// Address is the only IPv4 address by which the machine is known.
	Address netip.Addr
}

// Metadata is implemented by drivers that let the machines of a lent network reach MetadataAddress. It is
// part of the network: Ensure makes it and Remove takes it away. Networks of other roles never have it.
//
// A machine is told by its port (model.PortName), MAC and address together, and by no two of them: nobody else's
// packets reach the listener, and what the listener answers to a machine leaves through that machine's port only.
type Metadata interface {
	// ListenMetadata opens the port on one network; ErrNotFound when there is no such network, or none of
	// role lent. The listener is closed when the network is removed or made anew; the caller admits the machines
	// and listens again.
	ListenMetadata(ctx context.Context, network string) (net.Listener, error)
	// Admit lets exactly these machines reach the listener, in place of all that were admitted before. Their ports
	// need not exist yet. ErrNotFound as for ListenMetadata.
	Admit(ctx context.Context, network string, cards []Card) error
	// Machine reports the MAC address of the admitted machine that has an address. ErrNotFound: none is admitted;
	// ErrConflict: two are, or what keeps others out is not in place.
	Machine(ctx context.Context, network string, address netip.Addr) (net.HardwareAddr, error)
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
