package trust_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// expected is written by hand a second time: c coordinator, a agent, d developer, o operator, m monitor,
// - nobody at all (no certificate).
func expected() map[string]string {
	return map[string]string{
		"AgentService/Session": "a", "AgentService/Renew": "a", "AgentService/Enroll": "cadom-",
		"LeaseService/CreateLease": "do", "LeaseService/GetLease": "do", "LeaseService/ListLeases": "do",
		"LeaseService/ExtendLease": "do", "LeaseService/ReleaseLease": "do", "LeaseService/UndeleteLease": "do",
		"LeaseService/ReadConsole": "do", "LeaseService/WatchLease": "do",
		"ResourceService/Apply": "o", "ResourceService/DeleteResource": "o",
		"ResourceService/GetResource": "dom", "ResourceService/ListResources": "dom",
		"FailoverService/Declare": "om", "FailoverService/GetFailover": "om", "FailoverService/ListFailovers": "om",
		"FailoverService/WatchFailover": "om", "FailoverService/Swear": "o", "FailoverService/Control": "o",
		"FailoverService/Failback": "o", "FailoverService/Arm": "o",
		"SiteService/GetStatus": "cdom", "SiteService/ListHosts": "om", "SiteService/UpdateHost": "o",
		"SiteService/CreateToken": "o", "SiteService/ListObjects": "o", "SiteService/ListEvidence": "o",
		"SiteService/IssueClient": "o", "SiteService/Tabletop": "om", "SiteService/CheckInvariants": "om", "MemberService/GetClock": "c",
	}
}

func everybody() map[string]trust.Identity {
	return map[string]trust.Identity{
		"c": {Role: trust.RoleCoordinator, Name: "c1"},
		"a": {Role: trust.RoleAgent, Name: "h1"},
		"d": {Role: trust.RoleDeveloper, Name: "dora"},
		"o": {Role: trust.RoleOperator, Name: "olga"},
		"m": {Role: trust.RoleMonitor, Name: "mon"},
		"-": {},
	}
}

func TestEveryMethodHasItsRoles(t *testing.T) {
	want := expected()
	protoregistry.GlobalFiles.RangeFilesByPackage(pb.File_hotspare_v1_api_proto.Package(), func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				short := string(service.Name()) + "/" + string(service.Methods().Get(j).Name())
				roles, ok := want[short]
				if !ok {
					t.Errorf("%s: say here and in mayCall who may call it", short)
					continue
				}
				delete(want, short)
				checkMethod(t, "/"+string(f.Package())+"."+short, roles)
			}
		}
		return true
	})
	for short := range want {
		t.Errorf("%s does not exist", short)
	}
	checkMethod(t, "/grpc.health.v1.Health/Check", "cadom-")
	checkMethod(t, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "dom")
	checkMethod(t, "/hotspare.v1.SiteService/Unknown", "")
	checkMethod(t, "", "")
}

func checkMethod(t *testing.T, method, roles string) {
	t.Helper()
	for letter, id := range everybody() {
		err := trust.Authorize(id, method)
		want := model.FaultDenied
		if letter == "-" {
			want = model.FaultUnauthenticated
		}
		if strings.Contains(roles, letter) {
			want = 0
		}
		if got := model.FaultOf(err); got != want || (want == 0) != (err == nil) {
			t.Errorf("%s calls %s: %v", id, method, err)
		}
		if err != nil && letter != "-" && (!strings.Contains(err.Error(), id.String()) || !strings.Contains(err.Error(), method)) {
			t.Errorf("the message does not say who and what: %v", err)
		}
	}
}

func TestRequestsBeyondRoles(t *testing.T) {
	who := everybody()
	hello := func(agent string) *pb.SessionRequest {
		return &pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: &pb.Hello{Agent: agent}}}
	}
	cases := []struct {
		name    string
		who     string
		request any
		ok      bool
	}{
		{"monitor through a trigger", "m", &pb.DeclareRequest{Trigger: "t"}, true},
		{"monitor without one", "m", &pb.DeclareRequest{}, false},
		{"operator without one", "o", &pb.DeclareRequest{}, true},
		{"agent as itself", "a", hello("h1"), true},
		{"agent as another", "a", hello("h2"), false},
		{"operator as an agent", "o", hello("olga"), false},
		{"agent's heartbeat", "a", &pb.SessionRequest{Message: &pb.SessionRequest_Heartbeat{}}, true},
		{"developer reads images", "d", &pb.ListResourcesRequest{Kind: "image"}, true},
		{"developer reads a plan", "d", &pb.GetResourceRequest{Kind: "plan"}, false},
		{"developer reads fence targets", "d", &pb.ListResourcesRequest{Kind: "fencetarget"}, false},
		{"developer reads all", "d", &pb.ListResourcesRequest{}, false},
		{"monitor reads a plan", "m", &pb.GetResourceRequest{Kind: "plan"}, true},
		{"monitor reads role bindings", "m", &pb.GetResourceRequest{Kind: "rolebinding"}, false},
		{"operator reads all", "o", &pb.ListResourcesRequest{}, true},
		{"nobody reads images", "-", &pb.GetResourceRequest{Kind: "image"}, false},
		{"developer creates a lease", "d", &pb.CreateLeaseRequest{}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := trust.AuthorizeRequest(who[c.who], c.request)
			if (err == nil) != c.ok || err != nil && model.FaultOf(err) != model.FaultDenied {
				t.Fatalf("got %v", err)
			}
		})
	}
}
