package pack

import "slices"

// queueLevels bounds the memory of a queue; members with more items left than that count as equal.
const queueLevels = 256

// queue gives out the members of a flavour whose group may still have an item in the bin that is
// being filled, the one with most items left first: it is the hardest to spread.
type queue struct {
	levels [][]int32 // members by the items they have left
	n      int       // members in levels
	held   []int32   // those that wait for the next bin
}

func (q *queue) push(member int32, left int) {
	level := min(left, queueLevels-1)
	for len(q.levels) <= level {
		q.levels = append(q.levels, nil)
	}
	q.levels[level] = append(q.levels[level], member)
	q.n++
}

func (q *queue) pop() int32 {
	for top := len(q.levels) - 1; ; top-- {
		if n := len(q.levels[top]); n > 0 {
			member := q.levels[top][n-1]
			q.levels[top] = q.levels[top][:n-1]
			q.n--
			return member
		}
		q.levels = q.levels[:top] // grows again when a member is pushed
	}
}

// giveBack makes the held members available to the next bin.
func (q *queue) giveBack(left []int) {
	for _, m := range q.held {
		if left[m] > 0 {
			q.push(m, left[m])
		}
	}
	q.held = q.held[:0]
}

// member takes from the queue a member whose group has nothing in this bin, or gives -1.
func (f *filler) member(fl int32) int32 {
	q := &f.queue[fl]
	if len(q.held) == 0 {
		f.waiting = append(f.waiting, fl)
	}
	for q.n > 0 {
		m := q.pop()
		group := f.in.items[m].group
		if f.taken[group] == f.serial {
			q.held = append(q.held, m)
			continue
		}
		domain := f.class.domain
		switch {
		case f.in.spread[group] == SpreadBin || domain == 0:
			q.held = append(q.held, m)
		default:
			if slices.Contains(f.domains[group], domain) {
				continue // nothing for this class any more: the next one makes a new queue
			}
			f.domains[group] = append(f.domains[group], domain)
		}
		f.taken[group] = f.serial
		return m
	}
	return -1
}
