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
// says that nobody waits. This decides only who is next, and no lock's safety rests
// on it.
//
// Another process that has joined a quorum of the nodes waits for one row at most: one
// of the nodes that answer at its end has that process in its queue. A node may say
// that nobody waits just before the process joins it. But the question was sent before
// that, and the new row counts from there.
type row struct {
	handed int       // how often the key was handed over
	since  time.Time // when that began; zero if it has not
}

// over reports whether the row has come to its end.
func (r row) over(handoffs int, now time.Time) bool {
	return r.handed >= handoffs || r.handed > 0 && now.Sub(r.since) >= rowTime
}

// doubt decides which rows of a line end with a question. While others wait, a question
// costs a round trip in vain, so it is asked less and less often.
type doubt struct {
	unasked int // how many rows are still to end without one
	last    int // how many were to, after the last question
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

// asks reports whether the line's row has come to its end and the nodes are to be asked
// whether anybody else waits. The keys are set for left. If that is short, a turn is
// better, since its grant is fresh: holds that are handed over at once are over before
// they are extended. q.mu is held.
func (q *Queue) asks(l *line, left time.Duration) bool {
	if !q.passable(l, left) || !q.granted || q.handoffs == 0 || !l.row.over(q.handoffs, time.Now()) {
		return false
	}
	return left >= min(usualWindow, l.waiters.first.ttl)/2 && l.doubt.asks()
}

// ask asks the nodes whether anybody else waits. If not, the holder's next row begins.
// q.mu is held, but not while ask waits for the answers. It returns how long that took.
func (q *Queue) ask(l *line, claim *node.Claim) time.Duration {
	q.unlock()
	began := time.Now() // before the question is sent
	nobody := q.nobodyWaits(claim)
	q.mu.Lock()
	l.doubt.answered(nobody)
	if nobody && l.holder == claim {
		l.row = row{since: began}
	}
	return time.Since(began)
}

// nobodyWaits reports whether a quorum of the nodes says that nobody is in their
// queues. It waits for no longer than a row lasts.
func (q *Queue) nobodyWaits(claim *node.Claim) bool {
	poll, verdict := q.nodes.Ask(context.Background(), claim, node.Patience{Timeout: rowTime, Limit: rowTime}, func(_ int, n *node.Node, v node.Voter) {
		n.Look(claim, v)
	})
	defer poll.Close()
	return verdict == quorum.Carried
}
