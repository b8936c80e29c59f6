package state

import (
	"iter"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
)

// SupportedLevel is the highest level of apply logic that this build knows (R6).
const SupportedLevel = 1

// State is one version of everything that is replicated.
type State struct {
	meta      *pb.SiteMeta
	hosts     table[*pb.Host]
	resources table[*pb.Resource]
	leases    table[*pb.Lease]
	objects   table[*pb.Object]
	// byAgent holds the objects of each agent under "agent\x00object".
	byAgent   table[*pb.Object]
	failovers table[*pb.Failover]
	tokens    table[*pb.Token]
	requests  table[*pb.RememberedRequest]
	// requestAge holds the requests under their index, oldest first, to bound how many are kept.
	requestAge table[*pb.RememberedRequest]
	evidence   table[*pb.Evidence]
	// guarantee is nil until something was proven.
	guarantee *pb.Guarantee
	// lents holds an address for each version of a lease and of the objects of its VMs; memo is what was made of the
	// tables last. Neither is replicated: they follow from the rest.
	lents table[*demand.Lent]
	memo  *demand.Memo
	// unaudited: the guarantee was read from a snapshot of a state that had gone on, and checked by nobody here.
	unaudited bool
}

// New returns the empty state of a new site.
func New() *State {
	return &State{
		meta:  &pb.SiteMeta{Era: 1, Level: 1, Time: timestamppb.New(time.Unix(0, 0))},
		hosts: newTable[*pb.Host](), resources: newTable[*pb.Resource](), leases: newTable[*pb.Lease](),
		objects: newTable[*pb.Object](), byAgent: newTable[*pb.Object](), failovers: newTable[*pb.Failover](),
		tokens: newTable[*pb.Token](), requests: newTable[*pb.RememberedRequest](),
		requestAge: newTable[*pb.RememberedRequest](), evidence: newTable[*pb.Evidence](),
		lents: newTable[*demand.Lent](), memo: new(demand.Memo),
	}
}

// Meta returns the singular part of the state.
func (s *State) Meta() *pb.SiteMeta { return s.meta }

// Index returns the raft index of the last entry applied.
func (s *State) Index() uint64 { return s.meta.GetIndex() }

// Time returns the time of the last command.
func (s *State) Time() time.Time { return s.meta.GetTime().AsTime() }

// Host returns a host by name, or nil.
func (s *State) Host(name string) *pb.Host { h, _ := s.hosts.get(name); return h }

// Hosts walks all hosts by name.
func (s *State) Hosts() iter.Seq[*pb.Host] { return s.hosts.all() }

// Lease returns a lease by name, or nil.
func (s *State) Lease(name string) *pb.Lease { l, _ := s.leases.get(name); return l }

// Leases walks all leases by name.
func (s *State) Leases() iter.Seq[*pb.Lease] { return s.leases.all() }

// Lents walks all leases by name, each with the address of this version of it and of its objects.
func (s *State) Lents() iter.Seq[*demand.Lent] { return s.lents.all() }

// Memo is where the sites that are made of this state and its next versions are remembered.
func (s *State) Memo() *demand.Memo { return s.memo }

// Roots tells the versions of the tables apart that a site is made of.
func (s *State) Roots() demand.Roots {
	return demand.Roots{Hosts: s.hosts.tree, Resources: s.resources.tree, Failovers: s.failovers.tree, Objects: s.objects.tree, Lents: s.lents.tree}
}

// Object returns an object by id, or nil.
func (s *State) Object(id string) *pb.Object { o, _ := s.objects.get(id); return o }

// Objects walks all objects by id.
func (s *State) Objects() iter.Seq[*pb.Object] { return s.objects.all() }

// ObjectsOf walks the objects of one agent by id.
func (s *State) ObjectsOf(agent string) iter.Seq[*pb.Object] { return s.byAgent.prefix(agent + "\x00") }

// Failover returns a run by name, or nil.
func (s *State) Failover(name string) *pb.Failover { f, _ := s.failovers.get(name); return f }

// Failovers walks all runs in order of their epochs.
func (s *State) Failovers() iter.Seq[*pb.Failover] {
	return func(yield func(*pb.Failover) bool) {
		for e := uint64(1); e <= s.meta.GetLastEpoch(); e++ {
			if f := s.Failover(FailoverName(e)); f != nil && !yield(f) {
				return
			}
		}
	}
}

// OpenFailovers walks the runs that may still change something.
func (s *State) OpenFailovers() iter.Seq[*pb.Failover] {
	return func(yield func(*pb.Failover) bool) {
		for f := range s.Failovers() {
			if model.Open(f.GetPhase()) && !yield(f) {
				return
			}
		}
	}
}

// OpenFailoverOf returns the open run that contains the plan, or nil.
func (s *State) OpenFailoverOf(plan string) *pb.Failover {
	for f := range s.OpenFailovers() {
		for _, p := range f.GetPlans() {
			if p.GetPlan() == plan {
				return f
			}
		}
	}
	return nil
}

// Resource returns a declared resource by its key ("plan/webshop"), or nil.
func (s *State) Resource(key string) *pb.Resource { r, _ := s.resources.get(key); return r }

// Resources walks the declared resources of one kind ("plan"), or all for an empty kind.
func (s *State) Resources(kind string) iter.Seq[*pb.Resource] {
	if kind != "" {
		kind += "/"
	}
	return s.resources.prefix(kind)
}

// Plan returns a plan by name, or nil.
func (s *State) Plan(name string) *pb.Plan { return s.Resource("plan/" + name).GetPlan() }

// Plans walks all plans by name.
func (s *State) Plans() iter.Seq[*pb.Plan] {
	return func(yield func(*pb.Plan) bool) {
		for r := range s.Resources("plan") {
			if !yield(r.GetPlan()) {
				return
			}
		}
	}
}

// Token returns a join token by the hexadecimal of its hash, or nil.
func (s *State) Token(hash string) *pb.Token { t, _ := s.tokens.get(hash); return t }

// Request returns the remembered outcome of a request, or nil.
func (s *State) Request(id string) *pb.RememberedRequest { r, _ := s.requests.get(id); return r }

// Evidence walks the log of decisions from after the given sequence number.
func (s *State) Evidence(after uint64) iter.Seq[*pb.Evidence] {
	return func(yield func(*pb.Evidence) bool) {
		for n := after + 1; n <= s.meta.GetEvidenceSequence(); n++ {
			if e, ok := s.evidence.get(sortable(n)); ok && !yield(e) {
				return
			}
		}
	}
}

// FailoverName returns the name of the run with this epoch.
func FailoverName(epoch uint64) string { return "fo-" + itoa(epoch) }

// VersionOf returns the version of a key that commands may expect: "host/h1", "lease/web-1",
// "failover/fo-1", "object/instance/x", "placement", or the key of a resource. Zero: it does not exist.
func (s *State) VersionOf(key string) uint64 {
	kind, name, _ := strings.Cut(key, "/")
	switch kind {
	case "placement":
		return s.meta.GetPlacementVersion()
	case "host-state":
		return s.Host(name).GetVersion()
	case "lease":
		return s.Lease(name).GetVersion()
	case "failover":
		return s.Failover(name).GetVersion()
	case "object":
		return s.Object(name).GetVersion()
	default:
		return model.MetadataOf(s.Resource(key)).GetResourceVersion()
	}
}
