package model

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// Bounds of what a site declares.
const (
	maxMembers = 1000
	// MaxTerm bounds the term of a lease.
	MaxTerm = 365 * 24 * time.Hour
	// MaxGrace bounds the warning before a preemption: it is part of the time to recover.
	MaxGrace = 10 * time.Minute
	// maxOvercommit bounds the virtual CPUs for each real one.
	maxOvercommit = 16
	// interfaceNameLength is what Linux allows (IFNAMSIZ less the final zero).
	interfaceNameLength = 15
)

// Reclaim actions as manifests and flags write them.
var reclaimWords = []struct {
	word   string
	action pb.ReclaimAction
}{
	{"save", pb.ReclaimAction_RECLAIM_ACTION_SAVE},
	{"shutdown", pb.ReclaimAction_RECLAIM_ACTION_SHUTDOWN},
	{"discard", pb.ReclaimAction_RECLAIM_ACTION_DISCARD},
}

// ParseReclaimAction reads "save", "shutdown" or "discard".
func ParseReclaimAction(s string) (pb.ReclaimAction, bool) {
	for _, r := range reclaimWords {
		if r.word == s {
			return r.action, true
		}
	}
	return pb.ReclaimAction_RECLAIM_ACTION_UNSPECIFIED, false
}

// ReclaimActionName returns the word for a reclaim action, or "".
func ReclaimActionName(a pb.ReclaimAction) string {
	for _, r := range reclaimWords {
		if r.action == a {
			return r.word
		}
	}
	return ""
}

// RoleNone is what a role binding says of users who may do nothing any more.
const RoleNone = "none"

// Roles lists the roles that a user can have.
func Roles() []string { return []string{"developer", "operator", "monitor"} }

// maxWeight bounds how much dearer a project's leases are than another's.
const maxWeight = 1000

func (c *checker) project(s *pb.ProjectSpec) {
	if len(s.GetMembers()) > maxMembers {
		c.add("spec.members", "%d members, at most %d", len(s.GetMembers()), maxMembers)
	}
	seen := map[string]bool{}
	for i, m := range s.GetMembers() {
		path := fmt.Sprintf("spec.members[%d]", i)
		c.required(path, m, "user")
		if seen[m] {
			c.add(path, "user %q is listed twice", m)
		}
		seen[m] = true
	}
	c.positive("spec.longestTerm", s.GetLongestTerm())
	if d := s.GetLongestTerm().AsDuration(); d > MaxTerm {
		c.add("spec.longestTerm", "is %s, at most %s", FormatDuration(d), FormatDuration(MaxTerm))
	}
	c.positive("spec.longestGrace", s.GetLongestGrace())
	if d := s.GetLongestGrace().AsDuration(); d > MaxGrace {
		c.add("spec.longestGrace", "is %s, at most %s", FormatDuration(d), FormatDuration(MaxGrace))
	}
	for i, a := range s.GetActions() {
		c.oneOf(fmt.Sprintf("spec.actions[%d]", i), a, "save", "shutdown", "discard")
	}
	for i, v := range s.GetClones() {
		plan, workload, ok := strings.Cut(v, "/")
		if !ok || !ValidName(plan) || !ValidName(workload) {
			c.add(fmt.Sprintf("spec.clones[%d]", i), "%q is not plan/workload, for example webshop/db", v)
		}
	}
	c.name("spec.network", s.GetNetwork(), "network of the lent VMs")
	if w := s.GetWeight(); w > maxWeight {
		c.add("spec.weight", "is %d, at most %d", w, maxWeight)
	}
}

func (c *checker) network(s *pb.NetworkDecl) {
	role := s.GetRole()
	if role == pb.NetworkRole_NETWORK_ROLE_UNSPECIFIED {
		c.add("spec.role", "is missing: production, lent or bubble")
	}
	if s.GetBridge() == "" {
		c.add("spec.bridge", "the name of the bridge is missing")
	} else {
		c.interfaceName("spec.bridge", s.GetBridge())
	}
	if s.GetUplink() != "" {
		c.interfaceName("spec.uplink", s.GetUplink())
		if role == pb.NetworkRole_NETWORK_ROLE_BUBBLE {
			c.add("spec.uplink", "a bubble has no uplink: nothing in a drill reaches outside")
		}
	}
	c.networkAddresses(s)
	c.unique("spec.hosts", s.GetHosts(), "host")
}

func (c *checker) networkAddresses(s *pb.NetworkDecl) {
	var in []netip.Prefix
	switch {
	case s.GetSubnet() != "":
		if p, ok := c.subnet("spec.subnet", s.GetSubnet()); ok {
			in = append(in, p)
		}
	case s.GetRole() == pb.NetworkRole_NETWORK_ROLE_LENT:
		c.add("spec.subnet", "is missing: lent VMs get their addresses from it")
	}
	c.gateway("spec.gateway", s.GetGateway(), in...)
	seen := map[string]bool{}
	for i, a := range s.GetProbeAddresses() {
		path := fmt.Sprintf("spec.probeAddresses[%d]", i)
		c.hostAddress(path, a)
		if seen[bareAddress(a)] {
			c.add(path, "address %q is listed twice", a)
		}
		seen[bareAddress(a)] = true
	}
}

func (c *checker) interfaceName(path, s string) {
	if len(s) > interfaceNameLength || strings.ContainsAny(s, "/ \t\n:") || s == "." || s == ".." {
		c.add(path, "%q is not an interface name: at most %d bytes, no '/', ':' or blank", s, interfaceNameLength)
	}
}

func (c *checker) pool(s *pb.PoolSpec) {
	c.name("spec.agent", s.GetAgent(), "agent")
	if s.GetExportAddress() == "" {
		c.add("spec.exportAddress", "is missing: host:port under which the pool exports its volumes")
		return
	}
	c.hostPort("spec.exportAddress", s.GetExportAddress())
	c.unique("spec.hosts", s.GetHosts(), "host")
}

func (c *checker) image(s *pb.ImageSpec) {
	if s.GetKernel() == "" && s.GetDisk() == "" {
		c.add("spec", "an image has a kernel, a disk or both")
	}
	if s.GetKernel() == "" && (s.GetInitrd() != "" || s.GetCmdline() != "") {
		c.add("spec.kernel", "is missing: initrd and cmdline belong to a kernel")
	}
	for _, f := range []struct{ path, file string }{
		{"spec.kernel", s.GetKernel()}, {"spec.initrd", s.GetInitrd()}, {"spec.disk", s.GetDisk()},
	} {
		if f.file != "" && !strings.HasPrefix(f.file, "/") {
			c.add(f.path, "%q is not an absolute path", f.file)
		}
	}
}

func (c *checker) trigger(s *pb.TriggerSpec) {
	if len(s.GetPlans()) == 0 {
		c.add("spec.plans", "needs at least one plan")
	}
	c.unique("spec.plans", s.GetPlans(), "plan")
	for _, k := range slices.Sorted(maps.Keys(s.GetMatch())) {
		if !labelKey(k) {
			c.add("spec.match."+k, "%q is not the name of a label", k)
		}
	}
	if t := s.GetTokenSha256(); t != "" {
		if raw, err := hex.DecodeString(t); err != nil || len(raw) != 32 || t != strings.ToLower(t) {
			c.add("spec.tokenSha256", "is not a SHA-256 in 64 lower-case hexadecimal digits: printf %%s TOKEN | sha256sum")
		}
	}
	if d := s.GetHoldDown(); d != nil && (d.CheckValid() != nil || d.AsDuration() < 0) {
		c.add("spec.holdDown", "must not be negative")
	}
}

func (c *checker) hostPolicy(s *pb.HostPolicySpec) {
	if s.GetFailureDomain() != "" {
		c.name("spec.failureDomain", s.GetFailureDomain(), "failure domain")
	}
	if o := s.GetOvercommit(); o != 0 && (o < 1 || o > maxOvercommit || math.IsNaN(o)) {
		c.add("spec.overcommit", "is %g, want 1 to %d virtual CPUs for each real one", o, maxOvercommit)
	}
	c.devices("spec.lending.devices", s.GetLending().GetDevices())
	c.localDisks("spec.lending.localDisks", s.GetLending().GetLocalDisksBytes(), 0)
	c.localDisks("spec.reserveLocalDisks", s.GetReserveLocalDisksBytes(), 0)
}

func (c *checker) roleBinding(s *pb.RoleBindingSpec) {
	if len(s.GetUsers()) == 0 {
		c.add("spec.users", "needs at least one user")
	}
	for i, u := range s.GetUsers() {
		c.required(fmt.Sprintf("spec.users[%d]", i), u, "user")
	}
	c.oneOf("spec.role", s.GetRole(), append(Roles(), RoleNone)...)
}

// MaxTolerance bounds the losses that a scenario can ask to survive at one time.
const MaxTolerance = 8

func (c *checker) scenario(s *pb.ScenarioSpec) {
	seen := map[string]bool{}
	for i, p := range s.GetPlans() {
		at := fmt.Sprintf("spec.plans[%d]", i)
		if c.name(at, p, "plan") && seen[p] {
			c.add(at, "plan %q is listed twice", p)
		}
		seen[p] = true
	}
	for _, k := range slices.Sorted(maps.Keys(s.GetSelector())) {
		if !labelKey(k) {
			c.add("spec.selector."+k, "a label's key has 1 to 63 letters, digits, '.', '_', '/' and '-'")
		}
	}
	if n := s.GetTolerate().GetHosts(); n > MaxTolerance {
		c.add("spec.tolerate.hosts", "is %d, at most %d", n, MaxTolerance)
	}
	if n := s.GetTolerate().GetFailureDomains(); n > MaxTolerance {
		c.add("spec.tolerate.failureDomains", "is %d, at most %d", n, MaxTolerance)
	}
}
