// Package fence is the seam between an agent and what proves the old side dead. Drivers live in
// libvirt/ (power through the protected site's own hypervisor) and sim/.
//
// A fence stops the old side from serving and writing. A driver reports evidence only for what it
// observed itself, and never answers "fenced" because a call was accepted.
package fence

import (
	"context"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Driver fences the targets that the agent's configuration names. Every call obeys its context and
// is idempotent.
type Driver interface {
	// Targets lists the names that can be fenced.
	Targets() []string
	// Fence ends everything that the target's machines run and returns when they were observed off.
	Fence(ctx context.Context, spec *pb.FenceSpec) error
	// Inspect reports FENCED with its evidence while the target is observed off because of this
	// fence, else OPEN. A spec without an epoch, as every target has it when no run is open, is about
	// the fences of all epochs: FENCED while anything of one is left, whatever runs.
	Inspect(ctx context.Context, spec *pb.FenceSpec) (pb.State, *pb.FenceStatus, error)
	// Lift takes the fence of the spec's epoch away, or of all epochs when it names none. After the
	// last the target may run again; nothing is started.
	Lift(ctx context.Context, spec *pb.FenceSpec) error
}
