package rpc

import (
	"fmt"
	"strings"
	"testing"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Pages are bounded by rows and by bytes; together they bring everything once.
func TestPages(t *testing.T) {
	for name, c := range map[string]struct{ count, bytes, rows, pages int }{
		"small rows":                {10, 10, 4, 3},
		"rows of 300 KiB":           {20, 300 << 10, 1000, 4},
		"rows larger than the page": {3, 3 << 20, 1000, 3},
		"none":                      {0, 0, 10, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var all []*pb.Host
			for i := range c.count {
				all = append(all, &pb.Host{Name: fmt.Sprintf("h%03d", i), JournalId: strings.Repeat("x", c.bytes)})
			}
			var got []*pb.Host
			pages, token := 0, ""
			for more := true; more; more = token != "" {
				var rows []*pb.Host
				rows, token = page(all, (*pb.Host).GetName, c.rows, token)
				got = append(got, rows...)
				if pages++; len(rows) > c.rows || len(rows) > 1 && len(rows)*c.bytes > maxPageBytes {
					t.Errorf("a page of %d rows", len(rows))
				}
			}
			if len(got) != len(all) || pages != c.pages {
				t.Errorf("%d of %d rows on %d pages, want %d", len(got), len(all), pages, c.pages)
			}
			for i := range got {
				if got[i] != all[i] {
					t.Fatalf("row %d is %s", i, got[i].GetName())
				}
			}
		})
	}
}
