package model

import (
	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// ResourceKinds lists the kinds of declared resources in the order in which apply stores them.
func ResourceKinds() []string {
	return []string{"network", "pool", "image", "fencetarget", "host", "rolebinding", "project", "plan", "trigger"}
}

// ResourceKind returns the word for the kind of a resource ("plan"), or "" when it is empty.
func ResourceKind(r *pb.Resource) string {
	switch r.GetResource().(type) {
	case *pb.Resource_Plan:
		return "plan"
	case *pb.Resource_Project:
		return "project"
	case *pb.Resource_Network:
		return "network"
	case *pb.Resource_Pool:
		return "pool"
	case *pb.Resource_Image:
		return "image"
	case *pb.Resource_FenceTarget:
		return "fencetarget"
	case *pb.Resource_Trigger:
		return "trigger"
	case *pb.Resource_Host:
		return "host"
	case *pb.Resource_RoleBinding:
		return "rolebinding"
	default:
		return ""
	}
}

// MetadataOf returns the metadata of a resource, or nil.
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
	default:
		return nil
	}
}

// ResourceKey returns "kind/name", for example "plan/webshop".
func ResourceKey(r *pb.Resource) string { return ResourceKind(r) + "/" + MetadataOf(r).GetName() }
