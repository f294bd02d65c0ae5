// Package sim is Redis nodes that exist in memory only, with faults as asked:
// for tests in virtual time, where real sockets cannot be used.
package sim

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// Op names a call to a Store.
type Op string

const (
	Acquire Op = "acquire"
	Extend  Op = "extend"
	Release Op = "release"
)

// Fault is what befalls one call.
type Fault struct {
	Request     time.Duration // until the node runs it
	Reply       time.Duration // until its answer is back
	LoseRequest bool          // it never runs, and fails after Request
	LoseReply   bool          // it runs, and fails after Request and Reply
	Twice       bool          // the node runs it a second time, Reply later: a duplicate
	NotRun      bool          // it fails at once, and says that it did not run
}

// Errors of lost calls.
var (
	ErrLost = errors.New("sim: connection lost")
	ErrDown = errors.New("sim: connection refused")
)

// Store is one node. Its zero value is an empty node without faults.
type Store struct {
	// Rate, if set, is how fast the node's clock runs, 1 being right.
	Rate float64

	mu      sync.Mutex // guards what follows
	fault   func(op Op, claims int) Fault
	keys    map[string]entry
	resumed chan struct{} // non-nil while paused; closed on resume
}

type entry struct {
	token   string
	expires time.Time
}

var _ node.Store = (*Store)(nil)

// Faults has fault asked about each call from now on. It may be called
// concurrently; nil means no faults.
func (s *Store) Faults(fault func(op Op, claims int) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Pause stops the node: what is sent waits until Resume.
func (s *Store) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed == nil {
		s.resumed = make(chan struct{})
	}
}

// Resume lets a paused node go on.
func (s *Store) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed != nil {
		close(s.resumed)
		s.resumed = nil
	}
}

// Wipe empties the node.
func (s *Store) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = nil
}

// Set sets a key, whoever holds it.
func (s *Store) Set(key, token string, ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(key, token, ttl)
}

// Get tells who holds a key.
func (s *Store) Get(key string) (token string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(key)
}

// Len is the number of keys.
func (s *Store) Len() int {
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

func (s *Store) get(key string) (string, bool) {
	e, ok := s.keys[key]
	if !ok || !time.Now().Before(e.expires) {
		return "", false
	}
	return e.token, true
}

func (s *Store) set(key, token string, ttl time.Duration) {
	if s.keys == nil {
		s.keys = make(map[string]entry)
	}
	s.keys[key] = entry{token, time.Now().Add(s.local(ttl))}
}

// local is how long ttl takes on this node's clock.
func (s *Store) local(ttl time.Duration) time.Duration {
	if s.Rate == 0 {
		return ttl
	}
	return time.Duration(float64(ttl) / s.Rate)
}

// call runs run on the node, as the fault has it.
func (s *Store) call(ctx context.Context, op Op, claims int, run func()) error {
	var f Fault
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		f = fault(op, claims)
	}
	if f.NotRun {
		return errors.Join(ErrDown, node.ErrNotRun)
	}
	done := make(chan struct{})
	go func() { // as in a real connection, what was sent goes on after ctx
		defer close(done)
		time.Sleep(f.Request)
		if f.LoseRequest {
			return
		}
		s.mu.Lock()
		for s.resumed != nil {
			resumed := s.resumed
			s.mu.Unlock()
			<-resumed
			s.mu.Lock()
		}
		run()
		s.mu.Unlock()
		time.Sleep(f.Reply)
		if f.Twice {
			s.mu.Lock()
			run()
			s.mu.Unlock()
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.LoseRequest || f.LoseReply {
		return ErrLost
	}
	return nil
}

// Acquire implements node.Store.
func (s *Store) Acquire(ctx context.Context, keys []string, token string, ttl time.Duration) (bool, error) {
	first, granted := true, false
	err := s.call(ctx, Acquire, 1, func() {
		ok := true
		for _, key := range keys {
			if _, held := s.get(key); held {
				ok = false
			}
		}
		if ok {
			for _, key := range keys {
				s.set(key, token, ttl)
			}
		}
		if first { // a duplicate's answer goes nowhere
			first, granted = false, ok
		}
	})
	return err == nil && granted, err
}

// Extend implements node.Store.
func (s *Store) Extend(ctx context.Context, batch []node.Extension) {
	outcomes := make([]node.Outcome, len(batch))
	err := s.call(ctx, Extend, len(batch), func() {
		for i, e := range batch {
			if outcome := s.extend(e); outcomes[i] == node.Unknown {
				outcomes[i] = outcome
			}
		}
	})
	for i := range batch {
		if err != nil {
			batch[i].Err = err
		} else {
			batch[i].Outcome = outcomes[i]
		}
	}
}

func (s *Store) extend(e node.Extension) node.Outcome {
	outcome := node.Extended
	for _, key := range e.Claim.Keys {
		switch token, held := s.get(key); {
		case !held:
			outcome = node.Refilled
		case token != e.Claim.Token:
			return node.Taken
		}
	}
	for _, key := range e.Claim.Keys {
		if _, held := s.get(key); !held || s.keys[key].expires.Before(time.Now().Add(s.local(e.TTL))) {
			s.set(key, e.Claim.Token, e.TTL)
		}
	}
	return outcome
}

// Release implements node.Store.
func (s *Store) Release(ctx context.Context, batch []node.Deletion) {
	answered := make([]int, len(batch))
	err := s.call(ctx, Release, len(batch), func() {
		for i, d := range batch {
			for _, key := range d.Claim.Keys {
				if token, held := s.get(key); held && token == d.Claim.Token {
					delete(s.keys, key)
					answered[i]++
				}
			}
		}
	})
	for i := range batch {
		if err != nil {
			batch[i].Err = err
		} else {
			batch[i].Deleted = answered[i]
		}
	}
}

// Check implements node.Store: every set of keys is accepted.
func (s *Store) Check([]string) error { return nil }

// Close implements node.Store.
func (s *Store) Close() {}
