package raftnode_test

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hotspare/hotspare/internal/coordinator/raftnode"
	"github.com/hotspare/hotspare/internal/coordinator/raftnode/memnet"
	"github.com/hotspare/hotspare/internal/trust"
)

// discard is a machine without a state.
type discard struct{}

func (discard) Apply(uint64, uint64, []byte) any { return nil }
func (discard) Restore(io.Reader) error          { return nil }
func (discard) Snapshot() func(io.Writer) error {
	return func(io.Writer) error { return nil }
}

// fsyncLimit measures what one durable append of the entry's size costs on this disk now: the physical
// limit of a commit.
func fsyncLimit(b *testing.B, dir string, size int) time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "limit"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const rounds = 200
	block := make([]byte, size)
	began := time.Now()
	for range rounds {
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began) / rounds
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return (time.Duration(u.Utime.Nano()) + time.Duration(u.Stime.Nano())).Seconds()
}

// BenchmarkPropose commits entries of 512 bytes: members x proposals under way at once. All members share
// one disk and one machine, so three of them cost three fsyncs that real sites do side by side.
func BenchmarkPropose(b *testing.B) {
	for _, members := range []int{1, 3} {
		for _, atOnce := range []int{1, 64} {
			b.Run(fmt.Sprintf("members=%d/at-once=%d", members, atOnce), func(b *testing.B) {
				benchmarkPropose(b, benchMembers(b, members), atOnce)
			})
		}
	}
	b.Run("members=3-tls/at-once=1", func(b *testing.B) {
		benchmarkPropose(b, benchTLS(b), 1)
	})
}

func benchmarkPropose(b *testing.B, leader *raftnode.Node, atOnce int) {
	const size = 512
	limit := fsyncLimit(b, b.TempDir(), size)
	work := make(chan struct{})
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for range work {
				if _, _, err := leader.Propose(b.Context(), make([]byte, size)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	cpu := cpuSeconds()
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	workers.Wait()
	b.StopTimer()
	each := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
	b.ReportMetric(float64(limit.Nanoseconds()), "fsync-ns")
	b.ReportMetric(each/float64(limit.Nanoseconds()), "fsyncs/op")
	b.ReportMetric((cpuSeconds()-cpu)*1e9/float64(b.N), "cpu-ns/op")
}

func benchMembers(b *testing.B, count int) *raftnode.Node {
	b.Helper()
	network, dir := memnet.New(), b.TempDir()
	var leader *raftnode.Node
	for i := range count {
		name := string(rune('a' + i))
		n, err := raftnode.Open(raftnode.Options{
			Name: name, Dir: filepath.Join(dir, name), Machine: discard{},
			Transport: network.Transport(name), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = n.Close() })
		if leader != nil {
			if err := leader.AddMember(b.Context(), name, name); err != nil {
				b.Fatal(err)
			}
			continue
		}
		leader = n
		if err := n.Bootstrap(b.Context()); err != nil {
			b.Fatal(err)
		}
		eventually(b, "leader", n.IsLeader)
	}
	return leader
}

func benchTLS(b *testing.B) *raftnode.Node {
	b.Helper()
	p := newPKI(b)
	leader, _, _ := firstOverTLS(b, p)
	for _, name := range []string{"b", "c"} {
		_, _, address := tlsMember(b, name, p.keeper(trust.RoleCoordinator, name), io.Discard)
		if err := leader.AddMember(b.Context(), name, address); err != nil {
			b.Fatal(err)
		}
	}
	return leader
}
