package lab

import (
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// reap makes this process the heir of what detaches itself in the lab (libvirt's QEMUs, daemons) and reaps it as soon as it
// ends, until the returned function is called. Else the machine's first process does, and in a container that one may do it
// seconds later, or never: libvirtd meanwhile takes a QEMU that it has killed for alive.
func reap() (stop func()) {
	if _, err := os.Stat("/proc/thread-self/children"); err != nil {
		return func() {} // this kernel does not list children: who inherits them must not be us
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return func() {}
	}
	ended, stopped, done := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		defer close(done)
		for {
			reapOrphans()
			select {
			case <-ended:
			case <-stopped:
				signal.Stop(ended)
				reapOrphans()
				return
			}
		}
	}()
	return func() {
		close(stopped)
		<-done
	}
}

// reapOrphans reaps the children that have ended and that this process did not start itself: those are in sessions of their own.
// The others are os/exec's, which waits for them.
func reapOrphans() {
	own, err := unix.Getsid(0)
	if err != nil {
		return
	}
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has just ended
		}
		for word := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				continue
			}
			if state, session := stat(pid); state == "Z" && session != strconv.Itoa(own) {
				// Another lab of this process may have been faster.
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
	}
}

// stat returns a process's state and session; empty when it is gone.
func stat(pid int) (state, session string) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", ""
	}
	// After the name, which is in brackets and may contain anything: state, parent, group, session.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 4 {
		return "", ""
	}
	return fields[0], fields[3]
}
