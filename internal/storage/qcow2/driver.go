package qcow2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/hotspare/hotspare/internal/storage"
)

// Options configure a pool.
type Options struct {
	// Dir is the pool's folder, an absolute path. It must exist, and belongs to the driver alone.
	Dir string
	// Address is the "ip:port" on which the pool's storage daemon serves NBD, in the network
	// namespace of the agent.
	Address string
	Log     *slog.Logger
}

// Driver is a pool directory behind a storage daemon.
type Driver struct {
	daemon
	imageBinary string
	lockFile    *os.File
	// turn holds one token: who has it runs the one call that is under way.
	turn chan struct{}
	// volumes is what the metadata on disk says; nil: it must be read. broken are the volumes whose
	// metadata cannot be read. Both belong to the holder of the turn.
	volumes map[string]volume
	broken  map[string]error
	// settled is set once all volumes were followed since the driver or the daemon was started.
	settled bool
	// between is called between the steps of a changing call, for tests that stop it there.
	between func(step string) error
}

var _ storage.Driver = (*Driver)(nil)

// New takes the pool into use. It fails when another driver has it, and starts nothing: the daemon
// is started or adopted by the first call that needs it.
func New(o Options) (*Driver, error) {
	if socket := filepath.Join(o.Dir, daemonDir, socketFile); !filepath.IsAbs(o.Dir) || len(socket) > maxSocketPath {
		return nil, fmt.Errorf("open pool %q: want an absolute path, and at most %d bytes for %q", o.Dir, maxSocketPath, socket)
	}
	lock, err := os.OpenFile(filepath.Join(o.Dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open pool %s: %w", o.Dir, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("open pool %s: another driver uses it: %w", o.Dir, err), lock.Close())
	}
	d := &Driver{
		daemon:      daemon{dir: o.Dir, address: o.Address, binary: "qemu-storage-daemon", log: o.Log},
		imageBinary: "qemu-img",
		lockFile:    lock,
		turn:        make(chan struct{}, 1),
		between:     func(string) error { return nil },
	}
	d.turn <- struct{}{}
	return d, nil
}

// Close waits for the call that is under way and leaves the pool and its daemon as they are.
func (d *Driver) Close() error {
	<-d.turn
	return d.lockFile.Close()
}

// run executes one call's body when it is its turn. When the context ends first, the caller gets its
// error at once, and the body ends in the background as soon as the kernel lets it go on.
func run[T any](ctx context.Context, d *Driver, what string, body func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	select {
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %w", what, ctx.Err())
	default:
	}
	select {
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %w", what, ctx.Err())
	case <-d.turn:
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := body()
		d.turn <- struct{}{}
		done <- outcome{value, err}
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

// call is a changing call, for messages.
type call struct {
	verb, name string
	// begins is set for the one call that is of use in an empty pool.
	begins bool
}

// change executes the body of a changing call with a connection to the daemon.
func (d *Driver) change(ctx context.Context, c call, body func(q *qmp) error) error {
	_, err := run(ctx, d, c.verb+" volume "+c.name, func() (struct{}, error) {
		err := checkName(c.name)
		if err == nil {
			err = d.ensureLoaded()
		}
		if err == nil {
			err = d.broken[c.name]
		}
		if err == nil && d.empty() && !c.begins {
			// A daemon may be left from a removal that was cut short.
			if err = d.stop(ctx); err == nil {
				err = storage.ErrNotFound
			}
		}
		if err == nil {
			err = d.connected(ctx, body)
		}
		return struct{}{}, err
	})
	return err
}

func (d *Driver) empty() bool { return len(d.volumes) == 0 && len(d.broken) == 0 }

// connected connects to the daemon, makes it follow when it was started since, and executes the body.
// Without any volume afterwards the daemon is ended. The metadata must have been read.
func (d *Driver) connected(ctx context.Context, body func(q *qmp) error) error {
	q, err := d.open(ctx)
	if err != nil {
		return err
	}
	if !d.settled {
		err = d.settle(ctx, q)
	}
	if err == nil {
		err = body(q)
	}
	q.close()
	if err != nil {
		// The metadata on disk may be ahead of what this call has got in hand.
		d.volumes = nil
		return err
	}
	if d.empty() {
		return d.stop(ctx)
	}
	return nil
}

// open connects to the daemon, after starting it when none listens.
func (d *Driver) open(ctx context.Context) (*qmp, error) {
	q, err := d.dial(ctx)
	if err == nil || !notRunning(err) {
		return q, err
	}
	d.settled = false
	// Noted before the start: a crash after it must not hide that the mirrors are gone.
	if err := d.noteLost(now()); err != nil {
		return nil, err
	}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	return d.dial(ctx)
}

// noteLost notes that every mirror into the pool ended with the daemon. A mirror never connects
// again, and the VM's side sees that only at its next write.
func (d *Driver) noteLost(at time.Time) error {
	for _, name := range slices.Sorted(maps.Keys(d.volumes)) {
		v := d.volumes[name]
		if v.State != isReplica || v.Top == 0 || !v.Lost.IsZero() {
			continue
		}
		v.Lost = at
		if err := d.save(v); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) ensureLoaded() error {
	if d.volumes != nil {
		return nil
	}
	return d.load()
}

// settle finishes what was begun before the driver or the daemon ended. A volume that cannot be
// settled does not keep the others from being served; calls that name it say why.
func (d *Driver) settle(ctx context.Context, q *qmp) error {
	for _, name := range slices.Sorted(maps.Keys(d.volumes)) {
		v := d.volumes[name]
		err := d.tidy(ctx, q, &v)
		if err == nil && v.Removing {
			err = d.finishRemoval(&v)
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil || q.broken {
			return err
		}
		d.log.Error("volume cannot be served", "pool", d.dir, "volume", name, "error", err)
	}
	d.settled = true
	return nil
}

// step is the place between two steps of a call: it ends there when the context did.
func (d *Driver) step(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.between(name)
}

// tidy makes disk and daemon agree with a volume's metadata. Every call begins and ends with it.
func (d *Driver) tidy(ctx context.Context, q *qmp, v *volume) error {
	if v.State == isClone && !v.Removing {
		if err := d.freezeOrigin(ctx, q, v); err != nil {
			return err
		}
	}
	next := v.copy()
	next.prune(d.origins(v.Name))
	if err := d.replace(v, next); err != nil {
		return err
	}
	if err := d.followBack(ctx, q, v); err != nil {
		return err
	}
	if err := d.follow(ctx, q, v); err != nil {
		return err
	}
	if err := d.finishBack(ctx, q, v); err != nil {
		return err
	}
	if v.Given != nil {
		if err := d.handOver(v); err != nil {
			return err
		}
	}
	return d.sweep(v)
}

// replace saves a changed volume and puts it in place of the old one.
func (d *Driver) replace(v *volume, next volume) error {
	if reflect.DeepEqual(*v, next) {
		return nil
	}
	if err := d.save(next); err != nil {
		return err
	}
	*v = next
	return nil
}

// origins returns the layers of a volume that clones stand on.
func (d *Driver) origins(name string) []uint64 {
	var out []uint64
	for _, v := range d.volumes {
		if v.Of == name && v.State == isClone {
			out = append(out, v.Origin)
		}
	}
	slices.Sort(out)
	return out
}

// existing returns a volume and tidies it.
func (d *Driver) existing(ctx context.Context, q *qmp, name string) (volume, error) {
	v, ok := d.volumes[name]
	if !ok {
		return volume{}, storage.ErrNotFound
	}
	return v, d.tidy(ctx, q, &v)
}

// Capacity reports the file system of the pool.
func (d *Driver) Capacity(ctx context.Context) (storage.Capacity, error) {
	type answer struct {
		capacity storage.Capacity
		err      error
	}
	done := make(chan answer, 1)
	go func() {
		var st syscall.Statfs_t
		err := syscall.Statfs(d.dir, &st)
		block := uint64(st.Bsize)
		done <- answer{storage.Capacity{SizeBytes: st.Blocks * block, FreeBytes: st.Bavail * block}, err}
	}()
	select {
	case <-ctx.Done():
		return storage.Capacity{}, fmt.Errorf("capacity of pool %s: %w", d.dir, ctx.Err())
	case a := <-done:
		if a.err != nil {
			return storage.Capacity{}, fmt.Errorf("capacity of pool %s: %w", d.dir, a.err)
		}
		return a.capacity, nil
	}
}

// List reports all volumes, in the order of their names.
func (d *Driver) List(ctx context.Context) ([]storage.Volume, error) {
	return run(ctx, d, "list pool "+d.dir, func() ([]storage.Volume, error) {
		if err := d.ensureLoaded(); err != nil || len(d.volumes) == 0 {
			return nil, err
		}
		var out []storage.Volume
		err := d.connected(ctx, func(q *qmp) error {
			for _, name := range slices.Sorted(maps.Keys(d.volumes)) {
				v, err := d.report(q, name)
				if err != nil {
					return err
				}
				out = append(out, v)
			}
			return nil
		})
		return out, err
	})
}

// Inspect reports one volume, after making sure that it is served as its metadata says.
func (d *Driver) Inspect(ctx context.Context, name string) (storage.Volume, error) {
	return run(ctx, d, "inspect volume "+name, func() (storage.Volume, error) {
		if err := d.ensureLoaded(); err != nil {
			return storage.Volume{}, err
		}
		if err := d.broken[name]; err != nil {
			return storage.Volume{}, err
		}
		if _, ok := d.volumes[name]; !ok {
			return storage.Volume{}, storage.ErrNotFound
		}
		var out storage.Volume
		err := d.connected(ctx, func(q *qmp) error {
			if _, err := d.existing(ctx, q, name); err != nil {
				return err
			}
			var err error
			out, err = d.report(q, name)
			return err
		})
		return out, err
	})
}

func (d *Driver) report(q *qmp, name string) (storage.Volume, error) {
	v := d.volumes[name]
	status := v.status(d.address)
	status.UsedBytes = d.used(name)
	if v.Back != nil {
		if err := d.reportBack(q, &v, status); err != nil {
			return storage.Volume{}, err
		}
	}
	return storage.Volume{Name: name, State: v.pbState(), Status: status}, nil
}

// Remove deletes a volume.
func (d *Driver) Remove(ctx context.Context, name string) error {
	err := d.change(ctx, call{verb: "remove", name: name}, func(q *qmp) error {
		v, ok := d.volumes[name]
		if !ok {
			return storage.ErrNotFound
		}
		if v.State == isPrimary {
			return fmt.Errorf("it is promoted: %w", storage.ErrInUse)
		}
		if n := len(d.origins(name)); n > 0 {
			return fmt.Errorf("%d clones stand on it: %w", n, storage.ErrInUse)
		}
		next := v.copy()
		next.Removing = true
		if err := d.replace(&v, next); err != nil {
			return err
		}
		if err := d.step(ctx, "marked for removal"); err != nil {
			return err
		}
		if err := d.tidy(ctx, q, &v); err != nil {
			return err
		}
		if err := d.step(ctx, "layers deleted"); err != nil {
			return err
		}
		if err := d.finishRemoval(&v); err != nil {
			return err
		}
		if err := d.step(ctx, "folder deleted"); err != nil {
			return err
		}
		if source, ok := d.volumes[v.Of]; ok {
			return d.tidy(ctx, q, &source)
		}
		return nil
	})
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}

// finishRemoval deletes the metadata and the folder of a volume whose layers are gone.
func (d *Driver) finishRemoval(v *volume) error {
	if v.Disk != "" {
		if err := os.Remove(v.Disk + keptSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("delete the old disk: %w", err)
		}
	}
	folder := d.folder(v.Name)
	if err := os.Remove(filepath.Join(folder, metadataFile)); err != nil {
		return fmt.Errorf("delete volume: %w", err)
	}
	delete(d.volumes, v.Name)
	if err := os.RemoveAll(filepath.Join(folder, metadataFile+".new")); err != nil {
		return fmt.Errorf("delete volume: %w", err)
	}
	if err := errors.Join(os.Remove(folder), syncPath(d.dir)); err != nil {
		return fmt.Errorf("delete volume: %w", err)
	}
	d.log.Info("volume removed", "volume", v.Name)
	return nil
}

// now is cut to what survives JSON and the seam alike.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
