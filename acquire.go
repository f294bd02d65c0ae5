package redlock

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/contest"
	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/quorum"
	"github.com/redis-kit/redlock/internal/waitqueue"
)

// request holds the arguments of one acquisition.
type request struct {
	keys   []string
	ttl    time.Duration
	config lockConfig
	waits  bool            // it goes on after an attempt that failed
	auto   bool            // the lock is extended automatically from its start
	values context.Context // the lock's context has its values
}

func (l *Locker) acquire(ctx context.Context, r request, opts []LockOption) (*Lock, error) {
	config, err := l.lockConfig(opts)
	if err != nil {
		return nil, &opError{op: "acquire", keys: l.prefix(r.keys), what: err}
	}
	r.keys, err = l.lockKeys(ctx, r.keys, config.fence)
	if err != nil {
		return nil, err
	}
	r.config, r.values, r.auto = config, ctx, r.auto && !config.manual
	if l.chain == nil {
		return l.take(ctx, r, nil)
	}
	return l.acquireThrough(ctx, r)
}

// take acquires the keys. op is nil without middleware.
func (l *Locker) take(ctx context.Context, r request, op *Op) (*Lock, error) {
	if err := r.config.checkTimes(r.ttl, l.clock.Validity(r.ttl)); err != nil {
		return nil, &opError{op: "acquire", keys: r.keys, what: err}
	}
	if err := l.config.checkLongest(r.ttl, r.config.fence); err != nil {
		return nil, &opError{op: "acquire", keys: r.keys, what: err}
	}
	if ctx.Err() != nil {
		return nil, &opError{op: "acquire", keys: r.keys, what: ErrNotAcquired, how: "nothing was tried", why: errors.Join(ctxErrors(ctx)...)}
	}
	if !l.begin() {
		return nil, &opError{op: "acquire", keys: r.keys, what: ErrClosed}
	}
	defer l.operations.Done()
	a := acquisition{request: r, locker: l, op: op, pauses: pauses{policy: r.config.retry}}
	return a.run(ctx)
}

// acquisition carries out one request. It belongs to one goroutine.
type acquisition struct {
	request
	locker  *Locker
	op      *Op   // nil without middleware
	age     int64 // of the tokens of all its attempts; 0 before the first
	pauses  pauses
	waiter  *waitqueue.Waiter // its place in the queue; nil if it has none
	tooFar  error             // why the queue refused it a place, or took it back; else nil
	last    *failure          // of the latest attempt that the nodes decided
	lacking []error           // by node: why it can grant no such lock; nil if that is not known of any
	skipped bool              // the latest attempt asked no node, see contendedLocally

	unsupportedSince clock.Instant // see hopeless; 0 while it may be granted
}

// run alternates between attempts and waits, until it has the lock or the wait ends
// (invariant 8).
func (a *acquisition) run(ctx context.Context) (*Lock, error) {
	defer a.leaveQueue()
	for {
		lock, verdict := a.attempt(ctx)
		if lock != nil {
			return lock, nil
		}
		lock, err := a.wait(ctx, verdict)
		if lock != nil || err != nil {
			return lock, err
		}
	}
}

// attempt asks every node once, with a new token. It returns the lock, or the verdict of the
// nodes. If the process already holds the key or has a candidate for it in the nodes' queues,
// attempt asks no node and returns Lost. What a failed attempt may have set is released in the
// background (invariant 4).
func (a *acquisition) attempt(ctx context.Context) (*Lock, quorum.Verdict) {
	if a.skipped = a.contendedLocally(); a.skipped {
		a.noteLacking(a.locker.queue.Replies(a.keys[0], errHeldHere))
		return nil, quorum.Lost
	}
	lock := a.newLock()
	lock.claim = &lock.own
	a.initClaim(lock.claim)
	votes := a.collectVotes(ctx, lock)
	defer votes.poll.Close()
	var failed *failure
	if votes.verdict == quorum.Won {
		failed = a.startHold(ctx, lock, a.wonBy(votes))
	} else {
		failed = newFailure(votes)
	}
	if failed == nil {
		a.op.polled()
		lock.noteHeld()
		return lock, quorum.Won
	}
	if failed.tally == nil {
		failed.tally = votes.poll.Tally()
	}
	a.noteLacking(failed.tally.Replies)
	if a.lacking != nil && votes.settled == nil {
		late, _ := votes.poll.Votes() // those that came after the verdict too
		a.noteLacking(late.Replies)
	}
	a.locker.nodes.Abandon(lock.claim)
	a.noteFailure(failed)
	return nil, failed.verdict
}

// attemptVotes are the votes on one attempt.
type attemptVotes struct {
	poll    *quorum.Poll
	settled *quorum.Tally // of the contest that settled a split; nil if there was none
	verdict quorum.Verdict
	start   clock.Instant // validity counts from here
}

// collectVotes asks every node to grant the lock's claim, and settles the votes if they are
// split; the contest may give the lock another claim. The caller closes the poll.
func (a *acquisition) collectVotes(ctx context.Context, lock *Lock) (votes attemptVotes) {
	l := a.locker
	keyTTL := l.clock.KeyTTL(a.ttl, a.config.maxHold)
	lasts := l.keeper.Lasts(a.holdOptions())
	timeout := l.config.timeoutOf(a.ttl)
	// Where validity is shorter than the shortest node timeout, the attempt still lasts for
	// that timeout: refusals that come late tell who holds the lock.
	patience := node.Patience{Timeout: timeout, Limit: max(lasts, minNodeTimeout), Stop: l.closing}
	asking, done := a.untilGranted(ctx)
	defer done()

	votes.start = l.clock.Now() // before the first byte is sent (invariant 1)
	began := a.op.now()
	votes.poll, votes.verdict = l.nodes.Ask(asking, lock.claim, patience, func(_ int, n *node.Node, reply node.ReplyHandler) {
		n.Acquire(lock.claim, keyTTL, reply)
	})
	if votes.verdict == quorum.Lost && contest.Split(votes.poll) && a.settlesSplitVotes() {
		c := contest.Attempt{
			Nodes: l.nodes, Now: l.clock.Now, Claim: lock.claim, Start: votes.start, Renew: a.renewal(), TTL: keyTTL,
			Lasts: lasts, Trip: l.trip(), Patience: min(timeout, lasts),
		}
		votes.verdict, votes.settled = c.Settle(asking, l.closing, votes.poll)
		lock.claim, votes.start = c.Claim, c.Start
	}
	a.op.attempted(began, votes.poll, votes.settled)
	return votes
}

// won describes how a quorum granted a claim.
type won struct {
	start   clock.Instant // of the hold
	until   clock.Instant // the end of validity
	fenceBy clock.Instant // the nodes must have agreed on the fence by then
	numbers numbered      // from which the fence follows
	how     WaitKind
}

// wonBy describes an attempt that has won its votes.
func (a *acquisition) wonBy(votes attemptVotes) won {
	l, start := a.locker, votes.start
	return won{
		start:   start,
		until:   start.Add(l.clock.Validity(a.ttl)),
		fenceBy: start.Add(l.keeper.Lasts(a.holdOptions())),
		numbers: numbersOf(votes.poll, votes.settled),
		how:     WaitNone,
	}
}

// startHold starts the hold of a lock whose claim a quorum has granted. Before that, it agrees
// with the nodes on the fence, and extends the claim if too little of its validity is left.
func (a *acquisition) startHold(ctx context.Context, lock *Lock, w won) *failure {
	l := a.locker
	if a.config.fence {
		// Before an extension: it sets missing keys again, and raises no counter.
		var unconfirmed *quorum.Tally
		lock.fence, unconfirmed = l.confirm(ctx, lock.claim, w.numbers, a.ttl, w.fenceBy, a.op)
		if unconfirmed != nil {
			return &failure{verdict: unconfirmed.Verdict(), tally: unconfirmed}
		}
		if lock.fence == 0 {
			return &failure{verdict: quorum.Won}
		}
	}
	options, err := a.freshen(ctx, lock.claim, w)
	if err != nil || !lock.hold.Start(&lock.context, l.keeper, (*owner)(lock), lock.claim, w.start, options) {
		return &failure{verdict: quorum.Won, why: err}
	}
	return nil
}

// failure is how an attempt failed.
type failure struct {
	verdict quorum.Verdict // Won if the nodes granted it too late
	tally   *quorum.Tally
	why     error // what the votes do not tell; may be nil
}

// newFailure returns the failure of an attempt that did not win its votes.
func newFailure(votes attemptVotes) *failure {
	f := &failure{verdict: votes.verdict, tally: votes.settled}
	if f.verdict == quorum.Unreachable && f.tally != nil && f.tally.Verdict() != quorum.Unreachable {
		f.why = errLeftovers
	}
	return f
}

var errLeftovers = errors.New("no owner has a quorum: the votes are split, as by keys that a process left when it died and that end with their ttl")

// sentinel returns the error of this package that the failure matches.
func (f *failure) sentinel() error {
	if f.verdict == quorum.Lost {
		return ErrNotAcquired
	}
	return ErrNoQuorum
}

func (a *acquisition) newLock() *Lock {
	lock := &Lock{locker: a.locker, config: a.config, ttl: a.ttl}
	lock.context = heldContext{values: a.values, lock: lock}
	return lock
}

func (a *acquisition) holdOptions() keeper.HoldOptions {
	return keeper.HoldOptions{TTL: a.ttl, Grace: a.config.grace, MaxHold: a.config.maxHold}
}

// initClaim makes c a claim of the acquisition, with a new token.
func (a *acquisition) initClaim(c *node.Claim) {
	if a.age == 0 {
		a.age = node.NewAge()
	}
	a.locker.initClaim(c, &a.request, a.age)
}

func (l *Locker) initClaim(c *node.Claim, r *request, age int64) {
	c.Init(r.keys, node.Tag(node.AttemptToken(age), r.config.metadata), l.nodes.Len())
	c.Ask(l.claimOptions(r.config))
}

// claimOptions returns what a claim asks of the nodes beside its keys.
func (l *Locker) claimOptions(c lockConfig) node.ClaimOptions {
	t := node.ClaimOptions{Metadata: c.metadata, Quarantine: l.config.guard.quarantine()}
	if c.fence {
		t.Floor, t.Retention = l.fenceClock.next(), l.config.retention
	}
	return t
}

// renewal returns a function that makes more claims of the same age. It copies what it needs
// of the acquisition, which so stays off the heap.
func (a *acquisition) renewal() func() *node.Claim {
	l, r, age := a.locker, a.request, a.age
	return func() *node.Claim {
		c := new(node.Claim)
		l.initClaim(c, &r, age)
		return c
	}
}

// lockConfig returns the Locker's configuration with the options of one lock applied.
func (l *Locker) lockConfig(opts []LockOption) (lockConfig, error) {
	config := l.config.lock
	for i, o := range opts {
		if o == nil {
			return config, argumentError("option %d is nil", i)
		}
		config = o.applyLock(config)
	}
	return config, config.check()
}

// lockKeys checks the keys and returns them as they are on the nodes, sorted and without
// duplicates. It changes keys.
func (l *Locker) lockKeys(ctx context.Context, keys []string, fence bool) ([]string, error) {
	if len(keys) == 0 {
		return nil, opErrorf("acquire", nil, "no keys: at least one is needed")
	}
	if i := slices.Index(keys, ""); i >= 0 {
		if len(keys) == 1 {
			return nil, opErrorf("acquire", keys, "key is empty: any other string is accepted")
		}
		return nil, opErrorf("acquire", keys, "keys[%d] is empty: any other string is accepted", i)
	}
	keys = l.prefix(keys)
	for _, key := range keys {
		if err := node.Reserved(key); err != nil {
			return nil, &opError{op: "acquire", keys: []string{key}, what: err}
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for _, n := range l.nodes.All() {
		if err := n.Check(keys); err != nil {
			return nil, opErrorf("acquire", keys, "node %s: %w", n.Name(), err)
		}
		if !fence {
			continue
		}
		if err := n.CheckCounters(keys); err != nil {
			return nil, opErrorf("acquire", keys, "WithFence: node %s: %w", n.Name(), err)
		}
	}
	return keys, l.checkNotHeld(ctx, keys)
}

// checkNotHeld returns an error if ctx already holds one of the keys.
func (l *Locker) checkNotHeld(ctx context.Context, keys []string) error {
	for lock, ok := FromContext(ctx); ok; lock, ok = FromContext(lock.context.values) {
		if lock.locker != l || !lock.Valid() {
			continue
		}
		for _, key := range lock.claim.Keys {
			if slices.Contains(keys, key) {
				return &opError{op: "acquire", keys: []string{key}, what: ErrAlreadyHeld, how: "valid until " + clockTime(lock.Until()) + ": waiting for it would be a deadlock"}
			}
		}
	}
	return nil
}

// prefix returns the keys as they are on the nodes. It changes keys.
func (l *Locker) prefix(keys []string) []string {
	if l.config.keyPrefix != "" {
		for i := range keys {
			keys[i] = l.config.keyPrefix + keys[i]
		}
	}
	return keys
}
