package coordinator_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
	"github.com/hotspare/hotspare/internal/trust/token"
)

func image(name string) *pb.Resource {
	return &pb.Resource{Resource: &pb.Resource_Image{Image: &pb.Image{Metadata: &pb.Metadata{Name: name}, Spec: &pb.ImageSpec{Disk: "/image"}}}}
}

func plan(name string, fence *pb.Fencing) *pb.Resource {
	return &pb.Resource{Resource: &pb.Resource_Plan{Plan: &pb.Plan{
		Metadata: &pb.Metadata{Name: name},
		Spec: &pb.PlanSpec{Fencing: []*pb.Fencing{fence}, Workloads: []*pb.Workload{{
			Name: "vm", Resources: &pb.Resources{Vcpus: 1, MemoryBytes: 1 << 30}, Image: "guest",
		}}},
	}}}
}

func oath() *pb.Fencing  { return &pb.Fencing{Oath: &pb.OathFencing{}} }
func power() *pb.Fencing { return &pb.Fencing{Power: &pb.PowerFencing{Target: "old"}} }

const hookToken = "secret"

func trigger(name string, hold time.Duration, plans ...string) *pb.Resource {
	sum := sha256.Sum256([]byte(hookToken))
	return &pb.Resource{Resource: &pb.Resource_Trigger{Trigger: &pb.Trigger{
		Metadata: &pb.Metadata{Name: name}, Spec: &pb.TriggerSpec{
			Plans: plans, Match: map[string]string{"site": "east"}, TokenSha256: hex.EncodeToString(sum[:]), HoldDown: durationpb.New(hold),
		},
	}}}
}

func fenceTarget() *pb.Resource {
	return &pb.Resource{Resource: &pb.Resource_FenceTarget{FenceTarget: &pb.FenceTarget{
		Metadata: &pb.Metadata{Name: "old"}, Spec: &pb.FenceTargetSpec{Agent: "h1"},
	}}}
}

// What monitoring systems send, right and wrong, to leader and follower.
func TestWebhook(t *testing.T) {
	s := newSite(t)
	s.apply(t, image("guest"), fenceTarget(), plan("shop", oath()), plan("mail", power()), plan("held", oath()),
		trigger("east", 0, "shop"), trigger("off", 0, "mail"), trigger("slow", time.Hour, "held"))
	operator := pb.NewFailoverServiceClient(s.dial(t, s.leader(), s.people[trust.RoleOperator]))
	must(operator.Arm(t.Context(), &pb.ArmRequest{Trigger: "off", Disarm: true, Reason: "maintenance"}))(t)
	alert := func(version, status, site, fingerprint string) string {
		return fmt.Sprintf(`{"version":%q,"alerts":[{"status":%q,"labels":{"alertname":"SiteDown","site":%q},"fingerprint":%q,"startsAt":%q}]}`,
			version, status, site, fingerprint, time.Now().Format(time.RFC3339))
	}
	good, bearer := alert("4", "firing", "east", "f1"), "Bearer "+hookToken
	cases := []struct {
		name, method, path, authorization, body string
		want                                    int
	}{
		{"GET", http.MethodGet, "east:alertmanager", bearer, "", 405},
		{"wrong token", http.MethodPost, "east:alertmanager", "Bearer guess", good, 401},
		{"token without Bearer", http.MethodPost, "east:alertmanager", hookToken, good, 401},
		{"no token", http.MethodPost, "east:alertmanager", "", good, 401},
		{"unknown trigger", http.MethodPost, "west:alertmanager", bearer, good, 401},
		{"a trigger without a name", http.MethodPost, ":alertmanager", bearer, good, 401},
		{"malformed", http.MethodPost, "east:alertmanager", bearer, "{", 422},
		{"version 3", http.MethodPost, "east:alertmanager", bearer, alert("3", "firing", "east", "f1"), 422},
		{"labels that do not match", http.MethodPost, "east:alertmanager", bearer, alert("4", "firing", "west", "f1"), 422},
		{"no fingerprint", http.MethodPost, "east:alertmanager", bearer, alert("4", "firing", "east", ""), 422},
		{"generic without a key", http.MethodPost, "east:generic", bearer, `{"reason":"x"}`, 422},
		{"over 4 MiB", http.MethodPost, "east:alertmanager", bearer, strings.Repeat(" ", 4<<20) + good, 422},
		{"resolved", http.MethodPost, "east:alertmanager", bearer, alert("4", "resolved", "east", "f1"), 200},
		{"disarmed", http.MethodPost, "off:alertmanager", bearer, good, 409},
		{"held down", http.MethodPost, "slow:alertmanager", bearer, good, 503},
		{"another form", http.MethodPost, "east:nagios", bearer, good, 404},
	}
	before := s.decisions()
	for _, c := range cases {
		for i, m := range s.members[:2] {
			t.Run(fmt.Sprintf("%s, member %d", c.name, i), func(t *testing.T) {
				a := ask(t, s.browser(t, nil), c.method, "https://"+m.https+"/v1/triggers/"+c.path, strings.NewReader(c.body), "Authorization", c.authorization)
				if a.code != c.want {
					t.Errorf("%d %s, want %d", a.code, a.body, c.want)
				}
				if retry := a.header.Get("Retry-After"); (retry != "") != (c.want == 503) {
					t.Errorf("Retry-After is %q", retry)
				}
			})
		}
	}
	if now := s.decisions(); now != before || s.leader().State().Meta().GetLastEpoch() != 0 {
		t.Fatalf("%d decisions were made by what was refused", now-before)
	}
	t.Run("a follower takes it, once", func(t *testing.T) {
		for _, m := range []*member{s.follower(), s.leader(), s.follower()} {
			a := ask(t, s.browser(t, nil), http.MethodPost, "https://"+m.https+"/v1/triggers/east:alertmanager", strings.NewReader(good), "Authorization", bearer)
			if a.code != http.StatusOK || !strings.Contains(a.body, "fo-1") {
				t.Errorf("%d %s", a.code, a.body)
			}
		}
		if f := s.leader().State().Failover("fo-1"); f.GetTrigger() != "east" || f.GetDeclaredBy() != "monitor/east" || s.leader().State().Meta().GetLastEpoch() != 1 {
			t.Errorf("declared by %s through %q, epoch %d", f.GetDeclaredBy(), f.GetTrigger(), s.leader().State().Meta().GetLastEpoch())
		}
	})
	t.Run("a trigger of an unknown plan is not taken", func(t *testing.T) {
		_, err := pb.NewResourceServiceClient(s.dial(t, s.follower(), s.people[trust.RoleOperator])).Apply(t.Context(),
			&pb.ApplyRequest{Resources: []*pb.Resource{trigger("bad", 0, "nothing")}})
		refused(t, err, codes.FailedPrecondition, model.FaultPrecondition)
		if s.leader().State().Resource("trigger/bad") != nil || !strings.Contains(err.Error(), "plan/nothing") {
			t.Errorf("it was stored, or the plan is not named: %v", err)
		}
	})
	t.Run("delete names what refers to it", func(t *testing.T) {
		resources := pb.NewResourceServiceClient(s.dial(t, s.follower(), s.people[trust.RoleOperator]))
		for _, c := range []struct{ kind, name, by string }{
			{"image", "guest", "plan/shop"}, {"fencetarget", "old", "plan/mail"}, {"plan", "mail", "trigger/off"}, {"plan", "shop", "failover/fo-1"},
		} {
			_, err := resources.DeleteResource(t.Context(), &pb.DeleteResourceRequest{Kind: c.kind, Name: c.name})
			refused(t, err, codes.FailedPrecondition, model.FaultPrecondition)
			if !strings.Contains(err.Error(), c.by) || s.leader().State().Resource(c.kind+"/"+c.name) == nil {
				t.Errorf("delete %s/%s: %v, want %s named and nothing deleted", c.kind, c.name, err, c.by)
			}
		}
	})
}

// Join tokens that do not count: refused, and nothing changed.
func TestJoinTokens(t *testing.T) {
	s := newSite(t)
	api := pb.NewSiteServiceClient(s.dial(t, s.follower(), s.people[trust.RoleOperator]))
	issue := func(host string, valid time.Duration) string {
		return must(api.CreateToken(t.Context(), &pb.CreateTokenRequest{RequestId: uuid.NewString(), Host: host, Valid: durationpb.New(valid)}))(t).GetToken()
	}
	enroll := func(m *member, text, host string) error {
		tok := must(token.Parse(text))(t)
		conn := must(grpc.NewClient(m.api, grpc.WithTransportCredentials(credentials.NewTLS(trust.EnrollTLS(tok, time.Now)))))(t)
		defer func() { must(0, conn.Close())(t) }()
		csr := must(trust.NewRequest(must(trust.NewKey())(t)))(t)
		_, err := pb.NewAgentServiceClient(conn).Enroll(t.Context(), &pb.EnrollRequest{Agent: host, Token: text, Csr: csr})
		return err
	}
	good := issue("h1", time.Hour)
	must(0, enroll(s.follower(), good, "h1"))(t)
	unknown := must(token.New(rand.Reader, s.authority.Fingerprint()))(t).Text()
	spare := issue("h2", time.Hour)
	cases := []struct {
		name, token, host string
		want              codes.Code
		fault             model.Fault
	}{
		{"reused", good, "h1", codes.Unauthenticated, model.FaultUnauthenticated},
		{"expired", issue("h3", time.Nanosecond), "h3", codes.Unauthenticated, model.FaultUnauthenticated},
		{"of another host", spare, "h4", codes.PermissionDenied, model.FaultDenied},
		{"never issued", unknown, "h5", codes.Unauthenticated, model.FaultUnauthenticated},
		{"for a name that is none", spare, "../h2", codes.InvalidArgument, model.FaultInvalid},
	}
	before := s.decisions()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, m := range s.members[:2] {
				refused(t, enroll(m, c.token, c.host), c.want, c.fault)
			}
			if c.host != "h1" && s.leader().State().Host(c.host) != nil {
				t.Error("the host joined")
			}
		})
	}
	if now := s.decisions(); now != before {
		t.Errorf("%d decisions were made", now-before)
	}
	must(0, enroll(s.leader(), spare, "h2"))(t) // What was refused did not cost the token.
	t.Run("a repeated request gets a token that counts", func(t *testing.T) {
		req := &pb.CreateTokenRequest{RequestId: uuid.NewString(), Host: "h6"}
		must(api.CreateToken(t.Context(), req))(t)
		must(0, enroll(s.leader(), must(api.CreateToken(t.Context(), req))(t).GetToken(), "h6"))(t)
	})
}

// Errors tell a program what is wrong and a person what to do.
func TestErrorsAndRequests(t *testing.T) {
	s := newSite(t)
	var images []*pb.Resource
	for i := range 5 {
		images = append(images, image(fmt.Sprintf("i%d", i)))
	}
	s.apply(t, append(images, image("guest"), fenceTarget(), plan("shop", oath()), trigger("a", 0, "shop"))...)
	conn := s.dial(t, s.follower(), s.people[trust.RoleOperator])
	resources, failovers := pb.NewResourceServiceClient(conn), pb.NewFailoverServiceClient(conn)

	t.Run("a request_id is for one request", func(t *testing.T) {
		req := &pb.ArmRequest{RequestId: uuid.NewString(), Trigger: "a", Disarm: true, Reason: "x"}
		must(failovers.Arm(t.Context(), req))(t)
		before := s.decisions()
		must(failovers.Arm(t.Context(), req))(t)
		_, err := failovers.Arm(t.Context(), &pb.ArmRequest{RequestId: req.GetRequestId(), Trigger: "a", Disarm: false, Reason: "x"})
		refused(t, err, codes.InvalidArgument, model.FaultInvalid)
		_, err = resources.DeleteResource(t.Context(), &pb.DeleteResourceRequest{RequestId: req.GetRequestId(), Kind: "image", Name: "i0"})
		refused(t, err, codes.InvalidArgument, model.FaultInvalid)
		other := s.dial(t, s.leader(), identity(t, s.authority, trust.RoleOperator, "another"))
		_, err = pb.NewFailoverServiceClient(other).Arm(t.Context(), req)
		refused(t, err, codes.InvalidArgument, model.FaultInvalid)
		if now := s.decisions(); now != before || s.leader().State().Resource("image/i0") == nil {
			t.Errorf("%d decisions were made", now-before)
		}
	})
	t.Run("an error says what to do", func(t *testing.T) {
		_, developer := pb.NewSiteServiceClient(s.dial(t, s.follower(), s.people[trust.RoleDeveloper])).ListHosts(t.Context(), &pb.ListHostsRequest{})
		_, nobody := pb.NewSiteServiceClient(s.dial(t, s.follower(), nil)).ListHosts(t.Context(), &pb.ListHostsRequest{})
		_, missing := resources.GetResource(t.Context(), &pb.GetResourceRequest{Kind: "image", Name: "none"})
		for _, c := range []struct {
			err            error
			object, remedy string
		}{
			{developer, "", "it takes the role operator or monitor"},
			{nobody, "", "it takes the role operator or monitor"},
			{missing, "image/none", "see: hotspare get image"},
		} {
			i := info(t, c.err)
			if i.GetMetadata()["object"] != c.object || i.GetMetadata()["remedy"] != c.remedy {
				t.Errorf("%v carries %v", c.err, i)
			}
		}
	})
	t.Run("pages", func(t *testing.T) {
		for _, size := range []int32{1, 2, 6, 7, 0, -1, math.MaxInt32, math.MinInt32} {
			var got []string
			for next, calls := "", 0; calls == 0 || next != ""; calls++ {
				out := must(resources.ListResources(t.Context(), &pb.ListResourcesRequest{Kind: "image", PageSize: size, PageToken: next}))(t)
				for _, r := range out.GetResources() {
					got = append(got, model.ResourceKey(r))
				}
				if next = out.GetNextPageToken(); size > 0 && len(out.GetResources()) > int(size) || calls > 10 {
					t.Fatalf("size %d: %d rows in call %d", size, len(out.GetResources()), calls)
				}
			}
			if want := []string{"image/guest", "image/i0", "image/i1", "image/i2", "image/i3", "image/i4"}; !slices.Equal(got, want) {
				t.Errorf("size %d: %v", size, got)
			}
		}
		for _, past := range []string{"image/i4", "zzz", "\u00ff"} {
			out := must(resources.ListResources(t.Context(), &pb.ListResourcesRequest{Kind: "image", PageToken: past}))(t)
			if len(out.GetResources()) != 0 || out.GetNextPageToken() != "" {
				t.Errorf("after %q: %v", past, out)
			}
		}
		all := must(pb.NewSiteServiceClient(conn).ListEvidence(t.Context(), &pb.ListEvidenceRequest{PageSize: math.MaxInt32}))(t).GetEntries()
		if uint64(len(all)) != s.decisions() {
			t.Errorf("%d entries of evidence, want %d", len(all), s.decisions())
		}
	})
	t.Run("a large list comes through a follower, in pages that every client takes", func(t *testing.T) {
		var large []*pb.Resource
		for i := range 80 {
			r := image(fmt.Sprintf("large-%d", i))
			r.GetImage().Spec = &pb.ImageSpec{Kernel: "/k", Cmdline: strings.Repeat("x", 64<<10)}
			large = append(large, r)
		}
		s.apply(t, large[:40]...)
		s.apply(t, large[40:]...)
		images, pages, token := 0, 0, ""
		for pages == 0 || token != "" {
			out := must(resources.ListResources(t.Context(), &pb.ListResourcesRequest{Kind: "image", PageToken: token}))(t)
			images, pages, token = images+len(out.GetResources()), pages+1, out.GetNextPageToken()
		}
		if images != 86 || pages < 3 {
			t.Errorf("%d images on %d pages", images, pages)
		}
	})
	t.Run("an endless body of who shows no certificate is not read", func(t *testing.T) {
		body := &zeros{left: 256 << 20}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		req := must(http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.leader().https+"/v1/leases", io.MultiReader(strings.NewReader(`{"project":"`), body)))(t)
		resp, err := s.browser(t, nil).Do(req)
		if err == nil {
			must(0, resp.Body.Close())(t)
			if resp.StatusCode < 400 || resp.StatusCode >= 500 {
				t.Errorf("answered %s", resp.Status)
			}
		}
		if body.left == 0 {
			t.Error("all of it was read")
		}
	})
}

// zeros reads as many digits 0.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	n := min(len(p), z.left)
	if n == 0 {
		return 0, io.EOF
	}
	for i := range p[:n] {
		p[i] = '0'
	}
	z.left -= n
	return n, nil
}
