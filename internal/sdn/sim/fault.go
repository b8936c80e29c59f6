package sim

import "github.com/hotspare/hotspare/internal/fault"

// The methods of sdn.Driver, sdn.Metadata and sdn.Endpoints.
const (
	List     = "List"
	Inspect  = "Inspect"
	Ensure   = "Ensure"
	Remove   = "Remove"
	Dial     = "Dial"
	Listen   = "ListenMetadata"
	Admit    = "Admit"
	Machine  = "Machine"
	Read     = "Read"
	Announce = "Announce"
	Withdraw = "Withdraw"
)

// Fault is a misbehaviour on command; its Object is the network's name, or the DNS name of an endpoint.
type Fault = fault.Fault
