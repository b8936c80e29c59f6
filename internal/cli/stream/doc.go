// Package stream shows what has no end of its own: a VM's console, and a lease that is watched. It opens another
// stream when the leader changes, and goes on where it was.
//
// It decides nothing. internal/cli calls it.
package stream
