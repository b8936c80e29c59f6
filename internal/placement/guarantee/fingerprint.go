package guarantee

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
)

// Fingerprint tells sites apart that need different certificates. Preemptible instances are not in it, since
// whether the plans fit does not depend on them, and neither is how fast a host saves.
func (s *Site) Fingerprint() []byte {
	f := &fingerprint{sum: sha256.New()}
	f.num(int64(len(s.Dimensions)))
	for _, d := range s.Dimensions {
		f.text(d)
	}
	f.num(int64(len(s.Hosts)))
	for i := range s.Hosts {
		h := &s.Hosts[i]
		f.text(h.Name)
		f.text(h.FailureDomain)
		f.num(int64(h.State))
		f.nums(h.Capacity)
		f.nums(h.Lending)
		f.texts(h.Labels)
		f.texts(h.Networks)
		f.texts(h.Pools)
	}
	f.num(int64(len(s.Workloads)))
	for i := range s.Workloads {
		f.workload(&s.Workloads[i])
	}
	f.num(int64(len(s.Firm)))
	for i := range s.Firm {
		f.text(s.Firm[i].Object)
		f.text(s.Firm[i].Host)
		f.nums(s.Firm[i].Demand)
	}
	asked := s.Asked()
	f.num(int64(len(asked)))
	for _, sc := range asked {
		f.text(sc.Name)
		f.num(int64(sc.Hosts))
		f.num(int64(sc.FailureDomains))
		if sc.Plans == nil {
			f.num(-1) // All of them, which is not the same as none.
			continue
		}
		f.texts(sc.Plans)
	}
	f.flush()
	return f.sum.Sum(nil)
}

type fingerprint struct {
	sum hash.Hash
	buf []byte
}

func (f *fingerprint) workload(w *Workload) {
	f.text(w.Name)
	f.text(w.Plan)
	f.num(int64(w.Rank))
	f.nums(w.Demand)
	f.texts(w.Labels)
	f.texts(w.Networks)
	f.texts(w.Pools)
	f.num(int64(len(w.Apart)))
	for _, a := range w.Apart {
		f.text(a.Group)
		domain := int64(0)
		if a.Domain {
			domain = 1
		}
		f.num(domain)
	}
	f.text(w.Together)
	f.text(w.Host)
	f.num(int64(w.Budget))
}

func (f *fingerprint) num(n int64) { f.buf = binary.AppendVarint(f.buf, n) }

// nums leaves out zeros at the end: a vector that ends early has zeros there.
func (f *fingerprint) nums(v Vector) {
	for len(v) > 0 && v[len(v)-1] == 0 {
		v = v[:len(v)-1]
	}
	f.num(int64(len(v)))
	for _, n := range v {
		f.num(n)
	}
}

func (f *fingerprint) text(s string) {
	f.buf = append(binary.AppendUvarint(f.buf, uint64(len(s))), s...)
	if len(f.buf) > 1<<12 {
		f.flush()
	}
}

// texts are a set: their order says nothing.
func (f *fingerprint) texts(list []string) {
	if !slices.IsSorted(list) {
		list = slices.Sorted(slices.Values(list))
	}
	f.num(int64(len(list)))
	for _, s := range list {
		f.text(s)
	}
}

func (f *fingerprint) flush() {
	f.sum.Write(f.buf)
	f.buf = f.buf[:0]
}
