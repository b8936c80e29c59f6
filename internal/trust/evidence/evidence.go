// Package evidence computes and checks the hash chain of the log of decisions.
package evidence

import (
	"crypto/sha256"
	"encoding/binary"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// ChainHash returns the hash of an entry that follows the entry with hash prev.
func ChainHash(prev []byte, e *pb.Evidence) []byte {
	h := sha256.New()
	field := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	num := func(v uint64) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], v)
		field(n[:])
	}
	field(prev)
	num(e.GetSequence())
	num(uint64(e.GetTime().AsTime().UnixNano()))
	for _, s := range []string{e.GetActor(), e.GetAction(), e.GetObject(), e.GetReason()} {
		field([]byte(s))
	}
	num(e.GetEpoch())
	return h.Sum(nil)
}
