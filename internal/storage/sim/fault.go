package sim

import "github.com/hotspare/hotspare/internal/fault"

// Fault is a misbehaviour on command; its Object is the volume's name ("web-*").
type Fault = fault.Fault

// The lies of package fault.
const (
	LieNotApplied = fault.LieNotApplied
	LieApplied    = fault.LieApplied
	LieLater      = fault.LieLater
)
