// Package certmagiclock lets the instances of a program that obtain certificates with
// CertMagic (github.com/caddyserver/certmagic) take turns, by locks on a quorum of nodes.
// Certificates stay in the storage that the program uses.
//
// Use it where the storage has no locks that work between machines, such as an object
// store, or a file system whose locks go by the age of a file. Where one instance obtains
// all certificates it is not needed. CertMagic tolerates that two instances occasionally
// obtain the same certificate; each one counts against the authority's quota.
package certmagiclock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/redis-kit/redlock"
)

// Storage is a [certmagic.Storage] with its locks replaced. Make one with [New].
type Storage struct {
	certmagic.Storage

	locker *redlock.Locker
	ttl    time.Duration

	mu   sync.Mutex                 // guards held
	held map[string][]*redlock.Lock // by name, in the order they were acquired
}

var (
	_ certmagic.Storage          = (*Storage)(nil)
	_ certmagic.TryLocker        = (*Storage)(nil)
	_ certmagic.LockLeaseRenewer = (*Storage)(nil)
)

// New returns s with its locks replaced by those of l. Each is acquired for ttl, and kept
// extended until it is unlocked or the process ends; half a minute is a good ttl. The keys
// are CertMagic's names of locks, such as issue_cert_example.com, after the prefix of
// [redlock.WithKeyPrefix].
func New(s certmagic.Storage, l *redlock.Locker, ttl time.Duration) *Storage {
	return &Storage{Storage: s, locker: l, ttl: ttl, held: make(map[string][]*redlock.Lock)}
}

// patient makes Lock wait until ctx ends, as CertMagic expects.
var patient = redlock.WithRetry(redlock.ExponentialRetry(50*time.Millisecond, 5*time.Second))

// Lock acquires the lock of that name. It waits for as long as ctx allows: while another
// owner holds the lock, and while so many nodes are down that there is no quorum.
func (s *Storage) Lock(ctx context.Context, name string) error {
	lock, err := s.locker.Acquire(ctx, name, s.ttl, patient)
	if err != nil {
		return err
	}
	return s.keep(ctx, name, lock)
}

// TryLock acquires the lock of that name if no other owner holds it.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	lock, err := s.locker.TryAcquire(ctx, name, s.ttl)
	switch {
	case errors.Is(err, redlock.ErrNotAcquired):
		return false, ctx.Err()
	case err != nil:
		return false, err
	}
	err = s.keep(ctx, name, lock)
	return err == nil, err
}

// Unlock releases the lock of that name. It returns no error if the lock had been lost
// before: then there is nothing to release.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	lock := s.take(name)
	if lock == nil {
		return fmt.Errorf("certmagiclock: unlock %q: not locked here", name)
	}
	if err := lock.Release(ctx); err != nil && !errors.Is(err, redlock.ErrNotHeld) {
		return err
	}
	return nil
}

// RenewLockLease returns an error if this process no longer holds the lock of that name.
// CertMagic calls it before it tries to obtain a certificate, and does not try after an
// error. RenewLockLease renews nothing: the lock is extended until it is unlocked.
func (s *Storage) RenewLockLease(_ context.Context, name string, _ time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	locks := s.held[name]
	if len(locks) == 0 {
		return fmt.Errorf("certmagiclock: renew %q: not locked here", name)
	}
	if i := slices.IndexFunc(locks, (*redlock.Lock).Valid); i < 0 {
		return context.Cause(locks[len(locks)-1].Context())
	}
	return nil
}

// keep keeps a lock extended until it is unlocked.
func (s *Storage) keep(ctx context.Context, name string, lock *redlock.Lock) error {
	if err := lock.AutoExtend(0); err != nil {
		return errors.Join(err, lock.Release(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[name] = append(s.held[name], lock)
	return nil
}

// take returns the lock to release, or nil. After a lock was lost, another goroutine may
// hold the name. Unlock does not say which goroutine calls it, so the lost lock is taken
// first, and the other one is held until both goroutines have called Unlock.
func (s *Storage) take(name string) *redlock.Lock {
	s.mu.Lock()
	defer s.mu.Unlock()
	locks := s.held[name]
	if len(locks) == 0 {
		return nil
	}
	lock := locks[0]
	if len(locks) == 1 {
		delete(s.held, name)
	} else {
		s.held[name] = locks[1:]
	}
	return lock
}
