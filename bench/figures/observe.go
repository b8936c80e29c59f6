package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/hotspare/hotspare/e2e/site"
)

const (
	// nameEvery and guestEvery are how often the observer looks: they bound the error of what it saw.
	nameEvery  = 5 * time.Millisecond
	guestEvery = 10 * time.Millisecond
	// dialLimit and answerLimit bound one look: a guest that boots does not answer at all.
	dialLimit   = 40 * time.Millisecond
	answerLimit = time.Second
)

// seen is what an independent observer saw from the client's machine, the same way for everybody who fails over.
type seen struct {
	// Served is when the guest answered for the first time, Named when the name server said the new address.
	Served, Named time.Time
}

// observe watches a guest (unless its URL is empty) and a name until both are as they should be. Call the
// returned function for what was seen; it waits. Who does not call it cancels the context.
func (b *bed) observe(ctx context.Context, url, name, address string) func() (seen, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	var all sync.WaitGroup
	var out seen
	var guestErr, nameErr error
	if url != "" {
		all.Go(func() { out.Served, guestErr = b.watchGuest(ctx, url) })
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

// watchGuest asks until the guest answers 200.
func (b *bed) watchGuest(ctx context.Context, url string) (time.Time, error) {
	client := &http.Client{Timeout: answerLimit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialLimit)
			defer cancel()
			return b.Client.DialContext(ctx, network, address)
		},
	}}
	for {
		if ok(ctx, client, url) {
			return time.Now(), nil
		}
		if err := pause(ctx, guestEvery); err != nil {
			return time.Time{}, fmt.Errorf("wait for %s: %w", url, err)
		}
	}
}

func ok(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
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
		if err := pause(ctx, nameEvery); err != nil {
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

// knowGuest tells the client's kernel the guest's MAC for good, so that the observer does not wait for ARP, which a kernel
// repeats only once a second.
func (b *bed) knowGuest(ctx context.Context, mac string) error {
	_, err := b.Client.Run(ctx, "ip", "neigh", "replace", site.ProductionAddress, "lladdr", mac, "nud", "permanent", "dev", "prod0")
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
