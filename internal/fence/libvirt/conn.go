package libvirt

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
)

const (
	// callLimit bounds one call of the driver when the caller's context allows more. libvirt gives a
	// QEMU that does not answer 15 s before it kills it; a few of those in a row must fit.
	callLimit = 2 * time.Minute
	// atOnce is how many requests libvirtd works on for one client (max_client_requests in its
	// configuration).
	atOnce = 5
)

// remote is a connection to the libvirtd of one target, for one call of the driver.
type remote struct {
	lv *golibvirt.Libvirt
	// domains are the configured ones; empty: all.
	domains []string
}

// power is what was observed of one domain.
type power struct {
	name string
	// known is false when libvirt has no domain of this name.
	known      bool
	state      golibvirt.DomainState
	persistent bool
	autostart  bool
}

// off reports whether the domain is off and stays off.
func (p power) off() bool {
	return !p.known || p.state == golibvirt.DomainShutoff && !p.autostart
}

// String is the domain's line in the evidence.
func (p power) String() string {
	switch {
	case !p.known:
		return p.name + " gone"
	case p.autostart:
		return p.name + " " + stateName(p.state) + " with autostart"
	default:
		return p.name + " " + stateName(p.state)
	}
}

// stateName is the word that virsh uses.
func stateName(s golibvirt.DomainState) string {
	names := map[golibvirt.DomainState]string{
		golibvirt.DomainNostate: "without state", golibvirt.DomainRunning: "running",
		golibvirt.DomainBlocked: "idle", golibvirt.DomainPaused: "paused",
		golibvirt.DomainShutdown: "in shutdown", golibvirt.DomainShutoff: "shut off",
		golibvirt.DomainCrashed: "crashed", golibvirt.DomainPmsuspended: "pmsuspended",
	}
	if name, ok := names[s]; ok {
		return name
	}
	return fmt.Sprintf("in state %d", s)
}

// with connects to a target, calls do, and closes the connection. The library knows no context: when
// it ends, the connection is closed, which ends every request.
func (t Target) with(ctx context.Context, do func(remote) error) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	network, address := "unix", t.Socket
	if t.TCP != "" {
		network, address = "tcp", t.TCP
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("connect to libvirtd at %s: %w", address, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	lv := golibvirt.NewWithDialer(dialers.NewAlreadyConnected(conn))
	err = lv.Connect()
	if err == nil {
		err = do(remote{lv: lv, domains: t.Domains})
		// A failure to say goodbye changes nothing of what was observed.
		_ = lv.Disconnect()
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("libvirtd at %s: %w (%w)", address, ctx.Err(), err)
	}
	if err != nil {
		return fmt.Errorf("libvirtd at %s: %w", address, err)
	}
	return nil
}

// observe looks at every domain of the target. The names given are looked for as well.
func (r remote) observe(also []string) ([]power, error) {
	names := union(r.domains, also)
	if len(r.domains) == 0 {
		all, _, err := r.lv.ConnectListAllDomains(1, 0)
		if err != nil {
			return nil, fmt.Errorf("list domains: %w", err)
		}
		for _, dom := range all {
			names = union(names, []string{dom.Name})
		}
	}
	seen := make([]power, len(names))
	err := each(names, func(i int, name string) error {
		var err error
		seen[i], err = r.look(name)
		return err
	})
	return seen, err
}

// look observes one domain.
func (r remote) look(name string) (power, error) {
	p := power{name: name}
	dom, err := r.lv.DomainLookupByName(name)
	if err == nil {
		err = r.ask(dom, &p)
	}
	if golibvirt.IsNotFound(err) {
		// Also when a transient domain vanished between two questions.
		return power{name: name}, nil
	}
	if err != nil {
		return p, fmt.Errorf("look at domain %s: %w", name, err)
	}
	p.known = true
	return p, nil
}

func (r remote) ask(dom golibvirt.Domain, p *power) error {
	state, _, err := r.lv.DomainGetState(dom, 0)
	if err != nil {
		return err
	}
	persistent, err := r.lv.DomainIsPersistent(dom)
	if err != nil {
		return err
	}
	p.state, p.persistent = golibvirt.DomainState(state), persistent == 1
	if !p.persistent {
		// A transient domain has no autostart, and asking for it is an error.
		return nil
	}
	autostart, err := r.lv.DomainGetAutostart(dom)
	p.autostart = autostart == 1
	return err
}

// turnOff switches autostart off first, so that a restart of libvirtd starts nothing, and then
// destroys what is not shut off.
func (r remote) turnOff(seen []power) error {
	return each(seen, func(_ int, p power) error {
		if !p.known || p.off() {
			return nil
		}
		dom, err := r.lv.DomainLookupByName(p.name)
		if golibvirt.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look for domain %s: %w", p.name, err)
		}
		if p.autostart {
			if err := r.lv.DomainSetAutostart(dom, 0); err != nil {
				return fmt.Errorf("switch off autostart of domain %s: %w", p.name, err)
			}
		}
		if p.state == golibvirt.DomainShutoff {
			return nil
		}
		err = r.lv.DomainDestroy(dom)
		if now, lookErr := r.look(p.name); err != nil && lookErr == nil && now.off() {
			// It went off by itself meanwhile.
			return nil
		}
		if err != nil {
			return fmt.Errorf("destroy domain %s: %w", p.name, err)
		}
		return nil
	})
}

// giveAutostart switches autostart on again; domains that have gone meanwhile are skipped.
func (r remote) giveAutostart(names []string) error {
	return each(names, func(_ int, name string) error {
		dom, err := r.lv.DomainLookupByName(name)
		if err == nil {
			err = r.lv.DomainSetAutostart(dom, 1)
		}
		if golibvirt.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("switch on autostart of domain %s: %w", name, err)
		}
		return nil
	})
}

// each calls do for every item, at most atOnce at a time, and joins the errors.
func each[T any](items []T, do func(i int, item T) error) error {
	var running sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	errs := make([]error, len(items))
	for i, item := range items {
		slots <- struct{}{}
		running.Go(func() {
			errs[i] = do(i, item)
			<-slots
		})
	}
	running.Wait()
	return joinBrief(errs)
}

// joinBrief keeps the first errors: with a lost connection every domain has the same one.
func joinBrief(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	default:
		return fmt.Errorf("%w; and %d more", errs[0], len(errs)-1)
	}
}

// describe lists what was observed, for the evidence.
func describe(seen []power) string {
	var words []string
	for _, p := range seen {
		words = append(words, p.String())
	}
	return strings.Join(words, ", ")
}
