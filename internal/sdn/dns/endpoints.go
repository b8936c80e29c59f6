package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/miekg/dns"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
)

// ErrRefused is returned when the server does not accept the key or does not serve the zone: trying
// again does not help.
var ErrRefused = errors.New("refused")

// Options configure the driver.
type Options struct {
	Zones []Zone
	// Log gets one line for each change of a record.
	Log *slog.Logger
}

// Endpoints changes DNS records. It keeps no state and may be used by several goroutines at once.
type Endpoints struct {
	servers map[string]*server
	log     *slog.Logger
}

var _ sdn.Endpoints = (*Endpoints)(nil)

// New checks the options and reports everything that is wrong with them. It contacts no server.
func New(o Options) (*Endpoints, error) {
	e := &Endpoints{servers: map[string]*server{}, log: o.Log}
	var faults []error
	for _, z := range o.Zones {
		s, err := newServer(z)
		if err != nil {
			faults = append(faults, err)
		}
		if e.servers[s.zone] != nil {
			faults = append(faults, fmt.Errorf("zone %s is configured twice", s.zone))
		}
		e.servers[s.zone] = s
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return e, nil
}

// Read implements sdn.Endpoints. Values that the spec names too are spelled as in the spec.
func (e *Endpoints) Read(ctx context.Context, spec *pb.EndpointSpec) (*pb.EndpointValue, error) {
	s, set, err := e.find(spec)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", spec.GetDns().GetName(), err)
	}
	records, err := s.read(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", set, err)
	}
	return set.spelled(value(records), spec), nil
}

// Announce implements sdn.Endpoints.
func (e *Endpoints) Announce(ctx context.Context, spec *pb.EndpointSpec) error {
	s, set, err := e.find(spec)
	if err != nil {
		return fmt.Errorf("announce %s: %w", spec.GetDns().GetName(), err)
	}
	if spec.GetPreimage() == nil {
		return fmt.Errorf("announce %s: no pre-image is committed", set)
	}
	if len(spec.GetDns().GetValues()) == 0 {
		return fmt.Errorf("announce %s: there are no values", set)
	}
	if err := e.change(ctx, s, set, ours(spec), spec.GetPreimage()); err != nil {
		return fmt.Errorf("announce %s: %w", set, err)
	}
	return nil
}

// Withdraw implements sdn.Endpoints. Without a committed pre-image nothing of ours can be there.
func (e *Endpoints) Withdraw(ctx context.Context, spec *pb.EndpointSpec) error {
	s, set, err := e.find(spec)
	if err != nil {
		return fmt.Errorf("withdraw %s: %w", spec.GetDns().GetName(), err)
	}
	if spec.GetPreimage() == nil {
		err = s.wantOther(ctx, set, ours(spec))
	} else {
		err = e.change(ctx, s, set, spec.GetPreimage(), ours(spec))
	}
	if err != nil {
		return fmt.Errorf("withdraw %s: %w", set, err)
	}
	return nil
}

// find returns the zone's server and the checked name and type.
func (e *Endpoints) find(spec *pb.EndpointSpec) (*server, recordSet, error) {
	set, err := newRecordSet(spec.GetDns())
	if err != nil {
		return nil, set, err
	}
	s := e.servers[set.zone]
	if s == nil {
		return nil, set, fmt.Errorf("zone %s is not configured on this agent", set.zone)
	}
	return s, set, nil
}

// change sets want, on the condition that the server still has what may be replaced.
func (e *Endpoints) change(ctx context.Context, s *server, set recordSet, want, replaceable *pb.EndpointValue) error {
	wantRecords, err := set.parse(want)
	if err != nil {
		return err
	}
	replaceableRecords, err := set.parse(replaceable)
	if err != nil {
		return err
	}
	wantValue, replaceableValue := value(wantRecords), value(replaceableRecords)
	found, err := s.read(ctx, set)
	if err != nil {
		return err
	}
	switch sdn.Judge(value(found), wantValue, replaceableValue) {
	case sdn.VerdictDone:
		return nil
	case sdn.VerdictConflict:
		return conflict(found)
	case sdn.VerdictChange:
		// The update follows.
	}
	answer, updateErr := s.exchange(ctx, update(set, found, wantRecords))
	if errors.Is(updateErr, ErrRefused) {
		return updateErr
	}
	// Accepted is not applied, refused may mean that an earlier try was applied, and no answer means
	// unknown: in each case the records tell.
	after, err := s.read(ctx, set)
	if err != nil {
		return errors.Join(updateErr, err)
	}
	switch {
	case sdn.SameValues(value(after), wantValue):
		e.log.Info("endpoint changed", "endpoint", set.String(),
			"from", strings.Join(value(found).GetValues(), " "), "to", strings.Join(wantValue.GetValues(), " "))
		return nil
	case sdn.Judge(value(after), wantValue, replaceableValue) == sdn.VerdictConflict:
		return conflict(after)
	case updateErr != nil:
		return updateErr
	case answer.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("dns server %s answers %s to the update", s.address, rcode(answer))
	default:
		return fmt.Errorf("dns server %s accepted the update and did not apply it: another record of the name may forbid it",
			s.address)
	}
}

// update makes the message that replaces the records found, and is refused when others are there.
func update(set recordSet, found, want []dns.RR) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(set.zone)
	whole := []dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: set.name, Rrtype: set.kind}}}
	if len(found) == 0 {
		m.RRsetNotUsed(whole)
	} else {
		var expected []dns.RR
		for _, rr := range found {
			// The library clears the TTL in what it is given.
			expected = append(expected, dns.Copy(rr))
		}
		m.Used(expected)
		m.RemoveRRset(whole)
	}
	m.Insert(want)
	return m
}

// wantOther is an error when the records are ours.
func (s *server) wantOther(ctx context.Context, set recordSet, ours *pb.EndpointValue) error {
	records, err := set.parse(ours)
	if err != nil {
		return err
	}
	found, err := s.read(ctx, set)
	if err != nil {
		return err
	}
	if len(found) > 0 && sdn.SameValues(value(found), value(records)) {
		return errors.New("our value stands there and no pre-image is committed")
	}
	return nil
}

// read asks the authoritative server for the records of a set; none when it does not exist.
func (s *server) read(ctx context.Context, set recordSet) ([]dns.RR, error) {
	m := new(dns.Msg)
	m.SetQuestion(set.name, set.kind)
	m.RecursionDesired = false
	answer, err := s.exchange(ctx, m)
	if err != nil {
		return nil, err
	}
	if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("dns server %s answers %s", s.address, rcode(answer))
	}
	if !answer.Authoritative {
		return nil, fmt.Errorf("dns server %s is not authoritative for zone %s", s.address, s.zone)
	}
	var records []dns.RR
	for _, rr := range answer.Answer {
		// Through a CNAME the answer may hold records of other names and types.
		if h := rr.Header(); h.Rrtype == set.kind && dns.CanonicalName(h.Name) == set.name {
			records = append(records, rr)
		}
	}
	return records, nil
}

func conflict(found []dns.RR) error {
	if len(found) == 0 {
		return fmt.Errorf("the record is gone: %w", sdn.ErrConflict)
	}
	return fmt.Errorf("found %s: %w", strings.Join(value(found).GetValues(), " "), sdn.ErrConflict)
}

func ours(spec *pb.EndpointSpec) *pb.EndpointValue {
	return &pb.EndpointValue{Values: spec.GetDns().GetValues(), Ttl: spec.GetDns().GetTtl()}
}
