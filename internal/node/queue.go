package node

import (
	"container/heap"
	"time"
)

// fewDead is how many commands a queue may have before it is looked through for
// dead ones: those of claims that have ended. They pile up in front of a server
// that hangs.
const fewDead = 1024

// fifo is a queue of commands. The zero fifo is empty.
type fifo struct {
	commands []Command
	first    int // the commands before it have been taken
	limit    int // look for dead ones at this length
}

func (q *fifo) len() int { return len(q.commands) - q.first }

func (q *fifo) push(c Command) {
	if q.first > len(q.commands)/2 && q.first >= fewDead {
		n := copy(q.commands, q.commands[q.first:])
		clear(q.commands[n:])
		q.commands, q.first = q.commands[:n], 0
	}
	q.commands = append(q.commands, c)
}

// pop takes the first command. There must be one.
func (q *fifo) pop() Command {
	c := q.commands[q.first]
	q.commands[q.first] = Command{}
	if q.first++; q.first == len(q.commands) {
		q.commands, q.first = q.commands[:0], 0
	}
	return c
}

// grown reports whether the queue has twice the length that remove left it with
// last.
func (q *fifo) grown() bool { return q.len() >= max(q.limit, fewDead) }

// remove takes out the commands that are dead, and returns them.
func (q *fifo) remove(isDead func(*Command) bool) (dead []Command) {
	alive := q.commands[:0]
	for _, c := range q.commands[q.first:] {
		if isDead(&c) {
			dead = append(dead, c)
		} else {
			alive = append(alive, c)
		}
	}
	clear(q.commands[len(alive):])
	q.commands, q.first, q.limit = alive, 0, 2*len(alive)
	return dead
}

// extensions is a queue of extensions: the one that is due first is in front.
type extensions struct {
	byDue byDue
	limit int // look for dead ones at this length
}

func (q *extensions) len() int { return len(q.byDue) }

// push queues what is in slot, or moves it if the slot is queued. It takes what
// is dead out of a queue that has grown to twice the length that this left it with
// last, and returns it: the extensions of claims that have ended, and those that
// are overdue, of which a lock that is extended by hand leaves one each time.
func (q *extensions) push(slot *PendingExtension) (dead []Command) {
	if slot.index > 0 {
		heap.Fix(&q.byDue, slot.index-1)
		return nil
	}
	heap.Push(&q.byDue, slot)
	if len(q.byDue) < max(q.limit, fewDead) {
		return nil
	}
	alive, now := q.byDue[:0], time.Now()
	for _, s := range q.byDue {
		c := s.command()
		switch due := s.queued.Due; {
		case c.Claim.Ended():
			c.Err = errEnded
		case !due.IsZero() && due.Before(now):
			c.Err = errOverdue
		default:
			alive = append(alive, s)
			s.index = len(alive)
			continue
		}
		dead = append(dead, c)
		s.index = 0
	}
	clear(q.byDue[len(alive):])
	q.byDue, q.limit = alive, 2*len(alive)
	heap.Init(&q.byDue)
	return dead
}

// remove takes out what is in slot, which must be queued here.
func (q *extensions) remove(slot *PendingExtension) { heap.Remove(&q.byDue, slot.index-1) }

// pop takes the first extension. There must be one.
func (q *extensions) pop() Command { return heap.Pop(&q.byDue).(*PendingExtension).command() }

func (s *PendingExtension) command() Command {
	return Command{Kind: Extend, Claim: s.queued.Claim, TTL: s.queued.TTL, voter: s.queued.Voter}
}

// byDue is for container/heap.
type byDue []*PendingExtension

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].queued.Due.Before(h[j].queued.Due) }
func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}
func (h *byDue) Push(x any) {
	*h = append(*h, x.(*PendingExtension))
	x.(*PendingExtension).index = len(*h)
}
func (h *byDue) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h, s.index = (*h)[:last], 0
	return s
}

// fastest keeps the shortest of the last durations, at least 64 and at most 128
// of them.
type fastest struct {
	before, now time.Duration
	seen        int
}

func (f *fastest) add(d time.Duration) {
	d = max(d, 1) // 0 is that there was none
	if f.seen == 0 || d < f.now {
		f.now = d
	}
	if f.seen++; f.seen == 64 {
		f.before, f.now, f.seen = f.now, 0, 0
	}
}

// least is 0 before there was any.
func (f *fastest) least() time.Duration {
	switch {
	case f.seen == 0:
		return f.before
	case f.before == 0:
		return f.now
	}
	return min(f.before, f.now)
}
