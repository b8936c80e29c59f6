// Package daemon is what the two services share: the logger, the service manager's protocol
// (sd_notify and its watchdog), and signals. It decides nothing; cmd/coordinator and cmd/agent call it.
package daemon

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/hotspare/hotspare/internal/config"
)

// Logger writes as the configuration says.
func Logger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // config.Load has refused every other word.
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Ready tells the service manager that the service works, and feeds its watchdog while alive returns
// nil, until the context ends. Without a service manager it does nothing.
func Ready(ctx context.Context, log *slog.Logger, alive func() error) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("the service manager was not told that the service is ready", "error", err)
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	t := time.NewTicker(interval / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := alive(); err != nil {
			log.Error("not well: the watchdog is not fed", "error", err)
			continue
		}
		if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
			log.Warn("the watchdog was not fed", "error", err)
		}
	}
}

// Stopping tells the service manager that the service ends.
func Stopping(log *slog.Logger) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyStopping); err != nil {
		log.Debug("the service manager was not told that the service stops", "error", err)
	}
}

// OnReload calls f at each SIGHUP until the context ends.
func OnReload(ctx context.Context, log *slog.Logger, f func() error) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			if err := f(); err != nil {
				log.Error("reload failed; what was loaded before stays in use", "error", err)
				continue
			}
			log.Info("reloaded")
		}
	}
}
