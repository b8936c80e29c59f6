// Package rpc serves the public services and the agents' service. A handler checks the request,
// asks a pure controller for a decision, proposes it, and translates the error through one table
// (status.go); nothing else in the coordinator imports gRPC's status package.
//
// It never decides where something goes, and never answers a read as fresh without having verified
// leadership, unless the caller asked for a stale one.
package rpc
