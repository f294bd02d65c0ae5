// Package leasthold lets adapters have a lock's keys outlive the [redlock.Locker]: by the
// public API alone, Close releases every key.
//
// [redlock.Locker]: https://pkg.go.dev/github.com/redis-kit/redlock#Locker
package leasthold

import (
	"context"
	"time"
)

// Key is the key of a value that the context of a held lock has: a Keep.
type Key struct{}

// Keep says until when the keys of the lock stay on the nodes even if the Locker is
// closed: Close then ends the lock, and leaves its keys to expire by their ttl. The zero
// time takes that back, and must be set once the lock has ended. Keep reports false if the
// Locker has been closed.
type Keep func(until time.Time) bool

// Of returns the Keep of a lock, by the context of the lock.
func Of(lock context.Context) Keep { return lock.Value(Key{}).(Keep) }
