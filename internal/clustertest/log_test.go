package clustertest

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// A failover must be reconstructible from the Info lines of the coordinators and agents.
func TestInfoLogTellsTheFailover(t *testing.T) {
	bubble(t, 3, func(s *site) {
		s.fill()
		at := time.Now()
		f := s.declare("webshop")
		s.completes(f.GetName())
		s.over(f.GetName())
		var lines []string
		for _, r := range s.book.since(at) {
			if r.level >= slog.LevelInfo && r.attrs["part"] != "raft" {
				lines = append(lines, r.String())
			}
		}
		story := [][]string{
			{"failover declared", "failover=fo-1"},
			{"step released", "step=fence east-power"},
			{"driver call began", "object=fence/east-power", "to=FENCED"},
			{"driver call returned", "object=fence/east-power", "to=FENCED"},
			{"step finished", "step=fence east-power"},
			{"step released", "step=promote webshop-db-root"},
			{"driver call returned", "object=volume/webshop-db-root", "to=PRIMARY"},
			{"step finished", "step=promote webshop-db-root"},
			{"step released", "step=start webshop/db"},
			{"driver call returned", "object=instance/webshop-db-e1", "to=RUNNING"},
			{"step healthy", "step=start webshop/db"},
			{"step released", "step=announce www"},
			{"driver call returned", "object=endpoint/www", "to=ANNOUNCED"},
			{"run phase changed", "failover=fo-1", "phase=completed"},
			{"run phase changed", "failover=fo-1", "phase=failing back"},
			{"driver call returned", "object=endpoint/www", "to=WITHDRAWN"},
			{"driver call returned", "object=fence/east-power", "to=OPEN"},
			{"run phase changed", "failover=fo-1", "phase=failed back"},
		}
		rest := lines
		for _, want := range story {
			i := slices.IndexFunc(rest, func(line string) bool {
				return !slices.ContainsFunc(want, func(part string) bool { return !strings.Contains(line, part) })
			})
			if i < 0 {
				t.Fatalf("no line %q after what came before in:\n%s", want, strings.Join(lines, "\n"))
			}
			rest = rest[i+1:]
		}
	})
}
