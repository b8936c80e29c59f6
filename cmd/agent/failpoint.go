//go:build failpoint

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/config"
	"github.com/hotspare/hotspare/internal/hypervisor/libvirt"
	"github.com/hotspare/hotspare/internal/model"
)

// failpoints lets the agent be killed at exact points, for the end-to-end tests: at each line of the
// file failpoints in the data directory ("before Save", "after Restore"), once. The journal has the
// intent before a driver is called, and hears of the outcome after it returned.
func failpoints(k *config.Agent, d *actuate.Drivers) {
	if h, ok := d.Hypervisor.(*libvirt.Driver); ok {
		d.Hypervisor = mortal{Driver: h, points: filepath.Join(k.DataDir, "failpoints")}
	}
}

// mortal is the libvirt driver of an agent that may be killed around a call.
type mortal struct {
	*libvirt.Driver
	points string
}

// Save is libvirt.Driver's.
func (m mortal) Save(ctx context.Context, id model.ObjectID) error {
	return m.around("Save", func() error { return m.Driver.Save(ctx, id) })
}

// Restore is libvirt.Driver's.
func (m mortal) Restore(ctx context.Context, id model.ObjectID) error {
	return m.around("Restore", func() error { return m.Driver.Restore(ctx, id) })
}

// Start is libvirt.Driver's.
func (m mortal) Start(ctx context.Context, id model.ObjectID) error {
	return m.around("Start", func() error { return m.Driver.Start(ctx, id) })
}

func (m mortal) around(method string, call func() error) error {
	m.reach("before " + method)
	err := call()
	m.reach("after " + method)
	return err
}

// reach takes the point out of the file and kills the process, as kill -9 does.
func (m mortal) reach(point string) {
	text, err := os.ReadFile(m.points)
	if err != nil {
		return // Nothing is to happen in this life.
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	i := slices.Index(lines, point)
	if i < 0 {
		return
	}
	lines = slices.Delete(lines, i, i+1)
	if err := os.WriteFile(m.points, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		panic(fmt.Sprintf("failpoint %s: %v", point, err))
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(fmt.Sprintf("failpoint %s: %v", point, err))
	}
	select {} // The signal is on its way.
}
