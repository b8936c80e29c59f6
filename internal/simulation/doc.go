// Package simulation runs the pure core in one goroutine.
package simulation
