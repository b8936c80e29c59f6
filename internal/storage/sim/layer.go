package sim

import (
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

// layer is one copy-on-write layer. Only the layer that is exported is written.
type layer struct {
	number uint64
	// base is the layer below whose content shows through; nil for a layer that stands alone.
	base *layer
	// sync is the synchronisation that wrote it; 0 for the layers of promotions and clones.
	sync      uint64
	converged bool
	// at is when it was known to have converged.
	at time.Time
	// disk holds what was written when no mirror ever wrote here; link is that mirror.
	disk journal
	link *link
}

func (l *layer) content(now time.Time) Content {
	if l.link != nil {
		return l.link.content(now)
	}
	return Content{Records: l.disk.at(now)}
}

func (l *layer) name() string { return strconv.FormatUint(l.number, 10) }

// volume is one volume of a pool.
type volume struct {
	name  string
	size  uint64
	state pb.State
	// sync is the newest synchronisation that was ever allowed to write.
	sync uint64
	// layers are kept oldest first.
	layers []*layer
	// top is what the export shows: the receiving, promoted or private layer; nil: nothing.
	top *layer
	// origin is the layer of another volume that a clone stands on, and of its name.
	origin *layer
	of     string
	// idle is since when a replica waits for a higher number; zero: it does not.
	idle time.Time
	// disk is the path of the disk that the newest point is handed over to on promotion, and given the
	// layer that was.
	disk  string
	given *layer
	// lost is since when the mirror is known to have ended with the pool's daemon.
	lost time.Time
	// back is the mirror of a promoted volume to another pool.
	back *wayBack
}

// point is the newest consistent layer, or nil.
func (v *volume) point() *layer {
	if v.origin != nil {
		return v.origin
	}
	if v.given != nil {
		return v.given
	}
	for _, l := range slices.Backward(v.layers) {
		if l.converged {
			return l
		}
	}
	return nil
}

// exportName is the name under which the top layer is reachable.
func (v *volume) exportName() string {
	if v.state == pb.State_STATE_REPLICA {
		return storage.SyncExport(v.name, v.sync)
	}
	return v.name
}

// exports says whether the top may be written to from outside.
func (v *volume) exports() bool { return v.top != nil && (v.back == nil || !v.back.sealed) }

// add makes a new top layer.
func (v *volume) add(number uint64, base *layer) *layer {
	l := &layer{number: number, base: base}
	if base != nil {
		l.disk.records = base.content(time.Now()).Records
	}
	v.layers = append(v.layers, l)
	v.top = l
	return l
}

// cut ends the mirror into the top layer.
func (v *volume) cut(now time.Time) {
	if v.top != nil && v.top.link != nil {
		v.top.link.sever(now)
	}
}

// mark notes that a synchronisation has converged.
func (v *volume) mark(converged uint64, now time.Time) {
	if converged != 0 && v.top != nil && v.top.sync == converged && !v.top.converged {
		v.top.converged, v.top.at = true, now
	}
}

// freeze keeps the top layer as it is and lets writes go on in a new one above it.
func (v *volume) freeze(number uint64, now time.Time) *layer {
	frozen := v.top
	top := v.add(number, frozen)
	top.sync, top.converged, top.at = frozen.sync, frozen.converged, frozen.at
	if old := frozen.link; old != nil {
		frozen.disk = journal{records: old.content(now).Records}
		frozen.link, top.link = nil, old
	}
	return frozen
}

// drop forgets the layers that are no longer needed: those that neither the export, nor the newest
// point, nor a clone stands on.
func (v *volume) drop(clones []*layer) {
	needed := map[*layer]bool{}
	for _, l := range append(clones, v.top, v.point()) {
		for ; l != nil; l = l.base {
			needed[l] = true
		}
	}
	kept := v.layers[:0:0]
	for _, l := range v.layers {
		if needed[l] {
			kept = append(kept, l)
		}
	}
	v.layers = kept
}

// status is what Inspect shows.
func (v *volume) status(address string) *pb.VolumeStatus {
	s := &pb.VolumeStatus{Layers: uint32(len(v.layers)), Resync: v.sync}
	if l := v.point(); l != nil {
		s.Point = &pb.ConsistentPoint{Time: timestamppb.New(l.at), Layer: l.name()}
	}
	if v.exports() {
		s.Export = "nbd://" + address + "/" + v.name
	}
	switch {
	case !v.idle.IsZero():
		s.DegradedSince = timestamppb.New(v.idle)
		s.DegradedReason = "nothing may write until a new synchronisation is asked for"
	case !v.lost.IsZero():
		s.DegradedSince = timestamppb.New(v.lost)
		s.DegradedReason = "the storage daemon died, and the mirror with it"
	}
	if v.back != nil {
		v.back.report(s, time.Now())
	}
	s.UsedBytes = v.size * uint64(len(v.layers))
	return s
}
