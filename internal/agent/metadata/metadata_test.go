package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/sdn/sim"
)

// bench is a server on simulated networks, in a synctest bubble.
type bench struct {
	t        *testing.T
	networks *sim.Networks
	server   *Server

	mu    sync.Mutex
	heard []string
}

func run(t *testing.T, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, networks: sim.NewNetworks(nil)}
		b.server = New(Options{
			Networks: b.networks, Asked: b.hear("asked"), Ready: b.hear("ready"), Wall: time.Now, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { b.server.Run(ctx) })
		test(b)
		cancel()
		running.Wait()
	})
}

func (b *bench) hear(what string) func(model.ObjectID) {
	return func(id model.ObjectID) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.heard = append(b.heard, what+" "+string(id))
	}
}

// has says what the core heard since the last time.
func (b *bench) has() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := strings.Join(b.heard, ", ")
	b.heard = nil
	return out
}

func (b *bench) network(name string, role pb.NetworkRole) {
	b.t.Helper()
	spec := &pb.NetworkSpec{Name: name, Role: role, Bridge: "br-" + name, ProbeAddress: "10.20.0.253/24"}
	if err := b.networks.Ensure(b.t.Context(), spec); err != nil {
		b.t.Fatal(err)
	}
}

// vm is a guest whose card is the n-th of its network.
func vm(network string, n byte, change ...func(*reconcile.Guest)) reconcile.Guest {
	g := reconcile.Guest{
		Object: model.ObjectID("instance/web-1-" + string('0'+rune(n))), Owner: "web-1",
		Spec: &pb.InstanceSpec{
			Hostname: "web-1-" + string('0'+rune(n)), Band: pb.Band_BAND_LENT,
			Nics:     []*pb.Nic{{Network: network, Mac: mac(n).String(), Address: address(n).String() + "/24"}},
			UserData: []byte("#cloud-config\nmine: " + string('0'+rune(n))), SshKeys: []string{"ssh-ed25519 AAAA carol", "ssh-rsa BBBB dave\n"},
			Reclaim: &pb.Reclaim{Action: pb.ReclaimAction_RECLAIM_ACTION_SAVE, Grace: durationpb.New(10 * time.Second)},
			TermEnd: timestamppb.New(time.Date(2026, 11, 26, 18, 0, 0, 0, time.UTC)),
		},
	}
	for _, f := range change {
		f(&g)
	}
	return g
}

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0, n} }
func address(n byte) netip.Addr   { return netip.AddrFrom4([4]byte{10, 20, 0, n}) }

// machine is who asks.
type machine struct {
	network string
	mac     net.HardwareAddr
	address netip.Addr
}

func (b *bench) ask(m machine, method, path string, header ...string) (int, string) {
	b.t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return b.networks.Connect(ctx, m.network, m.mac, m.address)
		},
	}}
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://169.254.169.254"+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Host = req.Header.Get("Host")
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func card(network string, n byte) machine { return machine{network, mac(n), address(n)} }

// serving waits until a network is served to its n-th guest.
func (b *bench) serving(network string, n byte) {
	b.t.Helper()
	for range 100 {
		if code, _ := b.ask(card(network, n), http.MethodGet, "/"); code != 0 {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	b.t.Fatal("network " + network + " is not served")
}

const lentRole = pb.NetworkRole_NETWORK_ROLE_LENT

func TestPaths(t *testing.T) {
	run(t, func(b *bench) {
		b.network("lent", lentRole)
		bare := vm("lent", 2, func(g *reconcile.Guest) { g.Spec.UserData, g.Spec.SshKeys, g.Spec.TermEnd = nil, nil, nil })
		b.server.Publish([]reconcile.Guest{vm("lent", 1), bare}, []string{"lent"})
		b.serving("lent", 1)
		for _, c := range []struct {
			n    byte
			path string
			code int
			body string
		}{
			{1, "/", 200, "2009-04-04\nlatest"},
			{1, "/latest/", 200, "meta-data\nuser-data"},
			{1, "/latest/user-data", 200, "#cloud-config\nmine: 1"},
			{1, "/2009-04-04/user-data", 200, "#cloud-config\nmine: 1"},
			{1, "/latest/meta-data/", 200, "hostname\ninstance-id\nlocal-hostname\nlocal-ipv4\nmac\npublic-keys/"},
			{1, "/latest/meta-data/instance-id", 200, "web-1-1"},
			{1, "/latest/meta-data/local-hostname", 200, "web-1-1"},
			{1, "/latest/meta-data/local-ipv4", 200, "10.20.0.1"},
			{1, "/latest/meta-data/mac", 200, "52:54:00:aa:00:01"},
			{1, "/latest/meta-data/public-keys/", 200, "0=key-0\n1=key-1"},
			{1, "/latest/meta-data/public-keys/1/", 200, "openssh-key"},
			{1, "/latest/meta-data/public-keys/1/openssh-key", 200, "ssh-rsa BBBB dave\n"},
			{1, "/latest/meta-data/public-keys/2/openssh-key", 404, "404 page not found\n"},
			{1, "/latest/meta-data/../user-data", 404, "404 page not found\n"},
			{1, "/latest/meta-data/iam", 404, "404 page not found\n"},
			{1, "/nocloud/user-data", 200, "#cloud-config\nmine: 1"},
			{1, "/nocloud/vendor-data", 200, ""},
			{1, "/nocloud/meta-data", 200, "instance-id: \"web-1-1\"\nlocal-hostname: \"web-1-1\"\npublic-keys:\n- \"ssh-ed25519 AAAA carol\"\n- \"ssh-rsa BBBB dave\"\n"},
			{1, "/v1/lease", 200, `{"name":"web-1","vm":"web-1-1","hostname":"web-1-1","ends":"2026-11-26T18:00:00Z","on_preempt":"save","grace_seconds":10}` + "\n"},
			{1, "/v1/preemption", 204, ""},
			{1, "/v2", 404, "404 page not found\n"},
			{2, "/latest/user-data", 404, "404 page not found\n"},
			{2, "/latest/meta-data/public-keys/", 404, "404 page not found\n"},
			{2, "/v1/lease", 200, `{"name":"web-1","vm":"web-1-2","hostname":"web-1-2","on_preempt":"save","grace_seconds":10}` + "\n"},
		} {
			req := c.path
			if code, body := b.ask(card("lent", c.n), http.MethodGet, req); code != c.code || body != c.body {
				if strings.Contains(c.path, "..") && code == http.StatusOK && body == "#cloud-config\nmine: 1" {
					continue // The client or the mux has cleaned the path: it is another one.
				}
				t.Errorf("GET %s of %d: %d %q, want %d %q", c.path, c.n, code, body, c.code, c.body)
			}
		}
		if code, _ := b.ask(card("lent", 1), http.MethodPost, "/latest/user-data"); code != http.StatusMethodNotAllowed {
			t.Errorf("POST of user-data: %d", code)
		}
		for host, want := range map[string]int{
			"169.254.169.254": 200, "169.254.169.254:80": 200, "instance-data": 421, "rebound.example": 421, "169.254.169.254.example": 421, "[::1]": 421,
		} {
			if code, body := b.ask(card("lent", 1), http.MethodGet, "/latest/user-data", "Host", host); code != want {
				t.Errorf("by the name %s: %d %q, want %d", host, code, body, want)
			}
		}
		if code, body := b.ask(card("lent", 1), http.MethodGet, "/latest/user-data", "X-Forwarded-For", "10.9.9.9"); code != http.StatusForbidden {
			t.Errorf("through a proxy: %d %q", code, body)
		}
	})
}

// Each guest gets its own data, and whoever does not match an order in all three points gets nothing.
func TestWhoAsks(t *testing.T) {
	run(t, func(b *bench) {
		b.network("lent", lentRole)
		b.network("other", lentRole)
		b.network("prod", pb.NetworkRole_NETWORK_ROLE_PRODUCTION)
		b.server.Publish([]reconcile.Guest{vm("lent", 1), vm("lent", 2), vm("other", 3)}, []string{"lent", "other", "prod"})
		b.serving("lent", 1)
		b.serving("other", 3)
		for name, c := range map[string]struct {
			m    machine
			code int
			body string
		}{
			"itself":                   {card("lent", 1), 200, "#cloud-config\nmine: 1"},
			"its neighbour":            {card("lent", 2), 200, "#cloud-config\nmine: 2"},
			"another network's":        {card("other", 3), 200, "#cloud-config\nmine: 3"},
			"another's address":        {machine{"lent", mac(2), address(1)}, 0, ""},
			"another's MAC":            {machine{"lent", mac(1), address(2)}, 0, ""},
			"on another network":       {card("other", 1), 0, ""},
			"nobody":                   {card("lent", 9), 0, ""},
			"on a production network":  {card("prod", 1), 0, ""},
			"on a network that is not": {card("missing", 1), 0, ""},
		} {
			code, body := b.ask(c.m, http.MethodGet, "/latest/user-data")
			if code != c.code || code == 200 && body != c.body || strings.Contains(body, "mine") != (code == 200) {
				t.Errorf("%s: %d %q", name, code, body)
			}
		}
	})
}

// Who comes and goes is let in and out while the network is served.
func TestAdmitsWhoIsThere(t *testing.T) {
	run(t, func(b *bench) {
		b.network("lent", lentRole)
		b.server.Publish([]reconcile.Guest{vm("lent", 1)}, []string{"lent"})
		b.serving("lent", 1)
		served := func(when string, want ...bool) {
			t.Helper()
			synctest.Wait()
			for i, want := range want {
				if code, body := b.ask(card("lent", byte(i+1)), http.MethodGet, "/v1/lease"); (code == 200) != want {
					t.Errorf("%s, guest %d: %d %q", when, i+1, code, body)
				}
			}
		}
		served("one", true, false)
		b.server.Publish([]reconcile.Guest{vm("lent", 2), vm("lent", 1)}, []string{"lent"})
		served("both", true, true)
		b.server.Publish([]reconcile.Guest{vm("lent", 2)}, []string{"lent"})
		served("the other", false, true)
		b.networks.Inject(sim.Fault{Method: sim.Admit, Err: errors.New("nftables is busy"), Count: 1})
		b.server.Publish([]reconcile.Guest{vm("lent", 1)}, []string{"lent"})
		<-time.After(3 * listenRetry)
		served("after a driver that could not", true, false)
		for name, f := range map[string]sim.Fault{
			"fails": {Method: sim.Machine, Err: errors.New("nftables is busy"), Count: 1}, "cannot tell": {Method: sim.Machine, Err: sdn.ErrConflict, Count: 1},
		} {
			b.networks.Inject(f)
			if code, body := b.ask(card("lent", 1), http.MethodGet, "/latest/user-data"); code != http.StatusServiceUnavailable {
				t.Errorf("with a driver that %s: %d %q", name, code, body)
			}
		}
		// Whom the driver lets in without an order gets nothing.
		if err := b.networks.Admit(t.Context(), "lent", []sdn.Card{{MAC: mac(9), Address: address(9)}, {MAC: mac(2), Address: address(1)}}); err != nil {
			t.Fatal(err)
		}
		for _, m := range []machine{card("lent", 9), {"lent", mac(2), address(1)}} {
			if code, body := b.ask(m, http.MethodGet, "/latest/user-data"); code != http.StatusNotFound {
				t.Errorf("%v: %d %q", m, code, body)
			}
		}
	})
}

func TestNotice(t *testing.T) {
	run(t, func(b *bench) {
		b.network("lent", lentRole)
		b.server.Publish([]reconcile.Guest{vm("lent", 1)}, []string{"lent"})
		b.serving("lent", 1)
		get := func() (int, Preemption) {
			code, body := b.ask(card("lent", 1), http.MethodGet, "/v1/preemption")
			var p Preemption
			if code == 200 {
				if err := json.Unmarshal([]byte(body), &p); err != nil {
					t.Fatal(err)
				}
			}
			return code, p
		}
		for range 5 {
			if code, _ := get(); code != 204 {
				t.Fatalf("nothing is announced: %d", code)
			}
			<-time.After(2 * time.Second)
		}
		if heard := b.has(); heard != "asked instance/web-1-1" {
			t.Errorf("the core heard %q: once in ten seconds is enough", heard)
		}
		if code, _ := b.ask(card("lent", 1), http.MethodPost, "/v1/preemption/ready"); code != http.StatusConflict || b.has() != "" {
			t.Errorf("ready for nothing: %d", code)
		}
		told := func(g *reconcile.Guest) {
			g.Spec.Preemption = &pb.Preemption{Failover: "fo-3", Reason: "flood", DeclaredBy: "operator/ann"}
			g.Until, g.Decided = time.Now().Add(10*time.Second), true
		}
		b.server.Publish([]reconcile.Guest{vm("lent", 1, told, func(g *reconcile.Guest) { g.Until, g.Decided = time.Time{}, false })}, []string{"lent"})
		if code, _ := get(); code != 204 {
			t.Errorf("told before anything was decided: %d", code)
		}
		b.has()
		b.server.Publish([]reconcile.Guest{vm("lent", 1, told)}, []string{"lent"})
		until := time.Now().Add(10 * time.Second)
		<-time.After(4 * time.Second)
		code, p := get()
		if code != 200 || p.State != "noticed" || p.Action != "save" || p.Failover != "fo-3" || p.Reason != "flood" || p.DeclaredBy != "operator/ann" ||
			!p.Deadline.Equal(until) || p.SecondsLeft != 6 {
			t.Errorf("%d %+v", code, p)
		}
		b.has()
		if code, _ := b.ask(card("lent", 1), http.MethodPost, "/v1/preemption/ready"); code != http.StatusAccepted || b.has() != "ready instance/web-1-1" {
			t.Errorf("ready: %d", code)
		}
		if code, _ := b.ask(machine{"lent", mac(2), address(1)}, http.MethodPost, "/v1/preemption/ready"); code != 0 || b.has() != "" {
			t.Errorf("ready by another: %d", code)
		}
		b.server.Publish([]reconcile.Guest{vm("lent", 1, told, func(g *reconcile.Guest) { g.Ready = true })}, []string{"lent"})
		if _, p := get(); p.State != "ready" {
			t.Errorf("after ready: %+v", p)
		}
		b.server.Publish([]reconcile.Guest{vm("lent", 1, told, func(g *reconcile.Guest) { g.Until = time.Time{} })}, []string{"lent"})
		if _, p := get(); p.State != "taking" || p.SecondsLeft != 0 || p.Deadline.IsZero() {
			t.Errorf("without a grace: %+v", p)
		}
	})
}

// The port follows its network: not there yet, made anew, gone.
func TestFollowsItsNetwork(t *testing.T) {
	run(t, func(b *bench) {
		b.server.Publish([]reconcile.Guest{vm("lent", 1)}, []string{"lent"})
		<-time.After(5 * time.Second)
		b.network("lent", lentRole)
		b.serving("lent", 1)
		b.networks.DeleteBridge("lent")
		b.network("lent", lentRole)
		b.serving("lent", 1)
		b.server.Publish([]reconcile.Guest{vm("lent", 1)}, nil)
		synctest.Wait()
		if code, body := b.ask(card("lent", 1), http.MethodGet, "/v1/lease"); code != 0 {
			t.Errorf("a network that is not wanted is served: %d %q", code, body)
		}
		b.server.Publish([]reconcile.Guest{vm("lent", 1)}, []string{"lent"})
		b.serving("lent", 1)
	})
}

// A guest that says nothing holds few connections, and none for long.
func TestBounds(t *testing.T) {
	run(t, func(b *bench) {
		b.network("lent", lentRole)
		b.server.Publish([]reconcile.Guest{vm("lent", 1), vm("lent", 2)}, []string{"lent"})
		b.serving("lent", 1)
		var held []net.Conn
		for range maxConnsEach {
			c, err := b.networks.Connect(b.t.Context(), "lent", mac(1), address(1))
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
		}
		synctest.Wait()
		if code, body := b.ask(card("lent", 1), http.MethodGet, "/v1/lease"); code != 0 {
			t.Errorf("one more than it may: %d %q", code, body)
		}
		if code, _ := b.ask(card("lent", 2), http.MethodGet, "/v1/lease"); code != 200 {
			t.Errorf("its neighbour: %d", code)
		}
		<-time.After(requestLimit + time.Second)
		if code, _ := b.ask(card("lent", 1), http.MethodGet, "/v1/lease"); code != 200 {
			t.Errorf("after the silent ones were cut: %d", code)
		}
		for _, c := range held {
			c.Close()
		}
		if code, _ := b.ask(card("lent", 1), http.MethodGet, "/v1/lease", "X-Long", strings.Repeat("x", 2*maxHeader)); code == 200 {
			t.Error("an endless header is read")
		}
	})
}
