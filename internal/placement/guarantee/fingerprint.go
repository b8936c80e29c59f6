package guarantee

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Sum stands for a part of a site, as far as a proof depends on it: other parts have other sums.
type Sum [sha256.Size]byte

// Fingerprint tells sites apart that need different certificates, by the sums of their hosts, workloads and firm
// instances. Preemptible instances are not in it, since whether the plans fit does not depend on them, and neither
// is how fast a host saves.
func Fingerprint(dimensions []string, hosts, workloads, firm Sum, asked []Scenario) []byte {
	var f fingerprint
	f = f.num(len(dimensions))
	for _, d := range dimensions {
		f = f.text(d)
	}
	f = append(append(append(f, hosts[:]...), workloads[:]...), firm[:]...)
	f = f.num(len(asked))
	for _, sc := range asked {
		f = f.text(sc.Name).num(sc.Hosts).num(sc.FailureDomains)
		if sc.Plans == nil {
			f = f.num(-1) // All of them, which is not the same as none.
			continue
		}
		f = f.texts(sc.Plans)
	}
	sum := f.sum()
	return sum[:]
}

// SumOf is the sum of a list.
func SumOf(parts []Sum) Sum {
	all := sha256.New()
	for i := range parts {
		all.Write(parts[i][:])
	}
	return Sum(all.Sum(nil))
}

// Sum of a host with what a proof may put there.
func (h *Host) Sum() Sum {
	return fingerprint(nil).text(h.Name).text(h.FailureDomain).num(int(h.State)).nums(h.Capacity).nums(h.Lending).texts(h.Labels).texts(h.Networks).texts(h.Pools).sum()
}

// Sum of a workload with what it asks for.
func (w *Workload) Sum() Sum {
	f := fingerprint(nil).text(w.Name).text(w.Plan).num(int(w.Rank)).nums(w.Demand).texts(w.Labels).texts(w.Networks).texts(w.Pools).num(len(w.Apart))
	for _, a := range w.Apart {
		domain := 0
		if a.Domain {
			domain = 1
		}
		f = f.text(a.Group).num(domain)
	}
	return f.text(w.Together).text(w.Host).num(int(w.Budget)).sum()
}

// Sum of a firm instance with what it holds.
func (i *Instance) Sum() Sum {
	return fingerprint(nil).text(i.Object).text(i.Host).nums(i.Demand).sum()
}

// fingerprint is what a sum is taken of. No two parts write the same.
type fingerprint []byte

func (f fingerprint) num(n int) fingerprint { return binary.AppendVarint(f, int64(n)) }

// nums leaves out zeros at the end: a vector that ends early has zeros there.
func (f fingerprint) nums(v Vector) fingerprint {
	for len(v) > 0 && v[len(v)-1] == 0 {
		v = v[:len(v)-1]
	}
	f = f.num(len(v))
	for _, n := range v {
		f = binary.AppendVarint(f, n)
	}
	return f
}

func (f fingerprint) text(s string) fingerprint {
	return append(binary.AppendUvarint(f, uint64(len(s))), s...)
}

// texts are a set: their order says nothing.
func (f fingerprint) texts(list []string) fingerprint {
	if !slices.IsSorted(list) {
		list = slices.Sorted(slices.Values(list))
	}
	f = f.num(len(list))
	for _, s := range list {
		f = f.text(s)
	}
	return f
}

func (f fingerprint) sum() Sum { return sha256.Sum256(f) }
