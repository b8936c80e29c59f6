package coordinator_test

import (
	"crypto/tls"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

func openapi(t *testing.T) []byte {
	t.Helper()
	return must(os.ReadFile("../../gen/openapi/hotspare.swagger.json"))(t)
}

// Every operation over HTTPS at leader and follower. The gateway calls with the coordinator's own
// certificate: once that made anybody a coordinator, who could read the status.
func TestWithoutACertificate(t *testing.T) {
	s := newSite(t)
	nobody := s.browser(t, nil)
	before := s.decisions()
	for _, op := range operations(t) {
		for who, m := range map[string]*member{"leader": s.leader(), "follower": s.follower()} { // Any order: both are tried.
			t.Run(who+" "+op, func(t *testing.T) {
				method, path := concrete(op, "plan")
				// What a caller says of itself counts for nothing.
				for _, header := range []string{"X-Nothing", "Hotspare-Caller", "Grpc-Metadata-Hotspare-Caller"} {
					a := ask(t, nobody, method, "https://"+m.https+path, strings.NewReader("{}"), header, "operator/root")
					if a.code != http.StatusUnauthorized {
						t.Errorf("with header %s: %d %s", header, a.code, a.body)
					}
				}
			})
		}
	}
	t.Run("probes are for everybody", func(t *testing.T) {
		for _, path := range []string{"/livez", "/readyz"} {
			if a := ask(t, nobody, http.MethodGet, "https://"+s.leader().https+path, nil); a.code != http.StatusOK {
				t.Errorf("%s: %d", path, a.code)
			}
		}
	})
	if now := s.decisions(); now != before {
		t.Errorf("%d decisions were made", now-before)
	}
}

// Each operation, who may call it, and what an empty request about nothing that exists gets from the site.
func TestRoles(t *testing.T) {
	s := newSite(t)
	const dev, op, mon = trust.RoleDeveloper, trust.RoleOperator, trust.RoleMonitor
	cases := map[string]struct {
		may  []trust.Role
		want int
	}{
		"get /v1/status":                     {[]trust.Role{dev, op, mon}, 200},
		"get /v1/leases":                     {[]trust.Role{dev, op}, 200},
		"post /v1/leases":                    {[]trust.Role{dev, op}, 404},
		"get /v1/leases/{name}":              {[]trust.Role{dev, op}, 404},
		"post /v1/leases/{name}:extend":      {[]trust.Role{dev, op}, 400},
		"post /v1/leases/{name}:release":     {[]trust.Role{dev, op}, 404},
		"post /v1/leases/{name}:undelete":    {[]trust.Role{dev, op}, 404},
		"get /v1/leases/{name}:console":      {[]trust.Role{dev, op}, 404},
		"get /v1/leases/{name}:watch":        {[]trust.Role{dev, op}, 404},
		"get /v1/resources/{kind}":           {[]trust.Role{dev, op, mon}, 200},
		"get /v1/resources/{kind}/{name}":    {[]trust.Role{dev, op, mon}, 404},
		"delete /v1/resources/{kind}/{name}": {[]trust.Role{op}, 404},
		"post /v1/resources:apply":           {[]trust.Role{op}, 400},
		"get /v1/failovers":                  {[]trust.Role{op, mon}, 200},
		"get /v1/failovers/{name}":           {[]trust.Role{op, mon}, 404},
		"get /v1/failovers/{name}:watch":     {[]trust.Role{op, mon}, 404},
		"post /v1/failovers:declare":         {[]trust.Role{op}, 400}, // A monitor names a trigger.
		"post /v1/failovers/{name}:swear":    {[]trust.Role{op}, 400},
		"post /v1/failovers/{name}:control":  {[]trust.Role{op}, 404},
		"post /v1/failovers/{name}:failback": {[]trust.Role{op}, 404},
		"post /v1/triggers/{trigger}:arm":    {[]trust.Role{op}, 404},
		"get /v1/hosts":                      {[]trust.Role{op, mon}, 200},
		"post /v1/hosts/{name}:update":       {[]trust.Role{op}, 404},
		"post /v1/hosts/{host}:token":        {[]trust.Role{op}, 200},
		"get /v1/objects":                    {[]trust.Role{op}, 200},
		"get /v1/evidence":                   {[]trust.Role{op}, 200},
		"post /v1/clients":                   {[]trust.Role{op}, 400},
		"get /v1/invariants":                 {[]trust.Role{op, mon}, 200},
		"post /v1/tabletop":                  {[]trust.Role{op, mon}, 200},
	}
	// What a role may read at all.
	kind := map[trust.Role]string{dev: "image", op: "plan", mon: "plan", trust.RoleAgent: "image"}
	for _, operation := range operations(t) {
		c, ok := cases[operation]
		if !ok {
			t.Errorf("%s has no row: say who may call it", operation)
			continue
		}
		for role, keeper := range s.people { // Any order: each is tried.
			t.Run(string(role)+" "+operation, func(t *testing.T) {
				want := c.want
				if !slices.Contains(c.may, role) {
					want = http.StatusForbidden
				}
				method, path := concrete(operation, kind[role])
				a := ask(t, s.browser(t, keeper), method, "https://"+s.leader().https+path, strings.NewReader("{}"))
				if a.code != want {
					t.Errorf("%d %s, want %d", a.code, a.body, want)
				}
			})
		}
	}
	t.Run("kinds that a role does not read", func(t *testing.T) {
		for role, kinds := range map[trust.Role][]string{dev: {"plan", "fencetarget", "trigger", ""}, mon: {"project", "fencetarget"}} { // Any order.
			for _, k := range kinds {
				_, err := pb.NewResourceServiceClient(s.dial(t, s.follower(), s.people[role])).ListResources(t.Context(), &pb.ListResourcesRequest{Kind: k})
				refused(t, err, codes.PermissionDenied, model.FaultDenied)
			}
		}
	})
}

// Who speaks for somebody else.
func TestForwardedCaller(t *testing.T) {
	s := newSite(t)
	operator, member := s.people[trust.RoleOperator], s.follower().keeper
	cases := []struct {
		name   string
		as     *trust.Keeper
		caller []string
		want   codes.Code
		fault  model.Fault
	}{
		{"an operator says it is another", operator, []string{"operator/root"}, codes.PermissionDenied, model.FaultDenied},
		{"an agent says it is an operator", s.people[trust.RoleAgent], []string{"operator/root"}, codes.PermissionDenied, model.FaultDenied},
		{"no certificate says it is an operator", nil, []string{"operator/root"}, codes.PermissionDenied, model.FaultDenied},
		{"a member for nobody in particular", member, nil, codes.PermissionDenied, model.FaultDenied},
		{"a member for two", member, []string{"operator/root", "developer/a"}, codes.PermissionDenied, model.FaultDenied},
		{"a member for a member", member, []string{"coordinator/c1"}, codes.PermissionDenied, model.FaultDenied},
		{"a member for a role that is not one", member, []string{"root/root"}, codes.PermissionDenied, model.FaultDenied},
		{"a member for a nameless operator", member, []string{"operator/"}, codes.PermissionDenied, model.FaultDenied},
		{"a member for who has no certificate", member, []string{"/"}, codes.Unauthenticated, model.FaultUnauthenticated},
		{"a member for a developer who may not", member, []string{"developer/a"}, codes.PermissionDenied, model.FaultDenied},
		{"a member for an operator", member, []string{"operator/root"}, codes.OK, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			for _, v := range c.caller {
				ctx = metadata.AppendToOutgoingContext(ctx, "hotspare-caller", v)
			}
			_, err := pb.NewSiteServiceClient(s.dial(t, s.leader(), c.as)).ListObjects(ctx, &pb.ListObjectsRequest{})
			if c.want == codes.OK {
				must(0, err)(t)
				return
			}
			refused(t, err, c.want, c.fault)
		})
	}
}

// Certificates at ports that are not for them.
func TestWrongCertificates(t *testing.T) {
	s := newSite(t)
	foreign := must(trust.NewAuthority(time.Now()))(t)
	cases := []struct {
		name, address string
		keeper        *trust.Keeper
	}{
		{"agent on the raft port", s.leader().raft, s.people[trust.RoleAgent]},
		{"operator on the raft port", s.leader().raft, s.people[trust.RoleOperator]},
		{"nobody on the raft port", s.leader().raft, nil},
		{"another authority's member on the raft port", s.leader().raft, identity(t, foreign, trust.RoleCoordinator, "c2")},
		{"another authority's member on the gRPC port", s.leader().api, identity(t, foreign, trust.RoleCoordinator, "c2")},
		{"another authority's agent on the gRPC port", s.leader().api, identity(t, foreign, trust.RoleAgent, "h1")},
		{"another authority's operator on the gRPC port", s.leader().api, identity(t, foreign, trust.RoleOperator, "o")},
		{"another authority's operator on the HTTPS port", s.leader().https, identity(t, foreign, trust.RoleOperator, "o")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config := s.as(c.keeper)
			config.NextProtos = []string{"h2"}
			conn, err := tls.Dial("tcp", c.address, config)
			if err != nil {
				return // Refused at once.
			}
			defer func() { _ = conn.Close() }()
			// In TLS 1.3 the server's refusal comes with the first read.
			must(0, conn.SetReadDeadline(time.Now().Add(limit)))(t)
			_, err = conn.Read(make([]byte, 1))
			if err == nil || !strings.Contains(err.Error(), "remote error: tls") {
				t.Errorf("the handshake was not refused: %v", err)
			}
		})
	}
}
