package libvirt

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"time"
)

const (
	// trialBytes are written once to learn how fast the disk is, before any guest was saved.
	trialBytes = 32 << 20
	// shortestSample is the smallest image from whose time anything follows: less is mostly the fixed part of a save.
	shortestSample = 16 << 20
	// history is how much what was known counts against one more save, in saves.
	history = 3
)

// rateOf returns bytes per second, at least 1.
func rateOf(bytes int64, took time.Duration) uint64 {
	return max(1, uint64(float64(bytes)/max(took, time.Microsecond).Seconds()))
}

// coarse rounds a rate down to three binary digits: each change of what a host can do is an entry of the
// replicated log, and a proof.
func coarse(rate uint64) uint64 {
	if n := bits.Len64(rate); n > 3 {
		return rate >> (n - 3) << (n - 3)
	}
	return rate
}

// saveRate is how fast RAM is saved to the state directory, in bytes per second. Before the first save it is
// how fast the disk takes zeros.
func (d *Driver) saveRate(ctx context.Context) (uint64, error) {
	d.mu.Lock()
	known := d.rate
	d.mu.Unlock()
	if known > 0 {
		return coarse(known), nil
	}
	took, err := writeTrial(ctx, filepath.Join(d.state, ".trial"))
	if err != nil {
		return 0, fmt.Errorf("measure the disk under %s: %w", d.state, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rate == 0 {
		d.rate = rateOf(trialBytes, took)
	}
	return coarse(d.rate), nil
}

// writeTrial writes a file durably, takes it away and says how long the writing took.
func writeTrial(ctx context.Context, path string) (time.Duration, error) {
	begun := time.Now()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	block := make([]byte, 1<<20)
	for n := 0; n < trialBytes && err == nil; n += len(block) {
		if err = ctx.Err(); err == nil {
			_, err = f.Write(block)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	took := time.Since(begun)
	return took, errors.Join(err, f.Close(), os.Remove(path))
}

// saved takes one more measurement: an image that was written in this time.
func (d *Driver) saved(path string, took time.Duration) {
	info, err := os.Stat(path)
	if err != nil || info.Size() < shortestSample {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := rateOf(info.Size(), took)
	if d.rate > 0 {
		now = (history*d.rate + now) / (history + 1)
	}
	d.rate = now
}
