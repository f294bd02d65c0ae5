// Package nemesis tests locks on real servers: contenders take them while faults hit the nodes. A
// history records what happened, to be checked.
package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/proof/history"
)

// Contention is contenders for the same keys.
type Contention struct {
	Lockers   []*redlock.Locker // one for each process
	PerLocker int               // contenders in each
	Keys      []string
	TTL       time.Duration
	Allowance time.Duration // the time by which the keys outlive validity
	Need      int           // the quorum
	Seed      uint64
	// Kept is an oracle, if there is one that sees the nodes before the Locker's release of a lost
	// lock can reach them. It counts the nodes where only the owner of the token can set the key now.
	Kept func(key, token string) int

	History *history.History
}

// Run runs the contenders until ctx ends, and returns when all have released.
func (c *Contention) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i, l := range c.Lockers {
		for j := range c.PerLocker {
			id := i*c.PerLocker + j
			all.Go(func() {
				random := rand.New(rand.NewPCG(c.Seed, uint64(id)))
				for ctx.Err() == nil {
					c.turn(ctx, l, id, random)
				}
			})
		}
	}
	all.Wait()
}

// turn tries one hold: by With, extended or not, with a critical section of 0 to 2 ttl.
func (c *Contention) turn(ctx context.Context, l *redlock.Locker, id int, random *rand.Rand) {
	hold := history.Hold{Key: c.Keys[random.IntN(len(c.Keys))], Contender: id, Need: c.Need}
	policy := redlock.ExponentialRetry(5*time.Millisecond, c.TTL/2)
	switch random.IntN(5) {
	case 0, 1: // longer than any hold: it waits for a grant
		policy = redlock.FixedRetry(3*c.TTL, c.TTL, -1)
	case 2: // split votes are settled at once
		policy = redlock.NoRetry()
	}
	opts := []redlock.LockOption{redlock.WithRetry(policy)}
	work := time.Duration(random.Int64N(int64(2 * c.TTL)))
	if random.IntN(2) == 0 {
		work = 0
	}
	if random.IntN(4) == 0 {
		opts = append(opts, redlock.WithoutAutoExtend())
	}
	hold.Sent = c.History.Now()
	held := false
	err := redlock.Do(ctx, l, hold.Key, c.TTL, func(ctx context.Context) error {
		hold.Returned, held = c.History.Now(), true
		c.History.AddWait(history.Wait{Contender: id, Sent: hold.Sent, Took: hold.Returned - hold.Sent})
		lock, _ := redlock.FromContext(ctx)
		hold.Token, hold.Fence = lock.Token(), lock.Fence()
		timer := time.NewTimer(work)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		c.seen(ctx, lock, &hold)
		hold.Released = c.History.Now()
		return nil
	}, opts...)
	if held {
		c.History.AddHold(hold)
		return
	}
	c.History.AddWait(history.Wait{Contender: id, Sent: hold.Sent, Took: c.History.Now() - hold.Sent, Err: err.Error()})
	if errors.Is(err, redlock.ErrNoQuorum) || errors.Is(err, redlock.ErrNotAcquired) { // as a user would: not again at once
		timer := time.NewTimer(c.TTL / 10)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// seen notes the state of the lock at the end of its critical section.
func (c *Contention) seen(ctx context.Context, lock *redlock.Lock, hold *history.Hold) {
	hold.Until = c.History.At(lock.Until())
	if lock.Context().Err() == nil {
		return // not lost; ctx may have ended with its caller's
	}
	now := c.History.Now()
	if ctx.Err() != nil {
		hold.Ended = now
	}
	// A lock that refusals ended before its validity has no keys to check.
	if now < hold.Until || !errors.Is(context.Cause(lock.Context()), redlock.ErrLost) {
		return
	}
	hold.Expires = hold.Until + c.Allowance
	if c.Kept != nil {
		hold.Kept, hold.Probed = c.Kept(hold.Key, hold.Token), c.History.Now()
	}
}
