package fencemodel

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/memnode"
	lib "github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
)

// stage is the world of a model, built with the library: each attempt is a TryAcquireAll by a
// Locker of its own, over nodes in memory. A node runs a request, and a client hears a reply,
// only when the stage says so. So the stage can take the steps of a run of the model.
//
// Counters and floors have the same values as in the model, above base. All attempts are called
// before the first step, in the order of their floors: the floor of a fence is the time of the call.
// Their ttl is an hour, a step takes a millisecond, and keys go when a step says so.
type stage struct {
	t        *testing.T
	model    *Model
	base     int64
	nodes    []*memnode.Backend
	attempts []*player
	order    []int // the attempts that have completed, in order
}

// player is one attempt on the stage.
type player struct {
	locker  *redlock.Locker
	wires   []*wire // to each node
	giveUp  context.CancelFunc
	done    chan struct{} // closed when TryAcquireAll has returned
	lock    *redlock.Lock // nil if it failed
	granted bool          // it has begun: a node has granted to it
	before  []int         // the attempts that had completed by then
	over    bool          // as in the model
	clash   bool          // it completed while another held its keys
}

// wire is the connection between one attempt and one node.
type wire struct {
	*memnode.Backend

	mu       sync.Mutex // guards what follows
	open     bool       // nothing is held back
	requests []*call    // sent, and not run, in order
	replies  []*call    // run, and not heard, in order
	token    string     // of the attempt's claim
}

// call is one pipeline. The library sends each command of a claim alone here.
type call struct {
	kind      lib.Kind
	fence     int64         // of a confirm
	run, hear chan struct{} // closed to let it go on
}

// Do implements node.Backend.
func (w *wire) Do(ctx context.Context, batch []lib.Command) error {
	c := &call{kind: batch[0].Kind, fence: batch[0].Fence, run: make(chan struct{}), hear: make(chan struct{})}
	w.mu.Lock()
	if c.kind == lib.Acquire {
		w.token = batch[0].Claim.Token
	}
	if w.open {
		close(c.run)
		close(c.hear)
	} else {
		w.requests = append(w.requests, c)
	}
	w.mu.Unlock()
	<-c.run
	err := w.Backend.Do(ctx, batch)
	<-c.hear
	return err
}

// run lets the node run a request. It reports false if there is none.
func (w *wire) run(kind lib.Kind, what int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, c := range w.requests {
		if c.kind != kind {
			continue
		}
		if what--; what < 0 {
			w.requests = slices.Delete(w.requests, at, at+1)
			w.replies = append(w.replies, c)
			close(c.run)
			return true
		}
	}
	return false
}

// reply returns a reply that has not been heard, or nil.
func (w *wire) reply(what int) *call {
	w.mu.Lock()
	defer w.mu.Unlock()
	if what >= len(w.replies) {
		return nil
	}
	return w.replies[what]
}

// hear lets the client hear a reply, if there is one.
func (w *wire) hear(what int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if what < len(w.replies) {
		close(w.replies[what].hear)
		w.replies = slices.Delete(w.replies, what, what+1)
	}
}

// pass lets everything through from now on.
func (w *wire) pass() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = true
	for _, c := range w.requests {
		close(c.run)
		close(c.hear)
	}
	for _, c := range w.replies {
		close(c.hear)
	}
	w.requests, w.replies = nil, nil
}

// perform runs play on a stage, in virtual time. floors has the floor of each attempt.
func perform(t *testing.T, m *Model, first state, floors []uint8, opts []redlock.Option, play func(s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, model: m, base: time.Now().Add(time.Millisecond).UnixMicro(), nodes: lockertest.Stores(m.Nodes)}
		for n, node := range s.nodes {
			node.Trust()
			for key := range m.keys() {
				node.Count(keyName(key), s.base+int64(first.columns[n].node.counter[key]))
			}
		}
		opts = append([]redlock.Option{redlock.WithFence(), redlock.WithoutWaitQueue(), redlock.WithNodeTimeout(24 * time.Hour)}, opts...)
		for range m.Attempts {
			p := &player{done: make(chan struct{})}
			for _, n := range s.nodes {
				p.wires = append(p.wires, &wire{Backend: n})
			}
			p.locker = lockertest.Over(t, p.wires, opts...)
			s.attempts = append(s.attempts, p)
		}
		for floor := range slices.Max(floors) + 1 {
			time.Sleep(time.Until(time.UnixMicro(s.base + int64(floor))))
			for i, p := range s.attempts {
				if floors[i] == floor {
					s.call(i, p)
				}
			}
		}
		synctest.Wait()
		play(s)
		for _, p := range s.attempts {
			p.giveUp()
			for _, w := range p.wires {
				w.pass()
			}
			<-p.done
			require.NoError(t, p.locker.Close())
		}
	})
}

// call starts an attempt.
func (s *stage) call(i int, p *player) {
	var keys []string
	for key := range s.model.keys() {
		if s.model.Attempts[i].has(key) {
			keys = append(keys, keyName(key))
		}
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	p.giveUp = cancel
	go func() {
		defer close(p.done)
		p.lock, _ = p.locker.TryAcquireAll(ctx, keys, time.Hour)
	}()
}

func keyName(key int) string { return string(rune('a' + key)) }

// take takes a step, if the library has got that far. over says which attempts the model has
// ended by then: they give up, or their holders are past their deadlines.
func (s *stage) take(at step, over func(i int) bool) {
	p, n := s.attempts[at.attempt], int(at.node)
	w := p.wires[n]
	time.Sleep(time.Millisecond)
	switch at.kind {
	case granting:
		if w.run(lib.Acquire, 0) && !p.granted {
			p.granted, p.before = true, slices.Clone(s.order)
		}
	case gathering:
		for to := range s.nodes {
			if n := (n + to) % len(s.nodes); at.what>>n&1 == 1 {
				p.wires[n].hear(0)
				synctest.Wait()
			}
		}
	case answering:
		w.hear(int(at.what))
	case confirming:
		w.run(lib.Confirm, int(at.what))
	case expiring:
		if owner, _ := s.nodes[n].Get(keyName(int(at.what))); owner == w.token {
			s.nodes[n].Delete(keyName(int(at.what)))
		}
	case losing:
		s.nodes[n].Wipe()
		for key := range s.model.keys() {
			s.nodes[n].Count(keyName(key), s.base) // which is 0 in the model
		}
	case returning: // while a node is away, no step has it run anything
	default:
		s.t.Fatalf("no such step on the stage: %d", at.kind)
	}
	synctest.Wait()
	s.note()
	for i, p := range s.attempts {
		if over(i) && !p.over {
			p.over = true
			p.giveUp()
		}
	}
	synctest.Wait()
	s.note()
}

// note notes which attempts have completed.
func (s *stage) note() {
	for i, p := range s.attempts {
		select {
		case <-p.done:
			if p.lock != nil && !slices.Contains(s.order, i) {
				for _, other := range s.order {
					p.clash = p.clash || s.model.rivals(i, other) && !s.attempts[other].over
				}
				s.order = append(s.order, i)
			}
		default:
		}
	}
}

// fence returns the fence of a completed attempt, as the model has it.
func (s *stage) fence(i int) int64 { return s.attempts[i].lock.Fence() - s.base }

// compare requires that the stage is in a state of the model.
func (s *stage) compare(now *state) {
	s.t.Helper()
	for n, node := range s.nodes {
		for key := range s.model.keys() {
			was := now.columns[n].node
			require.EqualValues(s.t, was.counter[key], node.Counter(keyName(key))-s.base, "the counter of key %s on node %d", keyName(key), n+1)
			owner, _ := node.Get(keyName(key))
			want := ""
			if id := was.owner[key]; id > 0 {
				want = s.attempts[id-1].wires[n].token
			}
			require.Equal(s.t, want, owner, "the owner of key %s on node %d", keyName(key), n+1)
		}
	}
	for i := range s.attempts {
		has := slices.Contains(s.order, i)
		require.Equal(s.t, now.attempts[i].phase == completed, has, "whether %s has completed", name(i))
		if has {
			require.EqualValues(s.t, now.attempts[i].token, s.fence(i), "the fence of %s", name(i))
		}
	}
}

// broken returns the properties that the completed attempts break.
func (s *stage) broken() (all []Property) {
	breaks := func(p Property, is bool) {
		if is && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	for at, later := range s.order {
		breaks(Exclusion, s.model.Timed && s.attempts[later].clash)
		for _, earlier := range s.order[:at] {
			if !s.model.rivals(later, earlier) {
				continue
			}
			breaks(P1, slices.Contains(s.attempts[later].before, earlier) && s.fence(later) <= s.fence(earlier))
			breaks(P2, s.fence(later) == s.fence(earlier))
			breaks(P3, s.fence(later) < s.fence(earlier))
		}
	}
	slices.Sort(all)
	return all
}
