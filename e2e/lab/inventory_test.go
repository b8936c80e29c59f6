package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hotspare/hotspare/e2e/lab"
)

// TestInventory plants one thing of each kind on a node and expects exactly that line more.
func TestInventory(t *testing.T) {
	lab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	l := newLab(ctx, t, "labi")
	h := addHost(ctx, t, l, lab.HostOptions{Name: "n"})
	before := inventory(ctx, t, l)
	file := filepath.Join(h.Dir, "data", "forgotten")
	tests := []struct {
		name        string
		plant, undo []string
		want        []string
	}{
		{"link", []string{"ip", "link", "add", "br9", "type", "bridge"}, []string{"ip", "link", "del", "br9"}, []string{"n link br9 down master="}},
		{
			"address",
			[]string{"ip", "addr", "add", "192.0.2.1/32", "dev", "lo"},
			[]string{"ip", "addr", "del", "192.0.2.1/32", "dev", "lo"},
			[]string{"n link lo 192.0.2.1/32"},
		},
		{
			"route",
			[]string{"ip", "route", "add", "192.0.2.0/24", "via", "10.77.0.1"},
			[]string{"ip", "route", "del", "192.0.2.0/24"},
			[]string{"n route 192.0.2.0/24 via 10.77.0.1 dev mgmt0"},
		},
		{"rule", []string{"nft", "add", "table", "inet", "left"}, []string{"nft", "delete", "table", "inet", "left"}, []string{"n nft table inet left"}},
		{"file", []string{"touch", file}, []string{"rm", file}, []string{"n file data/forgotten"}},
		{
			"namespace",
			[]string{"ip", "netns", "add", "bubble"},
			[]string{"sh", "-c", "ip netns del bubble; umount /run/netns; rmdir /run/netns"},
			[]string{"n file run/netns/", "n file run/netns/bubble", "n netns bubble"},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			run(ctx, t, h, tc.plant[0], tc.plant[1:]...)
			if diff := cmp.Diff(tc.want, added(before, inventory(ctx, t, l))); diff != "" {
				t.Errorf("new lines (-want +got):\n%s", diff)
			}
			run(ctx, t, h, tc.undo[0], tc.undo[1:]...)
			if diff := cmp.Diff(before, inventory(ctx, t, l)); diff != "" {
				t.Errorf("after the undo (-before +after):\n%s", diff)
			}
		})
	}
	p, err := h.Start("sleeper", h.Command(context.Background(), "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "process in the inventory", func(ctx context.Context) error {
		lines, err := l.Inventory(ctx)
		if err == nil && !cmp.Equal(added(before, lines), []string{"n process sleep"}) {
			err = os.ErrNotExist // nsenter itself is seen until it has become sleep
		}
		return err
	})
	if err := p.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, inventory(ctx, t, l)); diff != "" {
		t.Errorf("after the kill (-before +after):\n%s", diff)
	}
}

// added returns the lines of after that before does not have.
func added(before, after []string) []string {
	known := map[string]bool{}
	for _, line := range before {
		known[line] = true
	}
	var lines []string
	for _, line := range after {
		if !known[line] {
			lines = append(lines, line)
		}
	}
	return lines
}
