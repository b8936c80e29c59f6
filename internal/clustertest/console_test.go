package clustertest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/hypervisor/sim"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/trust"
)

// reader reads a console in a goroutine.
type reader struct {
	mu   sync.Mutex
	text string
	err  error
	done bool
	stop context.CancelFunc
}

func (r *reader) look() (text string, done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text, r.done, r.err
}

// console opens a console at one coordinator.
func (s *site) console(c *grpc.ClientConn, req *pb.ReadConsoleRequest) *reader {
	ctx, cancel := context.WithCancel(s.ctx)
	r := &reader{stop: cancel}
	go func() {
		stream, err := pb.NewLeaseServiceClient(c).ReadConsole(ctx, req)
		for err == nil {
			var m *pb.ReadConsoleResponse
			if m, err = stream.Recv(); err == nil {
				r.mu.Lock()
				r.text += string(m.GetText())
				r.mu.Unlock()
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.done, r.err = true, err
	}()
	return r
}

// whole reads a console to its end.
func (s *site) whole(c *grpc.ClientConn, req *pb.ReadConsoleRequest) (string, error) {
	s.t.Helper()
	r := s.console(c, req)
	defer r.stop()
	s.until("the console is read", time.Minute, func() bool { _, done, _ := r.look(); return done })
	text, _, err := r.look()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return text, err
}

// as connects somebody to a coordinator.
func (s *site) as(id trust.Identity, coordinator string) *grpc.ClientConn {
	c, err := grpc.NewClient(target(coordinator), grpc.WithTransportCredentials(credentials.NewTLS(s.identity(id).Client())), s.dial("ops"))
	s.must(err)
	s.conns[coordinator+" "+id.Name] = c
	return c
}

// A console is read through a follower, goes on over a save and a restore, shows a VM that is off, and says what is
// wrong when it cannot be read.
func TestConsole(t *testing.T) {
	bubble(t, 3, func(s *site) {
		l := s.lease(2, 8, 24, nil)
		vm := l.GetInstances()[1]
		host, id := s.world.hosts[vm.GetHost()], model.ObjectID(vm.GetObject())
		follower := s.conn(s.followers()[0])
		req := &pb.ReadConsoleRequest{Name: l.GetName(), Vm: 1}
		text, err := s.whole(follower, req)
		if err != nil || strings.Count(text, "booted") != 1 || !strings.HasPrefix(text, vm.GetObject()[len("instance/"):]+":") {
			t.Fatalf("through a follower: %q, %v", text, err)
		}
		if short, err := s.whole(follower, &pb.ReadConsoleRequest{Name: l.GetName(), Vm: 1, MaxBytes: 5}); err != nil || short != text[len(text)-5:] {
			t.Errorf("five bytes: %q, %v", short, err)
		}
		s.followed(t, follower, vm)
		if _, err := s.whole(follower, req); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "silent") {
			t.Errorf("of a silent host: %v", err)
		}
		s.healAgent(vm.GetHost())
		s.until("the agent is back", time.Minute, func() bool { return s.leader().c.Live().Agent(vm.GetHost()).Full })
		release := host.Inject(sim.Fault{Method: "Console", Object: vm.GetObject(), Hang: true})
		if _, err := s.whole(follower, req); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("of a driver that hangs: %v", err)
		}
		release()
		s.release(l.GetName())
		s.until("it is saved", time.Minute, func() bool { g, _ := host.Guest(id); return !g.Running })
		if text, err := s.whole(follower, req); err != nil || strings.Count(text, "booted") != 2 {
			t.Errorf("of a VM that is off: %q, %v", text, err)
		}
		refusals(t, s, l)
	})
}

// followed follows a console over a crash of its guest, until its host falls silent.
func (s *site) followed(t *testing.T, c *grpc.ClientConn, vm *pb.LeaseInstance) {
	r := s.console(c, &pb.ReadConsoleRequest{Name: "web-1", Vm: 1, Follow: true})
	defer r.stop()
	s.until("the first text", time.Minute, func() bool { text, _, _ := r.look(); return text != "" })
	s.must(s.world.hosts[vm.GetHost()].Stop(s.ctx, model.ObjectID(vm.GetObject()), hypervisor.StopOptions{}))
	s.until("what the guest wrote at its second boot", time.Minute, func() bool {
		text, _, _ := r.look()
		return strings.Count(text, "booted") == 2
	})
	s.cutAgent(vm.GetHost())
	s.until("the end", time.Minute, func() bool { _, done, _ := r.look(); return done })
	if _, _, err := r.look(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), vm.GetHost()) {
		t.Errorf("the host fell silent: %v", err)
	}
}

// refusals are the consoles that nobody gets to see.
func refusals(t *testing.T, s *site, l *pb.Lease) {
	stranger := s.as(trust.Identity{Role: trust.RoleDeveloper, Name: "mallory"}, s.followers()[0])
	operator := s.conn(s.followers()[0])
	for name, c := range map[string]struct {
		conn *grpc.ClientConn
		req  *pb.ReadConsoleRequest
		want codes.Code
		says string
	}{
		"somebody else's":   {stranger, &pb.ReadConsoleRequest{Name: l.GetName()}, codes.PermissionDenied, "belongs to olga"},
		"a VM that is none": {operator, &pb.ReadConsoleRequest{Name: l.GetName(), Vm: 2}, codes.NotFound, "has no VM 2"},
		"the largest index": {operator, &pb.ReadConsoleRequest{Name: l.GetName(), Vm: 1<<32 - 1}, codes.NotFound, "has no VM"},
		"no such lease":     {operator, &pb.ReadConsoleRequest{Name: "web-99"}, codes.NotFound, "no such lease"},
	} {
		if _, err := s.whole(c.conn, c.req); status.Code(err) != c.want || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v %q", name, err, c.want, c.says)
		}
	}
	// No more than eight for each user: the ninth is refused, and the eight go on.
	var open []*reader
	for range 8 {
		r := s.console(operator, &pb.ReadConsoleRequest{Name: l.GetName(), Follow: true})
		defer r.stop()
		open = append(open, r)
	}
	s.until("eight consoles show something", time.Minute, func() bool {
		for _, r := range open {
			if text, _, _ := r.look(); text == "" {
				return false
			}
		}
		return true
	})
	if _, err := s.whole(operator, &pb.ReadConsoleRequest{Name: l.GetName()}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the ninth console: %v", err)
	}
	open[0].stop()
	s.until("there is room again", time.Minute, func() bool {
		_, err := s.whole(operator, &pb.ReadConsoleRequest{Name: l.GetName()})
		return err == nil
	})
}
