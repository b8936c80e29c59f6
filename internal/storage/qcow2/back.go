package qcow2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/storage"
)

// reachTimeout bounds the connection that is tried before the daemon is told to open a target: an
// address that does not answer would block the daemon's monitor for minutes.
const reachTimeout = 2 * time.Second

// flushWait bounds how long one call waits for the end of a sealed volume's mirror.
const flushWait = time.Second

// wayBack is the mirror of a promoted volume to another pool.
type wayBack struct {
	// To is the target's URL without the number.
	To string `json:"to"`
	// Sync is the newest synchronisation for which a mirror was started, or may have been.
	Sync uint64 `json:"sync"`
	// Sealed is set before the last export ends: no writer may write any more.
	Sealed bool `json:"sealed,omitempty"`
	// Done is set once the sealed volume's target is known to hold everything.
	Done bool `json:"done,omitempty"`
	// Ended is since when the mirror of Sync is known to have ended before that, and Why.
	Ended time.Time `json:"ended,omitzero"`
	Why   string    `json:"why,omitempty"`
}

// runs says whether a job of the daemon should be at work.
func (b *wayBack) runs() bool { return b != nil && !b.Done && b.Ended.IsZero() }

// jobInfo is a job as the daemon shows it.
type jobInfo struct {
	ID     string `json:"device"`
	Status string `json:"status"`
	Ready  bool   `json:"ready"`
	Offset uint64 `json:"offset"`
	Len    uint64 `json:"len"`
	Error  string `json:"error"`
}

const concluded = "concluded"

// caughtUp says whether the target has everything but what is being written right now.
func (j *jobInfo) caughtUp() bool { return j.Ready && j.Offset >= j.Len }

// Names in the daemon: of the job, of the node that it puts above the top, and of its target.
func (v *volume) jobID() string  { return v.tag() + "-b" + strconv.FormatUint(v.Back.Sync, 10) }
func (v *volume) filter() string { return "f" + v.tag() }
func (v *volume) target() string {
	return "t" + v.tag() + "-" + strconv.FormatUint(v.Back.Sync, 36)
}

// jobs lists the daemon's jobs that are about a volume.
func jobs(q *qmp, v *volume) ([]jobInfo, error) {
	var all []jobInfo
	if err := q.call("query-block-jobs", nil, &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(j jobInfo) bool { return !strings.HasPrefix(j.ID, v.tag()+"-b") }), nil
}

// carryBack makes a promoted volume's writes go where the spec says as well, and seals it.
func (d *Driver) carryBack(ctx context.Context, q *qmp, v volume, spec *pb.VolumeSpec) error {
	sealed := v.Back != nil && v.Back.Sealed
	if spec.GetMirrorTo() == "" {
		return d.leaveBack(ctx, q, v, sealed)
	}
	switch {
	case v.Given != nil:
		return fmt.Errorf("disk %s was handed over and cannot be mirrored: %w", v.Disk, storage.ErrInUse)
	case spec.GetResync() == 0:
		return errors.New("synchronisations are numbered from 1")
	case v.Back == nil && spec.GetSealed():
		return fmt.Errorf("nothing of it was mirrored yet: it is not sealed: %w", storage.ErrInUse)
	case v.Back == nil || spec.GetResync() > v.Back.Sync:
		return d.beginBack(ctx, q, v, &wayBack{To: spec.GetMirrorTo(), Sync: spec.GetResync(), Sealed: sealed || spec.GetSealed()})
	case spec.GetResync() == v.Back.Sync && spec.GetSealed() && !sealed:
		return d.seal(ctx, q, v)
	default:
		return nil // An older number changes nothing, and this one was begun.
	}
}

// leaveBack ends a way back that is not wanted any more, unless the volume is sealed.
func (d *Driver) leaveBack(ctx context.Context, q *qmp, v volume, sealed bool) error {
	if sealed {
		return fmt.Errorf("it is sealed, and stays so until it is demoted: %w", storage.ErrInUse)
	}
	if v.Back == nil {
		return nil
	}
	next := v.copy()
	next.Back = nil
	if err := d.replace(&v, next); err != nil {
		return err
	}
	return d.tidy(ctx, q, &v)
}

// beginBack starts the mirror of a new synchronisation. The number is noted as used and ended before
// the daemon is asked: after a crash in between nobody knows, and the number is not used again.
func (d *Driver) beginBack(ctx context.Context, q *qmp, v volume, b *wayBack) error {
	host, port, name, err := parseTarget(b.To)
	if err == nil {
		err = reach(ctx, net.JoinHostPort(host, port))
	}
	if err != nil {
		return err
	}
	note := func(w wayBack) error {
		next := v.copy()
		next.Back = &w
		return d.replace(&v, next)
	}
	begun := *b
	begun.Ended, begun.Why = now(), fmt.Sprintf("the mirror of synchronisation %d was not seen to start", b.Sync)
	if err := note(begun); err != nil {
		return err
	}
	if err := d.step(ctx, "number noted"); err != nil {
		return err
	}
	if err := d.tidy(ctx, q, &v); err != nil { // Ends the mirror of the number before, and the export when sealed.
		return err
	}
	if err := d.startJob(q, &v, host, port, name); err != nil {
		if refused(err) {
			begun.Sync, begun.Why = b.Sync-1, err.Error()
			err = errors.Join(err, note(begun))
		}
		return fmt.Errorf("mirror back to %s: %w", b.To, err)
	}
	if err := d.step(ctx, "mirror started"); err != nil {
		return err
	}
	if err := note(*b); err != nil {
		return err
	}
	d.log.Info("mirror back started", "volume", v.Name, "target", b.To, "resync", b.Sync)
	return d.step(ctx, "start noted")
}

func (d *Driver) startJob(q *qmp, v *volume, host, port, name string) error {
	open, err := nodes(q)
	if err != nil {
		return err
	}
	if !slices.Contains(open, v.node(v.Top)) { // A sealed volume has no export that would have opened it.
		if err := d.openChain(q, d.places(v, v.Top)); err != nil {
			return err
		}
	}
	err = q.call("blockdev-add", map[string]any{
		"node-name": v.target(), "driver": "raw", "discard": "unmap",
		"file": map[string]any{
			"driver": "nbd", "export": storage.SyncExport(name, v.Back.Sync),
			"server": map[string]any{"type": "inet", "host": host, "port": port},
		},
	}, nil)
	if err != nil {
		return err
	}
	// In the background: a target that hangs must not stop what runs here. The seal is what makes the
	// two sides equal, and by then nothing writes.
	return q.call("blockdev-mirror", map[string]any{
		"job-id": v.jobID(), "device": v.node(v.Top), "target": v.target(), "filter-node-name": v.filter(),
		"sync": "full", "copy-mode": "background", "on-source-error": "report", "on-target-error": "report",
		"auto-dismiss": false,
	}, nil)
}

func parseTarget(to string) (host, port, name string, err error) {
	u, err := url.Parse(to)
	if err != nil {
		return "", "", "", fmt.Errorf("mirror to %q: %w", to, err)
	}
	name = strings.TrimPrefix(u.Path, "/")
	if u.Scheme != "nbd" || u.Hostname() == "" || u.Port() == "" || name == "" {
		return "", "", "", fmt.Errorf("mirror to %q: want nbd://address:port/name", to)
	}
	return u.Hostname(), u.Port(), name, nil
}

func reach(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("reach the other pool: %w", err)
	}
	return conn.Close()
}

// seal notes that no writer may write any more; tidy then ends export and mirror. With a mirror that is
// behind nothing is ended: while requests are under way to a target that hangs, ending an export would
// block the whole daemon.
func (d *Driver) seal(ctx context.Context, q *qmp, v volume) error {
	if v.Back.runs() {
		if err := behind(q, &v); err != nil {
			return err
		}
	}
	sealed := *v.Back
	sealed.Sealed = true
	next := v.copy()
	next.Back = &sealed
	if err := d.replace(&v, next); err != nil {
		return err
	}
	if err := d.step(ctx, "sealed"); err != nil {
		return err
	}
	d.log.Info("volume sealed", "volume", v.Name, "resync", v.Back.Sync)
	if err := d.tidy(ctx, q, &v); err != nil {
		return err
	}
	return d.step(ctx, "mirror ended")
}

// behind is an error while anything that was written is not at the target: what the mirror has taken up
// shows in the job, what it has not yet, in its bitmap. That is read first, as one becomes the other.
func behind(q *qmp, v *volume) error {
	var all []struct {
		Node    string `json:"node-name"`
		Bitmaps []struct {
			Count uint64 `json:"count"`
		} `json:"dirty-bitmaps"`
	}
	if err := q.call("query-named-block-nodes", map[string]any{"flat": true}, &all); err != nil {
		return err
	}
	left := uint64(0)
	for _, n := range all {
		for _, b := range n.Bitmaps {
			if n.Node == v.node(v.Top) || n.Node == v.filter() {
				left += b.Count
			}
		}
	}
	js, err := jobs(q, v)
	if err != nil {
		return err
	}
	for _, j := range js {
		if j.ID == v.jobID() && j.Status != concluded && (left > 0 || !j.caughtUp()) {
			return fmt.Errorf("the mirror of synchronisation %d has %w: %d bytes are left", v.Back.Sync, storage.ErrBehind, left+j.Len-j.Offset)
		}
	}
	return nil
}

// followBack ends the jobs that the metadata does not know as running, and notes what has become of the
// one that it does.
func (d *Driver) followBack(ctx context.Context, q *qmp, v *volume) error {
	all, err := jobs(q, v)
	if err != nil {
		return err
	}
	want, keep := "", ""
	if v.Back.runs() {
		want = v.jobID()
	}
	found := false
	for _, j := range all {
		if j.ID == want {
			found = true
			if j.Status != concluded {
				keep = v.target()
				continue
			}
			if err := d.concludeBack(v, j.Error); err != nil {
				return err
			}
		}
		if err := d.endJob(ctx, q, j); err != nil {
			return err
		}
	}
	if want != "" && !found {
		if err := d.concludeBack(v, "the storage daemon died, and the mirror with it"); err != nil {
			return err
		}
	}
	return d.closeTargets(q, v, keep)
}

// concludeBack notes how a mirror ended. Only the end of a sealed volume's mirror without an error
// proves that the target holds everything: it was flushed as the job's last act.
func (d *Driver) concludeBack(v *volume, problem string) error {
	b := *v.Back
	switch {
	case problem == "" && b.Sealed:
		b.Done = true
		d.log.Info("mirror back ended with everything at the target", "volume", v.Name, "resync", b.Sync)
	case problem == "":
		problem = "it was ended"
		fallthrough
	default:
		b.Ended, b.Why = now(), fmt.Sprintf("the mirror of synchronisation %d ended: %s", b.Sync, problem)
		d.log.Warn("mirror back ended", "volume", v.Name, "resync", b.Sync, "reason", problem)
	}
	next := v.copy()
	next.Back = &b
	return d.replace(v, next)
}

// endJob ends a job, whatever it is doing, and waits until it is forgotten.
func (d *Driver) endJob(ctx context.Context, q *qmp, j jobInfo) error {
	if j.Status != concluded {
		if err := q.call("block-job-cancel", map[string]any{"device": j.ID, "force": true}, nil); err != nil && !refused(err) {
			return err
		}
		if err := awaitJob(ctx, q, j.ID); err != nil {
			return err
		}
	}
	if err := q.call("job-dismiss", map[string]any{"id": j.ID}, nil); err != nil && !refused(err) {
		return err
	}
	return nil
}

// awaitJob waits until a job that was told to end has ended.
func awaitJob(ctx context.Context, q *qmp, id string) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		var all []jobInfo
		if err := q.call("query-block-jobs", nil, &all); err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(j jobInfo) bool { return j.ID == id && j.Status != concluded }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of job %s: %w", id, ctx.Err())
		case <-tick.C:
		}
	}
}

// closeTargets closes the nodes of targets that no mirror needs any more.
func (d *Driver) closeTargets(q *qmp, v *volume, keep string) error {
	all, err := nodes(q)
	if err != nil {
		return err
	}
	for _, node := range all {
		if !strings.HasPrefix(node, "t"+v.tag()+"-") || node == keep {
			continue
		}
		if err := d.closeNode(q, node); err != nil && !refused(err) {
			return err
		}
	}
	return nil
}

// finishBack ends the mirror of a sealed volume, whose export is gone by now. A mirror that is still
// copying goes on: the next call ends it.
func (d *Driver) finishBack(ctx context.Context, q *qmp, v *volume) error {
	if !v.Back.runs() || !v.Back.Sealed {
		return nil
	}
	all, err := jobs(q, v)
	if err != nil {
		return err
	}
	for _, j := range all {
		if j.ID != v.jobID() || !j.caughtUp() && j.Status != concluded {
			continue
		}
		// Without force: the job ends when the target is equal and flushed, or fails.
		if err := q.call("block-job-cancel", map[string]any{"device": j.ID}, nil); err != nil && !refused(err) {
			return err
		}
		// The flush of a target that hangs is not waited for: other volumes have their turn, too.
		short, cancel := context.WithTimeout(ctx, flushWait)
		err := awaitJob(short, q, j.ID)
		cancel()
		if err != nil && ctx.Err() == nil && short.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		return d.followBack(ctx, q, v)
	}
	return nil
}

// reportBack adds what is known of the way back.
func (d *Driver) reportBack(q *qmp, v *volume, s *pb.VolumeStatus) error {
	b := v.Back
	s.Resync = b.Sync
	if b.Done {
		s.InSync, s.Sealed, s.SyncPercent = true, true, 100
		return nil
	}
	if !b.runs() {
		s.DegradedSince, s.DegradedReason = timestamppb.New(b.Ended), b.Why
		return nil
	}
	all, err := jobs(q, v)
	if err != nil {
		return err
	}
	for _, j := range all {
		if j.ID != v.jobID() || j.Status == concluded {
			continue // The next call notes how it ended.
		}
		s.Mirroring = true
		switch {
		case j.Ready:
			s.InSync, s.SyncPercent = true, 100
		case j.Len > 0:
			s.SyncPercent = uint32(min(99, 100*j.Offset/j.Len))
		}
	}
	return nil
}
