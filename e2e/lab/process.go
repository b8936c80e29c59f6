package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// logTail is how much of a process's log goes into an error.
const logTail = 2000

// Process is a running program of a host. Its methods may be called from several goroutines.
type Process struct {
	label   string
	logPath string
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // how it ended; valid once done is closed
}

// startProcess starts cmd in a process group of its own, so that a Ctrl-C for the test leaves the cleaning to the test.
func startProcess(label, logPath string, cmd *exec.Cmd) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = log
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{label: label, logPath: logPath, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID returns the process id of the program itself.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns the path of the file with the program's output.
func (p *Process) Log() string { return p.logPath }

// Done is closed when the process has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal; a process that has ended is no error.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.label, err)
	}
	return nil
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill(ctx context.Context) error {
	return p.end(ctx, syscall.SIGKILL)
}

// Stop sends SIGTERM and waits for the end. It does not turn to SIGKILL: a program that ignores SIGTERM is a finding.
func (p *Process) Stop(ctx context.Context) error {
	return p.end(ctx, syscall.SIGTERM)
}

func (p *Process) end(ctx context.Context, s syscall.Signal) error {
	if err := p.Signal(s); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s after %v: %w", p.label, s, ctx.Err())
	}
}

// ready waits until the condition holds; it fails at once when the process ends first.
func (p *Process) ready(ctx context.Context, condition func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-p.done:
			cancel(errors.New("it ended"))
		case <-ended:
		}
	}()
	if err := waitFor(ctx, p.label+" to be ready", condition); err != nil {
		return errors.Join(err, context.Cause(ctx), p.logError())
	}
	return nil
}

// logError returns the end of the log as an error, nil when the log is empty.
func (p *Process) logError() error {
	f, err := os.Open(p.logPath)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTail {
		if _, err := f.Seek(-logTail, io.SeekEnd); err != nil {
			return err
		}
	}
	text, err := io.ReadAll(f)
	if err != nil || len(text) == 0 {
		return err
	}
	return fmt.Errorf("log of %s ends: %s", p.label, bytes.TrimSpace(text))
}
