package sim

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// World holds the pools and sites of one test, and the wires between them.
type World struct {
	// mu guards everything that pools and sites hold, except their faults: a mirror joins a disk of
	// a site to a layer of a pool.
	mu    sync.Mutex
	pools map[string]*Pool
	sites map[string]*Site
}

// NewWorld makes an empty world.
func NewWorld() *World {
	return &World{pools: map[string]*Pool{}, sites: map[string]*Site{}}
}

// Content is what a disk or an export holds.
type Content struct {
	// Records counts the records that are there, from the first one on, without a gap.
	Records uint64
	// Torn is set for the content of a mirror that has not converged: not crash consistent.
	Torn bool
}

// journal is a disk that a VM writes records to.
type journal struct {
	records uint64
	// every is the time between two records while the writer runs; zero: only what tests write.
	every time.Duration
	// since is when the writer began to run; zero: it does not run.
	since time.Time
}

// at returns the number of records at a time not before the last change.
func (j *journal) at(now time.Time) uint64 {
	if j.every <= 0 || j.since.IsZero() {
		return j.records
	}
	return j.records + uint64(now.Sub(j.since)/j.every)
}

func (j *journal) run(now time.Time) {
	if j.since.IsZero() {
		j.since = now
	}
}

func (j *journal) stop(now time.Time) {
	j.records = j.at(now)
	j.since = time.Time{}
}

// link is a mirror between a disk and the layer of a pool that receives it.
type link struct {
	from    *journal
	sync    uint64
	started time.Time
	// takes is how long it needs to converge.
	takes time.Duration
	// cut is when it broke; zero: it runs.
	cut time.Time
	// had is what the layer held when it broke, and wrote what the disk held.
	had   Content
	wrote uint64
}

// content is what the receiving layer holds.
func (l *link) content(now time.Time) Content {
	if !l.cut.IsZero() {
		return l.had
	}
	if l.converged(now) {
		return Content{Records: l.from.at(now)}
	}
	share := float64(now.Sub(l.started)) / float64(l.takes)
	return Content{Records: uint64(float64(l.from.at(now)) * share), Torn: true}
}

func (l *link) converged(now time.Time) bool { return !now.Before(l.started.Add(l.takes)) }

// percent is how far a running mirror has come, 100 only when converged.
func (l *link) percent(now time.Time) uint32 {
	if l.converged(now) {
		return 100
	}
	return uint32(min(99, 100*now.Sub(l.started)/l.takes))
}

// sever breaks the mirror; what the layer holds at that moment stays.
func (l *link) sever(now time.Time) {
	if !l.cut.IsZero() {
		return
	}
	l.had, l.wrote, l.cut = l.content(now), l.from.at(now), now
}

// export finds the pool and the export that a URL names. The caller holds the lock.
func (w *World) export(url string) (*Pool, string, error) {
	rest, ok := strings.CutPrefix(url, "nbd://")
	address, name, named := strings.Cut(rest, "/")
	if !ok || !named {
		return nil, "", fmt.Errorf("open %q: not an NBD address", url)
	}
	p := w.pools[address]
	if p == nil {
		return nil, "", fmt.Errorf("open %q: no pool answers at %s", url, address)
	}
	return p, name, nil
}

// handOver replaces the content of a VM's disk. A VM that runs keeps the file that it has open.
func (w *World) handOver(path string, c Content) {
	for _, s := range w.sites {
		for _, d := range s.disks {
			if d.path == path && !d.running {
				d.journal.records = c.Records
			}
		}
	}
}

// Write puts an export's content to a number of records, as whoever has it open would: the VM on a
// promoted volume or a clone, or a mirror on a replica.
func (w *World) Write(url string, records uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, name, err := w.export(url)
	if err != nil {
		return err
	}
	l := p.exported(name)
	if l == nil {
		return fmt.Errorf("write %q: no such export", url)
	}
	l.disk.records = records
	l.disk.since = time.Time{}
	return nil
}

// Read returns what a VM that boots from the export sees.
func (w *World) Read(url string) (Content, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, name, err := w.export(url)
	if err != nil {
		return Content{}, err
	}
	l := p.exported(name)
	if l == nil {
		return Content{}, fmt.Errorf("read %q: no such export", url)
	}
	return l.content(time.Now()), nil
}
