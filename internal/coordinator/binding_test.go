package coordinator_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

func binding(name, role string, users ...string) *pb.Resource {
	return &pb.Resource{Resource: &pb.Resource_RoleBinding{RoleBinding: &pb.RoleBinding{
		Metadata: &pb.Metadata{Name: name}, Spec: &pb.RoleBindingSpec{Role: role, Users: users},
	}}}
}

// A role binding counts at every call, at every member, over gRPC and HTTPS, stale or not.
func TestRoleBindings(t *testing.T) {
	s := newSite(t)
	dev := s.people[trust.RoleDeveloper]
	objects := func(m *member, stale bool) error {
		_, err := pb.NewSiteServiceClient(s.dial(t, m, dev)).ListObjects(t.Context(), &pb.ListObjectsRequest{Stale: stale})
		return err
	}
	status := func(m *member, stale bool) error {
		_, err := pb.NewSiteServiceClient(s.dial(t, m, dev)).GetStatus(t.Context(), &pb.GetStatusRequest{Stale: stale})
		return err
	}
	everywhere := func(t *testing.T, call func(*member, bool) error, want codes.Code) {
		t.Helper()
		for _, m := range s.members[:2] {
			for _, stale := range []bool{false, true} {
				if err := call(m, stale); want == codes.OK {
					must(0, err)(t)
				} else {
					refused(t, err, want, model.FaultDenied)
				}
			}
		}
	}
	everywhere(t, objects, codes.PermissionDenied)
	s.apply(t, binding("promoted", "operator", "some-developer"))
	everywhere(t, objects, codes.OK)
	s.apply(t, binding("left", model.RoleNone, "somebody-else", "some-developer"))
	everywhere(t, objects, codes.PermissionDenied)
	everywhere(t, status, codes.PermissionDenied)
	for _, m := range s.members[:2] {
		if a := ask(t, s.browser(t, dev), http.MethodGet, "https://"+m.https+"/v1/status", nil); a.code != http.StatusForbidden || !strings.Contains(a.body, "role binding") {
			t.Errorf("over HTTPS: %d %s", a.code, a.body)
		}
	}
	operator := pb.NewResourceServiceClient(s.dial(t, s.leader(), s.people[trust.RoleOperator]))
	for _, name := range []string{"left", "promoted"} {
		must(operator.DeleteResource(t.Context(), &pb.DeleteResourceRequest{Kind: "rolebinding", Name: name}))(t)
	}
	await(t, "a follower to know it", func() bool { return s.follower().State().Index() >= s.leader().State().Index() })
	everywhere(t, status, codes.OK)
	everywhere(t, objects, codes.PermissionDenied)
}

// Who watches already is cut off, also at a follower.
func TestRevokedInMidWatch(t *testing.T) {
	s := newSite(t)
	s.apply(t, image("guest"), plan("shop", oath()))
	operator := s.dial(t, s.leader(), s.people[trust.RoleOperator])
	must(pb.NewFailoverServiceClient(operator).Declare(t.Context(), &pb.DeclareRequest{Plans: []string{"shop"}, Reason: "x"}))(t)
	for _, m := range s.members[:2] {
		watch := must(pb.NewFailoverServiceClient(s.dial(t, m, s.people[trust.RoleMonitor])).WatchFailover(t.Context(), &pb.WatchFailoverRequest{Name: "fo-1"}))(t)
		must(watch.Recv())(t)
		s.apply(t, binding("left", model.RoleNone, "some-monitor"))
		var err error
		for err == nil {
			_, err = watch.Recv()
		}
		refused(t, err, codes.PermissionDenied, model.FaultDenied)
		must(pb.NewResourceServiceClient(operator).DeleteResource(t.Context(), &pb.DeleteResourceRequest{Kind: "rolebinding", Name: "left"}))(t)
		await(t, "a follower to know it", func() bool { return s.follower().State().Index() >= s.leader().State().Index() })
	}
}

// The log of evidence says who got which certificate.
func TestIssuedClientsAreRecorded(t *testing.T) {
	s := newSite(t)
	_, csr, err := client.NewKey("ann")
	must(0, err)(t)
	api := pb.NewSiteServiceClient(s.dial(t, s.follower(), s.people[trust.RoleOperator]))
	req := &pb.IssueClientRequest{User: "ann", Role: "monitor", Csr: csr, Valid: durationpb.New(limit)}
	cert := must(trust.ParseCertificate(must(api.IssueClient(t.Context(), req))(t).GetCertificate()))(t)
	all := slices.Collect(s.leader().State().Evidence(0))
	e := all[len(all)-1]
	if e.GetAction() != "issue client" || e.GetObject() != "user/ann" || e.GetActor() != "operator/some-operator" ||
		!strings.Contains(e.GetReason(), "role monitor, serial "+cert.SerialNumber.Text(16)) {
		t.Errorf("the last entry is %v", e)
	}
	for _, user := range []string{"root@local", "uid-7@local"} {
		req.User = user
		_, err := api.IssueClient(t.Context(), req)
		refused(t, err, codes.InvalidArgument, model.FaultInvalid)
	}
}
