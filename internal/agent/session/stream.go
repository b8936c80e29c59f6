package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
)

// stream is one stream to one coordinator. One goroutine sends, so that nobody who reports waits
// for the network.
type stream struct {
	name string
	rpc  pb.AgentService_SessionClient
	end  context.CancelCauseFunc
	// wake holds one signal: something waits to be sent.
	wake chan struct{}

	mu sync.Mutex
	// full is set once the full report was given; what comes before it is part of it.
	full bool
	all  []*pb.Status
	// changes by object: the newest only, so the queue is bounded by the number of objects.
	changes map[string]*pb.Status
	beat    *pb.Heartbeat
	seq     uint64
	// consoles are the answers that wait, at most maxConsoles.
	consoles []*pb.ConsoleAnswer
	// unanswered heartbeats by sequence, with the time before they were sent.
	unanswered map[uint64]time.Duration
}

func newStream(name string, rpc pb.AgentService_SessionClient, end context.CancelCauseFunc) *stream {
	return &stream{
		name: name, rpc: rpc, end: end, wake: make(chan struct{}, 1),
		changes: map[string]*pb.Status{}, unanswered: map[uint64]time.Duration{},
	}
}

func (s *stream) report(st *pb.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		s.changes[st.GetObject()] = st
		s.signal()
	}
}

func (s *stream) reportFull(all []*pb.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// An empty report is one too: it says that the agent has nothing.
	s.full, s.all = true, append([]*pb.Status{}, all...)
	clear(s.changes)
	s.signal()
}

func (s *stream) heartbeat(now time.Duration, capacity *pb.Capacity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sent := range s.unanswered {
		if now-sent > answerLimit {
			s.end(fmt.Errorf("coordinator %s has not answered a heartbeat for %v", s.name, answerLimit))
			return
		}
	}
	if s.beat != nil && capacity == nil {
		// An older one still waits to be sent; what it carries must not be lost.
		capacity = s.beat.GetCapacity()
	}
	s.seq++
	s.beat = &pb.Heartbeat{Sequence: s.seq, Capacity: capacity}
	if len(s.unanswered) < maxUnanswered {
		s.unanswered[s.seq] = now
	}
	s.signal()
}

// maxConsoles bounds the answers about consoles that wait to be sent, each of at most 64 KiB.
const maxConsoles = 16

func (s *stream) answerConsole(a *pb.ConsoleAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.consoles) < maxConsoles {
		s.consoles = append(s.consoles, a)
		s.signal()
	}
}

// answered returns when the heartbeat was about to be sent. An answer covers all older ones: they
// were answered before it or their answers were dropped.
func (s *stream) answered(seq uint64) (sent time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent, ok = s.unanswered[seq]
	maps.DeleteFunc(s.unanswered, func(n uint64, _ time.Duration) bool { return n <= seq })
	return sent, ok
}

// signal wakes the sender. The caller holds mu.
func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// send writes what waits until the stream ends. Heartbeats go first: they must not wait behind statuses.
func (s *stream) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for _, m := range s.take() {
			if err := s.rpc.Send(m); err != nil {
				s.end(fmt.Errorf("send to coordinator %s: %w", s.name, err))
				return
			}
		}
	}
}

// take empties the queue.
func (s *stream) take() []*pb.SessionRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*pb.SessionRequest
	if s.beat != nil {
		out = append(out, &pb.SessionRequest{Message: &pb.SessionRequest_Heartbeat{Heartbeat: s.beat}})
		s.beat = nil
	}
	if s.all != nil {
		out = append(out, statuses(true, s.all))
		s.all = nil
	}
	if len(s.changes) > 0 {
		var changed []*pb.Status
		for _, id := range slices.Sorted(maps.Keys(s.changes)) {
			changed = append(changed, s.changes[id])
		}
		clear(s.changes)
		out = append(out, statuses(false, changed))
	}
	for _, a := range s.consoles { // Last: nothing waits behind what a person reads.
		out = append(out, &pb.SessionRequest{Message: &pb.SessionRequest_Console{Console: a}})
	}
	s.consoles = nil
	return out
}

func statuses(full bool, all []*pb.Status) *pb.SessionRequest {
	return &pb.SessionRequest{Message: &pb.SessionRequest_Statuses{
		Statuses: &pb.StatusReport{Full: full, Statuses: all},
	}}
}
