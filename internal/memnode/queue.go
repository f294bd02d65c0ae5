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
	options node.ClaimOptions
}

// Listen implements node.Backend.
func (b *Backend) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	b.mu.Lock()
	if b.heard == nil {
		b.heard = make(map[string]func(node.Push))
	}
	b.heard[channel] = heard
	b.mu.Unlock()
	ready()
	<-ctx.Done()
	b.mu.Lock()
	delete(b.heard, channel)
	b.mu.Unlock()
	return ctx.Err()
}

func (b *Backend) drop(key, token string) {
	if len(b.queues[key]) == 0 {
		return
	}
	b.queues[key] = slices.DeleteFunc(b.queues[key], func(w *waiter) bool { return w.token == token })
}

func (b *Backend) first(key, skip string) *waiter {
	for _, w := range slices.Clone(b.queues[key]) {
		switch {
		case w.token == skip:
		case w.lease.After(time.Now()):
			return w
		default:
			b.drop(key, w.token)
		}
	}
	return nil
}

// grant gives the key to the first waiter that listens, and reports whether a waiter has it or is
// to come for it. It is granted by a claim of these options.
func (b *Backend) grant(key, skip string, granter node.ClaimOptions) (granted, awaited bool) {
	for {
		w := b.first(key, skip)
		if w == nil {
			return false, false
		}
		knows := granter.Quarantine > 0 || w.options.Quarantine == 0
		if !knows {
			delete(b.keys, key)
			if b.tell(w, 0, 0) {
				return false, true
			}
		}
		b.drop(key, w.token)
		if !knows || b.quarantined(w.options.Quarantine) > 0 {
			continue
		}
		fence := b.give(key, w.token, w.window, w.options)
		if b.tell(w, w.number, fence) {
			b.prepare(key, skip)
			return true, false
		}
	}
}

// prepare has the second waiter in the queue join again.
func (b *Backend) prepare(key, skip string) {
	if q := b.queues[key]; len(q) > 1 && q[1].token != skip {
		b.tell(q[1], 0, 0)
	}
}

// give gives the key to a waiter, and returns the fence.
func (b *Backend) give(key, token string, window time.Duration, options node.ClaimOptions) int64 {
	b.set(key, token, window)
	return b.raise([]string{key}, options, options.Floor, 1)
}

// tell pushes to a waiter, and reports whether its process listens.
func (b *Backend) tell(w *waiter, number, fence int64) bool {
	heard := b.heard[w.channel]
	if heard == nil {
		return false
	}
	push := node.Push{Token: w.token, Nonce: w.nonce, Number: number, Fence: fence}
	var delay time.Duration
	if b.push != nil {
		var lost bool
		if delay, lost = b.push(); lost {
			return true
		}
	}
	go func() {
		time.Sleep(delay)
		heard(push)
	}()
	return true
}

func (b *Backend) enter(c *node.Command) {
	key, e := c.Claim.Keys[0], c.Entry
	i := slices.IndexFunc(b.queues[key], func(w *waiter) bool { return w.token == c.Claim.Token })
	var w *waiter
	if i >= 0 {
		w = b.queues[key][i]
	} else {
		now := time.Now().UnixMilli()
		w = &waiter{token: c.Claim.Token, order: min(max(e.Order, now-1000-e.Waited.Milliseconds()), now)}
		if b.queues == nil {
			b.queues = make(map[string][]*waiter)
		}
		b.queues[key] = append(b.queues[key], w)
		slices.SortFunc(b.queues[key], func(a, b *waiter) int {
			if a.order != b.order {
				return int(a.order - b.order)
			}
			return strings.Compare(a.token, b.token)
		})
	}
	if w.number < e.Number {
		w.number, w.options = e.Number, options(c)
	}
	w.lease, w.window, w.channel, w.nonce = time.Now().Add(b.local(e.Lease)), e.Window, e.Channel, c.Nonce
}

func (b *Backend) queued(c *node.Command) node.Outcome {
	key := c.Claim.Keys[0]
	c.Held, c.Owner = -1, ""
	c.Rank = slices.IndexFunc(b.queues[key], func(w *waiter) bool { return w.token == c.Claim.Token })
	if owner, held := b.get(key); held {
		c.Held, c.Owner = time.Until(b.keys[key].expires), owner
	}
	return node.Refused
}

func (b *Backend) take(c *node.Command) node.Outcome {
	b.drop(c.Claim.Keys[0], c.Claim.Token)
	c.Fence = b.give(c.Claim.Keys[0], c.Claim.Token, c.Entry.Window, options(c))
	return node.Done
}

func (b *Backend) join(c *node.Command) node.Outcome {
	key, token := c.Claim.Keys[0], c.Claim.Token
	owner, held := b.get(key)
	if left := b.quarantined(c.Claim.Options().Quarantine); left > 0 {
		b.drop(key, token)
		return refuse(c, left)
	}
	if held && owner == token {
		if b.keys[key].expires.Before(time.Now().Add(b.local(c.Entry.Window))) {
			b.set(key, token, c.Entry.Window)
		}
		c.Fence = b.raise([]string{key}, options(c), c.Entry.Floor, 0)
		return node.Done
	}
	b.enter(c)
	if held {
		return b.queued(c)
	}
	if b.first(key, "").token != token {
		if granted, awaited := b.grant(key, token, c.Claim.Options()); granted || awaited {
			return b.queued(c)
		}
	}
	return b.take(c)
}

func (b *Backend) leave(c *node.Command) node.Outcome {
	key, token := c.Claim.Keys[0], c.Claim.Token
	owner, held := b.get(key)
	ours := held && owner == token
	b.drop(key, token)
	if !ours {
		return node.Refused
	}
	if granted, _ := b.grant(key, "", c.Claim.Options()); !granted {
		delete(b.keys, key)
	}
	return node.Done
}

// options returns the options of a Join: its fence has a floor of its own.
func options(c *node.Command) node.ClaimOptions {
	t := c.Claim.Options()
	if t.Floor > 0 {
		t.Floor = c.Entry.Floor
	}
	return t
}

func (b *Backend) look(c *node.Command) node.Outcome {
	if len(b.queues[c.Claim.Keys[0]]) > 0 {
		return node.Refused
	}
	return node.Done
}
