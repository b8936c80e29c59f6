package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
)

// Preemption is what GET /v1/preemption tells. The names are API.
type Preemption struct {
	// State is "noticed" while the guest has its grace, "ready" after it said so, and "taking" when the action
	// may begin at any moment.
	State  string `json:"state"`
	Action string `json:"action"`
	// Deadline is when the action begins at the latest; SecondsLeft the same for a guest without the right time.
	Deadline    time.Time `json:"deadline"`
	SecondsLeft float64   `json:"seconds_left"`
	Failover    string    `json:"failover"`
	Reason      string    `json:"reason"`
	DeclaredBy  string    `json:"declared_by"`
}

// Lease is what GET /v1/lease tells. The names are API.
type Lease struct {
	Name     string `json:"name"`
	VM       string `json:"vm"`
	Hostname string `json:"hostname"`
	// Ends is left out while the term stands still.
	Ends         *time.Time `json:"ends,omitempty"`
	OnPreempt    string     `json:"on_preempt"`
	GraceSeconds float64    `json:"grace_seconds"`
}

// answer serves one path to one guest.
type answer func(w http.ResponseWriter, r *http.Request, g reconcile.Guest)

// handler answers the machines of one network.
func (s *Server) handler(network string) http.Handler {
	mux := http.NewServeMux()
	for pattern, a := range s.routes() { // Any order: patterns do not depend on it.
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			if r.Header.Get("X-Forwarded-For") != "" {
				// A proxy in the guest was made to ask for somebody outside.
				http.Error(w, "forwarded requests are not answered", http.StatusForbidden)
				return
			}
			if !byAddress(r.Host) {
				// A page that a browser in the guest shows has made a name of its own point here.
				http.Error(w, "ask by the address "+sdn.MetadataAddress+", not by a name", http.StatusMisdirectedRequest)
				return
			}
			g, err := s.who(r.Context(), network, r.RemoteAddr)
			switch {
			case err == nil:
				a(w, r, g)
			case errors.Is(err, sdn.ErrNotFound):
				http.Error(w, "this machine is not a lent VM of this host", http.StatusNotFound)
			default:
				// Who asks at boot would take "not found" for "there is no user-data".
				http.Error(w, "it cannot be told now which machine this is; try again", http.StatusServiceUnavailable)
			}
		})
	}
	return mux
}

// byAddress reports whether a Host header is what who asks by the address sends; HTTP 1.0 has none.
func byAddress(host string) bool {
	return host == "" || host == sdn.MetadataAddress || host == net.JoinHostPort(sdn.MetadataAddress, strconv.Itoa(sdn.MetadataPort))
}

func (s *Server) routes() map[string]answer {
	out := map[string]answer{
		"GET /v1/preemption":        s.preemption,
		"POST /v1/preemption/ready": s.ready,
		"GET /v1/lease":             s.lease,
		"GET /{$}":                  text("2009-04-04\nlatest"),
		// NoCloud: ds=nocloud;s=http://169.254.169.254/nocloud/
		"GET /nocloud/meta-data":   noCloud,
		"GET /nocloud/user-data":   userData,
		"GET /nocloud/vendor-data": text(""),
	}
	for _, version := range []string{"/latest", "/2009-04-04"} {
		out["GET "+version+"/{$}"] = text("meta-data\nuser-data")
		out["GET "+version+"/user-data"] = userData
		out["GET "+version+"/meta-data/{path...}"] = metaData
	}
	return out
}

// who finds the guest behind a connection; sdn.ErrNotFound: it is none of ours.
func (s *Server) who(ctx context.Context, network, remote string) (reconcile.Guest, error) {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return reconcile.Guest{}, fmt.Errorf("source address: %w", err)
	}
	address := from.Addr().Unmap()
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	mac, err := s.o.Networks.Machine(ctx, network, address)
	if err != nil {
		s.o.Log.Debug("metadata refused", "network", network, "address", address, "error", err)
		return reconcile.Guest{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.guests {
		for _, n := range g.Spec.GetNics() {
			own, err := netip.ParsePrefix(n.GetAddress())
			if err == nil && n.GetNetwork() == network && own.Addr() == address && strings.EqualFold(n.GetMac(), mac.String()) {
				return g, nil
			}
		}
	}
	return reconcile.Guest{}, fmt.Errorf("no order has %s with MAC %s: %w", address, mac, sdn.ErrNotFound)
}

func (s *Server) preemption(w http.ResponseWriter, _ *http.Request, g reconcile.Guest) {
	s.noteAsked(g.Object)
	p := g.Spec.GetPreemption()
	if p == nil || !g.Decided {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	now := s.o.Wall()
	out := Preemption{
		State: "noticed", Action: model.ReclaimActionName(g.Spec.GetReclaim().GetAction()), Deadline: g.Until.UTC(),
		Failover: p.GetFailover(), Reason: p.GetReason(), DeclaredBy: p.GetDeclaredBy(),
	}
	if g.Until.Before(now) { // Also a guest that has no grace.
		out.State, out.Deadline = "taking", now.UTC()
	}
	if g.Ready {
		out.State = "ready"
	}
	out.SecondsLeft = out.Deadline.Sub(now).Seconds()
	writeJSON(w, http.StatusOK, out)
}

// noteAsked tells the core once in a while that a guest listens.
func (s *Server) noteAsked(id model.ObjectID) {
	now := s.o.Wall()
	s.mu.Lock()
	last, known := s.asked[id]
	due := !known || now.Sub(last).Abs() >= askedEvery
	if due {
		s.asked[id] = now
	}
	s.mu.Unlock()
	if due {
		s.o.Asked(id)
	}
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request, g reconcile.Guest) {
	if g.Spec.GetPreemption() == nil {
		http.Error(w, "nothing is announced to be ready for", http.StatusConflict)
		return
	}
	s.o.Ready(g.Object)
	writeJSON(w, http.StatusAccepted, map[string]string{"state": "ready"})
}

func (s *Server) lease(w http.ResponseWriter, _ *http.Request, g reconcile.Guest) {
	out := Lease{
		Name: g.Owner, VM: g.Object.Name(), Hostname: g.Spec.GetHostname(),
		OnPreempt:    model.ReclaimActionName(g.Spec.GetReclaim().GetAction()),
		GraceSeconds: g.Spec.GetReclaim().GetGrace().AsDuration().Seconds(),
	}
	if end := g.Spec.GetTermEnd(); end != nil {
		at := end.AsTime()
		out.Ends = &at
	}
	writeJSON(w, http.StatusOK, out)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// The guest may have gone; then nobody is left to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// text answers the same to everybody.
func text(s string) answer {
	return func(w http.ResponseWriter, _ *http.Request, _ reconcile.Guest) { write(w, s) }
}

func write(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(s)) // As in writeJSON.
}

func userData(w http.ResponseWriter, r *http.Request, g reconcile.Guest) {
	if len(g.Spec.GetUserData()) == 0 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(g.Spec.GetUserData()) // As in writeJSON.
}

func noCloud(w http.ResponseWriter, _ *http.Request, g reconcile.Guest) {
	write(w, hypervisor.CloudMetaData(g.Object.Name(), g.Spec))
}

// metaData answers the paths below meta-data, as EC2 does: a directory lists its entries.
func metaData(w http.ResponseWriter, r *http.Request, g reconcile.Guest) {
	path := r.PathValue("path")
	if s, ok := metaPaths(g)[path]; ok {
		write(w, s)
		return
	}
	http.NotFound(w, r)
}

// metaPaths are all paths with their contents.
func metaPaths(g reconcile.Guest) map[string]string {
	address, mac := "", ""
	if nics := g.Spec.GetNics(); len(nics) > 0 {
		address, _, _ = strings.Cut(nics[0].GetAddress(), "/")
		mac = nics[0].GetMac()
	}
	out := map[string]string{
		"instance-id": g.Object.Name(), "hostname": g.Spec.GetHostname(), "local-hostname": g.Spec.GetHostname(),
		"local-ipv4": address, "mac": mac,
	}
	list := []string{"hostname", "instance-id", "local-hostname", "local-ipv4", "mac"}
	if keys := g.Spec.GetSshKeys(); len(keys) > 0 {
		list = append(list, "public-keys/")
		var names []string
		for i, k := range keys {
			n := strconv.Itoa(i)
			names = append(names, fmt.Sprintf("%d=key-%d", i, i))
			out["public-keys/"+n] = "openssh-key"
			out["public-keys/"+n+"/"] = "openssh-key"
			out["public-keys/"+n+"/openssh-key"] = strings.TrimSpace(k) + "\n"
		}
		out["public-keys"] = strings.Join(names, "\n")
		out["public-keys/"] = out["public-keys"]
	}
	slices.Sort(list)
	out[""] = strings.Join(list, "\n")
	return out
}
