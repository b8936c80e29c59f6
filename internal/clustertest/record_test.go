package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// record is one line of a process's log.
type record struct {
	at      time.Time
	process string
	level   slog.Level
	msg     string
	attrs   map[string]string
}

func (r record) String() string {
	var keys []string
	for k := range r.attrs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-5s %-6s %s", r.at.Format("15:04:05.000"), r.level, r.process, r.msg)
	for _, k := range keys {
		fmt.Fprintf(&b, " %s=%s", k, r.attrs[k])
	}
	return b.String()
}

// logbook keeps the log of all processes, and lets a test act at a line.
type logbook struct {
	mu      sync.Mutex
	records []record
	hooks   []func(record)
}

// maxRecords bounds what is kept; the oldest go.
const maxRecords = 200_000

func (l *logbook) add(r record) {
	l.mu.Lock()
	if len(l.records) >= maxRecords {
		l.records = slices.Delete(l.records, 0, maxRecords/2)
	}
	l.records = append(l.records, r)
	hooks := slices.Clone(l.hooks)
	l.mu.Unlock()
	for _, h := range hooks {
		h(r)
	}
}

// hook calls f for each line from now on, in the goroutine that logs.
func (l *logbook) hook(f func(record)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hooks = append(l.hooks, f)
}

// since returns the lines from a time on.
func (l *logbook) since(at time.Time) []record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []record
	for _, r := range l.records {
		if !r.at.Before(at) {
			out = append(out, r)
		}
	}
	return out
}

// tail returns the last lines from Info on, for a test that failed.
func (l *logbook) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, r := range slices.Backward(l.records) {
		if r.attrs["part"] == "raft" {
			continue
		}
		lines = append(lines, r.String())
		if len(lines) == n {
			break
		}
	}
	slices.Reverse(lines)
	return strings.Join(lines, "\n")
}

// logger returns the logger of one process.
func (l *logbook) logger(process string) *slog.Logger {
	return slog.New(&handler{book: l, process: process})
}

type handler struct {
	book    *logbook
	process string
	attrs   []slog.Attr
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	rec := record{at: time.Now(), process: h.process, level: r.Level, msg: r.Message, attrs: map[string]string{}}
	for _, a := range h.attrs {
		rec.attrs[a.Key] = a.Value.String()
	}
	r.Attrs(func(a slog.Attr) bool {
		rec.attrs[a.Key] = a.Value.String()
		return true
	})
	h.book.add(rec)
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(slices.Clone(h.attrs), attrs...)
	return &c
}

func (h *handler) WithGroup(string) slog.Handler { return h }
