package state

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/model"
)

func (t *tx) joinHost(c *pb.JoinHost) (string, error) {
	key := hex.EncodeToString(c.GetTokenHash())
	tok := t.Token(key)
	host := "host/" + c.GetHost()
	switch {
	case tok == nil:
		return "", model.Errorf(model.FaultUnauthenticated, host, "unknown join token").
			WithRemedy("make one with: hotspare agent token create --host %s", c.GetHost())
	case tok.GetUsedAt() != nil:
		return "", model.Errorf(model.FaultUnauthenticated, host, "the join token was used before").
			WithRemedy("make a new one with: hotspare agent token create --host %s", c.GetHost())
	case t.now.After(tok.GetExpiresAt().AsTime()):
		return "", model.Errorf(model.FaultUnauthenticated, host, "the join token expired at %s",
			tok.GetExpiresAt().AsTime().Format("2006-01-02 15:04:05Z07:00"))
	case tok.GetHost() != c.GetHost():
		return "", model.Errorf(model.FaultDenied, host, "the join token is for another host").
			WithRemedy("make one with: hotspare agent token create --host %s", c.GetHost())
	}
	tok = edit(tok)
	tok.UsedAt = t.stamp()
	t.tokens.set(key, tok)
	if t.Host(c.GetHost()) == nil {
		t.putHost(&pb.Host{Name: c.GetHost(), JoinedAt: t.stamp()})
		t.touchPlacement()
	}
	t.record(&pb.Evidence{Action: "join", Object: host})
	return c.GetHost(), nil
}

func (t *tx) recordHost(c *pb.RecordHost) (string, error) {
	h := t.Host(c.GetHost())
	if h == nil {
		return "", model.Errorf(model.FaultNotFound, "host/"+c.GetHost(), "no such host")
	}
	h = edit(h)
	if c.GetQuarantine() {
		if !h.GetQuarantined() {
			t.record(&pb.Evidence{Action: "quarantine", Object: "host/" + h.GetName(), Reason: c.GetReason()})
		}
		h.Quarantined = true
	} else {
		h.Capacity, h.Offer, h.JournalId = c.GetCapacity(), c.GetOffer(), c.GetJournalId()
	}
	t.putHost(h)
	t.touchPlacement()
	return h.GetName(), nil
}

func (t *tx) updateHost(c *pb.UpdateHostRequest) (string, error) {
	h := t.Host(c.GetName())
	key := "host/" + c.GetName()
	if h == nil {
		return "", model.Errorf(model.FaultNotFound, key, "no such host").WithRemedy("see: hotspare host list")
	}
	h = edit(h)
	switch c.GetAction() {
	case "cancel-drain":
		n := len(h.GetAnnounced())
		h.Announced = slices.DeleteFunc(h.Announced, func(d *pb.AnnouncedDrain) bool {
			return c.GetStartAt() == nil || c.GetStartAt().AsTime().Equal(d.GetStart().AsTime())
		})
		if len(h.GetAnnounced()) == n {
			return "", model.Errorf(model.FaultPrecondition, key, "has no such announced drain").WithRemedy("see: hotspare host list -o json")
		}
	case "cordon", "drain":
		if err := checkCordon(c); err != nil {
			return "", err
		}
		if c.GetStartAt() != nil {
			return t.announce(h, c)
		}
		h.Announced = slices.DeleteFunc(h.Announced, func(d *pb.AnnouncedDrain) bool { return !t.now.Before(d.GetStart().AsTime()) })
		h.Cordoned, h.UsesTolerance, h.CordonedUntil = true, c.GetUseTolerance(), nil
		if c.GetLasts() != nil {
			h.CordonedUntil = timestamppb.New(t.now.Add(c.GetLasts().AsDuration()))
		}
	case "uncordon":
		h.Cordoned, h.UsesTolerance, h.CordonedUntil = false, false, nil
	case "readmit":
		// Whatever journal it shows next is the one that counts from now on.
		h.Quarantined, h.JournalId = false, ""
		h.ConfirmedEra, h.ConfirmedGeneration = 0, 0
	case "remove":
		for o := range t.ObjectsOf(c.GetName()) {
			return "", model.Errorf(model.FaultPrecondition, key, "still holds %s", o.GetId()).
				WithRemedy("end its leases and plans first; see: hotspare objects list --agent %s", c.GetName())
		}
		t.hosts.del(c.GetName())
		t.changed[key] = true
		t.touchPlacement()
		t.record(&pb.Evidence{Action: "remove", Object: key, Reason: c.GetReason()})
		return c.GetName(), nil
	default:
		return "", model.Errorf(model.FaultInvalid, key, "unknown action %q", c.GetAction()).
			WithRemedy("use cordon, drain, cancel-drain, uncordon, readmit, remove or lose")
	}
	t.putHost(h)
	t.touchPlacement()
	reason := c.GetReason()
	if h.GetUsesTolerance() {
		reason = "using up tolerance until " + h.GetCordonedUntil().AsTime().Format(time.RFC3339) + ": " + reason
	}
	t.record(&pb.Evidence{Action: c.GetAction(), Object: key, Reason: reason})
	return h.GetName(), nil
}

// longestCordon bounds a cordon that ends by itself.
const longestCordon = 30 * 24 * time.Hour

// Bounds of announced drains.
const (
	furthestDrain = 90 * 24 * time.Hour
	maxAnnounced  = 16
)

// announce notes a drain that begins by itself.
func (t *tx) announce(h *pb.Host, c *pb.UpdateHostRequest) (string, error) {
	key, start := "host/"+h.GetName(), c.GetStartAt().AsTime()
	end := start.Add(c.GetLasts().AsDuration())
	switch {
	case c.GetAction() != "drain":
		return "", model.Errorf(model.FaultInvalid, key, "only a drain is announced")
	case !h.GetOffer().GetHypervisor() || h.GetOffer().GetProtectedSite():
		return "", model.Errorf(model.FaultPrecondition, key, "runs no VMs of leases or plans: it cannot be drained")
	case c.GetLasts() == nil:
		return "", model.Errorf(model.FaultInvalid, key, "an announced drain needs an end").WithRemedy("add --for, for example --for 2h")
	case !start.After(t.now) || start.Sub(t.now) > furthestDrain:
		return "", model.Errorf(model.FaultInvalid, key, "a drain cannot be announced for %s", start.UTC().Format(time.RFC3339)).
			WithRemedy("within the next %d days", int(furthestDrain/(24*time.Hour)))
	case len(h.GetAnnounced()) >= maxAnnounced:
		return "", model.Errorf(model.FaultTooMany, key, "%d drains are announced already", len(h.GetAnnounced()))
	}
	for _, d := range h.GetAnnounced() {
		if start.Before(d.GetEnd().AsTime()) && d.GetStart().AsTime().Before(end) {
			return "", model.Errorf(model.FaultPrecondition, key, "a drain from %s to %s is announced already",
				d.GetStart().AsTime().UTC().Format(time.RFC3339), d.GetEnd().AsTime().UTC().Format(time.RFC3339))
		}
	}
	h.Announced = append(h.Announced, &pb.AnnouncedDrain{
		Start: c.GetStartAt(), End: timestamppb.New(end), UseTolerance: c.GetUseTolerance(), Reason: c.GetReason(), AnnouncedBy: t.actor,
	})
	slices.SortFunc(h.Announced, func(a, b *pb.AnnouncedDrain) int { return a.GetStart().AsTime().Compare(b.GetStart().AsTime()) })
	t.putHost(h)
	t.touchPlacement()
	t.record(&pb.Evidence{Action: "announce drain", Object: key, Reason: start.UTC().Format(time.RFC3339) + ": " + c.GetReason()})
	return h.GetName(), nil
}

func checkCordon(c *pb.UpdateHostRequest) error {
	key := "host/" + c.GetName()
	switch lasts := c.GetLasts().AsDuration(); {
	case c.GetUseTolerance() && c.GetLasts() == nil:
		return model.Errorf(model.FaultInvalid, key, "a cordon that uses up tolerance needs an end").WithRemedy("add --for, for example --for 2h")
	case c.GetUseTolerance() && c.GetReason() == "":
		return model.Errorf(model.FaultInvalid, key, "a cordon that uses up tolerance needs a reason").WithRemedy(`for example --reason "new memory"`)
	case c.GetLasts() != nil && (lasts <= 0 || lasts > longestCordon):
		return model.Errorf(model.FaultInvalid, key, "a cordon cannot last %s", lasts).WithRemedy("at most %s", longestCordon)
	default:
		return nil
	}
}

// maxTokens bounds how many join tokens are kept; spent and expired ones are dropped first.
const maxTokens = 1000

func (t *tx) storeToken(c *pb.StoreToken) (string, error) {
	var stale []string
	for tok := range t.tokens.all() {
		if tok.GetUsedAt() != nil || t.now.After(tok.GetExpiresAt().AsTime()) {
			stale = append(stale, hex.EncodeToString(tok.GetHash()))
		}
	}
	if t.tokens.len() >= maxTokens && len(stale) > 0 {
		for _, k := range stale {
			t.tokens.del(k)
		}
	}
	if t.tokens.len() >= maxTokens {
		return "", model.Errorf(model.FaultTooMany, "", "there are %d unused join tokens", t.tokens.len()).
			WithRemedy("wait until some expire")
	}
	key := hex.EncodeToString(c.GetTokenHash())
	t.tokens.set(key, &pb.Token{Hash: c.GetTokenHash(), Host: c.GetHost(), ExpiresAt: c.GetExpiresAt()})
	t.record(&pb.Evidence{Action: "create token", Object: "host/" + c.GetHost()})
	return c.GetHost(), nil
}

func (t *tx) recordClient(c *pb.RecordClient) (string, error) {
	t.record(&pb.Evidence{
		Action: "issue client", Object: "user/" + c.GetUser(),
		Reason: fmt.Sprintf("role %s, serial %s, until %s", c.GetRole(), c.GetSerial(), c.GetExpiresAt().AsTime().Format(time.RFC3339)),
	})
	return c.GetUser(), nil
}

func (t *tx) setAuthority(c *pb.SetAuthority) (string, error) {
	if len(t.meta.GetAuthorityCertificate()) > 0 {
		return "", model.Errorf(model.FaultExists, "authority", "the site has a certificate authority already")
	}
	t.meta.AuthorityCertificate, t.meta.AuthorityKey = c.GetCertificate(), c.GetKey()
	t.changed["authority"] = true
	t.record(&pb.Evidence{Action: "set authority", Object: "authority"})
	return "authority", nil
}

func (t *tx) raiseLevel(c *pb.RaiseLevel) (string, error) {
	if c.GetLevel() <= t.meta.GetLevel() || c.GetLevel() > SupportedLevel {
		return "", model.Errorf(model.FaultPrecondition, "level", "cannot go from level %d to %d (this version knows %d)",
			t.meta.GetLevel(), c.GetLevel(), SupportedLevel)
	}
	t.meta.Level = c.GetLevel()
	t.record(&pb.Evidence{Action: "raise level", Object: "level"})
	return "level", nil
}

func (t *tx) applyResources(c *pb.ApplyResources) (string, error) {
	for _, r := range c.GetResources() {
		key := model.ResourceKey(r)
		old := t.Resource(key)
		r = edit(r)
		m := model.MetadataOf(r)
		if m.GetName() == "" {
			return "", model.Errorf(model.FaultInvalid, key, "a resource without a kind or a name")
		}
		m.ResourceVersion, m.Revision = t.index, model.MetadataOf(old).GetRevision()+1
		if tr := r.GetTrigger(); tr != nil {
			tr.Status = old.GetTrigger().GetStatus()
		}
		t.resources.set(key, r)
		t.changed[key] = true
		if h := r.GetHost(); h != nil {
			t.applyHostPolicy(h)
		}
		t.record(&pb.Evidence{Action: "apply", Object: key})
		t.touchPlacement()
	}
	for _, o := range c.GetObjects() {
		if old := t.Object(o.GetId()); old != nil {
			if old.GetAgent() != o.GetAgent() {
				return "", model.Errorf(model.FaultPrecondition, o.GetId(), "belongs to agent %s for its whole life", old.GetAgent())
			}
			t.editObject(o.GetId(), func(n *pb.Object) { n.Base, n.Plan, n.Workload = o.GetBase(), o.GetPlan(), o.GetWorkload() })
			continue
		}
		t.putObject(edit(o))
	}
	for _, id := range c.GetDrop() {
		t.editObject(id, func(o *pb.Object) {
			o.Base = &pb.Spec{State: model.Rest(o.GetKind()), Parameters: o.GetBase().GetParameters()}
		})
	}
	return "", nil
}

// applyHostPolicy copies what an operator declared of a host into the host itself.
func (t *tx) applyHostPolicy(p *pb.HostPolicy) {
	if h := t.Host(p.GetMetadata().GetName()); h != nil {
		h = edit(h)
		h.Policy = p.GetSpec()
		t.putHost(h)
	}
}

func (t *tx) deleteResource(c *pb.DeleteResourceRequest) (string, error) {
	key := c.GetKind() + "/" + c.GetName()
	if t.Resource(key) == nil {
		return "", model.Errorf(model.FaultNotFound, key, "no such resource").WithRemedy("see: hotspare get %s", c.GetKind())
	}
	if refs := t.referrers(c.GetKind(), c.GetName()); len(refs) > 0 {
		return "", model.Errorf(model.FaultPrecondition, key, "is used by %v", refs).WithRemedy("end or change these first")
	}
	t.resources.del(key)
	t.changed[key] = true
	t.touchPlacement()
	t.record(&pb.Evidence{Action: "delete", Object: key})
	return key, nil
}

// referrers lists what would be left without the resource.
func (t *tx) referrers(kind, name string) []string {
	var refs []string
	add := func(r string) {
		if !slices.Contains(refs, r) {
			refs = append(refs, r)
		}
	}
	if kind == "plan" {
		if f := t.OpenFailoverOf(name); f != nil {
			add("failover/" + f.GetName())
		}
		for r := range t.Resources("trigger") {
			if slices.Contains(r.GetTrigger().GetSpec().GetPlans(), name) {
				add(model.ResourceKey(r))
			}
		}
	}
	for l := range t.Leases() {
		clones := kind == "plan" && strings.HasPrefix(l.GetSpec().GetCloneOf(), name+"/")
		if clones || kind == "project" && l.GetProject() == name || kind == "image" && l.GetSpec().GetImage() == name {
			add("lease/" + l.GetName())
		}
	}
	for r := range t.Resources("") {
		if slices.Contains(model.References(r), kind+"/"+name) {
			add(model.ResourceKey(r))
		}
	}
	return refs
}

func (t *tx) forgetObjects(c *pb.ForgetObjects) (string, error) {
	for _, v := range c.GetObjects() {
		o := t.Object(v.GetObject())
		if o == nil {
			continue
		}
		if o.GetGeneration() != v.GetGeneration() || len(o.GetOverrides()) > 0 ||
			model.Effective(o).GetState() != model.Rest(o.GetKind()) {
			return "", model.Errorf(model.FaultStale, v.GetObject(), "is wanted again")
		}
		t.dropObject(o)
		t.forgetLease(o.GetLease())
	}
	t.touchPlacement()
	return "", nil
}

// forgetLease drops a lease that is to be deleted with its last object.
func (t *tx) forgetLease(name string) {
	l := t.Lease(name)
	if l == nil {
		return
	}
	for _, i := range l.GetInstances() {
		if t.Object(i.GetObject()) != nil || i.GetVolume() != "" && t.Object(i.GetVolume()) != nil {
			return
		}
	}
	t.leases.del(l.GetName())
	t.lents.del(l.GetName())
	t.changed["lease/"+l.GetName()] = true
}

func (t *tx) recordPreimage(c *pb.RecordPreimage) (string, error) {
	o := t.Object(c.GetObject())
	if o.GetKind() != pb.Kind_KIND_ENDPOINT || o.GetBase().GetEndpoint() == nil {
		return "", model.Errorf(model.FaultNotFound, c.GetObject(), "no such endpoint")
	}
	if len(o.GetOverrides()) > 0 {
		return "", model.Errorf(model.FaultPrecondition, c.GetObject(), "its failover is open: the pre-image stays as it was committed")
	}
	if proto.Equal(o.GetBase().GetEndpoint().GetPreimage(), c.GetValue()) {
		return "", nil
	}
	t.editObject(c.GetObject(), func(n *pb.Object) { n.GetBase().GetEndpoint().Preimage = c.GetValue() })
	return c.GetObject(), nil
}

// recordPoints moves the confirmed time of volumes forward, it never moves back, and keeps the files of
// sources.
func (t *tx) recordPoints(c *pb.RecordPoints) (string, error) {
	for _, p := range c.GetPoints() {
		o := t.Object(p.GetObject())
		if o != nil && p.GetDiskPath() != "" && p.GetDiskPath() != o.GetDiskPath() {
			t.editObject(p.GetObject(), func(n *pb.Object) { n.DiskPath = p.GetDiskPath() })
			continue
		}
		if o == nil || !p.GetTime().AsTime().After(o.GetConfirmedPoint().AsTime()) {
			continue
		}
		t.editObject(p.GetObject(), func(n *pb.Object) { n.ConfirmedPoint = p.GetTime() })
	}
	return "", nil
}

// recordConfirmed raises what agents are known to have written down; it never falls. It is no reason
// to decide anything anew, so the hosts' versions stay.
func (t *tx) recordConfirmed(c *pb.RecordConfirmed) (string, error) {
	t.meta.ConfirmedAt = t.stamp()
	for _, a := range c.GetAgents() {
		h := t.Host(a.GetHost())
		if h == nil || h.GetQuarantined() || a.GetJournalId() == "" || h.GetJournalId() != a.GetJournalId() {
			continue
		}
		was := model.OrderKey{Era: h.GetConfirmedEra(), Generation: h.GetConfirmedGeneration()}
		if was.Compare(model.OrderKey{Era: a.GetEra(), Generation: a.GetGeneration()}) >= 0 {
			continue
		}
		h = edit(h)
		h.ConfirmedEra, h.ConfirmedGeneration = a.GetEra(), a.GetGeneration()
		t.hosts.set(h.GetName(), h)
		t.changed["host/"+h.GetName()] = true
	}
	return "", nil
}
