package trust

import (
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/model"
)

// localSuffix ends the names of those who come through the root-only socket. No certificate carries such a
// name, and no role binding counts for it: somebody must be able to take a wrong one back.
const localSuffix = "@local"

// IsLocal says whether a name is one of the local socket.
func IsLocal(name string) bool { return strings.HasSuffix(name, localSuffix) }

// Bound returns who somebody is once the role bindings that name them have been read: of several roles
// "none" wins, then the one that may do most. Without a binding the certificate's role counts. Agents and
// coordinators are not bound.
func Bound(id Identity, roles []string) (Identity, error) {
	if !id.Role.IsUser() || IsLocal(id.Name) || len(roles) == 0 {
		return id, nil
	}
	if slices.Contains(roles, model.RoleNone) {
		return Identity{}, model.Errorf(model.FaultDenied, "user/"+id.Name, "a role binding takes every right from %s", id).
			WithRemedy("ask an operator; see: hotspare get rolebinding")
	}
	for _, r := range []Role{RoleOperator, RoleDeveloper, RoleMonitor} {
		if slices.Contains(roles, string(r)) {
			return Identity{Role: r, Name: id.Name}, nil
		}
	}
	return id, nil
}
