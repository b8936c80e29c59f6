package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// countEvery is how often the counter in memory goes up: it shows that RAM came back and went on.
	countEvery = 100 * time.Millisecond
	// maxRecordsPerRequest bounds one POST /records; the region holds no more.
	maxRecordsPerRequest = 65536
)

// server answers HTTP. Nothing it does for GET /, /counter and /health touches the disk.
type server struct {
	settings settings
	store    *records
	bootID   string
	counter  atomic.Uint64
	told     *told
}

// newServer reads the boot id and starts the counter.
func newServer(s settings, store *records) (*server, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	srv := &server{settings: s, store: store, bootID: strings.TrimSpace(string(id)), told: newTold()}
	go func() {
		for range time.Tick(countEvery) {
			srv.counter.Add(1)
		}
	}()
	return srv, nil
}

// listen serves on port 80 and on the extra port. The ports are open when it returns; the channel gives the first failure after that.
func (s *server) listen() (<-chan error, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.root)
	mux.HandleFunc("GET /counter", s.count)
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /disk", s.disk)
	mux.HandleFunc("GET /records", s.readRecords)
	mux.HandleFunc("POST /records", s.addRecords)
	ports := []int{80}
	if s.settings.port != 0 && s.settings.port != 80 {
		ports = append(ports, s.settings.port)
	}
	failed := make(chan error, len(ports))
	for _, port := range ports {
		ln, err := net.Listen("tcp4", ":"+strconv.Itoa(port))
		if err != nil {
			return nil, fmt.Errorf("listen for http: %w", err)
		}
		go func() {
			failed <- fmt.Errorf("serve http on port %d: %w", port, http.Serve(ln, mux))
		}()
	}
	return failed, nil
}

func (s *server) root(w http.ResponseWriter, _ *http.Request) {
	uptime := 0.0
	if text, err := os.ReadFile("/proc/uptime"); err == nil {
		first, _, _ := strings.Cut(string(text), " ")
		uptime, _ = strconv.ParseFloat(first, 64)
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"hostname":       s.settings.name,
		"boot_id":        s.bootID,
		"uptime_seconds": uptime,
		"counter":        s.counter.Load(),
		"disk":           s.store.state(),
		"metadata":       s.told.state(),
	})
}

func (s *server) count(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, s.counter.Load())
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	if s.settings.unhealthy {
		http.Error(w, "unhealthy", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// metrics is a page that Prometheus can scrape.
func (s *server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintf(w, "guest_counter %d\nguest_last_record %d\n", s.counter.Load(), s.store.state().LastRecord)
}

func (s *server) disk(w http.ResponseWriter, _ *http.Request) {
	text, err := s.store.marker()
	if err != nil {
		writeError(w, err)
		return
	}
	fmt.Fprintln(w, text)
}

func (s *server) readRecords(w http.ResponseWriter, _ *http.Request) {
	rep, err := s.store.report()
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, rep)
}

// addRecords appends ?count=N records (default 1) and answers with the last number once all are on the disk.
func (s *server) addRecords(w http.ResponseWriter, req *http.Request) {
	count := 1
	if text := req.URL.Query().Get("count"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil || count < 1 || count > maxRecordsPerRequest {
			http.Error(w, "count must be 1 to "+strconv.Itoa(maxRecordsPerRequest), http.StatusBadRequest)
			return
		}
	}
	last := uint64(0)
	for range count {
		var err error
		if last, err = s.store.add(); err != nil {
			writeError(w, err)
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]uint64{"last": last})
}

func writeError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, errNoDisk):
		code = http.StatusNotFound
	case errors.Is(err, errDiskFull):
		code = http.StatusInsufficientStorage
	}
	http.Error(w, err.Error(), code)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		fmt.Printf("hotspare-guest cannot answer: %v\n", err)
	}
}
