package dns_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	wire "github.com/miekg/dns"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/sdn/dns"
)

// double is a DNS server of one record set that answers as a test tells it to.
type double struct {
	address string

	mu sync.Mutex
	// The rest is guarded by mu.
	records []string
	// update handles an update: it may change d.records, and returns the code and whether to answer.
	update func(d *double) (rcode int, answer bool)
	// unsigned leaves the signature out of answers to updates.
	unsigned bool
	// foreign answers questions without authority.
	foreign bool
	// questions is the code of answers to questions.
	questions int
}

func startDouble(t *testing.T, records ...string) *double {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &double{address: l.Addr().String(), records: records}
	server := &wire.Server{
		Listener: l, Handler: d, TsigSecret: map[string]string{keyName + ".": secret},
		// Without this the library's default refuses updates.
		MsgAcceptFunc: func(wire.Header) wire.MsgAcceptAction { return wire.MsgAccept },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return d
}

// ServeDNS implements the library's handler.
func (d *double) ServeDNS(w wire.ResponseWriter, m *wire.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reply := new(wire.Msg)
	reply.SetReply(m)
	reply.Authoritative = !d.foreign
	reply.Rcode = d.questions
	sign := true
	if m.Opcode == wire.OpcodeUpdate {
		code, answer := d.update(d)
		if !answer {
			w.Close()
			return
		}
		reply.Rcode = code
		sign = !d.unsigned
	} else {
		for _, r := range d.records {
			rr, err := wire.NewRR("www." + zoneName + " 60 IN " + r)
			if err != nil {
				panic(err)
			}
			reply.Answer = append(reply.Answer, rr)
		}
	}
	if sign {
		reply.SetTsig(keyName+".", wire.HmacSHA256, 300, time.Now().Unix())
	}
	// A client that has gone is the test's business.
	_ = w.WriteMsg(reply)
}

func (d *double) set(records ...string) { d.records = records }

func wwwSpec() *pb.EndpointSpec {
	return &pb.EndpointSpec{
		Dns: &pb.DnsRecord{
			Zone: zoneName, Name: "www." + zoneName, Type: "A",
			Values: []string{"203.0.113.10"}, Ttl: durationpb.New(time.Minute),
		},
		Preimage: &pb.EndpointValue{Values: []string{"192.0.2.1"}, Ttl: durationpb.New(time.Minute)},
	}
}

const (
	oursA   = "A 203.0.113.10"
	beforeA = "A 192.0.2.1"
	theirsA = "A 198.51.100.7"
)

func TestOddAnswersToUpdates(t *testing.T) {
	for name, c := range map[string]struct {
		update   func(d *double) (int, bool)
		unsigned bool
		// want is part of the error; empty: success. conflict: it is sdn.ErrConflict.
		want     string
		conflict bool
	}{
		"applied": {update: func(d *double) (int, bool) { d.set(oursA); return wire.RcodeSuccess, true }},
		"accepted and not applied": {
			update: func(*double) (int, bool) { return wire.RcodeSuccess, true },
			want:   "did not apply",
		},
		"applied, answer lost": {update: func(d *double) (int, bool) { d.set(oursA); return 0, false }},
		"not applied, answer lost": {
			update: func(*double) (int, bool) { return 0, false },
			want:   "answer of dns server",
		},
		"refused because we were there first": {
			update: func(d *double) (int, bool) { d.set(oursA); return wire.RcodeNXRrset, true },
		},
		"somebody was faster": {
			update:   func(d *double) (int, bool) { d.set(theirsA); return wire.RcodeNXRrset, true },
			want:     "198.51.100.7",
			conflict: true,
		},
		"somebody was faster and deleted": {
			update:   func(d *double) (int, bool) { d.set(); return wire.RcodeNXRrset, true },
			want:     "gone",
			conflict: true,
		},
		"somebody was faster, answer lost": {
			update:   func(d *double) (int, bool) { d.set(theirsA); return 0, false },
			want:     "198.51.100.7",
			conflict: true,
		},
		"applied and overwritten at once": {
			update:   func(d *double) (int, bool) { d.set(theirsA); return wire.RcodeSuccess, true },
			want:     "198.51.100.7",
			conflict: true,
		},
		"refused by policy": {
			update: func(*double) (int, bool) { return wire.RcodeRefused, true },
			want:   "REFUSED",
		},
		"not authoritative": {
			update: func(*double) (int, bool) { return wire.RcodeNotAuth, true },
			want:   "not authoritative",
		},
		"a success that nobody signed": {
			update:   func(*double) (int, bool) { return wire.RcodeSuccess, true },
			unsigned: true,
			want:     "without the signature",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t, beforeA)
			d.update, d.unsigned = c.update, c.unsigned
			err := driver(t, d.address, secret).Announce(t.Context(), wwwSpec())
			switch {
			case c.want == "" && err != nil:
				t.Errorf("announce: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("announce: %v, want an error with %q", err, c.want)
			}
			if errors.Is(err, sdn.ErrConflict) != c.conflict {
				t.Errorf("announce: %v, conflict wanted: %v", err, c.conflict)
			}
		})
	}
}

func TestOddAnswersToQuestions(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(d *double)
		want string
	}{
		"not authoritative": {func(d *double) { d.foreign = true }, "not authoritative"},
		"server failure":    {func(d *double) { d.questions = wire.RcodeServerFailure }, "SERVFAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t, beforeA)
			c.set(d)
			d.update = func(*double) (int, bool) {
				t.Error("an update followed a question without an answer")
				return wire.RcodeSuccess, true
			}
			err := driver(t, d.address, secret).Announce(t.Context(), wwwSpec())
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, sdn.ErrConflict) {
				t.Errorf("announce: %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestReadSkipsOtherRecords(t *testing.T) {
	d := startDouble(t, "CNAME web."+zoneName)
	got, err := driver(t, d.address, secret).Read(t.Context(), wwwSpec())
	if err != nil || len(got.GetValues()) != 0 {
		t.Errorf("read %v, %v, want no address", got, err)
	}
}

// TestNameBelowItsZone reads a name as plans give it, without the zone and the final dot.
func TestNameBelowItsZone(t *testing.T) {
	d := startDouble(t, "A 203.0.113.10")
	spec := wwwSpec()
	spec.Dns.Name = "www"
	got, err := driver(t, d.address, secret).Read(t.Context(), spec)
	if err != nil || !slices.Equal(got.GetValues(), []string{"203.0.113.10"}) {
		t.Errorf("read %v, %v, want the address of www.%s", got, err, zoneName)
	}
}

func TestReadSpellsAsTheSpec(t *testing.T) {
	for _, c := range []struct{ kind, served, written string }{
		{"A", "192.0.2.1", "192.0.2.1"},
		{"AAAA", "2001:db8::1", "2001:0DB8:0:0::1"},
		{"CNAME", "Web.Shop.Example.", "web.shop.example"},
		{"TXT", `"say \"hi\" \\ now"`, `say "hi" \ now`},
		{"TXT", `"one" "two"`, `"one" "two"`},
	} {
		t.Run(c.kind+" "+c.written, func(t *testing.T) {
			d := startDouble(t, c.kind+" "+c.served)
			spec := wwwSpec()
			spec.Dns.Type, spec.Dns.Values = c.kind, []string{c.written}
			e := driver(t, d.address, secret)
			got, err := e.Read(t.Context(), spec)
			if err != nil || len(got.GetValues()) != 1 || got.GetValues()[0] != c.written {
				t.Errorf("read %q, %v, want %q", got.GetValues(), err, c.written)
			}
			// Nothing to do: it is ours already, however it is spelled. An update would panic.
			if err := e.Announce(t.Context(), &pb.EndpointSpec{Dns: spec.Dns, Preimage: &pb.EndpointValue{}}); err != nil {
				t.Errorf("announce: %v", err)
			}
			// What was read without a spec to follow is accepted as a pre-image.
			spec.Dns.Values = nil
			raw, err := e.Read(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			spec.Dns.Values, spec.Preimage = []string{c.written}, raw
			if err := e.Announce(t.Context(), spec); err != nil {
				t.Errorf("announce over what was read: %v", err)
			}
		})
	}
}

func TestBadSpecs(t *testing.T) {
	d := startDouble(t, beforeA)
	e := driver(t, d.address, secret)
	for name, spoil := range map[string]func(*pb.EndpointSpec){
		"no record":       func(s *pb.EndpointSpec) { s.Dns = nil },
		"outside zone":    func(s *pb.EndpointSpec) { s.Dns.Name = "www.other.example." },
		"unknown zone":    func(s *pb.EndpointSpec) { s.Dns.Zone, s.Dns.Name = "other.example.", "www.other.example." },
		"unknown type":    func(s *pb.EndpointSpec) { s.Dns.Type = "MX" },
		"not an address":  func(s *pb.EndpointSpec) { s.Dns.Values = []string{"203.0.113"} },
		"wrong family":    func(s *pb.EndpointSpec) { s.Dns.Values = []string{"2001:db8::1"} },
		"no values":       func(s *pb.EndpointSpec) { s.Dns.Values = nil },
		"half a second":   func(s *pb.EndpointSpec) { s.Dns.Ttl = durationpb.New(time.Second / 2) },
		"negative ttl":    func(s *pb.EndpointSpec) { s.Dns.Ttl = durationpb.New(-time.Second) },
		"bad pre-image":   func(s *pb.EndpointSpec) { s.Preimage.Values = []string{"x"} },
		"too many values": func(s *pb.EndpointSpec) { s.Dns.Values = make([]string, 65) },
	} {
		t.Run(name, func(t *testing.T) {
			spec := wwwSpec()
			spoil(spec)
			if err := e.Announce(t.Context(), spec); err == nil || errors.Is(err, sdn.ErrConflict) {
				t.Errorf("announce: %v, want an error that is no conflict", err)
			}
		})
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	_, err := dns.New(dns.Options{Zones: []dns.Zone{
		{Name: "", Server: "here", KeyName: "", KeySecret: "?", Algorithm: "md5"},
		{Name: "a.example", Server: "127.0.0.1:0", KeyName: "k", KeySecret: secret},
		{Name: "A.example.", Server: "127.0.0.1:53", KeyName: "k", KeySecret: secret},
	}})
	if err == nil {
		t.Fatal("bad options were accepted")
	}
	for _, want := range []string{"zone name", `server "here"`, "key name", "not base64", "md5", "port", "twice"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Error("the message shows the secret")
	}
}

func TestServerThatRefusesConnections(t *testing.T) {
	e := driver(t, net.JoinHostPort("127.0.0.1", freePort(t)), secret)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := e.Announce(ctx, wwwSpec()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("announce: %v", err)
	}
}
