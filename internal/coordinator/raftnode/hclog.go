package raftnode

import (
	"context"
	"fmt"
	"io"
	"log" //nolint:depguard // hclog.Logger has it in its signatures
	"log/slog"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// slogger lets raft, which writes to hclog, write to slog.
type slogger struct {
	out  *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*slogger)(nil)

func newSlogger(out *slog.Logger) *slogger { return &slogger{out: out} }

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	case hclog.Info:
		return slog.LevelInfo
	case hclog.Trace:
		return slog.LevelDebug - 4
	default:
		return slog.LevelDebug
	}
}

// attrs writes keys as ours are written (last-index becomes last_index) and unpacks hclog's formats.
func attrs(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		key, isKey := a.(string)
		f, isFormat := a.(hclog.Format)
		switch {
		case i%2 == 0 && isKey:
			out[i] = strings.ReplaceAll(key, "-", "_")
		case isFormat && len(f) > 0:
			out[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		default:
			out[i] = a
		}
	}
	return out
}

func (s *slogger) Log(level hclog.Level, msg string, args ...any) {
	s.out.Log(context.Background(), slogLevel(level), msg, attrs(args)...) //nolint:sloglint // raft chooses the message
}

func (s *slogger) Trace(msg string, args ...any) { s.Log(hclog.Trace, msg, args...) }
func (s *slogger) Debug(msg string, args ...any) { s.Log(hclog.Debug, msg, args...) }
func (s *slogger) Info(msg string, args ...any)  { s.Log(hclog.Info, msg, args...) }
func (s *slogger) Warn(msg string, args ...any)  { s.Log(hclog.Warn, msg, args...) }
func (s *slogger) Error(msg string, args ...any) { s.Log(hclog.Error, msg, args...) }

func (s *slogger) enabled(level slog.Level) bool {
	return s.out.Enabled(context.Background(), level)
}

func (s *slogger) IsTrace() bool      { return s.enabled(slogLevel(hclog.Trace)) }
func (s *slogger) IsDebug() bool      { return s.enabled(slog.LevelDebug) }
func (s *slogger) IsInfo() bool       { return s.enabled(slog.LevelInfo) }
func (s *slogger) IsWarn() bool       { return s.enabled(slog.LevelWarn) }
func (s *slogger) IsError() bool      { return s.enabled(slog.LevelError) }
func (s *slogger) ImpliedArgs() []any { return s.args }
func (s *slogger) Name() string       { return s.name }

func (s *slogger) With(args ...any) hclog.Logger {
	return &slogger{out: s.out.With(attrs(args)...), name: s.name, args: append(slices.Clip(s.args), args...)}
}

func (s *slogger) Named(name string) hclog.Logger {
	if s.name != "" {
		name = s.name + "." + name
	}
	return s.ResetNamed(name)
}

func (s *slogger) ResetNamed(name string) hclog.Logger {
	return &slogger{out: s.out, name: name, args: s.args}
}

// SetLevel does nothing: slog's handler decides.
func (s *slogger) SetLevel(hclog.Level) {}

func (s *slogger) GetLevel() hclog.Level {
	for _, l := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if s.enabled(slogLevel(l)) {
			return l
		}
	}
	return hclog.Error
}

func (s *slogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(s.out.Handler(), slog.LevelInfo)
}

func (s *slogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return s.StandardLogger(o).Writer()
}
