package clustertest

import (
	"context"
	"errors"
	"net"
	"path"
	"sync"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/actuate"
	"github.com/hotspare/hotspare/internal/fence"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/sdn"
	"github.com/hotspare/hotspare/internal/storage"
)

// errProcessGone is what a driver call of a killed agent returns to what is left of it.
var errProcessGone = errors.New("the process is gone")

// life is one process of an agent: it stands between the agent and its drivers, so that the answers
// to a killed one reach nobody while what it began goes on.
type life struct {
	host  string
	world *world
	dead  chan struct{}
	once  sync.Once
}

func (l *life) kill() { l.once.Do(func() { close(l.dead) }) }

func (l *life) isDead() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// lastBreath is how long a call of a killed process waits, so that its loop has ended for certain
// before the answer: virtual time passes only when all goroutines wait.
const lastBreath = time.Millisecond

func (l *life) call(ctx context.Context, method, object string, f func(context.Context) error) error {
	l.world.reach(point{host: l.host, method: method, object: object})
	if l.isDead() {
		pass(lastBreath)
		return errProcessGone
	}
	// The host works on when the process is gone, but an agent that lives may cancel.
	inner, cancel := context.WithCancel(l.world.ctx)
	stop := context.AfterFunc(ctx, func() {
		if !l.isDead() {
			cancel()
		}
	})
	result := make(chan error, 1)
	go func() {
		defer cancel()
		defer stop()
		result <- f(inner)
	}()
	select {
	case err := <-result:
		l.world.reach(point{host: l.host, method: method, object: object, after: true})
		if !l.isDead() {
			return err
		}
	case <-l.dead:
	}
	pass(lastBreath)
	return errProcessGone
}

// ask is a call with an answer.
func ask[T any](ctx context.Context, l *life, method, object string, f func(context.Context) (T, error)) (T, error) {
	answer := make(chan T, 1)
	err := l.call(ctx, method, object, func(ctx context.Context) error {
		v, err := f(ctx)
		answer <- v
		return err
	})
	var v T
	select {
	case v = <-answer:
	default: // The process is gone.
	}
	return v, err
}

// point is a place in a driver call: before it, or after its effect and before the agent knows.
type point struct {
	host, method, object string
	after                bool
}

// trap acts once when an agent comes to a point; object is a path.Match pattern.
type trap struct {
	point
	do func(at point)
}

// at sets a trap; a point without a host is anybody's, and the first that comes there springs it.
func (w *world) at(p point, do func(at point)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.traps = append(w.traps, &trap{point: p, do: do})
}

// unsprung returns where nobody came.
func (w *world) unsprung() []point {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []point
	for _, t := range w.traps {
		out = append(out, t.point)
	}
	return out
}

func (w *world) reach(p point) {
	if p.after {
		w.watch.look("after " + p.method + " " + p.object + " on " + p.host)
	}
	w.mu.Lock()
	var do func(point)
	for i, t := range w.traps {
		match, _ := path.Match(t.object, p.object)
		if match && t.method == p.method && t.after == p.after && (t.host == "" || t.host == p.host) {
			w.traps = append(w.traps[:i:i], w.traps[i+1:]...)
			do = t.do
			break
		}
	}
	w.mu.Unlock()
	if do != nil {
		do(p)
	}
}

// wrap puts a life between an agent and its drivers.
func (l *life) wrap(d actuate.Drivers) actuate.Drivers {
	out := actuate.Drivers{Hooks: d.Hooks}
	if d.Hypervisor != nil {
		out.Hypervisor = &hyper{l: l, d: d.Hypervisor.(fullHypervisor)}
	}
	for name, p := range d.Pools {
		if out.Pools == nil {
			out.Pools = map[string]storage.Driver{}
		}
		out.Pools[name] = &pool{l: l, d: p}
	}
	for name, z := range d.Zones {
		if out.Zones == nil {
			out.Zones = map[string]sdn.Endpoints{}
		}
		out.Zones[name] = &zone{l: l, d: z}
	}
	if d.Source != nil {
		out.Source = &source{l: l, d: d.Source}
	}
	if d.Networks != nil {
		out.Networks = &networks{l: l, d: d.Networks}
	}
	if d.Fence != nil {
		out.Fence = &fencer{l: l, d: d.Fence}
	}
	return out
}

type fullHypervisor interface {
	hypervisor.Driver
	hypervisor.Saver
	hypervisor.Consoler
}

type hyper struct {
	l *life
	d fullHypervisor
}

func (h *hyper) Capacity(ctx context.Context) (*pb.Capacity, error) {
	return ask(ctx, h.l, "Capacity", "", func(ctx context.Context) (*pb.Capacity, error) { return h.d.Capacity(ctx) })
}

func (h *hyper) List(ctx context.Context) ([]hypervisor.Domain, error) {
	return ask(ctx, h.l, "List", "", func(ctx context.Context) ([]hypervisor.Domain, error) { return h.d.List(ctx) })
}

func (h *hyper) Inspect(ctx context.Context, id model.ObjectID) (hypervisor.Domain, error) {
	return ask(ctx, h.l, "Inspect", string(id), func(ctx context.Context) (hypervisor.Domain, error) { return h.d.Inspect(ctx, id) })
}

func (h *hyper) Define(ctx context.Context, d hypervisor.Definition) error {
	return h.l.call(ctx, "Define", string(d.ID), func(ctx context.Context) error { return h.d.Define(ctx, d) })
}

func (h *hyper) Start(ctx context.Context, id model.ObjectID) error {
	return h.l.call(ctx, "Start", string(id), func(ctx context.Context) error { return h.d.Start(ctx, id) })
}

func (h *hyper) Stop(ctx context.Context, id model.ObjectID, o hypervisor.StopOptions) error {
	return h.l.call(ctx, "Stop", string(id), func(ctx context.Context) error { return h.d.Stop(ctx, id, o) })
}

func (h *hyper) Remove(ctx context.Context, id model.ObjectID) error {
	return h.l.call(ctx, "Remove", string(id), func(ctx context.Context) error { return h.d.Remove(ctx, id) })
}

func (h *hyper) Watch(ctx context.Context) (<-chan model.ObjectID, error) { return h.d.Watch(ctx) }

func (h *hyper) Save(ctx context.Context, id model.ObjectID) error {
	return h.l.call(ctx, "Save", string(id), func(ctx context.Context) error { return h.d.Save(ctx, id) })
}

func (h *hyper) Restore(ctx context.Context, id model.ObjectID) error {
	return h.l.call(ctx, "Restore", string(id), func(ctx context.Context) error { return h.d.Restore(ctx, id) })
}

func (h *hyper) DropSaved(ctx context.Context, id model.ObjectID) error {
	return h.l.call(ctx, "DropSaved", string(id), func(ctx context.Context) error { return h.d.DropSaved(ctx, id) })
}

func (h *hyper) Console(ctx context.Context, id model.ObjectID, after uint64, limit int) (hypervisor.ConsoleText, error) {
	return ask(ctx, h.l, "Console", string(id), func(ctx context.Context) (hypervisor.ConsoleText, error) {
		return h.d.Console(ctx, id, after, limit)
	})
}

type pool struct {
	l *life
	d storage.Driver
}

func (p *pool) Capacity(ctx context.Context) (storage.Capacity, error) {
	return ask(ctx, p.l, "Capacity", "", func(ctx context.Context) (storage.Capacity, error) { return p.d.Capacity(ctx) })
}

func (p *pool) List(ctx context.Context) ([]storage.Volume, error) {
	return ask(ctx, p.l, "List", "", func(ctx context.Context) ([]storage.Volume, error) { return p.d.List(ctx) })
}

func (p *pool) Inspect(ctx context.Context, name string) (storage.Volume, error) {
	return ask(ctx, p.l, "Inspect", name, func(ctx context.Context) (storage.Volume, error) { return p.d.Inspect(ctx, name) })
}

func (p *pool) Receive(ctx context.Context, v *pb.VolumeSpec) error {
	return p.l.call(ctx, "Receive", v.GetName(), func(ctx context.Context) error { return p.d.Receive(ctx, v) })
}

func (p *pool) Promote(ctx context.Context, v *pb.VolumeSpec) error {
	return p.l.call(ctx, "Promote", v.GetName(), func(ctx context.Context) error { return p.d.Promote(ctx, v) })
}

func (p *pool) Demote(ctx context.Context, v *pb.VolumeSpec) error {
	return p.l.call(ctx, "Demote", v.GetName(), func(ctx context.Context) error { return p.d.Demote(ctx, v) })
}

func (p *pool) Clone(ctx context.Context, v *pb.VolumeSpec) error {
	return p.l.call(ctx, "Clone", v.GetName(), func(ctx context.Context) error { return p.d.Clone(ctx, v) })
}

func (p *pool) Remove(ctx context.Context, name string) error {
	return p.l.call(ctx, "Remove", name, func(ctx context.Context) error { return p.d.Remove(ctx, name) })
}

type source struct {
	l *life
	d storage.Source
}

func (s *source) Mirror(ctx context.Context, v *pb.VolumeSpec) error {
	return s.l.call(ctx, "Mirror", v.GetName(), func(ctx context.Context) error { return s.d.Mirror(ctx, v) })
}

func (s *source) Unmirror(ctx context.Context, v *pb.VolumeSpec) error {
	return s.l.call(ctx, "Unmirror", v.GetName(), func(ctx context.Context) error { return s.d.Unmirror(ctx, v) })
}

func (s *source) Run(ctx context.Context, v *pb.VolumeSpec) error {
	return s.l.call(ctx, "Run", v.GetName(), func(ctx context.Context) error { return s.d.Run(ctx, v) })
}

func (s *source) Inspect(ctx context.Context, v *pb.VolumeSpec) (storage.Volume, error) {
	return ask(ctx, s.l, "Inspect", v.GetName(), func(ctx context.Context) (storage.Volume, error) { return s.d.Inspect(ctx, v) })
}

type networks struct {
	l *life
	d sdn.Driver
}

func (n *networks) List(ctx context.Context) ([]string, error) {
	return ask(ctx, n.l, "List", "", func(ctx context.Context) ([]string, error) { return n.d.List(ctx) })
}

func (n *networks) Inspect(ctx context.Context, s *pb.NetworkSpec) (*pb.NetworkStatus, error) {
	return ask(ctx, n.l, "Inspect", s.GetName(), func(ctx context.Context) (*pb.NetworkStatus, error) { return n.d.Inspect(ctx, s) })
}

func (n *networks) Ensure(ctx context.Context, s *pb.NetworkSpec) error {
	return n.l.call(ctx, "Ensure", s.GetName(), func(ctx context.Context) error { return n.d.Ensure(ctx, s) })
}

func (n *networks) Remove(ctx context.Context, s *pb.NetworkSpec) error {
	return n.l.call(ctx, "Remove", s.GetName(), func(ctx context.Context) error { return n.d.Remove(ctx, s) })
}

func (n *networks) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.d.Dial(ctx, network, address)
}

type zone struct {
	l *life
	d sdn.Endpoints
}

func (z *zone) Read(ctx context.Context, e *pb.EndpointSpec) (*pb.EndpointValue, error) {
	return ask(ctx, z.l, "Read", e.GetDns().GetName(), func(ctx context.Context) (*pb.EndpointValue, error) { return z.d.Read(ctx, e) })
}

func (z *zone) Announce(ctx context.Context, e *pb.EndpointSpec) error {
	return z.l.call(ctx, "Announce", e.GetDns().GetName(), func(ctx context.Context) error { return z.d.Announce(ctx, e) })
}

func (z *zone) Withdraw(ctx context.Context, e *pb.EndpointSpec) error {
	return z.l.call(ctx, "Withdraw", e.GetDns().GetName(), func(ctx context.Context) error { return z.d.Withdraw(ctx, e) })
}

type fencer struct {
	l *life
	d fence.Driver
}

func (f *fencer) Targets() []string { return f.d.Targets() }

func (f *fencer) Fence(ctx context.Context, s *pb.FenceSpec) error {
	return f.l.call(ctx, "Fence", s.GetTarget(), func(ctx context.Context) error { return f.d.Fence(ctx, s) })
}

func (f *fencer) Inspect(ctx context.Context, s *pb.FenceSpec) (pb.State, *pb.FenceStatus, error) {
	type seen struct {
		state  pb.State
		status *pb.FenceStatus
	}
	out, err := ask(ctx, f.l, "Inspect", s.GetTarget(), func(ctx context.Context) (seen, error) {
		state, status, err := f.d.Inspect(ctx, s)
		return seen{state, status}, err
	})
	return out.state, out.status, err
}

func (f *fencer) Lift(ctx context.Context, s *pb.FenceSpec) error {
	return f.l.call(ctx, "Lift", s.GetTarget(), func(ctx context.Context) error { return f.d.Lift(ctx, s) })
}
