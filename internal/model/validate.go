package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// FieldError is one fault of a declared resource.
type FieldError struct {
	// Path of the field as manifests name it: "spec.workloads[1].dependsOn[0]".
	Path string
	// What is wrong and what would be right, lower case.
	Message string
}

// ValidateResource checks everything about a resource that needs nothing but the resource itself.
// Whether what it names exists, and whether it fits, is checked where the whole state is known. The
// CLI calls it for line numbers, the server because clients need not be ours.
func ValidateResource(r *pb.Resource) []FieldError {
	kind := KindOfResource(r)
	if kind == "" {
		return []FieldError{{Path: "", Message: "the resource is empty"}}
	}
	c := &checker{}
	c.metadata(MetadataOf(r))
	switch v := r.GetResource().(type) {
	case *pb.Resource_Plan:
		c.plan(v.Plan.GetMetadata().GetName(), v.Plan.GetSpec())
	case *pb.Resource_Project:
		c.project(v.Project.GetSpec())
	case *pb.Resource_Network:
		c.network(v.Network.GetSpec())
	case *pb.Resource_Pool:
		c.pool(v.Pool.GetSpec())
	case *pb.Resource_Image:
		c.image(v.Image.GetSpec())
	case *pb.Resource_FenceTarget:
		c.name("spec.agent", v.FenceTarget.GetSpec().GetAgent(), "agent")
	case *pb.Resource_Trigger:
		c.trigger(v.Trigger.GetSpec())
	case *pb.Resource_Host:
		c.hostPolicy(v.Host.GetSpec())
	case *pb.Resource_RoleBinding:
		c.roleBinding(v.RoleBinding.GetSpec())
	case *pb.Resource_Scenario:
		c.scenario(v.Scenario.GetSpec())
	}
	return c.faults
}

// maxFieldErrors bounds the answer for one resource; what is beyond would not be read.
const maxFieldErrors = 50

// checker collects faults.
type checker struct{ faults []FieldError }

func (c *checker) add(path, format string, args ...any) {
	if len(c.faults) < maxFieldErrors {
		c.faults = append(c.faults, FieldError{Path: path, Message: fmt.Sprintf(format, args...)})
	}
}

// maxLabels bounds the labels of one resource.
const maxLabels = 32

func (c *checker) metadata(m *pb.Metadata) {
	c.name("metadata.name", m.GetName(), "name")
	if len(m.GetLabels()) > maxLabels {
		c.add("metadata.labels", "%d labels, at most %d", len(m.GetLabels()), maxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(m.GetLabels())) {
		v := m.GetLabels()[k]
		if !labelKey(k) {
			c.add("metadata.labels."+k, "a label's key has 1 to 63 letters, digits, '.', '_', '/' and '-'")
		}
		if len(v) > 63 {
			c.add("metadata.labels."+k, "a label's value has at most 63 bytes, this one %d", len(v))
		}
	}
}

// lowerDigits are the letters and digits of names.
const lowerDigits = "abcdefghijklmnopqrstuvwxyz0123456789"

func labelKey(k string) bool {
	if k == "" || len(k) > 63 {
		return false
	}
	return strings.Trim(k, lowerDigits+"ABCDEFGHIJKLMNOPQRSTUVWXYZ._/-") == ""
}

// ValidName says whether a name is an RFC 1123 label: 1 to 63 of a-z, 0-9 and '-', not beginning or
// ending with '-'. Names of resources, hosts, workloads, volumes and leases all are.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, lowerDigits+"-") == ""
}

// name checks a required name; what says what it names.
func (c *checker) name(path, s, what string) bool {
	switch {
	case s == "":
		c.add(path, "the %s is missing", what)
	case !ValidName(s):
		c.add(path, "%s %q is not a name: 1 to 63 of a-z, 0-9 and '-', not at the ends", what, s)
	default:
		return true
	}
	return false
}

// required checks that a text is there.
func (c *checker) required(path, s, what string) {
	if s == "" {
		c.add(path, "the %s is missing", what)
	}
}

// oneOf checks a word against the allowed ones.
func (c *checker) oneOf(path, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		c.add(path, "is %q, want %s", s, strings.Join(allowed, " or "))
	}
}

// positive checks a duration that may be left out but not be zero, negative or out of range.
func (c *checker) positive(path string, d *durationpb.Duration) {
	if d != nil && (d.CheckValid() != nil || d.AsDuration() <= 0) {
		c.add(path, "must be longer than zero")
	}
}

// unique checks a list of names: each one valid and only once.
func (c *checker) unique(path string, names []string, what string) {
	seen := map[string]bool{}
	for i, s := range names {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !c.name(at, s, what) {
			continue
		}
		if seen[s] {
			c.add(at, "%s %q is listed twice", what, s)
		}
		seen[s] = true
	}
}
