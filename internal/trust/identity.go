package trust

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/hotspare/hotspare/internal/model"
)

// Role is what somebody may act as. The words are those of certificates, manifests and messages.
type Role string

// The roles. The zero value is nobody: a caller without a certificate.
const (
	RoleCoordinator Role = "coordinator"
	RoleAgent       Role = "agent"
	RoleDeveloper   Role = "developer"
	RoleOperator    Role = "operator"
	RoleMonitor     Role = "monitor"
)

// IsUser says whether the role is one of people and monitoring systems.
func (r Role) IsUser() bool {
	return r == RoleDeveloper || r == RoleOperator || r == RoleMonitor
}

// Identity is who somebody is. The zero value is nobody.
type Identity struct {
	Role Role
	Name string
}

const (
	uriScheme = "hotspare"
	uriHost   = "site"
	// maxNameLen bounds a name in a certificate; a DNS name has no more.
	maxNameLen = 253
)

// String returns "operator/alice", the actor in the log of evidence; "nobody" for the zero value.
func (id Identity) String() string {
	if id == (Identity{}) {
		return "nobody"
	}
	return string(id.Role) + "/" + id.Name
}

// Validate reports an identity that no certificate may carry.
func (id Identity) Validate() error {
	if id.Role != RoleCoordinator && id.Role != RoleAgent && !id.Role.IsUser() {
		return model.Errorf(model.FaultInvalid, "", "role %q is not known", id.Role).
			WithRemedy("use developer, operator or monitor")
	}
	if id.Name == "" || len(id.Name) > maxNameLen || strings.ContainsFunc(id.Name, notInName) || strings.Trim(id.Name, ".") == "" {
		return model.Errorf(model.FaultInvalid, "", "name %q cannot stand in a certificate", id.Name).
			WithRemedy("use 1 to %d letters, digits and . _ - @", maxNameLen)
	}
	return nil
}

// notInName keeps names free of what a URI would escape and a path would cut.
func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-@", r)
}

// uri returns the name in the certificate.
func (id Identity) uri() *url.URL {
	path := "/" + string(id.Role) + "/" + id.Name
	if id.Role.IsUser() {
		path = "/user" + path
	}
	return &url.URL{Scheme: uriScheme, Host: uriHost, Path: path}
}

// parseURI reads an identity; only the exact form that uri writes is accepted.
func parseURI(u *url.URL) (Identity, error) {
	segments := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	var id Identity
	switch {
	case len(segments) == 2:
		id = Identity{Role: Role(segments[0]), Name: segments[1]}
	case len(segments) == 3 && segments[0] == "user":
		id = Identity{Role: Role(segments[1]), Name: segments[2]}
	}
	if err := id.Validate(); err != nil || id.uri().String() != u.String() {
		return Identity{}, unauthenticated("certificate name %q is not one of this site", u)
	}
	return id, nil
}

// certificateIdentity reads the identity of a certificate whose chain was verified by the caller.
func certificateIdentity(cert *x509.Certificate) (Identity, error) {
	ours := slices.DeleteFunc(slices.Clone(cert.URIs), func(u *url.URL) bool { return u.Scheme != uriScheme })
	if len(ours) != 1 {
		return Identity{}, unauthenticated("certificate %s carries %d names of this site, not one", cert.SerialNumber, len(ours))
	}
	return parseURI(ours[0])
}

func unauthenticated(format string, args ...any) error {
	return &model.Error{Fault: model.FaultUnauthenticated, What: fmt.Sprintf(format, args...)}
}
