package trust

import (
	"slices"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

// Methods of other people's services that our servers offer.
const (
	healthService     = "/grpc.health.v1.Health/"
	reflectionService = "/grpc.reflection."
)

// callers says who may call a method.
type callers struct {
	// anybody: also without an identity.
	anybody bool
	roles   []Role
}

// mayCall is the table of RPCs and roles. A method without a row is denied to everybody, and a test names
// it. Operators may do all that users can; coordinators only watch each other.
func mayCall(method string) callers {
	switch method {
	case pb.AgentService_Enroll_FullMethodName:
		// The token in the request is the proof.
		return callers{anybody: true}
	case pb.AgentService_Session_FullMethodName, pb.AgentService_Renew_FullMethodName:
		return callers{roles: []Role{RoleAgent}}
	case pb.MemberService_GetClock_FullMethodName:
		return callers{roles: []Role{RoleCoordinator}}
	case pb.LeaseService_CreateLease_FullMethodName, pb.LeaseService_GetLease_FullMethodName,
		pb.LeaseService_ListLeases_FullMethodName, pb.LeaseService_ExtendLease_FullMethodName,
		pb.LeaseService_ReleaseLease_FullMethodName, pb.LeaseService_UndeleteLease_FullMethodName,
		pb.LeaseService_ReadConsole_FullMethodName, pb.LeaseService_WatchLease_FullMethodName:
		return callers{roles: []Role{RoleDeveloper, RoleOperator}}
	case pb.SiteService_GetStatus_FullMethodName:
		return callers{roles: []Role{RoleDeveloper, RoleOperator, RoleMonitor, RoleCoordinator}}
	case pb.ResourceService_GetResource_FullMethodName, pb.ResourceService_ListResources_FullMethodName:
		return callers{roles: []Role{RoleDeveloper, RoleOperator, RoleMonitor}}
	case pb.FailoverService_Declare_FullMethodName, pb.FailoverService_GetFailover_FullMethodName,
		pb.FailoverService_ListFailovers_FullMethodName, pb.FailoverService_WatchFailover_FullMethodName,
		pb.SiteService_ListHosts_FullMethodName, pb.SiteService_Tabletop_FullMethodName,
		pb.SiteService_CheckInvariants_FullMethodName:
		return callers{roles: []Role{RoleOperator, RoleMonitor}}
	case pb.ResourceService_Apply_FullMethodName, pb.ResourceService_DeleteResource_FullMethodName,
		pb.FailoverService_Swear_FullMethodName, pb.FailoverService_Control_FullMethodName,
		pb.FailoverService_Failback_FullMethodName, pb.FailoverService_Arm_FullMethodName,
		pb.SiteService_UpdateHost_FullMethodName, pb.SiteService_CreateToken_FullMethodName,
		pb.SiteService_ListObjects_FullMethodName, pb.SiteService_ListEvidence_FullMethodName,
		pb.SiteService_IssueClient_FullMethodName:
		return callers{roles: []Role{RoleOperator}}
	}
	switch {
	case strings.HasPrefix(method, healthService):
		return callers{anybody: true}
	case strings.HasPrefix(method, reflectionService):
		return callers{roles: []Role{RoleDeveloper, RoleOperator, RoleMonitor}}
	}
	return callers{}
}

// Authorize says whether somebody may call a method ("/hotspare.v1.LeaseService/GetLease") at all.
// FaultUnauthenticated: show who you are; FaultDenied: your role cannot.
func Authorize(id Identity, fullMethod string) error {
	who := mayCall(fullMethod)
	switch {
	case who.anybody || slices.Contains(who.roles, id.Role):
		return nil
	case id == (Identity{}):
		return model.Errorf(model.FaultUnauthenticated, "", "%s needs a client certificate", fullMethod).
			WithRemedy("%s", needed(who.roles))
	default:
		return model.Errorf(model.FaultDenied, "", "%s may not call %s", id, fullMethod).
			WithRemedy("%s", needed(who.roles))
	}
}

func needed(roles []Role) string {
	if len(roles) == 0 {
		return "nobody may call it"
	}
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return "it takes the role " + strings.Join(words, " or ")
}

// AuthorizeRequest says whether somebody who may call the method may make this request. Call it for each
// unary request and for each message of a session.
func AuthorizeRequest(id Identity, request any) error {
	switch r := request.(type) {
	case *pb.DeclareRequest:
		if id.Role == RoleMonitor && r.GetTrigger() == "" {
			return model.Errorf(model.FaultDenied, "", "%s may declare only through a trigger", id).
				WithRemedy("name the trigger, or ask an operator")
		}
	case *pb.GetResourceRequest:
		return mayRead(id, r.GetKind())
	case *pb.ListResourcesRequest:
		return mayRead(id, r.GetKind())
	case *pb.SessionRequest:
		if h := r.GetHello(); h != nil && (id.Role != RoleAgent || id.Name != h.GetAgent()) {
			return model.Errorf(model.FaultDenied, "agent/"+h.GetAgent(), "%s speaks for it", id).
				WithRemedy("an agent may speak only for the name in its certificate")
		}
	}
	return nil
}

// mayRead keeps developers to what they need for a lease, and monitors to what they watch: plans and
// fence targets tell where the power switches are.
func mayRead(id Identity, kind string) error {
	var kinds []string
	switch id.Role {
	case RoleOperator:
		return nil
	case RoleDeveloper:
		kinds = []string{"image", "network", "pool", "project"}
	case RoleMonitor:
		kinds = []string{"plan", "trigger"}
	case RoleCoordinator, RoleAgent:
		// They read nothing.
	}
	if slices.Contains(kinds, kind) {
		return nil
	}
	return model.Errorf(model.FaultDenied, "", "%s may not read resources of kind %q", id, kind).
		WithRemedy("readable: %s", strings.Join(kinds, ", "))
}
