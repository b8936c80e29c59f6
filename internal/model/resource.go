package model

import (
	"slices"
	"strings"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// ResourceKind names a kind of declared resource in keys and in the API: "plan", "fencetarget".
type ResourceKind string

// The kinds of resources.
const (
	ResourcePlan        ResourceKind = "plan"
	ResourceProject     ResourceKind = "project"
	ResourceNetwork     ResourceKind = "network"
	ResourcePool        ResourceKind = "pool"
	ResourceImage       ResourceKind = "image"
	ResourceFenceTarget ResourceKind = "fencetarget"
	ResourceTrigger     ResourceKind = "trigger"
	ResourceHost        ResourceKind = "host"
	ResourceRoleBinding ResourceKind = "rolebinding"
	ResourceScenario    ResourceKind = "scenario"
)

// manifestKinds gives each kind the word that manifests use, in the order of the proto.
var manifestKinds = []struct {
	kind ResourceKind
	word string
}{
	{ResourcePlan, "Plan"},
	{ResourceProject, "Project"},
	{ResourceNetwork, "Network"},
	{ResourcePool, "Pool"},
	{ResourceImage, "Image"},
	{ResourceFenceTarget, "FenceTarget"},
	{ResourceTrigger, "Trigger"},
	{ResourceHost, "Host"},
	{ResourceRoleBinding, "RoleBinding"},
	{ResourceScenario, "Scenario"},
}

// ResourceKinds lists all kinds in the order of the proto.
func ResourceKinds() []ResourceKind {
	out := make([]ResourceKind, 0, len(manifestKinds))
	for _, m := range manifestKinds {
		out = append(out, m.kind)
	}
	return out
}

// Manifest returns the word for the kind in manifests: "FenceTarget".
func (k ResourceKind) Manifest() string {
	for _, m := range manifestKinds {
		if m.kind == k {
			return m.word
		}
	}
	return ""
}

// ParseResourceKind reads a kind as people type it: any case, singular or plural.
func ParseResourceKind(word string) (ResourceKind, bool) {
	k := ResourceKind(strings.ToLower(word))
	kinds := ResourceKinds()
	if slices.Contains(kinds, k) {
		return k, true
	}
	k = ResourceKind(strings.TrimSuffix(string(k), "s"))
	return k, slices.Contains(kinds, k)
}

// KindOfResource returns the kind of a resource, or "" for an empty one.
func KindOfResource(r *pb.Resource) ResourceKind {
	switch r.GetResource().(type) {
	case *pb.Resource_Plan:
		return ResourcePlan
	case *pb.Resource_Project:
		return ResourceProject
	case *pb.Resource_Network:
		return ResourceNetwork
	case *pb.Resource_Pool:
		return ResourcePool
	case *pb.Resource_Image:
		return ResourceImage
	case *pb.Resource_FenceTarget:
		return ResourceFenceTarget
	case *pb.Resource_Trigger:
		return ResourceTrigger
	case *pb.Resource_Host:
		return ResourceHost
	case *pb.Resource_RoleBinding:
		return ResourceRoleBinding
	case *pb.Resource_Scenario:
		return ResourceScenario
	default:
		return ""
	}
}

// MetadataOf returns the metadata of a resource; nil when there is none.
func MetadataOf(r *pb.Resource) *pb.Metadata {
	switch v := r.GetResource().(type) {
	case *pb.Resource_Plan:
		return v.Plan.GetMetadata()
	case *pb.Resource_Project:
		return v.Project.GetMetadata()
	case *pb.Resource_Network:
		return v.Network.GetMetadata()
	case *pb.Resource_Pool:
		return v.Pool.GetMetadata()
	case *pb.Resource_Image:
		return v.Image.GetMetadata()
	case *pb.Resource_FenceTarget:
		return v.FenceTarget.GetMetadata()
	case *pb.Resource_Trigger:
		return v.Trigger.GetMetadata()
	case *pb.Resource_Host:
		return v.Host.GetMetadata()
	case *pb.Resource_RoleBinding:
		return v.RoleBinding.GetMetadata()
	case *pb.Resource_Scenario:
		return v.Scenario.GetMetadata()
	default:
		return nil
	}
}

// ResourceKey returns "plan/webshop".
func ResourceKey(r *pb.Resource) string {
	return string(KindOfResource(r)) + "/" + MetadataOf(r).GetName()
}
