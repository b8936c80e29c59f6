package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/hotspare/hotspare/e2e/story"
)

const (
	// simLimit bounds the whole story; about 20 s were seen on two busy cores.
	simLimit = 3 * time.Minute
	// startLimit bounds the start of `hotspare dev`, 0.3 to 2 s as seen.
	startLimit = 30 * time.Second
	// stopLimit bounds its end, well under a second as seen.
	stopLimit = 20 * time.Second
	// simToken opens the webhook of `hotspare dev`.
	simToken = "dev-token"
)

// alert is what Alertmanager sends; startsAt is the same in every repetition.
const alert = `{"version":"4","status":"firing","groupKey":"{}:{alertname=\"SiteDown\"}","receiver":"hotspare",` +
	`"alerts":[{"status":"firing","labels":{"alertname":"SiteDown"},"annotations":{"summary":"site east does not answer"},` +
	`"startsAt":%q,"endsAt":"0001-01-01T00:00:00Z","fingerprint":"5ca1ab1e"}]}`

// sim is a running `hotspare dev`.
type sim struct {
	*story.Teller
	dir    string // everything it makes is below
	before string // the objects of the ordinary day
	socket string
	http   string // address of the webhook
	cmd    *exec.Cmd
	done   chan error
}

// tellSim tells the story on simulated VMs.
func tellSim(all context.Context, keep bool) (err error) {
	ctx, cancel := context.WithTimeout(all, simLimit)
	defer cancel()
	s, err := startSim(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end(all, keep)) }()
	for _, chapter := range []func(context.Context) error{s.ordinaryDay, s.disaster, s.wayBack} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startSim starts `hotspare dev` on free ports with a directory of its own for everything temporary.
func startSim(ctx context.Context) (*sim, error) {
	dir, err := os.MkdirTemp("", "hotspare-demo-")
	if err != nil {
		return nil, err
	}
	s := &sim{dir: dir, socket: filepath.Join(dir, "api.sock"), done: make(chan error, 1)}
	s.Teller = &story.Teller{Out: os.Stdout, Began: time.Now(), Hotspare: func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "bin/hotspare", append([]string{"--socket", s.socket}, args...)...)
	}}
	s.Head("A recovery site, simulated in one process")
	s.Say("$ hotspare dev")
	s.cmd = exec.Command("bin/hotspare", "dev", "--dev-socket", s.socket, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
	s.cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	// A Ctrl-C is for the story, which then ends the site.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := &firstLines{until: "token " + simToken, full: make(chan string, 1)}
	s.cmd.Stdout, s.cmd.Stderr = out, out
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start hotspare dev: %w (make build)", err), os.RemoveAll(dir))
	}
	go func() { s.done <- s.cmd.Wait() }()
	select {
	case text := <-out.full:
		s.http = regexp.MustCompile(`https://([0-9.:]+)/`).FindStringSubmatch(text)[1]
		first, _, _ := strings.Cut(text, "\n")
		s.Say("%s", first)
		return s, nil
	case err := <-s.done:
		return nil, errors.Join(fmt.Errorf("hotspare dev ended: %w", err), os.RemoveAll(dir))
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(startLimit):
		err = fmt.Errorf("hotspare dev is not ready after %v", startLimit)
	}
	return nil, errors.Join(err, s.cmd.Process.Kill(), <-s.done, os.RemoveAll(dir))
}

// ordinaryDay shows the site and lends most of it.
func (s *sim) ordinaryDay(ctx context.Context) error {
	s.Head("An ordinary day: the plan is proven, and developers use the hosts")
	out, err := s.Run(ctx, "status")
	if err != nil {
		return err
	}
	if err := s.Check(strings.Contains(out, "Proven("), "the site proves that the plan fits"); err != nil {
		return err
	}
	for _, vm := range []string{"2x12cpu,48GiB", "12cpu,48GiB"} {
		if _, err := s.Run(ctx, "lease", "create", "-p", "web", "--vm", vm, "--image", "debian-12", "--term", "8h", "--wait"); err != nil {
			return err
		}
	}
	s.before, err = s.Ask(ctx, "objects", "list")
	return err
}

// disaster lets monitoring declare, twice, and follows the failover.
func (s *sim) disaster(ctx context.Context) error {
	s.Head("The protected site is lost: monitoring posts its alert, and repeats it")
	startsAt := time.Now().UTC().Format(time.RFC3339)
	for range 2 {
		answer, err := s.post(ctx, fmt.Sprintf(alert, startsAt))
		if err != nil {
			return err
		}
		s.Say("POST https://%s/v1/triggers/east-down:alertmanager", s.http)
		s.Say("  %s", answer)
	}
	out, err := s.Run(ctx, "failover", "list")
	if err != nil {
		return err
	}
	if err := s.Check(strings.Count(out, "fo-") == 1, "two alerts, one failover"); err != nil {
		return err
	}
	s.Head("Fence, promote, make room, start in order, repoint the name")
	if out, err = s.Follow(ctx, "failover", "watch", "webshop"); err != nil {
		return err
	}
	if err := s.Check(strings.Contains(out, "completed in"), "the protected VMs run at the recovery site"); err != nil {
		return err
	}
	if _, err := s.Run(ctx, "status"); err != nil {
		return err
	}
	if out, err = s.Run(ctx, "lease", "list"); err != nil {
		return err
	}
	return s.Check(strings.Contains(out, "preempted") && strings.Contains(out, "stands still"),
		"only what was in the way was preempted, and its term stands still")
}

// wayBack fails back and compares with the day before.
func (s *sim) wayBack(ctx context.Context) error {
	s.Head("The disaster is over: everything goes back")
	if _, err := s.Follow(ctx, "failback", "webshop", "--reason", "site east is repaired", "--wait"); err != nil {
		return err
	}
	if _, err := s.AskUntil(ctx, "the leases to return", func(out string) bool { return !strings.Contains(out, "preempted") },
		"lease", "list"); err != nil {
		return err
	}
	out, err := s.Run(ctx, "lease", "list")
	if err != nil {
		return err
	}
	if err := s.Check(strings.Count(out, "active") == 2, "the developers have their VMs back"); err != nil {
		return err
	}
	ready := regexp.MustCompile(`(?m)^ *webshop +yes `)
	if _, err := s.AskUntil(ctx, "production to be replicated again", ready.MatchString, "status"); err != nil {
		return err
	}
	after, err := s.Run(ctx, "objects", "list")
	if err != nil {
		return err
	}
	difference := story.Difference(s.before, after)
	return s.Check(len(difference) == 0, "no object differs from the day before%s", strings.Join(difference, "; "))
}

// post sends the alert with the trigger's token over TLS.
func (s *sim) post(ctx context.Context, body string) (string, error) {
	roots, err := s.authority()
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.http+"/v1/triggers/east-down:alertmanager", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+simToken)
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("post the alert: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("post the alert: %s: %s", resp.Status, text)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, bytes.TrimSpace(text)), err
}

// authority reads the site's own authority from where `hotspare dev` keeps it.
func (s *sim) authority() (*x509.CertPool, error) {
	found, err := filepath.Glob(filepath.Join(s.dir, "hotspare-dev-*", "coordinator.pem"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("find the authority of hotspare dev below %s: %v %w", s.dir, found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", found[0])
	}
	return roots, nil
}

// end stops the site and looks for what it left; with keep it waits for Ctrl-C before.
func (s *sim) end(ctx context.Context, keep bool) error {
	if keep {
		s.keep(ctx)
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		return errors.Join(err, os.RemoveAll(s.dir))
	}
	select {
	case err := <-s.done:
		if err != nil {
			return errors.Join(fmt.Errorf("hotspare dev ended: %w", err), os.RemoveAll(s.dir))
		}
	case <-time.After(stopLimit):
		return errors.Join(fmt.Errorf("hotspare dev did not end within %v", stopLimit), s.cmd.Process.Kill(), <-s.done, os.RemoveAll(s.dir))
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	s.Head("The site was stopped")
	return errors.Join(s.Check(len(entries) == 0, "nothing is left behind: no process, no file"), os.RemoveAll(s.dir))
}

// keep prints what to try and waits for Ctrl-C, or for the end of the site.
func (s *sim) keep(ctx context.Context) {
	s.Head("KEEP=1: the site runs on until Ctrl-C; try in another terminal")
	for _, line := range []string{
		"export HOTSPARE_ENDPOINTS=unix:" + s.socket,
		"bin/hotspare status",
		"bin/hotspare lease create -p web --vm 4cpu,8GiB --image debian-12 --term 1h --wait",
		"bin/hotspare failover declare webshop --dry-run --reason curious",
		"bin/hotspare evidence list",
	} {
		s.Say("%s", line)
	}
	select {
	case <-ctx.Done():
	case err := <-s.done:
		s.done <- err
	}
}

// firstLines passes on what a program wrote once a line with the wanted text is complete.
type firstLines struct {
	until string
	text  strings.Builder
	full  chan string
	told  bool
}

func (f *firstLines) Write(p []byte) (int, error) {
	if f.told {
		return len(p), nil
	}
	f.text.Write(p)
	if text := f.text.String(); strings.Contains(text, f.until) {
		f.told = true
		f.full <- text
	}
	return len(p), nil
}
