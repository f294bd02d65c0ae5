package memnode

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// waiter is an entry in the queue of a key. This file follows internal/redisnode/queue.lua line
// by line.
type waiter struct {
	token   string
	order   int64
	number  int64
	lease   time.Time
	window  time.Duration
	channel string
	nonce   string
	terms   node.Terms
}

// Listen implements node.Backend.
func (s *Backend) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	s.mu.Lock()
	if s.heard == nil {
		s.heard = make(map[string]func(node.Push))
	}
	s.heard[channel] = heard
	s.mu.Unlock()
	ready()
	<-ctx.Done()
	s.mu.Lock()
	delete(s.heard, channel)
	s.mu.Unlock()
	return ctx.Err()
}

func (s *Backend) drop(key, token string) {
	if len(s.queues[key]) == 0 {
		return
	}
	s.queues[key] = slices.DeleteFunc(s.queues[key], func(w *waiter) bool { return w.token == token })
}

func (s *Backend) first(key, skip string) *waiter {
	for _, w := range slices.Clone(s.queues[key]) {
		switch {
		case w.token == skip:
		case w.lease.After(time.Now()):
			return w
		default:
			s.drop(key, w.token)
		}
	}
	return nil
}

func (s *Backend) grant(key, skip string) bool {
	for {
		w := s.first(key, skip)
		if w == nil {
			return false
		}
		s.drop(key, w.token)
		if s.quarantined(w.terms.Quarantine) > 0 {
			continue
		}
		fence := s.give(key, w.token, w.window, w.terms)
		if s.tell(w, w.number, fence) {
			s.prepare(key, skip)
			return true
		}
	}
}

// prepare has the second waiter in the queue join again.
func (s *Backend) prepare(key, skip string) {
	if q := s.queues[key]; len(q) > 1 && q[1].token != skip {
		s.tell(q[1], 0, 0)
	}
}

// give gives the key to a waiter, and returns the fence.
func (s *Backend) give(key, token string, window time.Duration, terms node.Terms) int64 {
	s.set(key, token, window)
	return s.raise([]string{key}, terms, terms.Floor, 1)
}

// tell pushes to a waiter, and reports whether its process listens.
func (s *Backend) tell(w *waiter, number, fence int64) bool {
	heard := s.heard[w.channel]
	if heard == nil {
		return false
	}
	push := node.Push{Token: w.token, Nonce: w.nonce, Number: number, Fence: fence}
	var delay time.Duration
	if s.push != nil {
		var lost bool
		if delay, lost = s.push(); lost {
			return true
		}
	}
	go func() {
		time.Sleep(delay)
		heard(push)
	}()
	return true
}

func (s *Backend) enter(c *node.Command) {
	key, e := c.Claim.Keys[0], c.Entry
	i := slices.IndexFunc(s.queues[key], func(w *waiter) bool { return w.token == c.Claim.Token })
	var w *waiter
	if i >= 0 {
		w = s.queues[key][i]
	} else {
		now := time.Now().UnixMilli()
		w = &waiter{token: c.Claim.Token, order: min(max(e.Order, now-1000-e.Waited.Milliseconds()), now)}
		if s.queues == nil {
			s.queues = make(map[string][]*waiter)
		}
		s.queues[key] = append(s.queues[key], w)
		slices.SortFunc(s.queues[key], func(a, b *waiter) int {
			if a.order != b.order {
				return int(a.order - b.order)
			}
			return strings.Compare(a.token, b.token)
		})
	}
	if w.number < e.Number {
		w.number, w.terms = e.Number, terms(c)
	}
	w.lease, w.window, w.channel, w.nonce = time.Now().Add(s.local(e.Lease)), e.Window, e.Channel, c.Nonce
}

func (s *Backend) queued(c *node.Command) node.Outcome {
	key := c.Claim.Keys[0]
	c.Held, c.Owner = -1, ""
	c.Rank = slices.IndexFunc(s.queues[key], func(w *waiter) bool { return w.token == c.Claim.Token })
	if held, ok := s.keys[key]; ok {
		c.Held, c.Owner = time.Until(held.expires), held.token
	}
	return node.Refused
}

func (s *Backend) take(c *node.Command) node.Outcome {
	s.drop(c.Claim.Keys[0], c.Claim.Token)
	c.Fence = s.give(c.Claim.Keys[0], c.Claim.Token, c.Entry.Window, terms(c))
	return node.Done
}

func (s *Backend) join(c *node.Command) node.Outcome {
	key, token := c.Claim.Keys[0], c.Claim.Token
	owner, held := s.get(key)
	if left := s.quarantined(c.Claim.Terms().Quarantine); left > 0 {
		s.drop(key, token)
		return refuse(c, left)
	}
	if held && owner == token {
		if s.keys[key].expires.Before(time.Now().Add(s.local(c.Entry.Window))) {
			s.set(key, token, c.Entry.Window)
		}
		c.Fence = s.raise([]string{key}, terms(c), c.Entry.Floor, 0)
		return node.Done
	}
	s.enter(c)
	switch {
	case held:
		return s.queued(c)
	case s.first(key, "").token == token, !s.grant(key, token):
		return s.take(c)
	}
	return s.queued(c)
}

func (s *Backend) leave(c *node.Command) node.Outcome {
	key, token := c.Claim.Keys[0], c.Claim.Token
	owner, held := s.get(key)
	ours := held && owner == token
	s.drop(key, token)
	if ours && !s.grant(key, "") {
		delete(s.keys, key)
	}
	if ours {
		return node.Done
	}
	return node.Refused
}

// terms returns the terms of a Join: its fence has a floor of its own.
func terms(c *node.Command) node.Terms {
	t := c.Claim.Terms()
	if t.Floor > 0 {
		t.Floor = c.Entry.Floor
	}
	return t
}

func (s *Backend) look(c *node.Command) node.Outcome {
	if len(s.queues[c.Claim.Keys[0]]) > 0 {
		return node.Refused
	}
	return node.Done
}
