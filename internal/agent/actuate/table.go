package actuate

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/agent/reconcile"
	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
	"github.com/hotspare/hotspare/internal/storage"
)

// actions returns the table. Refreshes (same state twice) give a driver other parameters.
func actions() map[change]action {
	const (
		instance = pb.Kind_KIND_INSTANCE
		absent   = pb.State_STATE_ABSENT
		defined  = pb.State_STATE_DEFINED
		running  = pb.State_STATE_RUNNING
		saved    = pb.State_STATE_SAVED
		stopped  = pb.State_STATE_STOPPED
		replica  = pb.State_STATE_REPLICA
		primary  = pb.State_STATE_PRIMARY
		clone    = pb.State_STATE_CLONE
	)
	table := map[change]action{
		{instance, absent, defined}:  define,
		{instance, defined, defined}: define,
		{instance, defined, running}: start,
		{instance, stopped, running}: start,
		{instance, saved, running}:   saver("restore", hypervisor.Saver.Restore),
		{instance, running, saved}:   saver("save", hypervisor.Saver.Save),
		{instance, saved, stopped}:   saver("drop the saved RAM of", hypervisor.Saver.DropSaved),
		{instance, running, stopped}: stop,
		{instance, stopped, absent}:  remove,
		{instance, defined, absent}:  remove,
		{instance, saved, absent}:    remove,

		{pb.Kind_KIND_VOLUME, absent, replica}:  volume("receive", storage.Driver.Receive),
		{pb.Kind_KIND_VOLUME, replica, replica}: volume("receive", storage.Driver.Receive),
		{pb.Kind_KIND_VOLUME, absent, clone}:    volume("clone", storage.Driver.Clone),
		{pb.Kind_KIND_VOLUME, clone, clone}:     volume("clone", storage.Driver.Clone),
		{pb.Kind_KIND_VOLUME, replica, primary}: volume("promote", storage.Driver.Promote),
		{pb.Kind_KIND_VOLUME, primary, primary}: renewPrimary,
		{pb.Kind_KIND_VOLUME, primary, replica}: volume("demote", storage.Driver.Demote),
		{pb.Kind_KIND_VOLUME, replica, absent}:  volume("remove", removeVolume),
		{pb.Kind_KIND_VOLUME, clone, absent}:    volume("remove", removeVolume),
	}
	outside(table)
	return table
}

// outside adds what stands outside of the host's machines: networks, endpoints, fences, hooks.
func outside(table map[change]action) {
	const (
		network, endpoint    = pb.Kind_KIND_NETWORK, pb.Kind_KIND_ENDPOINT
		fences, hook         = pb.Kind_KIND_FENCE, pb.Kind_KIND_HOOK
		absent, present      = pb.State_STATE_ABSENT, pb.State_STATE_PRESENT
		withdrawn, announced = pb.State_STATE_WITHDRAWN, pb.State_STATE_ANNOUNCED
		open, fenced         = pb.State_STATE_OPEN, pb.State_STATE_FENCED
		reverted, applied    = pb.State_STATE_REVERTED, pb.State_STATE_APPLIED
	)
	table[change{network, absent, present}] = ensureNetwork
	table[change{network, present, present}] = ensureNetwork
	table[change{network, present, absent}] = removeNetwork
	table[change{endpoint, withdrawn, announced}] = announce
	table[change{endpoint, announced, announced}] = announce
	table[change{endpoint, announced, withdrawn}] = withdraw
	table[change{fences, open, fenced}] = fenceTarget
	table[change{fences, fenced, fenced}] = fenceTarget
	table[change{fences, fenced, open}] = liftFence
	table[change{hook, reverted, applied}] = applyHook
	table[change{hook, applied, reverted}] = revertHook
}

func define(ctx context.Context, d *Drivers, c reconcile.Call) error {
	h, err := d.hypervisor(c.Object)
	if err != nil {
		return err
	}
	err = h.Define(ctx, hypervisor.Definition{ID: c.Object, Owner: c.Owner, Spec: c.Spec.GetInstance()})
	return wrap("define", c, err)
}

func start(ctx context.Context, d *Drivers, c reconcile.Call) error {
	h, err := d.hypervisor(c.Object)
	if err != nil {
		return err
	}
	return wrap("start", c, h.Start(ctx, c.Object))
}

func stop(ctx context.Context, d *Drivers, c reconcile.Call) error {
	h, err := d.hypervisor(c.Object)
	if err != nil {
		return err
	}
	return wrap("stop", c, h.Stop(ctx, c.Object, hypervisor.StopOptions{Grace: c.Grace}))
}

func remove(ctx context.Context, d *Drivers, c reconcile.Call) error {
	h, err := d.hypervisor(c.Object)
	if err != nil {
		return err
	}
	return wrap("remove", c, h.Remove(ctx, c.Object))
}

// saver makes an action of a method of hypervisor.Saver.
func saver(what string, method func(hypervisor.Saver, context.Context, model.ObjectID) error) action {
	return func(ctx context.Context, d *Drivers, c reconcile.Call) error {
		s, err := d.saver(c.Object)
		if err != nil {
			return err
		}
		return wrap(what, c, method(s, ctx, c.Object))
	}
}

// volume makes an action of a method of storage.Driver.
func volume(what string, method func(storage.Driver, context.Context, *pb.VolumeSpec) error) action {
	return func(ctx context.Context, d *Drivers, c reconcile.Call) error {
		v := c.Spec.GetVolume()
		if v.GetDomain() != "" {
			return model.Errorf(model.FaultInvalid, string(c.Object),
				"%s: it is the disk of a protected VM, which can only be mirrored", what)
		}
		p, err := d.pool(c.Object, v)
		if err != nil {
			return err
		}
		return wrap(what, c, method(p, ctx, v))
	}
}

func removeVolume(p storage.Driver, ctx context.Context, v *pb.VolumeSpec) error { //nolint:revive // A method expression has this order.
	return p.Remove(ctx, v.GetName())
}

// renewPrimary gives a primary volume other parameters: at the protected site the mirror and whether
// the VM runs, at the recovery site where its writes are carried back to.
func renewPrimary(ctx context.Context, d *Drivers, c reconcile.Call) error {
	v := c.Spec.GetVolume()
	if v.GetDomain() == "" {
		return volume("promote", storage.Driver.Promote)(ctx, d, c)
	}
	s, err := d.source(c.Object)
	if err != nil {
		return err
	}
	if v.GetRunWriter() {
		if err := s.Run(ctx, v); err != nil {
			return wrap("start the VM of", c, err)
		}
	}
	if v.GetMirrorTo() == "" {
		return wrap("end the mirror of", c, s.Unmirror(ctx, v))
	}
	return wrap("mirror", c, s.Mirror(ctx, v))
}

func ensureNetwork(ctx context.Context, d *Drivers, c reconcile.Call) error {
	n, err := d.networks(c.Object)
	if err != nil {
		return err
	}
	return wrap("make", c, n.Ensure(ctx, c.Spec.GetNetwork()))
}

func removeNetwork(ctx context.Context, d *Drivers, c reconcile.Call) error {
	n, err := d.networks(c.Object)
	if err != nil {
		return err
	}
	return wrap("remove", c, n.Remove(ctx, c.Spec.GetNetwork()))
}

func announce(ctx context.Context, d *Drivers, c reconcile.Call) error {
	z, err := d.zone(c.Object, c.Spec.GetEndpoint())
	if err != nil {
		return err
	}
	return wrap("announce", c, z.Announce(ctx, c.Spec.GetEndpoint()))
}

func withdraw(ctx context.Context, d *Drivers, c reconcile.Call) error {
	z, err := d.zone(c.Object, c.Spec.GetEndpoint())
	if err != nil {
		return err
	}
	return wrap("withdraw", c, z.Withdraw(ctx, c.Spec.GetEndpoint()))
}

func fenceTarget(ctx context.Context, d *Drivers, c reconcile.Call) error {
	f, err := d.fence(c.Object, c.Spec.GetFence())
	if err != nil {
		return err
	}
	return wrap("fence", c, f.Fence(ctx, c.Spec.GetFence()))
}

func liftFence(ctx context.Context, d *Drivers, c reconcile.Call) error {
	f, err := d.fence(c.Object, c.Spec.GetFence())
	if err != nil {
		return err
	}
	return wrap("lift", c, f.Lift(ctx, c.Spec.GetFence()))
}

func applyHook(ctx context.Context, d *Drivers, c reconcile.Call) error {
	return runHook(ctx, d, c, "apply", c.Spec.GetHook().GetApply())
}

func revertHook(ctx context.Context, d *Drivers, c reconcile.Call) error {
	return runHook(ctx, d, c, "revert", c.Spec.GetHook().GetRevert())
}

// runHook runs one side of a hook; a side that is empty has nothing to do.
func runHook(ctx context.Context, d *Drivers, c reconcile.Call, side string, argv []string) error {
	if d.Hooks == nil {
		return missing(c.Object, "hooks enabled")
	}
	if len(argv) == 0 {
		return nil
	}
	if limit := c.Spec.GetHook().GetTimeout(); limit != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit.AsDuration())
		defer cancel()
	}
	return wrap(side, c, d.Hooks.Run(ctx, argv, hookEnvironment(c, side)))
}

// hookEnvironment adds what every script may rely on. The key is the same whenever this order is
// carried out again, so that a script can tell a repeat from a new order.
func hookEnvironment(c reconcile.Call, side string) map[string]string {
	env := maps.Clone(c.Spec.GetHook().GetEnvironment())
	if env == nil {
		env = map[string]string{}
	}
	env["HOTSPARE_OBJECT"] = string(c.Object)
	env["HOTSPARE_SIDE"] = side
	env["HOTSPARE_EPOCH"] = strconv.FormatUint(c.Epoch, 10)
	env["HOTSPARE_KEY"] = fmt.Sprintf("%s@%d.%d", c.Object, c.Era, c.Generation)
	return env
}

func wrap(what string, c reconcile.Call, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, c.Object, err)
}
