package model

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// OrderKey says which order of an object is held: what an agent and its coordinator compare (R8).
type OrderKey struct {
	Object     ObjectID
	Era        uint64
	Generation uint64
}

// Compare orders two keys of one object by (era, generation): negative when a is older than b.
func (a OrderKey) Compare(b OrderKey) int {
	return cmp.Or(cmp.Compare(a.Era, b.Era), cmp.Compare(a.Generation, b.Generation))
}

// OrdersDigest returns the digest of a set of held orders. An agent sends it in Hello; when the
// leader computes the same from what it would order, nothing needs to be sent again. The order of
// the keys does not matter, and the argument is not changed.
func OrdersDigest(keys []OrderKey) []byte {
	sorted := slices.Clone(keys)
	slices.SortFunc(sorted, func(a, b OrderKey) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), a.Compare(b))
	})
	h := sha256.New()
	var number [8]byte
	for _, k := range sorted {
		binary.BigEndian.PutUint64(number[:], uint64(len(k.Object)))
		h.Write(number[:])
		h.Write([]byte(k.Object))
		binary.BigEndian.PutUint64(number[:], k.Era)
		h.Write(number[:])
		binary.BigEndian.PutUint64(number[:], k.Generation)
		h.Write(number[:])
	}
	return h.Sum(nil)
}
