package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/coordinator/state/demand"
	"github.com/hotspare/hotspare/internal/model"
)

// snapshotFormat numbers the layout of snapshots. A reader refuses a newer one.
const snapshotFormat = 1

// maxRecordBytes bounds one row of a snapshot.
const maxRecordBytes = 64 << 20

// WriteSnapshot writes the whole state as delimited protobuf: a header, the rows by table and key,
// and the digest of all that. The same state gives the same bytes on every member.
func (s *State) WriteSnapshot(w io.Writer) error {
	sw := &snapshotWriter{w: bufio.NewWriter(w), sum: sha256.New()}
	sw.write(&pb.SnapshotHeader{Format: snapshotFormat, Meta: s.meta})
	for h := range s.Hosts() {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Host{Host: h}})
	}
	for r := range s.Resources("") {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Resource{Resource: r}})
	}
	for l := range s.Leases() {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Lease{Lease: l}})
	}
	for o := range s.Objects() {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Object{Object: o}})
	}
	for f := range s.failovers.all() {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Failover{Failover: f}})
	}
	for t := range s.tokens.all() {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Token{Token: t}})
	}
	for r := range s.requestAge.all() {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Request{Request: r}})
	}
	for e := range s.Evidence(0) {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Evidence{Evidence: e}})
	}
	if s.guarantee != nil {
		sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Guarantee{Guarantee: s.guarantee}})
	}
	digest := sw.sum.Sum(nil)
	sw.write(&pb.SnapshotRecord{Record: &pb.SnapshotRecord_Digest{Digest: digest}})
	if sw.err != nil {
		return fmt.Errorf("write snapshot: %w", sw.err)
	}
	return sw.w.Flush()
}

type snapshotWriter struct {
	w   *bufio.Writer
	sum hash.Hash
	err error
}

func (w *snapshotWriter) write(m proto.Message) {
	if w.err != nil {
		return
	}
	opts := protodelim.MarshalOptions{MarshalOptions: proto.MarshalOptions{Deterministic: true}}
	var buf bytes.Buffer
	if _, w.err = opts.MarshalTo(&buf, m); w.err != nil {
		return
	}
	w.sum.Write(buf.Bytes())
	_, w.err = w.w.Write(buf.Bytes())
}

// ReadSnapshot reads what WriteSnapshot wrote. A truncated or damaged snapshot, or one of a newer
// format, is an error and gives no state.
func ReadSnapshot(r io.Reader) (*State, error) {
	sum := sha256.New()
	br := bufio.NewReader(r)
	read := func(m proto.Message) error {
		raw := &teeReader{br, sum}
		err := protodelim.UnmarshalOptions{MaxSize: maxRecordBytes}.UnmarshalFrom(raw, m)
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	var head pb.SnapshotHeader
	if err := read(&head); err != nil {
		return nil, fmt.Errorf("read snapshot: header: %w", err)
	}
	if head.GetFormat() != snapshotFormat {
		return nil, fmt.Errorf("read snapshot: format %d, this version reads %d: use a matching version of hotspare-coordinator",
			head.GetFormat(), snapshotFormat)
	}
	if head.GetMeta() == nil {
		return nil, errors.New("read snapshot: the header names no site: the file is damaged")
	}
	s := New()
	s.meta = head.GetMeta()
	for n := 1; ; n++ {
		want := sum.Sum(nil)
		var rec pb.SnapshotRecord
		if err := read(&rec); err != nil {
			return nil, fmt.Errorf("read snapshot: record %d: %w", n, err)
		}
		if d, ok := rec.GetRecord().(*pb.SnapshotRecord_Digest); ok {
			if !bytes.Equal(d.Digest, want) {
				return nil, errors.New("read snapshot: digest differs: the file is damaged; use another snapshot or another member's")
			}
			if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
				return nil, errors.New("read snapshot: something follows its end: the file is damaged")
			}
			if err := s.checkGuarantee(); err != nil {
				return nil, fmt.Errorf("read snapshot: %w", err)
			}
			return s, nil
		}
		if err := s.load(&rec); err != nil {
			return nil, fmt.Errorf("read snapshot: record %d: %w", n, err)
		}
	}
}

// load puts one row in its table.
func (s *State) load(rec *pb.SnapshotRecord) error {
	switch r := rec.GetRecord().(type) {
	case *pb.SnapshotRecord_Host:
		s.hosts.set(r.Host.GetName(), r.Host)
	case *pb.SnapshotRecord_Resource:
		s.resources.set(model.ResourceKey(r.Resource), r.Resource)
	case *pb.SnapshotRecord_Lease:
		s.leases.set(r.Lease.GetName(), r.Lease)
		s.lents.set(r.Lease.GetName(), &demand.Lent{Lease: r.Lease})
	case *pb.SnapshotRecord_Object:
		s.objects.set(r.Object.GetId(), r.Object)
		s.byAgent.set(r.Object.GetAgent()+"\x00"+r.Object.GetId(), r.Object)
	case *pb.SnapshotRecord_Failover:
		s.failovers.set(r.Failover.GetName(), r.Failover)
	case *pb.SnapshotRecord_Token:
		s.tokens.set(hex.EncodeToString(r.Token.GetHash()), r.Token)
	case *pb.SnapshotRecord_Request:
		s.requests.set(r.Request.GetRequestId(), r.Request)
		s.requestAge.set(sortable(r.Request.GetIndex()), r.Request)
	case *pb.SnapshotRecord_Evidence:
		s.evidence.set(sortable(r.Evidence.GetSequence()), r.Evidence)
	case *pb.SnapshotRecord_Guarantee:
		s.guarantee = r.Guarantee
	default:
		return errors.New("a kind of row that this version does not know")
	}
	return nil
}

// teeReader feeds what is read through it to a hash.
type teeReader struct {
	r   *bufio.Reader
	sum hash.Hash
}

func (t *teeReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.sum.Write(p[:n])
	return n, err
}

func (t *teeReader) ReadByte() (byte, error) {
	b, err := t.r.ReadByte()
	if err == nil {
		t.sum.Write([]byte{b})
	}
	return b, err
}
