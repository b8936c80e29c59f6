package mirror

import (
	"context"
	"fmt"
	"net"

	"github.com/digitalocean/go-libvirt"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// dialFunc lets a function be go-libvirt's dialer.
type dialFunc func() (net.Conn, error)

// Dial connects.
func (f dialFunc) Dial() (net.Conn, error) { return f() }

// connected executes a body with a connection of its own, which is closed when the context ends: the
// library knows no contexts, and libvirtd may hang with one domain. The caller then gets the
// context's error at once; whether libvirt still does what it was asked is unknown.
func connected[T any](ctx context.Context, s *Source, verb string, spec *pb.VolumeSpec, body func(*libvirt.Libvirt) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	what := fmt.Sprintf("%s disk %s of domain %s", verb, spec.GetDisk(), spec.GetDomain())
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("%s: %w", what, err)
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.value, o.err = converse(ctx, s.socket, body)
		done <- o
	}()
	select {
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %w", what, ctx.Err())
	case o := <-done:
		if o.err != nil {
			return none, fmt.Errorf("%s: %w", what, o.err)
		}
		return o.value, nil
	}
}

func converse[T any](ctx context.Context, socket string, body func(*libvirt.Libvirt) (T, error)) (T, error) {
	var none T
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return none, fmt.Errorf("connect to libvirt: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	c := libvirt.NewWithDialer(dialFunc(func() (net.Conn, error) { return conn, nil }))
	if err := c.ConnectToURI(libvirt.QEMUSystem); err != nil {
		return none, fmt.Errorf("connect to libvirt: %w", err)
	}
	value, err := body(c)
	if err == nil {
		// A connection that cannot be closed in good order is closed all the same.
		_ = c.Disconnect()
	}
	return value, err
}
