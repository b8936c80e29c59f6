package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fault"
	"github.com/hotspare/hotspare/internal/sdn"
)

// ErrRefused is returned to clients whose key the server does not know.
var ErrRefused = errors.New("key refused by the server")

// recordKey names one set of records.
type recordKey struct{ zone, name, kind string }

// Zone is a simulated authoritative DNS server for one or more zones.
type Zone struct {
	*fault.Faults
	key   string
	zones []string

	mu sync.Mutex
	// The rest is guarded by mu.
	records map[recordKey]*pb.EndpointValue
	// away is closed when the server comes back; nil while it answers.
	away chan struct{}
}

// NewZone makes a server that serves the named zones to clients with this key.
func NewZone(key string, zones ...string) *Zone {
	return &Zone{Faults: &fault.Faults{}, key: key, zones: zones, records: map[recordKey]*pb.EndpointValue{}}
}

// SetByHand is somebody else's hand: it sets a record whatever it was. No values delete it.
func (z *Zone) SetByHand(record *pb.DnsRecord) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.set(record, &pb.EndpointValue{Values: record.GetValues(), Ttl: record.GetTtl()})
}

// Lookup returns what a resolver would see; nil when the record does not exist.
func (z *Zone) Lookup(zone, name, kind string) *pb.EndpointValue {
	z.mu.Lock()
	defer z.mu.Unlock()
	v := z.records[recordKey{zone, name, kind}]
	if v == nil {
		return nil
	}
	return proto.CloneOf(v)
}

// SetAway makes the server unreachable, or reachable again. Meanwhile calls wait for it.
func (z *Zone) SetAway(away bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	switch {
	case away && z.away == nil:
		z.away = make(chan struct{})
	case !away && z.away != nil:
		close(z.away)
		z.away = nil
	}
}

// set stores a value; mu is held.
func (z *Zone) set(record *pb.DnsRecord, v *pb.EndpointValue) {
	key := keyOf(record)
	if len(v.GetValues()) == 0 {
		delete(z.records, key)
		return
	}
	z.records[key] = proto.CloneOf(v)
}

// get returns a copy of a value, empty when the record does not exist; mu is held.
func (z *Zone) get(record *pb.DnsRecord) *pb.EndpointValue {
	if v := z.records[keyOf(record)]; v != nil {
		return proto.CloneOf(v)
	}
	return &pb.EndpointValue{}
}

func keyOf(r *pb.DnsRecord) recordKey { return recordKey{r.GetZone(), r.GetName(), r.GetType()} }

// Endpoints is a client of a Zone, as one agent has it.
type Endpoints struct {
	zone *Zone
	key  string
}

var _ sdn.Endpoints = (*Endpoints)(nil)

// Endpoints makes a client with this key.
func (z *Zone) Endpoints(key string) *Endpoints { return &Endpoints{zone: z, key: key} }

// Read implements sdn.Endpoints.
func (e *Endpoints) Read(ctx context.Context, spec *pb.EndpointSpec) (*pb.EndpointValue, error) {
	value := &pb.EndpointValue{}
	err := e.call(ctx, Read, spec, func() error {
		value = e.zone.get(spec.GetDns())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// Announce implements sdn.Endpoints.
func (e *Endpoints) Announce(ctx context.Context, spec *pb.EndpointSpec) error {
	return e.call(ctx, Announce, spec, func() error {
		if spec.GetPreimage() == nil {
			return fmt.Errorf("announce %s: no pre-image is committed", spec.GetDns().GetName())
		}
		return e.change(spec.GetDns(), ours(spec), spec.GetPreimage())
	})
}

// Withdraw implements sdn.Endpoints.
func (e *Endpoints) Withdraw(ctx context.Context, spec *pb.EndpointSpec) error {
	return e.call(ctx, Withdraw, spec, func() error {
		if spec.GetPreimage() == nil {
			if !sdn.SameValues(e.zone.get(spec.GetDns()), ours(spec)) {
				return nil
			}
			return fmt.Errorf("withdraw %s: no pre-image is committed", spec.GetDns().GetName())
		}
		return e.change(spec.GetDns(), spec.GetPreimage(), ours(spec))
	})
}

// change sets want if the record has it already or has what may be replaced; the zone's mu is held.
func (e *Endpoints) change(record *pb.DnsRecord, want, replaceable *pb.EndpointValue) error {
	has := e.zone.get(record)
	switch sdn.Judge(has, want, replaceable) {
	case sdn.VerdictDone:
		return nil
	case sdn.VerdictChange:
		e.zone.set(record, want)
		return nil
	default:
		return fmt.Errorf("set %s %s to %s, found %s: %w", record.GetName(), record.GetType(),
			strings.Join(want.GetValues(), " "), strings.Join(has.GetValues(), " "), sdn.ErrConflict)
	}
}

// call makes one call at the server, under its faults and its lock.
func (e *Endpoints) call(ctx context.Context, m string, spec *pb.EndpointSpec, do func() error) error {
	record := spec.GetDns()
	if err := e.zone.reach(ctx); err != nil {
		return fmt.Errorf("%s %s: %w", m, record.GetName(), err)
	}
	return e.zone.Through(ctx, m, record.GetName(), func(context.Context) error {
		if e.key != e.zone.key {
			return fmt.Errorf("%s %s: %w", m, record.GetName(), ErrRefused)
		}
		if !slices.Contains(e.zone.zones, record.GetZone()) {
			return fmt.Errorf("%s %s: zone %s is not served", m, record.GetName(), record.GetZone())
		}
		e.zone.mu.Lock()
		defer e.zone.mu.Unlock()
		return do()
	})
}

// reach waits until the server answers or the context ends.
func (z *Zone) reach(ctx context.Context) error {
	z.mu.Lock()
	away := z.away
	z.mu.Unlock()
	if away == nil {
		return nil
	}
	select {
	case <-away:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("server does not answer: %w", ctx.Err())
	}
}

func ours(spec *pb.EndpointSpec) *pb.EndpointValue {
	return &pb.EndpointValue{Values: spec.GetDns().GetValues(), Ttl: spec.GetDns().GetTtl()}
}
