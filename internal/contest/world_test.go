package contest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/memnode"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
)

const (
	ms       = time.Millisecond
	ttl      = time.Minute
	patience = 250 * ms
	age      = 1000 // of a contender that is alone
)

// world is nodes in memory, and the contenders for the key "k" on them.
type world struct {
	t          *testing.T
	began      time.Time
	stores     []*memnode.Backend
	contenders []*contender
}

// run runs a test over n nodes in virtual time. No contender may leave a key behind.
func run(t *testing.T, n int, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, began: time.Now()}
		for range n {
			w.stores = append(w.stores, &memnode.Backend{})
		}
		defer w.close()
		test(t, w)
	})
}

func (w *world) close() {
	for _, c := range w.contenders {
		for _, r := range c.routes {
			r.change(func() { r.silent, r.faults = false, nil })
		}
		c.Nodes.Abandon(c.Claim)
	}
	time.Sleep(ttl / 2)
	for _, c := range w.contenders {
		for _, token := range c.tokens {
			if slices.Contains(w.owners(), token) {
				w.t.Errorf("a claim of %d has left a key: %q", c.age, w.owners())
			}
		}
		for _, n := range c.Nodes.All() {
			_ = n.Close(time.Second)
		}
	}
}

// owners is the key's value, by node.
func (w *world) owners() []string {
	owners := make([]string, len(w.stores))
	for i, s := range w.stores {
		owners[i], _ = s.Get("k")
	}
	return owners
}

// route is the way from one contender to one node.
type route struct {
	*memnode.Backend
	began time.Time

	mu     sync.Mutex // guards what follows
	trip   time.Duration
	silent bool
	faults func() memnode.Fault // of the next call; nil for none
	calls  []sent
}

type sent struct {
	kind  node.Kind
	token string
	at    clock.Instant
}

func now(began time.Time) clock.Instant { return clock.Instant(1 + time.Since(began)) }

func (r *route) change(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *route) Do(ctx context.Context, batch []node.Command) error {
	r.mu.Lock()
	for _, c := range batch {
		r.calls = append(r.calls, sent{c.Kind, c.Claim.Token, now(r.began)})
	}
	trip := r.trip
	var f memnode.Fault
	if r.faults != nil {
		f = r.faults()
	}
	for r.silent && ctx.Err() == nil {
		r.mu.Unlock()
		time.Sleep(ms)
		r.mu.Lock()
	}
	r.mu.Unlock()
	time.Sleep(trip/2 + f.Request)
	if f.LoseRequest || f.NotRun {
		for i := range batch {
			if batch[i].Err = memnode.ErrLost; f.NotRun {
				batch[i].Err = node.NotRun(memnode.ErrDown)
			}
		}
		return nil
	}
	err := r.Backend.Do(ctx, batch)
	time.Sleep(trip - trip/2 + f.Reply)
	if f.LoseReply {
		for i := range batch {
			batch[i].Outcome, batch[i].Err = node.Unknown, memnode.ErrLost
		}
	}
	return err
}

// contender is one attempt of one process.
type contender struct {
	Attempt
	world  *world
	age    int64
	routes []*route
	tokens []string // of all its claims
}

// result is how an attempt ended.
type result struct {
	verdict   quorum.Verdict
	tally     *quorum.Tally
	contested bool
	took      time.Duration
}

// contender returns an attempt of this age, with a trip to each node.
func (w *world) contender(age int64, trips ...time.Duration) *contender {
	c := &contender{world: w, age: age}
	var nodes []*node.Node
	for i, s := range w.stores {
		r := &route{Backend: s, began: w.began, trip: ms}
		if i < len(trips) {
			r.trip = trips[i]
		}
		c.routes = append(c.routes, r)
		nodes = append(nodes, node.New(i, fmt.Sprint("n", i), r, false))
	}
	c.Nodes = node.NewNodes(nodes...)
	c.Now = func() clock.Instant { return now(w.began) }
	c.Renew = func() *node.Claim {
		claim := node.NewClaim([]string{"k"}, node.AttemptToken(age), len(w.stores))
		c.tokens = append(c.tokens, claim.Token)
		return claim
	}
	c.TTL, c.Lasts, c.Trip, c.Patience = ttl, ttl, ms, patience
	c.Claim = c.Renew()
	w.contenders = append(w.contenders, c)
	return c
}

// try is an attempt as the library makes it.
func (c *contender) try(ctx context.Context, stop <-chan struct{}) (r result) {
	began := time.Now()
	c.Start = c.Now()
	poll, verdict := c.Nodes.Ask(ctx, c.Claim, node.Patience{Timeout: patience, Limit: ttl, Stop: stop}, func(_ int, n *node.Node, v node.ReplyHandler) {
		n.Acquire(c.Claim, ttl, v)
	})
	defer poll.Close()
	r.verdict = verdict
	if r.contested = r.verdict == quorum.Lost && Split(poll); r.contested {
		r.verdict, r.tally = c.Settle(ctx, stop, poll)
	} else {
		r.tally = poll.Tally()
	}
	r.took = time.Since(began)
	if r.verdict != quorum.Won {
		c.Nodes.Abandon(c.Claim)
	}
	return r
}

// sent returns what has been sent to a node, in order.
func (c *contender) sent(i int) (calls []sent) {
	c.routes[i].change(func() { calls = slices.Clone(c.routes[i].calls) })
	return calls
}

// commands returns the number of commands of these kinds that have been sent to all nodes.
func (c *contender) commands(kinds ...node.Kind) (n int) {
	for i := range c.routes {
		for _, s := range c.sent(i) {
			if slices.Contains(kinds, s.kind) {
				n++
			}
		}
	}
	return n
}
