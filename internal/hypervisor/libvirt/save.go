package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/hotspare/hotspare/internal/hypervisor"
	"github.com/hotspare/hotspare/internal/model"
)

// abortEvery is how often the abort of a save is asked for until the save has ended: libvirt refuses
// it while the job is just beginning or ending.
const abortEvery = 200 * time.Millisecond

// imageMagic begins a complete image of saved RAM. libvirt writes "LibvirtQemudPart" there first and
// puts this in its place when all RAM has been written.
const imageMagic = "LibvirtQemudSave"

// Save implements hypervisor.Saver.
func (d *Driver) Save(ctx context.Context, id model.ObjectID) error {
	return d.do(ctx, id, changing{what: "save", saving: true, run: func(ctx context.Context) error {
		f, err := d.settled(ctx, id)
		switch {
		case err != nil:
			return err
		case !f.active && d.files(id).has(ramSaved):
			return nil
		case !f.active:
			return hypervisor.ErrState
		}
		begun := time.Now()
		err = d.saveRAM(ctx, f.dom, d.files(id).path(ramPartial))
		if err == nil {
			d.saved(d.files(id).path(ramPartial), time.Since(begun))
		}
		if lost(err) {
			// libvirtd may still be at it; what comes of it is settled later.
			return &model.Error{Fault: model.FaultUnavailable, What: "the answer of libvirtd was lost", Err: err}
		}
		return errors.Join(err, d.finishSave(context.WithoutCancel(ctx), id))
	}})
}

// saveRAM lets libvirt write the image and end the domain. When the context ends it aborts the save
// and still waits for its end.
func (d *Driver) saveRAM(ctx context.Context, dom golibvirt.Domain, path string) error {
	whole := context.WithoutCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- d.c.alone(whole, d.c.slow, func(l *golibvirt.Libvirt) error {
			return l.DomainSaveFlags(dom, path, nil, uint32(golibvirt.DomainSaveRunning))
		})
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	for {
		// An error means that there is nothing to abort yet, or any more.
		_ = d.c.alone(whole, d.c.quick, func(l *golibvirt.Libvirt) error { return l.DomainAbortJob(dom) })
		select {
		case err := <-ended:
			return err
		case <-time.After(abortEvery):
		}
	}
}

// finishSave brings a domain whose save has ended, well or not, into a clean state.
func (d *Driver) finishSave(ctx context.Context, id model.ObjectID) error {
	f, err := d.look(ctx, id)
	if err != nil {
		return err
	}
	_, err = d.settle(ctx, f)
	return err
}

// Restore implements hypervisor.Saver. QEMU loads the image with the guest standing still; the image
// is put out of use, durably, before the guest runs on. So a failure before that point keeps the
// image, and after it no crash can bring it back.
func (d *Driver) Restore(ctx context.Context, id model.ObjectID) error {
	return d.do(ctx, id, changing{what: "restore", run: func(ctx context.Context) error {
		ctx = context.WithoutCancel(ctx)
		f, err := d.settled(ctx, id)
		if err != nil || f.active {
			return err
		}
		have := d.files(id)
		if !have.has(ramSaved) {
			return hypervisor.ErrState
		}
		if err := have.rename(ramSaved, ramRestoring); err != nil {
			return err
		}
		err = d.c.alone(ctx, d.c.slow, func(l *golibvirt.Libvirt) error {
			return l.DomainRestoreFlags(have.path(ramRestoring), nil, uint32(golibvirt.DomainSavePaused))
		})
		if err != nil {
			if !lost(err) {
				err = errors.Join(err, d.finishSave(ctx, id))
			}
			return err
		}
		if err := have.rename(ramRestoring, ramUsed); err != nil {
			return err
		}
		if err := d.resume(ctx, f.dom); err != nil {
			return fmt.Errorf("let the restored guest run: %w", err)
		}
		return have.remove(ramUsed)
	}})
}

// resume lets a guest run, if it does not already.
func (d *Driver) resume(ctx context.Context, dom golibvirt.Domain) error {
	err := d.c.alone(ctx, d.c.quick, func(l *golibvirt.Libvirt) error { return l.DomainResume(dom) })
	var refused golibvirt.Error
	if errors.As(err, &refused) && refused.Code == uint32(golibvirt.ErrOperationInvalid) {
		f, lookErr := d.examine(ctx, dom)
		if lookErr == nil && f.active && !f.paused {
			return nil
		}
	}
	return err
}

// DropSaved implements hypervisor.Saver.
func (d *Driver) DropSaved(ctx context.Context, id model.ObjectID) error {
	return d.do(ctx, id, changing{what: "drop saved", run: func(ctx context.Context) error {
		f, err := d.settled(context.WithoutCancel(ctx), id)
		if err != nil {
			return err
		}
		if f.active {
			return hypervisor.ErrState
		}
		return d.files(id).remove(ramSaved)
	}})
}

// unsettled says whether files show that a call on the domain was cut short, or that somebody else
// started a saved domain.
func (d *Driver) unsettled(f found) bool {
	have := d.files(f.mark.ID)
	return have.has(ramPartial) || have.has(ramRestoring) || have.has(ramUsed) || f.active && have.has(ramSaved)
}

// settleFor settles a domain for a caller that only wants to look.
func (d *Driver) settleFor(ctx context.Context, id model.ObjectID) (found, error) {
	var f found
	err := d.do(ctx, id, changing{what: "settle", run: func(ctx context.Context) error {
		var err error
		f, err = d.settled(context.WithoutCancel(ctx), id)
		return err
	}})
	if err != nil {
		return found{}, err // the goroutine of do may still be writing to f
	}
	return f, nil
}

// settled looks at a domain and first finishes what a broken call left. The caller holds the domain busy.
func (d *Driver) settled(ctx context.Context, id model.ObjectID) (found, error) {
	f, err := d.look(ctx, id)
	if err != nil || !d.unsettled(f) {
		return f, err
	}
	return d.settle(ctx, f)
}

// settle finishes what a broken call left, by what the files say.
func (d *Driver) settle(ctx context.Context, f found) (found, error) {
	have := d.files(f.mark.ID)
	for _, step := range []struct {
		file   string
		finish func(context.Context, found) error
	}{
		{ramUsed, d.settleUsed}, {ramRestoring, d.settleRestoring}, {ramPartial, d.settlePartial}, {ramSaved, d.settleSaved},
	} {
		if !have.has(step.file) {
			continue
		}
		if err := step.finish(ctx, f); err != nil {
			return found{}, fmt.Errorf("settle %s: %w", step.file, err)
		}
		var err error
		if f, err = d.look(ctx, f.mark.ID); err != nil {
			return found{}, err
		}
	}
	return f, nil
}

// settleUsed: the guest had the word to run. If it runs, all is well. If it does not, whether it ran
// is not known, so the domain falls back to its disks.
func (d *Driver) settleUsed(ctx context.Context, f found) error {
	if f.active && f.paused {
		if err := d.destroy(ctx, f.dom); err != nil {
			return err
		}
	}
	return d.files(f.mark.ID).remove(ramUsed)
}

// settleRestoring: the guest never had the word to run. What loads the image is ended and the image
// is good as before, unless somebody let the guest run by hand.
func (d *Driver) settleRestoring(ctx context.Context, f found) error {
	have := d.files(f.mark.ID)
	if f.active && !f.paused {
		return have.remove(ramRestoring)
	}
	if f.active {
		if err := d.destroy(ctx, f.dom); err != nil {
			return err
		}
	}
	return have.rename(ramRestoring, ramSaved)
}

// settlePartial: a save has ended, or goes on without a driver.
func (d *Driver) settlePartial(ctx context.Context, f found) error {
	have := d.files(f.mark.ID)
	if f.active {
		job, err := call(ctx, d.c, func(l *golibvirt.Libvirt) (int32, error) {
			kind, _, _, _, _, _, _, _, _, _, _, _, err := l.DomainGetJobInfo(f.dom)
			return kind, err
		})
		if err != nil {
			return err
		}
		if golibvirt.DomainJobType(job) != golibvirt.DomainJobNone {
			return nil // libvirtd is still writing it, for a driver that is gone
		}
		if f.paused && (f.reason == golibvirt.DomainPausedSave || f.reason == golibvirt.DomainPausedMigration) {
			// A libvirtd that was killed in a save lets the guest go on when it is back, maybe just now.
			if err := d.resume(ctx, f.dom); err != nil {
				return err
			}
		}
		return have.remove(ramPartial)
	}
	whole, err := isWhole(have.path(ramPartial))
	if err != nil {
		return err
	}
	if !whole {
		return have.remove(ramPartial)
	}
	if err := syncPath(have.path(ramPartial)); err != nil {
		return err
	}
	return have.rename(ramPartial, ramSaved)
}

// settleSaved: somebody else started the domain from its disks, so the image no longer fits them.
func (d *Driver) settleSaved(_ context.Context, f found) error {
	if !f.active {
		return nil
	}
	d.log.Warn("saved image dropped: somebody else started the domain from its disks", "object", f.mark.ID)
	return d.files(f.mark.ID).remove(ramSaved)
}

// isWhole says whether libvirt completed an image.
func isWhole(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, len(imageMagic))
	if _, err := io.ReadFull(f, magic); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		return false, err
	}
	return string(magic) == imageMagic, nil
}
