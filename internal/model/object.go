package model

import (
	"fmt"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// ObjectID names an object: "kind/name", for example "instance/web-3-0".
type ObjectID string

// kindNames gives each kind its word in identifiers and messages.
var kindNames = map[pb.Kind]string{
	pb.Kind_KIND_INSTANCE: "instance",
	pb.Kind_KIND_VOLUME:   "volume",
	pb.Kind_KIND_NETWORK:  "network",
	pb.Kind_KIND_ENDPOINT: "endpoint",
	pb.Kind_KIND_FENCE:    "fence",
	pb.Kind_KIND_HOOK:     "hook",
}

// NewObjectID joins a kind and a name. It panics for a kind that is not set: only code names kinds.
func NewObjectID(kind pb.Kind, name string) ObjectID {
	word, ok := kindNames[kind]
	if !ok {
		panic(fmt.Sprintf("model: object kind %v has no name", kind))
	}
	return ObjectID(word + "/" + name)
}

// Kind returns the kind that the identifier names, or KIND_UNSPECIFIED.
func (id ObjectID) Kind() pb.Kind {
	word, _, _ := strings.Cut(string(id), "/")
	for kind, name := range kindNames { // Any order: each word names one kind.
		if name == word {
			return kind
		}
	}
	return pb.Kind_KIND_UNSPECIFIED
}

// Name returns what follows the kind.
func (id ObjectID) Name() string {
	_, name, _ := strings.Cut(string(id), "/")
	return name
}

// KindName returns the word for a kind: "instance".
func KindName(kind pb.Kind) string { return kindNames[kind] }

// StateName returns the short word for a state: "RUNNING".
func StateName(s pb.State) string { return strings.TrimPrefix(s.String(), "STATE_") }

// Effective returns the spec in force: the winning override, else the base. Failover beats drill;
// among overrides of one kind the lowest epoch wins, which is any of them, because plans may share
// an object only when their overrides are equal. A fence's differ in the epoch: evidence is valid for one
// only. There the override that was set last wins, so that each run gets its own evidence in turn.
func Effective(o *pb.Object) *pb.Spec {
	if win := Winner(o); win != nil {
		return win.GetSpec()
	}
	return o.GetBase()
}

// Winner returns the override in force, or nil when the base is.
func Winner(o *pb.Object) *pb.Override {
	var win *pb.Override
	for _, v := range o.GetOverrides() {
		if win == nil || beats(o.GetKind(), v, win) {
			win = v
		}
	}
	return win
}

// beats says whether a, which was set after b, wins.
func beats(kind pb.Kind, a, b *pb.Override) bool {
	if a.GetRun() != b.GetRun() {
		return a.GetRun() == pb.RunKind_RUN_KIND_FAILOVER
	}
	return kind == pb.Kind_KIND_FENCE || a.GetEpoch() < b.GetEpoch()
}
