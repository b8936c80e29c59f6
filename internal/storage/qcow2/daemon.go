package qcow2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// daemonDir holds the daemon's socket and pid file; its dot keeps it from being a volume's name.
	daemonDir  = ".daemon"
	socketFile = "qmp.sock"
	pidFile    = "qsd.pid"
	// maxSocketPath is what fits into the address of a Unix socket.
	maxSocketPath = 107
	// A process that was killed needs milliseconds to close its sockets; a second is plenty.
	redialInterval = 20 * time.Millisecond
	maxDials       = 50
)

// daemon is the pool's storage daemon, running or not.
type daemon struct {
	dir     string
	address string
	binary  string
	log     *slog.Logger
}

func (d *daemon) socket() string { return filepath.Join(d.dir, daemonDir, socketFile) }

// dial connects to a daemon that may be ending right now: its socket then takes the connection and
// drops it before the greeting. A daemon that hangs has no room for further connections after two or
// three: that is waited for until the context ends.
func (d *daemon) dial(ctx context.Context) (*qmp, error) {
	tick := time.NewTicker(redialInterval)
	defer tick.Stop()
	for attempt := 1; ; attempt++ {
		q, err := dialQMP(ctx, d.socket())
		dropped := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)
		full := errors.Is(err, syscall.EAGAIN)
		if !full && (!dropped || attempt >= maxDials) {
			return q, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// notRunning says whether a failed connection proves that no daemon listens. A daemon that hangs
// still takes connections, so a second one is never started beside it.
func notRunning(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// start runs the daemon. It returns when the daemon serves its monitor and the NBD port.
func (d *daemon) start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(d.address)
	if err != nil {
		return fmt.Errorf("start storage daemon of %s: %w", d.dir, err)
	}
	run := filepath.Join(d.dir, daemonDir)
	if err := os.MkdirAll(run, 0o700); err != nil {
		return fmt.Errorf("start storage daemon of %s: %w", d.dir, err)
	}
	// With --daemonize it is in a session of its own and the parent returns once everything is open.
	cmd := exec.CommandContext(ctx, d.binary,
		"--chardev", "socket,id=qmp,server=on,wait=off,path="+escapeCommas(d.socket()),
		"--monitor", "chardev=qmp",
		"--nbd-server", "max-connections=0,addr.type=inet,addr.host="+host+",addr.port="+port,
		"--pidfile", filepath.Join(run, pidFile),
		"--daemonize")
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("start storage daemon of %s at %s: %w: %s", d.dir, d.address, err, strings.TrimSpace(messages.String()))
	}
	d.log.Info("storage daemon started", "pool", d.dir, "address", d.address)
	return nil
}

// escapeCommas doubles commas, which separate options on the daemon's command line.
func escapeCommas(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// stop ends the daemon, if it runs.
func (d *daemon) stop(ctx context.Context) error {
	q, err := d.dial(ctx)
	if err != nil {
		if notRunning(err) {
			return d.clear()
		}
		return fmt.Errorf("stop storage daemon of %s: %w", d.dir, err)
	}
	defer q.close()
	pid, err := os.ReadFile(filepath.Join(d.dir, daemonDir, pidFile))
	if err != nil {
		return fmt.Errorf("stop storage daemon of %s: %w", d.dir, err)
	}
	if err := q.call("quit", nil, nil); err != nil {
		return fmt.Errorf("stop storage daemon of %s: %w", d.dir, err)
	}
	if err := awaitExit(ctx, strings.TrimSpace(string(pid))); err != nil {
		return fmt.Errorf("stop storage daemon of %s: %w", d.dir, err)
	}
	d.log.Info("storage daemon stopped", "pool", d.dir)
	return d.clear()
}

// awaitExit waits until a process is gone. Only then its port is free: the daemon closes its monitor
// and deletes its pid file before.
func awaitExit(ctx context.Context, pid string) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for running(pid) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// running says whether a process exists and has not ended; a zombie has.
func running(pid string) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

func (d *daemon) clear() error {
	if err := os.RemoveAll(filepath.Join(d.dir, daemonDir)); err != nil {
		return fmt.Errorf("clear the storage daemon's folder of %s: %w", d.dir, err)
	}
	return nil
}
