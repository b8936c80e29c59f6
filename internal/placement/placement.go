// Package placement decides what fits where: it proves that every recovery plan fits with hosts lost
// on top, admits leases under that proof, and chooses who goes when a failover is declared. It is
// pure: plain data in, a decision with its certificate out.
//
// This is the first admission check behind the interface that stays: first-fit decreasing for every
// loss of one host. It may answer "not proven" where a better search would find a placement, and it
// never answers "fits" without a placement in hand. It must never change what it is given.
//
// The RPC handlers and the failover controller call it.
package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/hotspare/hotspare/internal/model"
)

// Host is room for VMs.
type Host struct {
	Name          string
	FailureDomain string
	// VCPUs after overcommit and MemoryBytes after the reserve and foreign domains.
	VCPUs, MemoryBytes uint64
	// OverheadBytes is what each guest costs beyond its own memory.
	OverheadBytes uint64
	// Usable is false for a host that is cordoned, quarantined or down.
	Usable bool
	// Networks that the host reaches.
	Networks []string
}

// VM is a demand: a workload's instance or a lent instance.
type VM struct {
	// Name is "plan/workload" for a workload, the lease's name for a lent instance.
	Name        string
	Object      string
	VCPUs       uint64
	MemoryBytes uint64
	// Group: no two VMs of one group on one host; empty: none.
	Group    string
	Networks []string
	Rank     uint32
	// Host is where it runs or is kept for; empty: nowhere yet.
	Host string
	// Cost of preempting a lent instance; smaller goes first.
	Cost uint64
	// Held: preempted already. It holds no room now, but comes back to it.
	Held bool
}

// Site is everything that a decision looks at.
type Site struct {
	Hosts []Host
	// Protected are the workloads of all plans; those with a host run in an open failover and stay.
	Protected []VM
	// Firm instances survive every scenario; Preemptible ones can all be taken back.
	Firm, Preemptible []VM
}

// Answer is one of the three that the guarantee knows.
type Answer int

// The answers. NotProven means that the search gave up, not that it cannot fit.
const (
	Fits Answer = iota + 1
	CannotFit
	NotProven
)

// Certificate is a placement for the site as it is, and one for each loss of a host.
type Certificate struct {
	// Witness maps each workload to its host when nothing is lost.
	Witness map[string]string
	// Losses is how many lost hosts are survived: 0 or 1.
	Losses int
}

// Decision is an answer with what backs it.
type Decision struct {
	Answer      Answer
	Certificate Certificate
	// Reason says what is missing when the answer is not Fits for one lost host.
	Reason string
}

// Prove looks for a placement of all workloads with no host lost, and with each one lost in turn.
func Prove(s Site) Decision {
	witness, missing := pack(s, "")
	if missing != "" {
		return Decision{Answer: answerFor(s, ""), Reason: missing}
	}
	d := Decision{Answer: Fits, Certificate: Certificate{Witness: witness, Losses: 1}}
	for _, h := range s.Hosts {
		if !h.Usable && !carries(s, h.Name) {
			continue
		}
		if _, missing := pack(s, h.Name); missing != "" {
			d.Certificate.Losses = 0
			d.Reason = fmt.Sprintf("without host %s: %s", h.Name, missing)
			return d
		}
	}
	return d
}

// carries says whether a workload runs on a host: one that takes nothing new can be lost all the same.
func carries(s Site, host string) bool {
	return slices.ContainsFunc(s.Protected, func(v VM) bool { return v.Host == host })
}

// answerFor tells what no search can place (the sum is too large) from what this one did not.
func answerFor(s Site, lost string) Answer {
	var roomCPU, roomMemory, needCPU, needMemory uint64
	for _, h := range s.Hosts {
		if h.Usable && h.Name != lost {
			roomCPU += h.VCPUs
			roomMemory = add(roomMemory, h.MemoryBytes)
		}
	}
	for _, v := range s.Protected {
		needCPU += v.VCPUs
		needMemory = add(needMemory, v.MemoryBytes)
	}
	if needCPU > roomCPU || needMemory > roomMemory {
		return CannotFit
	}
	return NotProven
}

type room struct {
	host        Host
	cpu, memory uint64
	groups      []string
	// overfull: more was added than there was room for.
	overfull bool
}

// reaches says whether the host has every network that the VM needs.
func (r *room) reaches(v VM) bool {
	return !slices.ContainsFunc(v.Networks, func(n string) bool { return !slices.Contains(r.host.Networks, n) })
}

func (r *room) takes(v VM) bool {
	return r.reaches(v) && v.VCPUs <= r.cpu && v.MemoryBytes <= r.memory && r.host.OverheadBytes <= r.memory-v.MemoryBytes &&
		(v.Group == "" || !slices.Contains(r.groups, v.Group))
}

func (r *room) add(v VM) {
	r.overfull = r.overfull || v.VCPUs > r.cpu || v.MemoryBytes > r.memory || r.host.OverheadBytes > r.memory-v.MemoryBytes
	r.cpu = sub(r.cpu, v.VCPUs)
	r.memory = sub(sub(r.memory, v.MemoryBytes), r.host.OverheadBytes)
	if v.Group != "" {
		r.groups = append(r.groups, v.Group)
	}
}

func sub(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// add stops at the largest number, so that absurd demands never look small.
func add(a, b uint64) uint64 {
	if s := a + b; s >= a {
		return s
	}
	return math.MaxUint64
}

func rooms(s Site, lost string, resident ...[]VM) []*room {
	var out []*room
	for _, h := range s.Hosts {
		if h.Usable && h.Name != lost {
			out = append(out, &room{host: h, cpu: h.VCPUs, memory: h.MemoryBytes})
		}
	}
	for _, vms := range resident {
		for _, v := range vms {
			if i := slices.IndexFunc(out, func(r *room) bool { return r.host.Name == v.Host }); i >= 0 && v.Host != "" {
				out[i].add(v)
			}
		}
	}
	return out
}

// largestFirst orders demands for packing: large before small, then by name so that it is repeatable.
func largestFirst(vms []VM) []VM {
	out := slices.Clone(vms)
	slices.SortStableFunc(out, func(a, b VM) int {
		return cmp.Or(cmp.Compare(b.MemoryBytes, a.MemoryBytes), cmp.Compare(b.VCPUs, a.VCPUs), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// pack places all workloads; what runs stays unless its host is lost. missing names the first that does not fit.
func pack(s Site, lost string) (witness map[string]string, missing string) {
	rs := rooms(s, lost, s.Firm, s.Protected)
	if i := slices.IndexFunc(rs, func(r *room) bool { return r.overfull }); i >= 0 {
		return nil, fmt.Sprintf("host %s runs more than it has", rs[i].host.Name)
	}
	witness = map[string]string{}
	for _, v := range largestFirst(s.Protected) {
		if v.Host != "" && v.Host != lost {
			witness[v.Name] = v.Host
			continue
		}
		r := emptiest(rs, v)
		if r == nil {
			return nil, fmt.Sprintf("%s (%d vcpus, %s) fits on no host", v.Name, v.VCPUs, model.Bytes(v.MemoryBytes))
		}
		r.add(v)
		witness[v.Name] = r.host.Name
	}
	return witness, ""
}

// emptiest returns the host with the most memory left that takes the VM; nil when none does.
func emptiest(rs []*room, v VM) *room {
	var best *room
	for _, r := range rs {
		if r.takes(v) && (best == nil || r.memory > best.memory) {
			best = r
		}
	}
	return best
}

// Admission is where the instances of a lease may go, in the order in which they were asked for.
type Admission struct {
	Hosts []string
}

// AdmitPreemptible places lent instances where there is room now, first where no witness needs it.
// They change nothing in the proof: they can all be taken back. The error says what would be accepted.
func AdmitPreemptible(s Site, proof Decision, want []VM) (Admission, error) {
	if proof.Answer != Fits {
		return Admission{}, model.Errorf(model.FaultNoFit, "", "the recovery plans do not fit: %s", proof.Reason).
			WithRemedy("the site lends nothing until they do")
	}
	rs := rooms(s, "", s.Firm, s.Preemptible, running(s.Protected))
	spare := rooms(s, "", s.Firm, s.Preemptible, placed(s.Protected, proof.Certificate.Witness))
	var out Admission
	for _, v := range want {
		r := leastDisturbing(rs, spare, v)
		if r < 0 {
			return Admission{}, noRoom(rs, v, len(out.Hosts), len(want))
		}
		rs[r].add(v)
		spare[r].add(v)
		out.Hosts = append(out.Hosts, rs[r].host.Name)
	}
	return out, nil
}

func running(vms []VM) []VM {
	return slices.DeleteFunc(slices.Clone(vms), func(v VM) bool { return v.Host == "" })
}

// placed puts every workload where the witness has it.
func placed(vms []VM, witness map[string]string) []VM {
	out := slices.Clone(vms)
	for i := range out {
		out[i].Host = witness[out[i].Name]
	}
	return out
}

// leastDisturbing prefers a host on which the VM fits beside the witness, then the emptiest.
func leastDisturbing(rs, spare []*room, v VM) int {
	best, bestQuiet := -1, false
	for i, r := range rs {
		if !r.takes(v) {
			continue
		}
		quiet := spare[i].takes(v)
		if best < 0 || quiet && !bestQuiet || quiet == bestQuiet && r.memory > rs[best].memory {
			best, bestQuiet = i, quiet
		}
	}
	return best
}

// noRoom says what would have been accepted.
func noRoom(rs []*room, v VM, done, wanted int) error {
	var cpu, memory uint64
	reached := false
	for _, r := range rs {
		if !r.reaches(v) {
			continue
		}
		reached = true
		if m := sub(r.memory, r.host.OverheadBytes); m > memory {
			cpu, memory = r.cpu, m
		}
	}
	e := model.Errorf(model.FaultNoFit, "", "VM %d of %d (%d vcpus, %s) fits on no host now",
		done+1, wanted, v.VCPUs, model.Bytes(v.MemoryBytes))
	if !reached {
		return e.WithRemedy("no usable host reaches the networks %v", v.Networks)
	}
	if memory == 0 || cpu == 0 {
		return e.WithRemedy("no host has room; try again later")
	}
	return e.WithRemedy("the most free on one host is %d vcpus, %s", cpu, model.Bytes(memory))
}

// AdmitFirm places instances that survive every scenario: only where the proof holds with them.
func AdmitFirm(s Site, want []VM) (Admission, error) {
	var out Admission
	for i, v := range want {
		ok := false
		for _, r := range rooms(s, "", s.Firm, s.Preemptible, running(s.Protected)) {
			if !r.takes(v) {
				continue
			}
			v.Host = r.host.Name
			trial := s
			trial.Firm = append(slices.Clone(s.Firm), v)
			if d := Prove(trial); d.Answer == Fits && d.Certificate.Losses > 0 {
				s, ok = trial, true
				out.Hosts = append(out.Hosts, v.Host)
				break
			}
		}
		if !ok {
			return Admission{}, model.Errorf(model.FaultNoFit, "", "VM %d of %d: no host can hold it for good beside the recovery plans", i+1, len(want)).
				WithRemedy("a preemptible lease may be admitted")
		}
	}
	return out, nil
}
