// Package evidence computes and checks the hash chain of the log of decisions. It is pure: state calls it
// in apply, and whoever has an export can check it offline.
package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// ChainHash returns the hash of an entry that follows the entry with hash prev. Every field but the two
// hashes goes in, each after its length, so that no two entries give the same bytes.
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

// VerifyChain checks consecutive entries and returns the hash of the last, to be compared with an anchor
// or with the site's own. A chain from the first entry must begin with no previous hash; what came before
// a later one cannot be checked here. No entries: no hash, no error.
func VerifyChain(entries []*pb.Evidence) (last []byte, err error) {
	for i, e := range entries {
		switch {
		case e.GetSequence() == 0:
			return nil, fmt.Errorf("verify evidence: entry %d of the list has no sequence number", i)
		case i > 0 && e.GetSequence() != entries[i-1].GetSequence()+1:
			return nil, fmt.Errorf("verify evidence: entry %d is followed by %d", entries[i-1].GetSequence(), e.GetSequence())
		case i > 0 && !bytes.Equal(e.GetPreviousHash(), last), e.GetSequence() == 1 && len(e.GetPreviousHash()) > 0:
			return nil, fmt.Errorf("verify evidence: entry %d does not follow the one before it", e.GetSequence())
		case len(e.ProtoReflect().GetUnknown()) > 0:
			return nil, fmt.Errorf("verify evidence: entry %d has fields that its hash does not cover (is it from a newer version?)", e.GetSequence())
		case !bytes.Equal(e.GetHash(), ChainHash(e.GetPreviousHash(), e)):
			return nil, fmt.Errorf("verify evidence: entry %d was changed: its hash differs", e.GetSequence())
		}
		last = e.GetHash()
	}
	return last, nil
}
