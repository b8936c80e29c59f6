package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/hotspare/hotspare/e2e/lab"
)

const (
	// lookEvery is how often the observer looks: it bounds the error of what it saw.
	lookEvery = 5 * time.Millisecond
	// answerLimit bounds one question to the name server.
	answerLimit = time.Second
	// guestServes is what the test guest prints when it has begun to listen.
	guestServes = "hotspare-guest ready"
)

// seen is what an independent observer saw, in the same way for everybody who fails over.
type seen struct {
	// Served is when the guest said on its console that it serves, Named when the name server said the new address.
	Served, Named time.Time
}

// observe watches a guest's console (unless the path, below a host's directory, is empty) and a name until both are as they should be. Call the
// returned function for what was seen; it waits. Who does not call it cancels the context.
func (b *bed) observe(ctx context.Context, console, name, address string) func() (seen, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	var all sync.WaitGroup
	var out seen
	var guestErr, nameErr error
	if console != "" {
		all.Go(func() { out.Served, guestErr = b.watchConsole(ctx, console) })
	}
	all.Go(func() { out.Named, nameErr = b.watchName(ctx, name, address) })
	return func() (seen, error) {
		defer cancel()
		all.Wait()
		if guestErr != nil {
			return out, guestErr
		}
		return out, nameErr
	}
}

// watchConsole reads what the guest prints, on whichever host, until it says that it serves. Asking it over the network instead
// would slow its boot down: it refuses every connection until its disk is read.
func (b *bed) watchConsole(ctx context.Context, path string) (time.Time, error) {
	for {
		for _, h := range []*lab.Host{b.H1, b.H2} {
			found, err := filepath.Glob(filepath.Join(h.Dir, path))
			if err != nil {
				return time.Time{}, err
			}
			for _, file := range found {
				if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(guestServes)) {
					return time.Now(), nil
				}
			}
		}
		if err := pause(ctx, lookEvery); err != nil {
			return time.Time{}, fmt.Errorf("wait for the console %s to say %q: %w", path, guestServes, err)
		}
	}
}

// watchName asks until the name server says the address.
func (b *bed) watchName(ctx context.Context, name, address string) (time.Time, error) {
	server := b.DNS.MgmtAddr + ":53"
	conn, err := b.Client.DialContext(ctx, "udp", server)
	if err != nil {
		return time.Time{}, err
	}
	defer conn.Close()
	wire := &dns.Conn{Conn: conn}
	for {
		if points(wire, name, address) {
			return time.Now(), nil
		}
		if err := pause(ctx, lookEvery); err != nil {
			return time.Time{}, fmt.Errorf("wait for %s to be %s: %w", name, address, err)
		}
	}
}

// points asks once; an answer that is lost counts as no.
func points(conn *dns.Conn, name, address string) bool {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	if err := conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return false
	}
	if err := conn.WriteMsg(m); err != nil {
		return false
	}
	answer, err := conn.ReadMsg()
	if err != nil || answer.Id != m.Id || len(answer.Answer) != 1 {
		return false
	}
	a, is := answer.Answer[0].(*dns.A)
	return is && a.A.String() == address
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
