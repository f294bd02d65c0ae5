package waiting

import (
	"context"
	"time"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

const (
	// rowTime is for how long a lock is handed over inside the process, at most,
	// before other processes have their turn.
	rowTime = 100 * time.Millisecond
	// mostUnasked is how many rows in a row end without a question, at most.
	mostUnasked = 15
)

// row is the hand-overs of a key inside the process that follow each other. At its
// end other processes have their turn.
//
// A turn takes two calls of every node, one after the other, whether anybody waits
// or not. So the nodes are asked first, and another row begins if a quorum of them
// says that nobody does. That delays no process: once it has joined a quorum of the
// nodes, it is in the queue of one of those that answer at the end of this row. An
// answer from before it had joined is of no use to a row that has begun since: a row
// counts from before its question was sent.
type row struct {
	handed int       // how often the key was handed over
	since  time.Time // when that began; zero if it has not
}

// over reports whether the row has come to its end.
func (r row) over(handoffs int, now time.Time) bool {
	return r.handed >= handoffs || r.handed > 0 && now.Sub(r.since) >= rowTime
}

// doubt is what earlier questions of a line say of the next. While others wait, a
// question is a round trip in vain, so that it is asked less and less often.
type doubt struct {
	unasked int // how many rows are still to end without a question
	last    int // how many were, after the last question in vain
}

// asks reports whether the row that ends now does so with a question.
func (d *doubt) asks() bool {
	if d.unasked == 0 {
		return true
	}
	d.unasked--
	return false
}

func (d *doubt) answered(nobody bool) {
	d.last = min(2*d.last+1, mostUnasked)
	if nobody {
		d.last = 0
	}
	d.unasked = d.last
}

// asks reports whether it is to be asked if anybody else waits, as a row ends. The
// keys are set for left. If that is short, a turn is better: its grant is fresh,
// while holds may be handed over too soon to be extended. q.mu is held.
func (q *Queue) asks(l *line, left time.Duration, now time.Time) bool {
	if len(l.waiters) == 0 || q.closed || !q.granted || q.handoffs == 0 || !l.row.over(q.handoffs, now) {
		return false
	}
	ttl := l.waiters[0].ttl
	return left <= ttl && left >= min(longestWindow, ttl)/2 && l.doubt.asks()
}

// nobodyWaits reports whether a quorum of the nodes says that nobody is in their
// queues. It waits for no longer than a row lasts.
func (q *Queue) nobodyWaits(claim *node.Claim) bool {
	poll := q.panel.Open()
	defer poll.Close()
	for _, n := range q.nodes {
		n.Look(claim, poll)
	}
	verdict := poll.Wait(context.Background(), nil, rowTime, rowTime, func(i int) (time.Time, error) {
		return q.nodes[i].Unsent(claim)
	})
	return verdict == quorum.Carried
}
