package dns

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// maxValues bounds the records of one name: far more than a failover repoints, far below what no
// longer fits one message.
const maxValues = 64

// recordSet is a name and type, checked and in wire form.
type recordSet struct {
	zone, name string
	kind       uint16
}

func newRecordSet(r *pb.DnsRecord) (recordSet, error) {
	s := recordSet{zone: dns.CanonicalName(r.GetZone()), name: dns.CanonicalName(r.GetName())}
	if r.GetName() != "" && !dns.IsFqdn(r.GetName()) {
		s.name = s.name + s.zone // as in a zone file, a name without a final dot is below the zone
	}
	if _, ok := dns.IsDomainName(s.name); !ok || r.GetName() == "" {
		return s, fmt.Errorf("name %q is not a domain name", r.GetName())
	}
	if !dns.IsSubDomain(s.zone, s.name) {
		return s, fmt.Errorf("name %s is not in zone %s", s.name, s.zone)
	}
	switch r.GetType() {
	case "A", "AAAA", "CNAME", "TXT":
		s.kind = dns.StringToType[r.GetType()]
	default:
		return s, fmt.Errorf("type %q is not one of A, AAAA, CNAME, TXT", r.GetType())
	}
	return s, nil
}

// String names the set in messages.
func (s recordSet) String() string { return s.name + " " + dns.TypeToString[s.kind] }

// parse turns values into records with this TTL.
func (s recordSet) parse(v *pb.EndpointValue) ([]dns.RR, error) {
	ttl := v.GetTtl().AsDuration()
	seconds := ttl / time.Second
	if seconds < 0 || seconds > math.MaxInt32 || ttl != seconds*time.Second {
		return nil, fmt.Errorf("ttl %v of %s is not a whole number of seconds from 0 to 2147483647", ttl, s)
	}
	if len(v.GetValues()) > maxValues {
		return nil, fmt.Errorf("%s has %d values, at most %d are allowed", s, len(v.GetValues()), maxValues)
	}
	var records []dns.RR
	var faults []error
	for _, value := range v.GetValues() {
		rr, err := s.parseValue(value)
		if err != nil {
			faults = append(faults, fmt.Errorf("value %q of %s: %w", value, s, err))
			continue
		}
		rr.Header().Ttl = uint32(seconds)
		records = append(records, rr)
	}
	return records, errors.Join(faults...)
}

// parseValue turns one value into a record without a TTL.
func (s recordSet) parseValue(value string) (dns.RR, error) {
	header := dns.RR_Header{Name: s.name, Rrtype: s.kind, Class: dns.ClassINET}
	switch s.kind {
	case dns.TypeA, dns.TypeAAAA:
		address, err := netip.ParseAddr(value)
		if err != nil {
			return nil, err
		}
		if address.Is4() != (s.kind == dns.TypeA) || address.Zone() != "" {
			return nil, errors.New("address of the wrong family")
		}
		if s.kind == dns.TypeA {
			return &dns.A{Hdr: header, A: address.AsSlice()}, nil
		}
		return &dns.AAAA{Hdr: header, AAAA: address.AsSlice()}, nil
	case dns.TypeCNAME:
		if _, ok := dns.IsDomainName(value); !ok || value == "" {
			return nil, errors.New("not a domain name")
		}
		return &dns.CNAME{Hdr: header, Target: dns.CanonicalName(value)}, nil
	default:
		return parseText(header, value)
	}
}

// parseText takes a TXT value as it is, or, when it begins with a quote, as strings in the
// presentation format of zone files.
func parseText(header dns.RR_Header, value string) (dns.RR, error) {
	if !strings.HasPrefix(value, `"`) {
		value = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
	}
	if strings.ContainsAny(value, "\r\n") {
		return nil, errors.New("line breaks are not allowed")
	}
	rr, err := dns.NewRR(". 0 IN TXT " + value)
	if err != nil {
		return nil, err
	}
	text, ok := rr.(*dns.TXT)
	if !ok {
		return nil, errors.New("not a text record")
	}
	text.Hdr = header
	return text, nil
}

// text is the canonical form of a record's value.
func text(rr dns.RR) string {
	switch r := rr.(type) {
	case *dns.A:
		return r.A.String()
	case *dns.AAAA:
		return r.AAAA.String()
	case *dns.CNAME:
		return dns.CanonicalName(r.Target)
	default:
		return strings.TrimPrefix(rr.String(), rr.Header().String())
	}
}

// value is the canonical form of a set of records; empty when there are none.
func value(records []dns.RR) *pb.EndpointValue {
	v := &pb.EndpointValue{}
	for _, rr := range records {
		v.Values = append(v.Values, text(rr))
		v.Ttl = durationpb.New(time.Duration(rr.Header().Ttl) * time.Second)
	}
	return v
}

// spelled returns the values as the spec writes them where it names the same record, so that callers
// can compare what was read with the spec.
func (s recordSet) spelled(v *pb.EndpointValue, spec *pb.EndpointSpec) *pb.EndpointValue {
	spelling := map[string]string{}
	for _, written := range [][]string{spec.GetPreimage().GetValues(), spec.GetDns().GetValues()} {
		for _, w := range written {
			if rr, err := s.parseValue(w); err == nil {
				spelling[text(rr)] = w
			}
		}
	}
	out := &pb.EndpointValue{Ttl: v.GetTtl()}
	for _, canonical := range v.GetValues() {
		if w, ok := spelling[canonical]; ok {
			canonical = w
		}
		out.Values = append(out.Values, canonical)
	}
	return out
}
