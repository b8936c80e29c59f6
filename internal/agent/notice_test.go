package agent

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/metadata"
	sdnsim "github.com/hotspare/hotspare/internal/sdn/sim"
)

const lentNetwork = "network/lent@h1"

// lent makes an order that of a lent VM with a card; a preempted one says so.
func lent(preempted bool) func(*pb.Order) {
	return func(o *pb.Order) {
		i := o.Spec.GetInstance()
		i.Band = pb.Band_BAND_LENT
		i.Nics = []*pb.Nic{{Network: "lent", Mac: "52:54:00:aa:00:01", Address: "10.20.0.1/24"}}
		if preempted {
			o.Epoch = 3
			i.Preemption = &pb.Preemption{Failover: "fo-3", Reason: "flood", DeclaredBy: "operator/ann"}
		}
	}
}

func lentNet(generation uint64) *pb.Order {
	return &pb.Order{Object: lentNetwork, Kind: pb.Kind_KIND_NETWORK, Generation: generation, Spec: &pb.Spec{
		State: pb.State_STATE_PRESENT, Parameters: &pb.Spec_Network{Network: &pb.NetworkSpec{
			Name: "lent", Role: pb.NetworkRole_NETWORK_ROLE_LENT, Bridge: "br-lent", ProbeAddress: "10.20.0.253/24",
		}},
	}}
}

// guest asks the metadata service as VM a does; code 0: nobody answers.
func (s *site) guest(method, path string) (int, metadata.Preemption) {
	s.t.Helper()
	mac, err := net.ParseMAC("52:54:00:aa:00:01")
	if err != nil {
		s.t.Fatal(err)
	}
	networks := s.options.Drivers.Networks.(*sdnsim.Networks)
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return networks.Connect(ctx, "lent", mac, netip.MustParseAddr("10.20.0.1"))
		},
	}}
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://169.254.169.254"+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, metadata.Preemption{}
	}
	defer resp.Body.Close()
	var p metadata.Preemption
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			s.t.Fatal(err)
		}
	}
	return resp.StatusCode, p
}

// polls asks until the guest gets this answer, for at most a virtual minute, and returns how long that took.
func (s *site) polls(want int) (metadata.Preemption, time.Duration) {
	s.t.Helper()
	began := time.Now()
	for range 600 {
		if code, p := s.guest(http.MethodGet, "/v1/preemption"); code == want {
			return p, time.Since(began)
		}
		<-time.After(100 * time.Millisecond)
	}
	s.t.Fatalf("the guest never gets %d", want)
	return metadata.Preemption{}, 0
}

// A guest that polls is told before its save, may be ready early, and otherwise has all of its grace and no more;
// also when the agent restarts and no coordinator is there.
func TestGuestIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(s *site)
		// from and to bound when the save begins, after the order.
		from, to time.Duration
	}{
		"it says nothing":        {func(*site) {}, 5 * time.Second, 5200 * time.Millisecond},
		"it is ready":            {func(s *site) { s.guest(http.MethodPost, "/v1/preemption/ready") }, 0, 1200 * time.Millisecond},
		"the agent is restarted": {func(s *site) { s.kill(); s.start() }, 5 * time.Second, 5200 * time.Millisecond},
		"nobody leads any more": {func(s *site) {
			s.members[0].down()
			s.kill()
			s.start()
			s.polls(http.StatusOK)
			s.members[0].up()
		}, 5 * time.Second, 5500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 1)
				m := s.members[0]
				m.order(lentNet(1), instance(2, vmA, pb.State_STATE_RUNNING, lent(false)))
				s.start()
				s.settled(0, vmA, pb.State_STATE_RUNNING, 2)
				s.polls(http.StatusNoContent)
				ordered := time.Now()
				m.order(instance(5, vmA, pb.State_STATE_SAVED, lent(true)))
				p, _ := s.polls(http.StatusOK)
				if late := p.Deadline.Sub(ordered) - 5*time.Second; late.Abs() > 200*time.Millisecond || p.State != "noticed" || p.Reason != "flood" {
					t.Errorf("told %+v, %v from the truth", p, late)
				}
				<-time.After(500 * time.Millisecond)
				c.meanwhile(s)
				st := s.settled(0, vmA, pb.State_STATE_SAVED, 5)
				if began := st.GetCallBegan().AsTime().Sub(ordered); began < c.from || began > c.to {
					t.Errorf("the save began %v after the order, want between %v and %v", began, c.from, c.to)
				}
				m.order(instance(6, vmA, pb.State_STATE_RUNNING, lent(false)))
				s.settled(0, vmA, pb.State_STATE_RUNNING, 6)
				s.polls(http.StatusNoContent)
			})
		})
	}
}
