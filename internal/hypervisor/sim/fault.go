package sim

import (
	"context"

	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/model"
)

// Fault is a misbehaviour on command; its Object is the object's identifier ("instance/web-*").
type Fault = fault.Fault

// The lies of package fault.
const (
	LieNotApplied = fault.LieNotApplied
	LieApplied    = fault.LieApplied
	LieLater      = fault.LieLater
)

// Inject makes matching calls misbehave until the returned function is called.
func (h *Host) Inject(f Fault) (release func()) { return h.faults.Inject(f) }

// through runs one driver call with the fault that is due for it, if any. What comes late was accepted by
// the host in the boot in which it was asked.
func (h *Host) through(ctx context.Context, method string, id model.ObjectID, call func(context.Context) error) error {
	boot := h.BootID()
	return h.faults.Through(ctx, method, string(id), func(ctx context.Context) error {
		if fault.Late(ctx) && h.BootID() != boot {
			return nil
		}
		return call(ctx)
	})
}
