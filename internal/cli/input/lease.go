package input

import (
	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/model"
)

// LeaseFlags are the flags that ask for a lease.
type LeaseFlags struct {
	Project, VM, Image, CloneOf, OnPreempt, Class, UserData string
	Term, Grace, At                                         string
	SSHKeys                                                 []string
	Queue                                                   bool
}

// Lease reads what is asked for. The request has no id yet.
func Lease(f LeaseFlags) (*pb.CreateLeaseRequest, error) {
	class, ok := map[string]pb.LeaseClass{
		"preemptible": pb.LeaseClass_LEASE_CLASS_PREEMPTIBLE, "firm": pb.LeaseClass_LEASE_CLASS_FIRM,
	}[f.Class]
	if !ok {
		return nil, outcome.Usagef("--class %q is not preemptible or firm", f.Class)
	}
	if f.Project == "" {
		return nil, outcome.Usagef("say for which project: -p PROJECT")
	}
	if f.Image == "" && f.CloneOf == "" {
		return nil, outcome.Usagef("say what to start from: --image IMAGE or --clone-of PLAN/WORKLOAD")
	}
	s := &pb.LeaseSpec{Image: f.Image, CloneOf: f.CloneOf}
	r := &pb.CreateLeaseRequest{Project: f.Project, Spec: s, Class: class, Queue: f.Queue}
	var err error
	if s.Count, s.Resources, err = VM(f.VM); err != nil {
		return nil, err
	}
	if f.OnPreempt != "" {
		if s.OnPreempt, ok = model.ParseReclaimAction(f.OnPreempt); !ok {
			return nil, outcome.Usagef("--on-preempt %q is not save, shutdown or discard", f.OnPreempt)
		}
	}
	if f.Term == "" {
		return nil, outcome.Usagef("say for how long: --term 8h")
	}
	if s.Term, err = Duration("--term", f.Term); err != nil {
		return nil, err
	}
	if s.Grace, err = Duration("--grace", f.Grace); err != nil {
		return nil, err
	}
	if s.SshKeys, err = SSHKeys(f.SSHKeys); err != nil {
		return nil, err
	}
	if f.UserData != "" {
		if s.UserData, err = UserData(f.UserData); err != nil {
			return nil, err
		}
	}
	r.StartAt, err = Time("--at", f.At)
	return r, err
}
