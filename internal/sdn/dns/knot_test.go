package dns_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/sdn/conformance"
	"github.com/hotspare/hotspare/internal/sdn/dns"
)

const (
	zoneName = "shop.example."
	keyName  = "hotspare"
	secret   = "c2VjcmV0LW9mLXRoZS10ZXN0cy1vbmx5LTMyLWJ5dGU="
	other    = "YW5vdGhlci1zZWNyZXQtb2YtdGhlLXRlc3RzLTMyLWI="
)

// TestKnotConforms runs the conformance suite against a real server, through a relay that can lose
// answers. Everything that is not the driver uses Knot's own tools.
func TestKnotConforms(t *testing.T) {
	needTools(t, "knot", "knotd")
	needTools(t, "knot-dnsutils", "kdig", "knsupdate")
	conformance.RunEndpoints(t, func(t *testing.T) conformance.EndpointHarness {
		port := startKnot(t)
		relay := startRelay(t, net.JoinHostPort("127.0.0.1", port))
		return conformance.EndpointHarness{
			Driver:    driver(t, relay.address, secret),
			WrongKey:  driver(t, relay.address, other),
			Zone:      zoneName,
			SetByHand: func(t *testing.T, r *pb.DnsRecord) { knsupdate(t, port, r) },
			Lookup:    func(t *testing.T, r *pb.DnsRecord) *pb.EndpointValue { return kdig(t, port, r) },
			LoseReply: func(*testing.T) { relay.loseUpdates.Store(1) },
			Away:      func(*testing.T) { relay.away.Store(true) },
		}
	})
}

// TestKnotComparesAndSets changes the record between the driver's reading and its update: only the
// prerequisites in the update can notice.
func TestKnotComparesAndSets(t *testing.T) {
	needTools(t, "knot", "knotd")
	needTools(t, "knot-dnsutils", "kdig", "knsupdate")
	none, theirs := &pb.EndpointValue{}, []string{"198.51.100.7"}
	for name, c := range map[string]struct {
		preimage *pb.EndpointValue
		hand     []string
	}{
		"a value replaced":            {wwwSpec().GetPreimage(), theirs},
		"a value added":               {wwwSpec().GetPreimage(), append(theirs, wwwSpec().GetPreimage().GetValues()...)},
		"a value deleted":             {wwwSpec().GetPreimage(), nil},
		"a record that was not there": {none, theirs},
	} {
		t.Run(name, func(t *testing.T) {
			port := startKnot(t)
			relay := startRelay(t, net.JoinHostPort("127.0.0.1", port))
			spec := wwwSpec()
			spec.Preimage = c.preimage
			set := func(values []string) {
				r := wwwSpec().GetDns()
				r.Values = values
				knsupdate(t, port, r)
			}
			set(c.preimage.GetValues())
			relay.beforeUpdate = func() { set(c.hand) }
			err := driver(t, relay.address, secret).Announce(t.Context(), spec)
			if !errors.Is(err, sdn.ErrConflict) {
				t.Errorf("announce: %v, want a conflict", err)
			}
			if got := kdig(t, port, spec.GetDns()); !sdn.SameValues(got, &pb.EndpointValue{Values: c.hand}) {
				t.Errorf("served %q, want %q", got.GetValues(), c.hand)
			}
		})
	}
}

func driver(t *testing.T, address, secret string) *dns.Endpoints {
	t.Helper()
	e, err := dns.New(dns.Options{
		Zones: []dns.Zone{{Name: zoneName, Server: address, KeyName: keyName, KeySecret: secret}},
		Log:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// needTools skips the test when a Debian package is missing; in CI that is a failure.
func needTools(t *testing.T, pkg string, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			message := fmt.Sprintf("%s is missing: install the Debian package %s", tool, pkg)
			if os.Getenv("HOTSPARE_CI") != "" {
				t.Fatal(message)
			}
			t.Skip(message)
		}
	}
}

// startKnot starts a server with an empty zone and returns its port.
func startKnot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	port := freePort(t)
	zone := fmt.Sprintf("%s 60 SOA ns.%s admin.%s 1 60 60 600 60\n%s 60 NS ns.%s\nns.%s 60 A 127.0.0.1\n",
		zoneName, zoneName, zoneName, zoneName, zoneName, zoneName)
	config := fmt.Sprintf(`server:
  rundir: "%[1]s"
  pidfile: "%[1]s/knot.pid"
  listen: 127.0.0.1@%[2]s
  background-workers: 1
  udp-workers: 1
  tcp-workers: 2
control:
  listen: "%[1]s/knot.sock"
database:
  storage: "%[1]s"
key:
- id: %[3]s
  algorithm: hmac-sha256
  secret: %[4]s
acl:
- id: update
  key: %[3]s
  action: update
zone:
- domain: %[5]s
  storage: "%[1]s"
  file: zone
  acl: update
  zonefile-sync: -1
  journal-content: all
  zonefile-load: difference-no-serial
`, dir, port, keyName, secret, zoneName)
	for name, content := range map[string]string{"zone": zone, "knot.conf": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	cmd := exec.Command("knotd", "-c", filepath.Join(dir, "knot.conf"))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("knotd said:\n%s", out.String())
		}
	})
	waitFor(t, "knot to serve the zone", func() bool {
		answer, err := exec.Command("kdig", "@127.0.0.1", "-p", port, "+tcp", "+short", "+timeout=2", zoneName, "SOA").Output()
		return err == nil && len(bytes.TrimSpace(answer)) > 0
	})
	return port
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// waitFor polls a condition; the limit is far above what a loaded machine needs.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// knsupdate sets a record whatever it was.
func knsupdate(t *testing.T, port string, r *pb.DnsRecord) {
	t.Helper()
	var script strings.Builder
	fmt.Fprintf(&script, "server 127.0.0.1 %s\nkey hmac-sha256:%s %s\nzone %s\nupdate del %s %s\n",
		port, keyName, secret, r.GetZone(), r.GetName(), r.GetType())
	for _, v := range r.GetValues() {
		fmt.Fprintf(&script, "update add %s %d %s %s\n", r.GetName(), int(r.GetTtl().AsDuration().Seconds()), r.GetType(), v)
	}
	script.WriteString("send\n")
	cmd := exec.Command("knsupdate", "-v")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("error")) {
		t.Fatalf("knsupdate: %v\n%s", err, out)
	}
}

// kdig asks the server itself.
func kdig(t *testing.T, port string, r *pb.DnsRecord) *pb.EndpointValue {
	t.Helper()
	out, err := exec.Command("kdig", "@127.0.0.1", "-p", port, "+tcp", "+norec", "+noall", "+answer",
		r.GetName(), r.GetType()).Output()
	if err != nil {
		t.Fatalf("kdig: %v", err)
	}
	v := &pb.EndpointValue{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[3] != r.GetType() {
			continue
		}
		ttl, err := strconv.Atoi(fields[1])
		if err != nil {
			t.Fatalf("kdig shows %q", line)
		}
		v.Ttl = durationpb.New(time.Duration(ttl) * time.Second)
		v.Values = append(v.Values, strings.Trim(strings.Join(fields[4:], " "), `"`))
	}
	return v
}

// relay carries DNS messages between driver and server and can lose answers.
type relay struct {
	address string
	// loseUpdates is how many answers to updates are lost: the connection closes instead.
	loseUpdates atomic.Int32
	// away swallows everything.
	away atomic.Bool
	// beforeUpdate, if set before the first connection, is called before each update is passed on.
	beforeUpdate func()
}

func startRelay(t *testing.T, server string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: l.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { r.serve(conn, server) })
		}
	})
	return r
}

func (r *relay) serve(client net.Conn, server string) {
	defer client.Close()
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer upstream.Close()
	for {
		question, err := readFrame(client)
		if err != nil {
			return
		}
		if r.away.Load() {
			continue
		}
		// The opcode is in the four bits after the first of the third byte; 5 is UPDATE.
		isUpdate := question[4]>>3&0xf == 5
		if isUpdate && r.beforeUpdate != nil {
			r.beforeUpdate()
		}
		if _, err := upstream.Write(question); err != nil {
			return
		}
		answer, err := readFrame(upstream)
		if err != nil {
			return
		}
		if isUpdate && r.loseUpdates.Add(-1) >= 0 {
			return
		}
		if _, err := client.Write(answer); err != nil {
			return
		}
	}
}

// readFrame reads one message with its length.
func readFrame(r io.Reader) ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	frame := make([]byte, 2+int(binary.BigEndian.Uint16(head)))
	copy(frame, head)
	if _, err := io.ReadFull(r, frame[2:]); err != nil {
		return nil, err
	}
	if len(frame) < 14 {
		return nil, io.ErrUnexpectedEOF
	}
	return frame, nil
}
