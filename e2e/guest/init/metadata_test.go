package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

func TestTold(t *testing.T) {
	var mu sync.Mutex
	failover, ready := "", 0
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/lease", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"name":"web-1"}`) })
	mux.HandleFunc("GET /latest/user-data", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello\n") })
	mux.HandleFunc("GET /latest/meta-data/public-keys/0/openssh-key", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ssh-ed25519 A") })
	mux.HandleFunc("POST /v1/preemption/ready", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		ready++
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("GET /v1/preemption", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if failover == "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		fmt.Fprintf(w, `{"state":"noticed","action":"save","failover":%q,"reason":"flood","deadline":"2026-11-26T10:00:00Z"}`, failover)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	g := newTold()
	g.base = server.URL
	if !g.learn() {
		t.Fatal("nothing was learnt")
	}
	for i, now := range []string{"", "fo-1", "fo-1", "", "fo-2", "fo-2"} {
		mu.Lock()
		failover = now
		mu.Unlock()
		g.poll(0)
		if s := g.state(); s.Told != (now != "") {
			t.Errorf("poll %d: %+v", i, s)
		}
	}
	s := g.state()
	if s.Lease != "web-1" || s.UserData != "hello\n" || !slices.Equal(s.SSHKeys, []string{"ssh-ed25519 A"}) || s.Notices != 2 ||
		s.Preemption.Failover != "fo-2" || s.Preemption.Reason != "flood" {
		t.Errorf("%+v", s)
	}
	if ready != 2 {
		t.Errorf("ready %d times, want once for each failover", ready)
	}
	server.Close()
	g.poll(0)
	if !g.state().Told {
		t.Error("silence of the service is no news")
	}
	if newTold().base != "http://169.254.169.254" {
		t.Error("it asks somebody else")
	}
}
