package node

import (
	"container/heap"
	"time"
)

// extensions is a queue of extensions: the one that is due first is in front.
type extensions struct {
	byDue byDue
	limit int // the length at which push sweeps it
}

func (q *extensions) len() int { return len(q.byDue) }

// push queues a pending extension, or moves it if it is queued. When the queue is twice
// as long as the last sweep left it, push also sweeps and returns the dead commands: the
// extensions of claims that have ended, and overdue ones. A lock that is extended by hand
// leaves an overdue one each time.
func (q *extensions) push(p *PendingExtension) (dead []Command) {
	if p.index > 0 {
		heap.Fix(&q.byDue, p.index-1)
		return nil
	}
	heap.Push(&q.byDue, p)
	if len(q.byDue) < max(q.limit, fewDead) {
		return nil
	}
	alive, now := q.byDue[:0], time.Now()
	for _, p := range q.byDue {
		c := p.command()
		switch due := p.queued.Due; {
		case c.Claim.Ended():
			c.Err = errEnded
		case !due.IsZero() && due.Before(now):
			c.Err = errOverdue
		default:
			alive = append(alive, p)
			p.index = len(alive)
			continue
		}
		dead = append(dead, c)
		p.index = 0
	}
	clear(q.byDue[len(alive):])
	q.byDue, q.limit = alive, 2*len(alive)
	heap.Init(&q.byDue)
	return dead
}

// remove takes a pending extension out, which must be queued here.
func (q *extensions) remove(p *PendingExtension) { heap.Remove(&q.byDue, p.index-1) }

// pop takes the first extension. There must be one.
func (q *extensions) pop() Command { return heap.Pop(&q.byDue).(*PendingExtension).command() }

func (p *PendingExtension) command() Command {
	return Command{Kind: Extend, Claim: p.queued.Claim, TTL: p.queued.TTL, handler: p.queued.Handler}
}

// byDue implements heap.Interface.
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
	p := (*h)[last]
	(*h)[last] = nil
	*h, p.index = (*h)[:last], 0
	return p
}
