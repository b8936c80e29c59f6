// Package hook runs the scripts of plans on an agent. Only programs in one directory, which the
// agent's configuration names, are run, so that who may write a plan cannot run anything else.
//
// It decides nothing and never retries: a script gets a key that makes it idempotent, because after
// a crash it is run again. The agent's actuators call it.
package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// killWait is how long a script's processes may hold its output open after they were killed.
	killWait = 2 * time.Second
	// maxOutputBytes bounds what is kept of a script's output: its end, for the error message.
	maxOutputBytes = 2 << 10
	// path is the search path that scripts get.
	path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Runner runs the programs of one directory.
type Runner struct {
	dir string
}

// New returns a runner for the programs in dir, an absolute path.
func New(dir string) (*Runner, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("hook directory %q is not an absolute path", dir)
	}
	return &Runner{dir: filepath.Clean(dir)}, nil
}

// Run executes a program of the directory until it ends. When the context ends first, all processes
// of its group are killed. The environment is added to PATH. An error says how it ended, with the end
// of what it wrote.
func (r *Runner) Run(ctx context.Context, argv []string, environment map[string]string) error {
	if len(argv) == 0 {
		return errors.New("run hook: no program is named")
	}
	program := argv[0]
	if !filepath.IsAbs(program) {
		program = filepath.Join(r.dir, program)
	}
	program = filepath.Clean(program)
	if !strings.HasPrefix(program, r.dir+string(filepath.Separator)) {
		return fmt.Errorf("run hook %s: only programs in %s are run", argv[0], r.dir)
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Dir = r.dir
	cmd.Env = []string{"PATH=" + path}
	for _, k := range slices.Sorted(maps.Keys(environment)) {
		cmd.Env = append(cmd.Env, k+"="+environment[k])
	}
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = killWait
	err := cmd.Run()
	if cause := ctx.Err(); err != nil && cause != nil {
		err = cause
	}
	if err == nil {
		return nil
	}
	if said := out.String(); said != "" {
		return fmt.Errorf("run hook %s: %w; it said: %s", argv[0], err, said)
	}
	return fmt.Errorf("run hook %s: %w", argv[0], err)
}

// tail keeps the end of what is written. One goroutine of os/exec writes, because both outputs are
// the same value.
type tail struct {
	b []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - maxOutputBytes; over > 0 {
		t.b = bytes.Clone(t.b[over:])
	}
	return len(p), nil
}

// String returns it as one line.
func (t *tail) String() string { return strings.Join(strings.Fields(string(t.b)), " ") }
