package redisnode

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// rehearse rehearses one feature, with keys that no other feature uses.
func (st *stage) rehearse(ctx context.Context, f Feature) Result {
	const apart = 10_000 // more than find tries
	from := slices.Index(Features, f) * apart
	var r Result
	switch i, err := st.find(ctx, from, st.plain); {
	case err != nil:
		r.Err = err
	case f == Mutex:
		r.Err = st.mutex(ctx, st.plain(i))
	case f == SeveralKeys:
		r = st.severalKeys(ctx, i)
	case f == Queue:
		r.Err = st.waiting(ctx, st.plain(i))
	case f == Fence:
		r.Err = st.fence(ctx, st.plain(i))
	case f == Guard:
		r.Err = st.guard(ctx, st.tagged(i))
	case f == Health:
		r.Err = st.health(ctx, st.plain(i))
	}
	if r.Err != nil {
		r.Err = st.told(r.Err)
	}
	return r
}

// mutex takes one key several times: the first acquires show which commands may serve for the
// later ones, see ability.
func (st *stage) mutex(ctx context.Context, key string) error {
	defer st.clear(ctx, key)
	for range 3 {
		holder, rival := st.claim(node.ClaimOptions{}, key), st.claim(node.ClaimOptions{}, key)
		if err := st.play(ctx, st.life(holder, rival, st.releaseKind(key))...); err != nil {
			return err
		}
	}
	return nil
}

// releaseKind is the kind of command that releases a key here.
func (st *stage) releaseKind(key string) node.Kind {
	if st.node.CheckQueue(key) == nil {
		return node.Leave
	}
	return node.Release
}

// life returns the steps of a lock: the rival is refused until the holder has released it.
func (st *stage) life(holder, rival *node.Claim, release node.Kind) []step {
	const wrong = " by another owner had an effect on a held key"
	return []step{
		{node.Done, node.Command{Kind: node.Acquire, Claim: holder, TTL: scratchTTL}, errNotFree},
		{node.Refused, node.Command{Kind: node.Acquire, Claim: rival, TTL: scratchTTL}, hazard("an acquire" + wrong)},
		{node.Refused, node.Command{Kind: node.Extend, Claim: rival, TTL: scratchTTL}, hazard("an extension" + wrong)},
		{node.Refused, node.Command{Kind: release, Claim: rival}, hazard("a release" + wrong)},
		{node.Refused, node.Command{Kind: node.Read, Claim: rival}, errNotKept},
		{node.Done, node.Command{Kind: node.Extend, Claim: holder, TTL: scratchTTL}, errNotKept},
		{node.Done, node.Command{Kind: release, Claim: holder}, errNotKept},
		{node.Done, node.Command{Kind: node.Read, Claim: rival}, errNotReleased},
	}
}

var (
	errNotFree     = errors.New("a new key was held")
	errNotKept     = errors.New("a held key was free")
	errNotReleased = errors.New("a released key was held")
)

// severalKeys takes a lock on several keys, which may need a common hash tag.
func (st *stage) severalKeys(ctx context.Context, from int) Result {
	if err := st.takesAll(ctx, from, st.plain); err == nil || errors.Is(err, ErrUnsafe) {
		return Result{Err: err}
	}
	i, err := st.find(ctx, from, func(i int) string { return st.tagged(i)(0) })
	if err == nil {
		err = st.takesAll(ctx, 0, st.tagged(i))
	}
	return Result{err, err == nil}
}

// errSpread is of a proxy that runs a script on the server of its first key, whatever the others
// are.
const errSpread = hazard("one of several held keys was acquired alone: the keys of one lock need a common hash tag here")

func (st *stage) takesAll(ctx context.Context, from int, key func(int) string) error {
	const count = 16 // at random on two servers: all are on one in 1 of 32 768 cases
	var keys []string
	for i := range count {
		keys = append(keys, key(from+i))
	}
	if err := st.Check(keys); err != nil {
		return err
	}
	defer st.clear(ctx, keys...)
	holder, rival := st.claim(node.ClaimOptions{}, keys...), st.claim(node.ClaimOptions{}, keys...)
	life := st.life(holder, rival, node.Release)
	if err := st.play(ctx, life[0]); err != nil {
		return err
	}
	singles := make([]node.Command, count)
	for i, key := range keys {
		singles[i] = node.Command{Kind: node.Acquire, Claim: st.claim(node.ClaimOptions{}, key), TTL: scratchTTL}
	}
	_ = st.Do(ctx, singles) // the commands have the error
	for _, c := range singles {
		switch c.Outcome {
		case node.Unknown:
			return inTime(ctx, c.Err)
		case node.Done:
			return errSpread
		}
	}
	return st.play(ctx, life[1:]...)
}

// fence takes a fence twice, and raises it in between.
func (st *stage) fence(ctx context.Context, key string) error {
	if err := st.node.CheckCounters([]string{key}); err != nil {
		return err
	}
	defer st.clear(ctx, key)
	options := node.ClaimOptions{Floor: time.Now().UnixMicro(), Retention: scratchTTL}
	var last int64
	for range 2 {
		holder := st.claim(options, key)
		c, err := st.run(ctx, step{node.Done, node.Command{Kind: node.Acquire, Claim: holder, TTL: scratchTTL}, errNotFree})
		if err != nil {
			return err
		}
		if c.Fence <= last {
			return fmt.Errorf("the fence %d came after %d", c.Fence, last)
		}
		last = c.Fence + 10
		if err := st.play(ctx,
			step{node.Done, node.Command{Kind: node.Confirm, Claim: holder, Fence: last}, errNotKept},
			step{node.Done, node.Command{Kind: st.releaseKind(key), Claim: holder}, errNotKept}); err != nil {
			return err
		}
	}
	return nil
}

// health asks whether the server takes writes.
func (st *stage) health(ctx context.Context, key string) error {
	return st.play(ctx, step{node.Done, node.Command{Kind: node.Ping, Claim: st.claim(node.ClaimOptions{}, key)}, nil})
}

// waiting has an owner wait for a key, and another release it.
func (st *stage) waiting(ctx context.Context, key string) error {
	if err := st.node.CheckQueue(key); err != nil {
		return err
	}
	defer st.clear(ctx, key)
	holder, waiter := st.claim(node.ClaimOptions{}, key), st.claim(node.ClaimOptions{}, key)
	channel, nonce := st.channel(key), rand.Text()
	join := func(number int64) node.Command {
		return node.Command{Kind: node.Join, Claim: waiter, Nonce: nonce, Entry: &node.Entry{
			Number: number, Order: time.Now().UnixMilli(), Channel: channel, Window: scratchTTL / 4, Lease: scratchTTL / 4,
		}}
	}
	pushes, end, err := st.subscribed(ctx, channel)
	if err != nil {
		switch err = inTime(ctx, err); {
		case st.topology != nil: // it names the command
			return err
		case errors.Is(err, io.EOF):
			return errors.New("SUBSCRIBE: the server closed the connection, as a proxy without it does")
		}
		return fmt.Errorf("SUBSCRIBE: %w", err)
	}
	defer end()
	publish := "PUBLISH"
	if st.topology != nil {
		publish = "SPUBLISH"
	}
	if err := st.play(ctx,
		step{node.Done, node.Command{Kind: node.Acquire, Claim: holder, TTL: scratchTTL}, errNotFree},
		step{node.Refused, join(1), hazard("a waiter was granted a held key")},
		step{node.Refused, node.Command{Kind: node.Look, Claim: holder}, errors.New("the queue with a waiter was empty")},
		step{node.Done, node.Command{Kind: node.Leave, Claim: holder}, errNotKept},
		step{node.Refused, node.Command{Kind: node.Read, Claim: holder}, fmt.Errorf("a release did not grant the key to the waiter: %s in a script reached no subscriber", publish)},
	); err != nil {
		return err
	}
	for heard := false; !heard; {
		select {
		case p := <-pushes:
			heard = p == node.Push{Token: waiter.Token, Nonce: nonce, Number: 1}
		case <-ctx.Done():
			return errors.New("no push of a grant in time")
		}
	}
	return st.play(ctx,
		step{node.Done, join(2), errNotKept},
		step{node.Done, node.Command{Kind: node.Leave, Claim: waiter}, errNotKept},
		step{node.Done, node.Command{Kind: node.Read, Claim: holder}, errNotReleased})
}

// channel returns a channel for pushes about key that no Locker has.
func (st *stage) channel(key string) string {
	if st.Channels() == node.ChannelPerKey {
		return node.KeyChannel(key, rand.Text())
	}
	return node.LockerChannel(rand.Text())
}

// subscribed listens to channel until end is called, which waits for the end. It returns when the
// subscription stands.
func (st *stage) subscribed(ctx context.Context, channel string) (pushes <-chan node.Push, end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	// Room for more than are ever sent: heard must not block.
	told, ready, done := make(chan node.Push, 16), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- st.Listen(ctx, channel, sync.OnceFunc(func() { close(ready) }), func(p node.Push) { told <- p })
	}()
	end = func() {
		cancel()
		<-done //nolint:errcheck // it is ctx' end
	}
	select { // exactly one of these comes first: ctx' end ends Listen
	case <-ready:
		return told, end, nil
	case err := <-done:
		cancel()
		return nil, nil, err
	}
}

// guard has the server find out that it may have lost data, and ends the quarantine. Its marker is
// another key, which a proxy has where the lock's key is.
func (st *stage) guard(ctx context.Context, name func(int) string) error {
	if st.topology != nil {
		return errGuardedCluster
	}
	key, marker := name(0), name(1)
	defer st.clear(ctx, key, marker)
	options := node.ClaimOptions{Quarantine: scratchTTL}
	holder, rival := st.claim(options, key), st.claim(options, key)
	acquire := node.Command{Kind: node.Acquire, Claim: holder, TTL: scratchTTL}
	var quarantined *node.Quarantined
	if err := st.marked(ctx, key, marker, step{node.Unknown, acquire, errNoQuarantine}); !errors.As(err, &quarantined) {
		return err
	}
	for _, s := range []step{
		{node.Done, node.Command{Kind: node.Trust, Claim: st.claim(node.ClaimOptions{}, node.GuardKey)}, nil},
		{node.Done, acquire, errNotFree},
		{node.Refused, node.Command{Kind: node.Acquire, Claim: rival, TTL: scratchTTL}, hazard("two owners acquired one key")},
		{node.Done, node.Command{Kind: node.Extend, Claim: holder, TTL: scratchTTL}, errNotKept},
		{node.Done, node.Command{Kind: node.Release, Claim: holder}, errNotKept},
	} {
		if err := st.marked(ctx, key, marker, s); err != nil {
			return err
		}
	}
	return nil
}

var (
	errGuardedCluster = errors.New("refused on a Cluster: its marker would be in another slot than the keys")
	errNoQuarantine   = errors.New("a server without a marker was not in quarantine")
)

// marked runs a step on key with a marker of its own, which the scripts would let live for ever: it
// is told to expire in the same pipeline, before anything can happen to this process.
func (st *stage) marked(ctx context.Context, key, marker string, s step) error {
	c, seen := s.command, shown(0)
	command := st.command(st.client, &c, seen, true)
	words := slices.Clone(command.Commands())
	for i, word := range words {
		if word == node.GuardKey {
			words[i] = marker
		}
	}
	results := st.client.DoMulti(ctx, st.client.B().Arbitrary(words...).Build(),
		st.eval(expireAll, []string{key, marker}, millis(scratchTTL)))
	_ = st.read(&c, nil, seen, results[0])
	return inTime(ctx, s.judge(c))
}
