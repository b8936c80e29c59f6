package libvirt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/fence"
)

// Options configure the driver.
type Options struct {
	// Targets maps a name, which plans use, to what is fenced.
	Targets map[string]Target
	// StateDir is an existing directory for what outlives the process.
	StateDir string
	// Log gets one line for each fence and lift.
	Log *slog.Logger
}

// Target is one libvirtd with the domains that are fenced.
type Target struct {
	// Socket is the path of libvirtd's socket, TCP its "host:port"; exactly one is given. TCP is
	// neither encrypted nor authenticated: it belongs into a tunnel.
	Socket string
	TCP    string
	// Domains are the names of the domains; empty: all that libvirtd knows.
	Domains []string
}

// Driver fences targets through their libvirtd.
type Driver struct {
	targets  map[string]Target
	stateDir string
	log      *slog.Logger
	// turns holds one token for each target: its calls are made one after the other.
	turns map[string]chan struct{}
}

var _ fence.Driver = (*Driver)(nil)

// targetName is what a target may be called: it becomes part of a file's name.
const targetName = `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`

// New checks the options and reports everything that is wrong with them. It contacts nobody.
func New(o Options) (*Driver, error) {
	d := &Driver{targets: maps.Clone(o.Targets), stateDir: o.StateDir, log: o.Log, turns: map[string]chan struct{}{}}
	var faults []error
	if !filepath.IsAbs(o.StateDir) {
		faults = append(faults, fmt.Errorf("fence state directory %q is not an absolute path", o.StateDir))
	}
	valid := regexp.MustCompile(targetName)
	for _, name := range slices.Sorted(maps.Keys(o.Targets)) {
		t := o.Targets[name]
		if !valid.MatchString(name) {
			faults = append(faults, fmt.Errorf("fence target %q does not match %s", name, targetName))
		}
		switch {
		case (t.Socket == "") == (t.TCP == ""):
			faults = append(faults, fmt.Errorf("fence target %s needs either a socket or a tcp address", name))
		case t.Socket != "" && !filepath.IsAbs(t.Socket):
			faults = append(faults, fmt.Errorf("socket %q of fence target %s is not an absolute path", t.Socket, name))
		case t.TCP != "":
			if _, _, err := net.SplitHostPort(t.TCP); err != nil {
				faults = append(faults, fmt.Errorf("tcp address of fence target %s: %w", name, err))
			}
		}
		if slices.Contains(t.Domains, "") {
			faults = append(faults, fmt.Errorf("fence target %s has a domain without a name", name))
		}
		d.turns[name] = make(chan struct{}, 1)
		d.turns[name] <- struct{}{}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return d, nil
}

// Targets implements fence.Driver.
func (d *Driver) Targets() []string { return slices.Sorted(maps.Keys(d.targets)) }

// Fence implements fence.Driver. After an error the target may be partly off; the fence is not
// recorded, and a second call goes on.
func (d *Driver) Fence(ctx context.Context, spec *pb.FenceSpec) error {
	err := d.turn(ctx, spec, func(t Target) error {
		if spec.GetEpoch() == 0 {
			return errors.New("the epoch is not set")
		}
		m, err := d.load(spec.GetTarget())
		if err != nil {
			return err
		}
		return t.with(ctx, func(r remote) error { return d.fence(spec, r, m) })
	})
	if err != nil {
		return fmt.Errorf("fence %s for epoch %d: %w", spec.GetTarget(), spec.GetEpoch(), err)
	}
	return nil
}

func (d *Driver) fence(spec *pb.FenceSpec, r remote, m mark) error {
	before, err := r.observe(m.Seen)
	if err != nil {
		return err
	}
	if err := unproven(before, m); err != nil {
		return err
	}
	for _, p := range before {
		if p.known {
			m.Seen = union(m.Seen, []string{p.name})
		}
		if p.autostart {
			m.Autostart = union(m.Autostart, []string{p.name})
		}
	}
	observed := m.Fences[spec.GetEpoch()]
	if stillOn(before) != nil {
		observed = epochFence{}
	}
	m.Fences[spec.GetEpoch()] = observed
	// Noted before the first domain is touched.
	if err := d.save(m); err != nil {
		return err
	}
	if err := r.turnOff(before); err != nil {
		return err
	}
	after, err := r.observe(m.Seen)
	if err != nil {
		return err
	}
	if err := stillOn(after); err != nil {
		return err
	}
	if !observed.Since.IsZero() {
		// Nothing happened since the fence was observed.
		return nil
	}
	now := time.Now()
	m.Fences[spec.GetEpoch()] = epochFence{
		Since:    now,
		Evidence: fmt.Sprintf("observed at libvirtd on %s: %s", now.UTC().Format(time.RFC3339), describe(after)),
	}
	if err := d.save(m); err != nil {
		return err
	}
	d.log.Info("target fenced", "target", spec.GetTarget(), "epoch", spec.GetEpoch(), "domains", len(after))
	return nil
}

// unproven says why the absence of domains is no evidence.
func unproven(seen []power, m mark) error {
	for _, p := range seen {
		if !p.known && !slices.Contains(m.Seen, p.name) {
			return fmt.Errorf("domain %s is unknown to libvirtd: it may have another name or run elsewhere", p.name)
		}
	}
	if len(seen) == 0 {
		return errors.New("libvirtd knows no domain: that proves nothing")
	}
	return nil
}

// stillOn says which domains are not off.
func stillOn(seen []power) error {
	on := slices.DeleteFunc(slices.Clone(seen), power.off)
	if len(on) == 0 {
		return nil
	}
	return fmt.Errorf("not off: %s", describe(on))
}

// Inspect implements fence.Driver. Once a fenced target was seen on, its evidence is void: it stays
// OPEN until Fence is called again, and the look that found it says what ran.
func (d *Driver) Inspect(ctx context.Context, spec *pb.FenceSpec) (pb.State, *pb.FenceStatus, error) {
	state, status := pb.State_STATE_OPEN, &pb.FenceStatus{Epoch: spec.GetEpoch()}
	err := d.turn(ctx, spec, func(t Target) error {
		m, err := d.load(spec.GetTarget())
		if err != nil {
			return err
		}
		if spec.GetEpoch() == 0 {
			if len(m.Fences) > 0 {
				state = pb.State_STATE_FENCED
			}
			return nil
		}
		known := m.Fences[spec.GetEpoch()]
		if known.Since.IsZero() {
			return nil
		}
		var seen []power
		err = t.with(ctx, func(r remote) error {
			seen, err = r.observe(m.Seen)
			return err
		})
		if err != nil {
			return err
		}
		if err := errors.Join(unproven(seen, m), stillOn(seen)); err != nil {
			status.Evidence = "no longer fenced: " + err.Error()
			m.Fences[spec.GetEpoch()] = epochFence{}
			return d.save(m)
		}
		state, status.Evidence, status.ObservedAt = pb.State_STATE_FENCED, known.Evidence, timestamppb.New(known.Since)
		return nil
	})
	if err != nil {
		return pb.State_STATE_UNSPECIFIED, nil,
			fmt.Errorf("inspect fence %s for epoch %d: %w", spec.GetTarget(), spec.GetEpoch(), err)
	}
	return state, status, nil
}

// Lift implements fence.Driver. The lift of the last fence of a target first gives autostart back to
// the domains that had it, which needs libvirtd.
func (d *Driver) Lift(ctx context.Context, spec *pb.FenceSpec) error {
	err := d.turn(ctx, spec, func(t Target) error {
		m, err := d.load(spec.GetTarget())
		if err != nil {
			return err
		}
		before := len(m.Fences)
		if spec.GetEpoch() == 0 {
			clear(m.Fences)
		}
		delete(m.Fences, spec.GetEpoch())
		if len(m.Fences) == before {
			return nil
		}
		if len(m.Fences) == 0 && len(m.Autostart) > 0 {
			err = t.with(ctx, func(r remote) error { return r.giveAutostart(m.Autostart) })
			if err != nil {
				return err
			}
		}
		if err := d.save(m); err != nil {
			return err
		}
		d.log.Info("fence lifted", "target", spec.GetTarget(), "epoch", spec.GetEpoch())
		return nil
	})
	if err != nil {
		return fmt.Errorf("lift fence %s of epoch %d: %w", spec.GetTarget(), spec.GetEpoch(), err)
	}
	return nil
}

// turn checks the spec and calls do when it is the caller's turn.
func (d *Driver) turn(ctx context.Context, spec *pb.FenceSpec, do func(Target) error) error {
	t, ok := d.targets[spec.GetTarget()]
	if !ok {
		return errors.New("the target is not configured on this agent")
	}
	if spec.GetMethod() != pb.FenceMethod_FENCE_METHOD_POWER {
		return fmt.Errorf("method %v is not power", spec.GetMethod())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	turn := d.turns[spec.GetTarget()]
	select {
	case <-turn:
		defer func() { turn <- struct{}{} }()
		return do(t)
	case <-ctx.Done():
		return ctx.Err()
	}
}
