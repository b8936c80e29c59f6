package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Times of raft, for members on one LAN or one metropolitan network (round trip below 20 ms).
const (
	// HeartbeatTimeout is how long a follower waits for the leader before it asks for votes. Heartbeats
	// are sent ten times as often, so several must be lost or late.
	HeartbeatTimeout = 500 * time.Millisecond
	// ElectionTimeout is how long a candidate waits for votes before it tries again.
	ElectionTimeout = 500 * time.Millisecond
	// LeaderLease is how long a leader leads without hearing from a majority: shorter than the time in
	// which the others can elect another, so two never lead at once for longer than clocks drift.
	LeaderLease = 400 * time.Millisecond
	// aloneTimeout is how long the only member of a site waits before it elects itself.
	aloneTimeout = 50 * time.Millisecond
	// commitInterval is how late followers hear of a commit when nothing else is sent.
	commitInterval = 50 * time.Millisecond
)

const (
	// maxAppendEntries bounds one message between members.
	maxAppendEntries = 64
	// defaultSnapshotThreshold is the number of entries between snapshots.
	defaultSnapshotThreshold = 8192
	// defaultTrailingLogs is how many entries are kept behind a snapshot, so that a member that was away
	// for a short time needs no snapshot.
	defaultTrailingLogs = 4096
	// snapshotInterval is how often raft looks whether a snapshot is due.
	snapshotInterval = 2 * time.Minute
	// retainSnapshots keeps one to fall back on when the newest is damaged.
	retainSnapshots = 2
	// closeWait bounds how long Close waits for calls under way; without a quorum raft fails them after
	// LeaderLease.
	closeWait = 5 * time.Second
	// logFile is the name of the log in Options.Dir; snapshots lie beside it.
	logFile = "raft.db"
)

// Options says how to open a member.
type Options struct {
	// Name identifies the member for ever; it must be unique among members.
	Name string
	// Dir holds log and snapshots. It is made when missing. One process at a time may use it.
	Dir       string
	Machine   Machine
	Transport Transport
	Logger    *slog.Logger
	// Alone: the site has and will have only this member, so no other leader's heartbeat is waited for.
	Alone bool
	// SnapshotThreshold and TrailingLogs count entries; 0 means the default. Tests set them low.
	SnapshotThreshold, TrailingLogs uint64
}

// Node is one member. All methods are safe for concurrent use.
type Node struct {
	name       string
	raft       *raft.Raft
	store      *Store
	transport  *tracked
	leadership *leadership
	log        *slog.Logger

	// slots bounds proposals under way, large bounds those in parts to one.
	slots, large chan struct{}
	// settledTerm is the term in which this member led and had applied everything before it.
	settledTerm atomic.Uint64

	mu     sync.Mutex
	closed bool // guarded by mu
	calls  sync.WaitGroup
}

// Open starts a member from its directory. A member without a past waits: until Bootstrap on the first
// one, until the leader's AddMember on the others. Open owns the transport from now on, also when it fails.
func Open(o Options) (*Node, error) {
	n, err := open(o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft member %s: %w", o.Name, err), o.Transport.Close())
	}
	return n, nil
}

func open(o Options) (*Node, error) {
	if err := os.MkdirAll(o.Dir, dirMode); err != nil {
		return nil, err
	}
	if err := removeLeavings(o.Dir); err != nil {
		return nil, err
	}
	logger := newSlogger(o.Logger)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(o.Dir, retainSnapshots, logger)
	if err != nil {
		return nil, err
	}
	store, err := OpenStore(filepath.Join(o.Dir, logFile))
	if err != nil {
		return nil, err
	}
	n := &Node{
		name: o.Name, store: store, log: o.Logger,
		transport:  newTracked(o.Transport),
		leadership: startLeadership(),
		slots:      make(chan struct{}, maxInFlight),
		large:      make(chan struct{}, 1),
	}
	err = guard(func() (err error) {
		n.raft, err = raft.NewRaft(n.config(o, logger), &fsm{machine: o.Machine}, store, store, snapshots, n.transport)
		return err
	})
	if err != nil {
		n.leadership.close()
		return nil, errors.Join(err, store.Close())
	}
	return n, nil
}

// removeLeavings deletes snapshots that a crash left half written; raft ignores them and keeps them.
func removeLeavings(dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.tmp"))
	if err != nil {
		return err
	}
	for _, path := range found {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) config(o Options, logger *slogger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(o.Name)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = HeartbeatTimeout, ElectionTimeout, LeaderLease
	if o.Alone {
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = aloneTimeout, aloneTimeout, aloneTimeout
	}
	c.CommitTimeout = commitInterval
	c.MaxAppendEntries = maxAppendEntries
	c.SnapshotInterval = snapshotInterval
	c.SnapshotThreshold, c.TrailingLogs = defaultSnapshotThreshold, defaultTrailingLogs
	if o.SnapshotThreshold > 0 {
		c.SnapshotThreshold = o.SnapshotThreshold
	}
	if o.TrailingLogs > 0 {
		c.TrailingLogs = o.TrailingLogs
	}
	// A buffered apply channel would keep proposals that a closing raft never answers; concurrent
	// proposals are committed together without it.
	c.BatchApplyCh = false
	// A removed member stays up to say so.
	c.ShutdownOnRemove = false
	c.NotifyCh = n.leadership.notices
	c.NoLegacyTelemetry = true
	c.Logger = logger
	return c
}

// Close stops the member and closes transport and store. Proposals under way get a few seconds to end.
// It leaves leadership to an election; call TransferLeadership before to hand it over.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()

	idle := make(chan struct{})
	go func() {
		n.calls.Wait()
		close(idle)
	}()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		n.log.Warn("raft calls did not end before shutdown", "took", closeWait)
	}
	err := n.raft.Shutdown().Error()
	n.leadership.close()
	if err := errors.Join(err, n.transport.Close(), n.store.Close()); err != nil {
		return fmt.Errorf("close raft member %s: %w", n.name, err)
	}
	return nil
}

// await hands a call to raft, which cannot cancel it, and waits for its end or the context's. When the
// context ends first, the call goes on and its results must not be read.
func (n *Node) await(ctx context.Context, call func() error) error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return ErrClosed
	}
	n.calls.Add(1)
	n.mu.Unlock()

	result := make(chan error, 1)
	go func() {
		defer n.calls.Done()
		result <- call()
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return contextError(ctx)
	}
}

// Name returns the member's own name.
func (n *Node) Name() string { return n.name }

// Leader returns name and raft address of the leader as this member knows it; empty: none.
func (n *Node) Leader() (name, address string) {
	a, id := n.raft.LeaderWithID()
	return string(id), string(a)
}

// IsLeader says whether this member believes that it leads; VerifyLeader makes sure.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Term returns the newest term that this member knows.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// Leadership delivers true when this member begins to lead and false when it ceases to: alternating,
// beginning with true; a loss is never skipped once its gain was delivered. It is for one reader, and
// is closed by Close. A reader that is late delays nobody.
func (n *Node) Leadership() <-chan bool { return n.leadership.out }

// Stats is what a member knows about itself.
type Stats struct {
	State                                                  string
	Term, LastIndex, CommitIndex, AppliedIndex, FirstIndex uint64
	// LastContact is when a leader was last heard; zero: never.
	LastContact time.Time
}

// Stats returns figures for metrics and diagnosis.
func (n *Node) Stats() (Stats, error) {
	first, err := n.store.FirstIndex()
	if err != nil {
		return Stats{}, fmt.Errorf("read raft figures of %s: %w", n.name, err)
	}
	return Stats{
		State: n.raft.State().String(), Term: n.raft.CurrentTerm(),
		LastIndex: n.raft.LastIndex(), CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.raft.AppliedIndex(),
		FirstIndex: first, LastContact: n.raft.LastContact(),
	}, nil
}
