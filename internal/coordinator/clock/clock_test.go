package clock_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/coordinator/clock"
)

func TestJudge(t *testing.T) {
	const s, h = time.Second, time.Hour
	read := func(ahead ...time.Duration) []clock.Reading {
		var out []clock.Reading
		for i, a := range ahead {
			out = append(out, clock.Reading{Member: string(rune('b' + i)), Ahead: a})
		}
		return out
	}
	for name, c := range map[string]struct {
		members  int
		readings []clock.Reading
		late     bool
		doubt    string // a part of it; empty: none
		alarms   []string
	}{
		"alone":                         {1, nil, true, "", nil},
		"all alike":                     {3, read(s, -s), true, "", nil},
		"at the limit":                  {3, read(5*s, 5*s), true, "", nil},
		"the leader behind":             {3, read(6*s, h), true, "6s behind", []string{"c1, which leads, is 6s behind the median of the members: set it right", "coordinator c is 59m54s ahead"}},
		"the leader ahead":              {3, read(-h, -h), true, "1h0m0s ahead", []string{"1h0m0s ahead"}},
		"another one is off":            {3, read(h, 0), true, "", []string{"coordinator b is 1h0m0s ahead of the median of the members: set it right before"}},
		"one known, alike":              {3, read(s), true, "", nil},
		"one known, no telling whose":   {3, read(8 * s), true, "8s behind", []string{"8s behind"}},
		"none known yet":                {3, nil, false, "only 1", nil},
		"none known for long":           {3, nil, true, "only 1", []string{"cannot compare its clock"}},
		"two of five":                   {5, read(0), true, "only 2", []string{"only 2"}},
		"of four the far half counts":   {4, read(0, -h, -h), true, "1h0m0s ahead", []string{"1h0m0s ahead", "coordinator b is 1h0m0s ahead"}},
		"of five the majority is right": {5, read(0, 0, h, h), true, "", []string{"coordinator d is", "coordinator e is"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := clock.Judge("c1", c.members, c.readings, c.late)
			if (got.Doubt == "") != (c.doubt == "") || !strings.Contains(got.Doubt, c.doubt) {
				t.Errorf("doubt %q, want %q", got.Doubt, c.doubt)
			}
			if len(got.Alarms) != len(c.alarms) {
				t.Fatalf("alarms %q, want %q", got.Alarms, c.alarms)
			}
			for i, a := range got.Alarms {
				if !strings.Contains(a, c.alarms[i]) {
					t.Errorf("alarm %q, want %q", a, c.alarms[i])
				}
			}
		})
	}
}
