// Package memnode implements node.Backend in memory, with faults on request. It is for
// redlocktest, and for tests in virtual time, where real sockets cannot be used.
package memnode

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// Op names the first command of a call to a Backend.
type Op string

const (
	Acquire Op = "acquire"
	Extend  Op = "extend"
	Release Op = "release"
	Join    Op = "join"
	Confirm Op = "confirm"
	Trust   Op = "trust"
	Ping    Op = "ping"
	Look    Op = "look"
	Read    Op = "read"
)

var ops = [...]Op{
	node.Acquire: Acquire, node.Extend: Extend, node.Release: Release, node.Leave: Release,
	node.Join: Join, node.Confirm: Confirm, node.Trust: Trust, node.Ping: Ping, node.Look: Look, node.Read: Read,
}

// Fault is what happens to one call. The zero Fault is none.
type Fault struct {
	Request     time.Duration // until the node runs the call
	Reply       time.Duration // from then until the caller has the answer
	LoseRequest bool          // the call never runs, and fails after Request
	LoseReply   bool          // the call runs, and fails after Request and Reply
	Twice       bool          // the node runs the call a second time, Reply later: a duplicate
	NotRun      bool          // the call fails at once, with node.ErrNotRun
	Refuse      bool          // the call fails at once: there is no connection
}

// Errors of calls that fail.
var (
	ErrLost = errors.New("connection lost")
	ErrDown = errors.New("connection refused")
)

// Backend is one node. Its zero value is an empty node without faults.
type Backend struct {
	// Rate, if set, is the speed of the node's clock; 1 is exact.
	Rate float64
	// Mute has the answer to a plain acquisition not name the key's owner, as servers before
	// Redis 7.0 do not.
	Mute bool

	mu      sync.Mutex // guards what follows
	fault   func(op Op, commands int) Fault
	keys    map[string]entry
	queues  map[string][]*waiter       // by key, in order
	heard   map[string]func(node.Push) // by channel
	push    func() (delay time.Duration, lost bool)
	resumed chan struct{} // non-nil while paused; closed on resume
	down    bool
	outages int // calls of Down

	counters map[string]counter
	marked   bool      // the restart guard's marker exists
	since    time.Time // when the quarantine began, by the marker
}

type entry struct {
	token   string
	expires time.Time
}

var _ node.Backend = (*Backend)(nil)

// Faults sets the function that returns the fault of each call from now on. A call is a
// pipeline of so many commands, of which op is the first. The function may be called
// concurrently. nil means no faults.
func (s *Backend) Faults(fault func(op Op, commands int) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Pushes sets the function that returns the fault of each push from now on: how late it is, and
// whether it gets lost. The function is called with the Backend locked.
func (s *Backend) Pushes(push func() (delay time.Duration, lost bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.push = push
}

// Pause stops the node: calls wait until Resume.
func (s *Backend) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed == nil {
		s.resumed = make(chan struct{})
	}
}

// Resume lets a paused node go on.
func (s *Backend) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resume()
}

func (s *Backend) resume() {
	if s.resumed != nil {
		close(s.resumed)
		s.resumed = nil
	}
}

// Down has the node refuse calls until Up. It keeps its keys. Calls that are under way break
// off; on a paused node they never run.
func (s *Backend) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	s.outages++
	s.resume()
}

// Up ends what Down began.
func (s *Backend) Up() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
}

// Wipe empties the node, as a restart without data does.
func (s *Backend) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.queues, s.counters, s.marked = nil, nil, nil, false
}

// Set sets a key, even if another owner holds it.
func (s *Backend) Set(key, token string, ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(key, token, ttl)
}

// Delete deletes a key, even if an owner holds it.
func (s *Backend) Delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, key)
}

// Get returns the token that a key holds.
func (s *Backend) Get(key string) (token string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(key)
}

// Len returns the number of keys.
func (s *Backend) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for key := range s.keys {
		if _, ok := s.get(key); ok {
			n++
		}
	}
	return n
}

func (s *Backend) get(key string) (string, bool) {
	e, ok := s.keys[key]
	if !ok || !time.Now().Before(e.expires) {
		return "", false
	}
	return e.token, true
}

func (s *Backend) set(key, token string, ttl time.Duration) {
	if s.keys == nil {
		s.keys = make(map[string]entry)
	}
	s.keys[key] = entry{token, time.Now().Add(s.local(ttl))}
}

// local returns the exact duration of a ttl that this node's clock measures.
func (s *Backend) local(ttl time.Duration) time.Duration {
	if s.Rate == 0 {
		return ttl
	}
	return time.Duration(float64(ttl) / s.Rate)
}

// Do implements node.Backend. One fault applies to the whole pipeline.
func (s *Backend) Do(ctx context.Context, batch []node.Command) error {
	var f Fault
	s.mu.Lock()
	fault, down, outages := s.fault, s.down, s.outages
	s.mu.Unlock()
	if fault != nil {
		f = fault(ops[batch[0].Kind], len(batch))
	}
	f.Refuse = f.Refuse || down
	// The pipeline may outlive this call, as one on a real connection does when
	// ctx has ended: it works on a copy.
	commands := slices.Clone(batch)
	err := s.call(ctx, f, outages, func() {
		for i := range commands {
			if c := &commands[i]; c.Outcome == node.Unknown {
				c.Outcome = s.run(c)
			} else { // the answer of a duplicate is lost
				again := *c
				s.run(&again)
			}
		}
	})
	for i := range batch {
		if batch[i].Err = err; err == nil {
			c := commands[i]
			batch[i].Outcome, batch[i].Err, batch[i].Held, batch[i].Owner, batch[i].Fence = c.Outcome, c.Err, c.Held, c.Owner, c.Fence
			batch[i].Rank = c.Rank
		}
	}
	if errors.Is(err, node.ErrNotConnected) {
		return err
	}
	return nil // the breaker would hide the effect of other faults
}

// call runs run on the node, with the fault. outages is their number when the call began: the
// next outage breaks the call off.
func (s *Backend) call(ctx context.Context, f Fault, outages int, run func()) error {
	switch {
	case f.Refuse:
		return node.NotConnected(ErrDown)
	case f.NotRun:
		return node.NotRun(ErrDown)
	}
	lost := f.LoseRequest || f.LoseReply // read when done is closed
	done := make(chan struct{})
	go func() { // as on a real connection, a request that was sent runs even if ctx has ended
		defer close(done)
		time.Sleep(f.Request)
		if f.LoseRequest {
			return
		}
		if !s.whenResumed(outages, run) {
			lost = true
			return
		}
		time.Sleep(f.Reply)
		if f.Twice {
			s.whenResumed(outages, run)
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if lost {
		return ErrLost
	}
	return nil
}

// whenResumed runs run with the Backend locked, once the node is not paused. It reports false if
// there have been more outages than outages. It releases the mutex while it waits.
func (s *Backend) whenResumed(outages int, run func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.resumed != nil {
		resumed := s.resumed
		s.mu.Unlock()
		<-resumed
		s.mu.Lock()
	}
	if s.outages > outages {
		return false
	}
	run()
	return true
}

func (s *Backend) run(c *node.Command) node.Outcome {
	switch c.Kind {
	case node.Acquire:
		return s.acquire(c)
	case node.Extend:
		return s.extend(c)
	case node.Leave:
		return s.leave(c)
	case node.Join:
		return s.join(c)
	case node.Confirm:
		return s.confirm(c)
	case node.Trust:
		s.trust()
		return node.Done
	case node.Ping:
		return node.Done
	case node.Look:
		return s.look(c)
	case node.Read:
		return s.read(c)
	}
	return s.release(c)
}

func (s *Backend) acquire(c *node.Command) node.Outcome {
	left := s.quarantined(c.Claim.Terms().Quarantine)
	ours := 0
	for _, key := range c.Claim.Keys {
		switch owner, held := s.get(key); {
		case !held:
		case owner != c.Claim.Token || c.IsPlain():
			if !c.IsPlain() || !s.Mute {
				c.Owner = owner
			}
			return node.Refused
		default:
			ours++
		}
	}
	if ours == len(c.Claim.Keys) {
		c.Owner = c.Claim.Token
		return node.Refused
	}
	if left > 0 {
		return refuse(c, left)
	}
	c.Fence = s.raise(c.Claim.Keys, c.Claim.Terms(), c.Claim.Terms().Floor, 1)
	for _, key := range c.Claim.Keys {
		s.set(key, c.Claim.Token, c.TTL)
	}
	return node.Done
}

func (s *Backend) read(c *node.Command) node.Outcome {
	for _, key := range c.Claim.Keys {
		if owner, held := s.get(key); held {
			c.Owner = owner
			return node.Refused
		}
	}
	return node.Done
}

func (s *Backend) extend(c *node.Command) node.Outcome {
	outcome := node.Done
	for _, key := range c.Claim.Keys {
		switch token, held := s.get(key); {
		case !held:
			outcome = node.Refilled
		case token != c.Claim.Token:
			return node.Refused
		}
	}
	if outcome == node.Refilled {
		if left := s.quarantined(c.Claim.Terms().Quarantine); left > 0 {
			return refuse(c, left)
		}
	}
	for _, key := range c.Claim.Keys {
		if _, held := s.get(key); !held || s.keys[key].expires.Before(time.Now().Add(s.local(c.TTL))) {
			s.set(key, c.Claim.Token, c.TTL)
		}
	}
	return outcome
}

func (s *Backend) release(c *node.Command) node.Outcome {
	outcome := node.Done
	for _, key := range c.Claim.Keys {
		if token, held := s.get(key); held && token == c.Claim.Token {
			delete(s.keys, key)
		} else {
			outcome = node.Refused
		}
	}
	return outcome
}

// Server implements node.Backend: there is one.
func (s *Backend) Server([]string) string { return "" }

// CanPush implements node.Backend.
func (s *Backend) CanPush() bool { return true }

// Samples implements node.Backend: there is one server.
func (s *Backend) Samples() []string { return []string{"k"} }

// Check implements node.Backend: every set of keys is accepted.
func (s *Backend) Check([]string) error { return nil }

// Close implements node.Backend.
func (s *Backend) Close() {}
