package sim

import "github.com/hotspare/hotspare/internal/fault"

// The methods of fence.Driver that make a call.
const (
	Fence   = "Fence"
	Inspect = "Inspect"
	Lift    = "Lift"
)

// Fault is a misbehaviour on command; its Object is the target.
type Fault = fault.Fault
