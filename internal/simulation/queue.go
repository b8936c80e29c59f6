package simulation

import (
	"container/heap"
	"time"
)

// event is something that happens at one moment of the virtual time.
type event struct {
	at  time.Duration
	seq uint64
	run func()
}

// queue orders events by time, and by their making within one moment.
type queue []event

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].seq < q[j].seq
}

func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is for container/heap.
func (q *queue) Push(x any) { *q = append(*q, x.(event)) }

// Pop is for container/heap.
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// at runs f at a moment, or now when that has passed.
func (s *sim) at(t time.Duration, f func()) {
	s.seq++
	heap.Push(&s.queue, event{max(t, s.now), s.seq, f})
}

// after runs f when d has passed.
func (s *sim) after(d time.Duration, f func()) { s.at(s.now+d, f) }

// maxEvents bounds one cycle: more means that something goes round in circles.
const maxEvents = 600_000

// run lets events happen until a moment is reached, and checks after each that all invariants hold.
func (s *sim) run(until time.Duration) {
	for len(s.queue) > 0 && s.queue[0].at <= until {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.run()
		s.check()
		if s.report.Events++; s.report.Events > maxEvents {
			s.fail("liveness", "more than %d events: something goes round in circles", maxEvents)
		}
	}
	s.now = max(s.now, until)
}
