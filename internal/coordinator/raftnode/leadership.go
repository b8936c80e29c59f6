package raftnode

import "sync"

// leadership passes raft's notices on without ever making raft wait: one goroutine only drains them.
// The reader sees every loss that follows a gain it has seen, and values that alternate; a gain that was
// lost again before it was read is not shown.
type leadership struct {
	notices chan bool
	out     chan bool
	stop    chan struct{}
	done    sync.WaitGroup
}

func startLeadership() *leadership {
	l := &leadership{notices: make(chan bool), out: make(chan bool), stop: make(chan struct{})}
	l.done.Go(l.run)
	return l
}

func (l *leadership) run() {
	defer close(l.out)
	var shown bool
	var pending []bool
	for {
		var out chan bool
		var next bool
		if len(pending) > 0 {
			out, next = l.out, pending[0]
		}
		select {
		case leads := <-l.notices:
			pending = queue(shown, pending, leads)
		case out <- next:
			shown, pending = next, pending[1:]
		case <-l.stop:
			return
		}
	}
}

// queue adds a notice to what the reader has not seen; the result alternates, begins with the opposite
// of what is shown, and holds two values at most.
func queue(shown bool, pending []bool, leads bool) []bool {
	last := shown
	if len(pending) > 0 {
		last = pending[len(pending)-1]
	}
	switch {
	case leads == last:
		return pending
	case leads && len(pending) < 2, !leads && len(pending) == 0:
		return append(pending, leads)
	default:
		return pending[:len(pending)-1]
	}
}

// close stops the goroutine; raft must be down, for nobody drains its notices afterwards.
func (l *leadership) close() {
	close(l.stop)
	l.done.Wait()
}
