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
// is idempotent. A spec names the epoch whose fence is meant. One without an epoch means the fences of
// all epochs: it is what an object asks for that is to be OPEN, whatever fenced it before.
type Driver interface {
	// Targets lists the names that can be fenced.
	Targets() []string
	// Fence ends everything that the target's machines run and returns when they were observed off. It
	// needs an epoch.
	Fence(ctx context.Context, spec *pb.FenceSpec) error
	// Inspect reports FENCED with its evidence while the target is observed off because of this
	// fence, else OPEN. Without an epoch it reports FENCED while any fence is left that was not lifted.
	Inspect(ctx context.Context, spec *pb.FenceSpec) (pb.State, *pb.FenceStatus, error)
	// Lift allows the target to run again; it starts nothing. Without an epoch it lifts every fence.
	Lift(ctx context.Context, spec *pb.FenceSpec) error
}
