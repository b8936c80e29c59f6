//go:build !linux

package main

import "context"

// tell tells the story on simulated VMs: the real site needs Linux.
func tell(ctx context.Context, keep bool) error { return tellSim(ctx, keep) }
