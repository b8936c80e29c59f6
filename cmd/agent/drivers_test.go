package main

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hotspare/hotspare/internal/config"
	"github.com/hotspare/hotspare/internal/trust"
)

// What keeps a driver from opening is the error of the start; what was open before is closed.
func TestDriverThatCannotBeOpened(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := trust.WriteFile(file, nil); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(file, "dir")
	cases := map[string]*config.Agent{
		"libvirt": {Libvirt: config.Libvirt{Socket: "/nowhere", StateDir: below}},
		"pool":    {Pools: []config.Pool{{Name: "p", Dir: below}}},
		"zone":    {Zones: []config.Zone{{Name: "z", KeyFile: below}}},
	}
	for name, k := range cases { // Any order: each is tried.
		t.Run(name, func(t *testing.T) {
			_, _, err := openDrivers(k, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), file) {
				t.Errorf("got %v, want an error that names %s", err, file)
			}
		})
	}
}
