package trust_test

import (
	"testing"

	"github.com/hotspare/hotspare/internal/trust"
)

func TestBound(t *testing.T) {
	for name, c := range map[string]struct {
		id    trust.Identity
		roles []string
		want  trust.Role // empty: refused
	}{
		"no binding":             {trust.Identity{Role: trust.RoleDeveloper, Name: "ann"}, nil, trust.RoleDeveloper},
		"more than before":       {trust.Identity{Role: trust.RoleDeveloper, Name: "ann"}, []string{"operator"}, trust.RoleOperator},
		"less than before":       {trust.Identity{Role: trust.RoleOperator, Name: "ann"}, []string{"monitor"}, trust.RoleMonitor},
		"several":                {trust.Identity{Role: trust.RoleMonitor, Name: "ann"}, []string{"monitor", "developer"}, trust.RoleDeveloper},
		"none":                   {trust.Identity{Role: trust.RoleOperator, Name: "ann"}, []string{"none"}, ""},
		"none beats all":         {trust.Identity{Role: trust.RoleOperator, Name: "ann"}, []string{"operator", "none"}, ""},
		"an agent is not bound":  {trust.Identity{Role: trust.RoleAgent, Name: "h1"}, []string{"none"}, trust.RoleAgent},
		"nor is a coordinator":   {trust.Identity{Role: trust.RoleCoordinator, Name: "c1"}, []string{"operator"}, trust.RoleCoordinator},
		"nor the socket's root":  {trust.LocalInfo{}.Identity(), []string{"none"}, trust.RoleOperator},
		"nobody stays nobody":    {trust.Identity{}, []string{"operator"}, ""},
		"a role that is unknown": {trust.Identity{Role: trust.RoleMonitor, Name: "ann"}, []string{"king"}, trust.RoleMonitor},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := trust.Bound(c.id, c.roles)
			if got.Role != c.want || err != nil && c.want != "" {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
